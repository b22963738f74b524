//! What is measured of the attempts that have ended, once their status is written.

use crate::core::id::ObjectKey;
use crate::core::job::Job;
use crate::core::status::{PastAttempt, Spent, Status};
use crate::operator::context::Context;
use crate::runtime::metrics::{AttemptLabels, PoolLabels};

/// Counts what a status records that the one before did not.
pub fn measure(ctx: &Context, job: &Job, written: &Status) {
    // The figures of a deleted pool went with it, and a job may name any pool.
    if !ctx.pools.contains(&ObjectKey { namespace: job.key.namespace.clone(), name: job.spec.pool.clone() }) {
        return;
    }
    let pool = PoolLabels { namespace: job.key.namespace.to_string(), pool: job.spec.pool.to_string() };
    for attempt in ended(&job.status, written) {
        let labels = AttemptLabels {
            namespace: pool.namespace.clone(),
            pool: pool.pool.clone(),
            outcome: attempt.outcome.name(),
        };
        ctx.metrics.attempts.get_or_create(&labels).inc();
        if let Some((enqueued, started)) = attempt.enqueued_at.zip(attempt.started_at) {
            let waited = started.duration_since(enqueued).as_secs_f64().max(0.0);
            ctx.metrics.wait_seconds.get_or_create(&pool).observe(waited);
        }
        if let Some(started) = attempt.started_at {
            let ran = attempt.finished_at.duration_since(started).as_secs_f64().max(0.0);
            ctx.metrics.run_seconds.get_or_create(&pool).observe(ran);
        }
    }
    if let Some(spent) = written.spent() {
        let before = job.status.spent().map(Spent::total).unwrap_or_default();
        ctx.metrics.consumption.add(&pool, &spent.total().without(&before));
    }
    let losses = written.worker_losses.saturating_sub(job.status.worker_losses);
    if losses > 0 {
        ctx.metrics.worker_losses.get_or_create(&pool).inc_by(u64::from(losses));
    }
}

/// The attempts that ended since. The history of a job has the last few only.
fn ended<'a>(before: &'a Status, now: &'a Status) -> impl Iterator<Item = &'a PastAttempt> {
    now.history.iter().filter(|attempt| !before.history.contains(attempt))
}
