//! Where a job ends: its end is recorded, by this operator or by another writer, or it was deleted.

use uuid::Uuid;

use super::abandon::abandon;
use crate::core::evidence::Document;
use crate::core::id::ObjectKey;
use crate::core::status::{Phase, Status};
use crate::operator::context::Context;
use crate::operator::state::jobs::Entry;
use crate::runtime::metrics::EndLabels;

/// Takes a job out of the table.
fn leave(ctx: &Context, key: &ObjectKey, uid: Uuid) -> Option<Box<Entry>> {
    let (entry, live) = {
        let mut table = ctx.jobs.lock();
        (table.remove_job(key, uid), table.live())
    };
    ctx.metrics.jobs_live.set(i64::try_from(live).unwrap_or(i64::MAX));
    if entry.is_some() {
        ctx.jobs.left(key);
    }
    entry
}

/// The end is recorded: nothing of the job is kept. Answers what was heard of another end since this one was decided.
pub fn finished(ctx: &Context, decided: &Entry, status: &Status) -> Option<Document> {
    let job = &decided.job;
    // Before the job leaves the table: what is heard meanwhile is noted here or there.
    if status.phase != Phase::Succeeded && !job.key.is_deleted() {
        ctx.jobs.ended().remember(job);
    }
    // Too many requests may be why, which slows others down.
    if let Some(past) = status.history.last() {
        ctx.jobs.lock().note_last(job, past);
    }
    let left = leave(ctx, &job.key, job.uid);
    if job.key.is_deleted() {
        tracing::info!(job = %job.key, reason = status.why.reason(), "deleted job taken off Redis");
        return None;
    }
    let labels = EndLabels { phase: format!("{:?}", status.phase), reason: status.why.reason().to_owned() };
    ctx.metrics.jobs_finished.get_or_create(&labels).inc();
    tracing::info!(
        job = %job.key, phase = ?status.phase, reason = status.why.reason(), attempts = status.attempts, "job finished"
    );
    let heard = left?.evidence.heard_end()?;
    (status.phase != Phase::Succeeded && decided.evidence.heard_end().is_none()).then_some(heard)
}

/// Another writer has recorded the end, and the job has left the table: its marker is not needed.
pub fn recorded_by_another(ctx: &Context, entry: &Entry) {
    ctx.pools.forget(&entry.job, entry.job.attempt_in_hand().task);
}

/// The job does not exist any more.
pub fn gone(ctx: &Context, key: &ObjectKey, uid: Uuid) {
    if let Some(entry) = leave(ctx, key, uid) {
        ctx.jobs.queue.forget(key);
        abandon(ctx, *entry);
    }
}
