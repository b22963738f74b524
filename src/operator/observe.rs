//! What is known of a job, put together from memory: no round trip per job.

use std::time::Duration;

use super::context::Context;
use super::jobs::Entry;
use super::lease::age;
use crate::core::job::ObjectKey;
use crate::core::observed::{Observed, PodDeletion, Published};
use crate::runtime::clock;

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
    let restarts = ctx.pools.restarts_unreachable(&key.namespace, &entry.job.spec.pool);
    let task = evidence.task(|seen| {
        let (holder, liveness) = ctx.workers.judge(&key.namespace, seen);
        (holder, liveness.in_pool(restarts))
    });
    let must_check = evidence.must_check(&task);
    let recorded = entry.job.status.attempt.map(|attempt| attempt.enqueued_at);
    let publication = evidence.publication();
    let seen = Observed {
        pool,
        of: evidence.of(),
        published: Published { at: publication.at.or(recorded), ..publication },
        stop_asked_at: evidence.stop_asked_at(),
        pod_deletion: evidence.stop_asked_at().map_or(PodDeletion::Useless, |_| pod_deletion(ctx, &entry)),
        task,
    };
    Some(Observation { entry, seen, must_check })
}

/// How soon a Pod that is to go must be due for its worker not to be waited for.
const SOON: Duration = Duration::from_secs(30);

/// Whether the Pod that has this job may be deleted: it runs one task at a time, or only cancelled ones, with no other
/// producer's tasks on the pool's queues that it might have.
fn pod_deletion(ctx: &Context, entry: &Entry) -> PodDeletion {
    let Some(pod) = entry.evidence.holder_now().and_then(|holder| holder.container.as_ref()).map(|it| &it.pod) else {
        return PodDeletion::Useless;
    };
    let key = &entry.job.key;
    if let Some(due) = ctx.workers.due_at(&ObjectKey::new(key.namespace.clone(), pod.clone())) {
        return if age(clock::now(), due) <= SOON { PodDeletion::UnderWay } else { PodDeletion::Useless };
    }
    if ctx.pools.runs_one_at_a_time(&key.namespace, &entry.job.spec.pool) {
        return PodDeletion::Fine;
    }
    let is_there = |other: &&Entry| {
        let container = other.evidence.holder_now().and_then(|holder| holder.container.as_ref());
        container.is_some_and(|container| container.pod == *pod)
    };
    let pod_key = ObjectKey::new(key.namespace.clone(), pod.clone());
    let are_cancelled = ctx.jobs.lock().seen_with(&pod_key).filter(is_there).all(|other| other.job.spec.cancel);
    if are_cancelled && !ctx.pools.has_foreign_tasks(&key.namespace, &entry.job.spec.pool) {
        PodDeletion::Fine
    } else {
        PodDeletion::Useless
    }
}
