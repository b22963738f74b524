//! What is known of a job, put together from memory: no round trip per job.

use super::context::Context;
use super::jobs::Entry;
use crate::core::job::ObjectKey;
use crate::core::observed::Observed;

/// What is known of one job.
pub struct Observation {
    /// The job's entry.
    pub entry: Entry,
    /// What `decide` may know.
    pub seen: Observed,
    /// Whether the holder was found dead and Redis was not read since: what it stored before must be seen first.
    pub must_check: bool,
}

/// What is known of a job; `None` when it is over or gone.
pub fn observe(ctx: &Context, key: &ObjectKey) -> Option<Observation> {
    let entry = ctx.jobs.lock().get(key)?.clone();
    let pool = ctx.pools.view(&entry.job.key.namespace, &entry.job.spec.pool);
    let evidence = &entry.evidence;
    let task = evidence.task(|seen| ctx.workers.judge(&key.namespace, seen));
    let must_check = evidence.must_check(&task);
    let recorded = entry.job.status.attempt.map(|attempt| attempt.enqueued_at);
    let seen = Observed {
        pool,
        of: evidence.of(),
        enqueued_at: evidence.published_at().or(recorded),
        spec_hash: evidence.spec(),
        task,
    };
    Some(Observation { entry, seen, must_check })
}
