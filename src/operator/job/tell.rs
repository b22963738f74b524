//! Normal Events of what a job has come to, once that is recorded.

use crate::core::milestones::due;
use crate::core::status::Status;
use crate::operator::context::Context;
use crate::operator::state::jobs::Entry;
use crate::runtime::clock;

/// Tells of what is recorded now, or looks at the job again when it is old enough for that.
pub fn tell(ctx: &Context, entry: &Entry, recorded: &Status) {
    let job = &entry.job;
    // The end of a job that had ended before was told of by the operator that recorded it.
    if job.key.is_deleted() || job.status.phase.is_terminal() {
        return;
    }
    let due = due(job, recorded, entry.told, clock::now());
    if due.told != entry.told && !recorded.phase.is_terminal() {
        ctx.jobs.lock().update(&job.key, |entry| entry.told = due.told);
    }
    ctx.events.tell_of(job, due.milestones);
    if let Some(at) = due.again {
        ctx.jobs.look_at_later(&job.key, at);
    }
}
