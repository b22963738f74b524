//! Where a job leaves the table: it has ended, it was deleted, or nothing is left of it on Redis.

use uuid::Uuid;

use super::abandon::abandon;
use crate::core::id::ObjectKey;
use crate::core::job::Job;
use crate::core::status::{Phase, Status};
use crate::operator::context::Context;
use crate::operator::state::jobs::Entry;
use crate::runtime::metrics::EndLabels;

/// Takes a job out of the table.
fn remove(ctx: &Context, key: &ObjectKey) -> Option<Box<Entry>> {
    let (entry, live) = {
        let mut table = ctx.jobs.lock();
        (table.remove(key), table.len())
    };
    ctx.metrics.jobs_live.set(i64::try_from(live).unwrap_or(i64::MAX));
    ctx.jobs.queue.forget(key);
    entry
}

/// The end is recorded: nothing of the job is kept.
pub fn finished(ctx: &Context, job: &Job, status: &Status) {
    remove(ctx, &job.key);
    if job.key.is_deleted() {
        return tracing::info!(job = %job.key, reason = status.why.reason(), "deleted job taken off Redis");
    }
    let labels = EndLabels { phase: format!("{:?}", status.phase), reason: status.why.reason().to_owned() };
    ctx.metrics.jobs_finished.get_or_create(&labels).inc();
    if status.phase != Phase::Succeeded {
        ctx.jobs.ended.remember(job);
    }
    tracing::info!(
        job = %job.key, phase = ?status.phase, reason = status.why.reason(), attempts = status.attempts, "job finished"
    );
}

/// Another writer has recorded the end.
pub fn ended_elsewhere(ctx: &Context, key: &ObjectKey) {
    if let Some(entry) = remove(ctx, key) {
        ctx.pools.forget(&entry.job, entry.job.attempt_in_hand().task);
    }
}

/// The job does not exist any more.
pub fn gone(ctx: &Context, key: &ObjectKey, uid: Uuid) {
    let is_it = ctx.jobs.lock().get(key).is_some_and(|entry| entry.job.uid == uid);
    if let Some(entry) = is_it.then(|| remove(ctx, key)).flatten() {
        abandon(ctx, *entry);
    }
}
