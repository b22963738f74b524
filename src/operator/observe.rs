//! What is known of a job, put together from memory: no round trip per job.

use super::context::Context;
use super::jobs::Entry;
use crate::core::job::ObjectKey;
use crate::core::observed::{Observed, Published};

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
    let publication = evidence.publication();
    let seen = Observed {
        pool,
        of: evidence.of(),
        published: Published { at: publication.at.or(recorded), ..publication },
        stop_asked_at: evidence.stop_asked_at(),
        is_pod_free: evidence.stop_asked_at().is_some() && is_pod_free(ctx, &entry),
        task,
    };
    Some(Observation { entry, seen, must_check })
}

/// Whether the Pod that has this job runs nothing that is not to be stopped: one task at a time, or only cancelled ones,
/// with no other producer's tasks on the pool's queues that it might have.
fn is_pod_free(ctx: &Context, entry: &Entry) -> bool {
    let Some(pod) = entry.evidence.holder_now().and_then(|holder| holder.container.as_ref()).map(|it| &it.pod) else {
        return false;
    };
    let key = &entry.job.key;
    if ctx.pools.runs_one_at_a_time(&key.namespace, &entry.job.spec.pool) {
        return true;
    }
    let is_there = |other: &&Entry| {
        let container = other.evidence.holder_now().and_then(|holder| holder.container.as_ref());
        other.job.key.namespace == key.namespace && container.is_some_and(|container| container.pod == *pod)
    };
    let table = ctx.jobs.lock();
    table.iter().filter(is_there).all(|other| other.job.spec.cancel)
        && !ctx.pools.has_foreign_tasks(&key.namespace, &entry.job.spec.pool)
}
