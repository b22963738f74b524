//! Jobs that were deleted before their end. Deletion cancels: what is left of such a job, one attempt on Redis, stays in the
//! table under a name of its own and is brought to its end as a cancelled job is, with nothing written to the API server.
//!
//! Its marker stays until then, so that a crash, a restart or a pool that is away at that moment only delays this: markers
//! whose job does not exist are looked for ([`crate::operator::pool::strays`]), and taken up here.

use crate::core::evidence::Evidence;
use crate::core::id::{ObjectKey, SpecHash};
use crate::core::job::{Job, Spec};
use crate::core::plan::Effect;
use crate::core::status::{Attempt, Phase, Status, Why};
use crate::operator::context::Context;
use crate::operator::state::jobs::Entry;
use crate::store::{Marker, MarkerId};

/// A job was deleted before its end: no worker shall begin it, and one that runs it is told to stop.
pub fn abandon(ctx: &Context, entry: Entry) {
    let Entry { mut job, evidence, .. } = entry;
    let is_out = job.status.attempt.is_some() || evidence.is_out() || evidence.is_published();
    // Without a connection nothing can be done now, and the marker tells of it when there is one.
    if !is_out || ctx.pools.store(&job.key.namespace, &job.spec.pool).is_none() {
        return;
    }
    job.key = job.key.deleted(job.attempt_in_hand().task);
    job.spec.cancel = true;
    bring_to_an_end(ctx, job, evidence);
}

/// Takes up an attempt that no job stands behind any more. False when the marker does not name its own task.
pub fn take_up(ctx: &Context, pool: &ObjectKey, id: &MarkerId, marker: &Marker) -> bool {
    let attempt =
        Attempt { number: marker.attempt, generation: marker.generation, enqueued_at: marker.at, started_at: None };
    let job = Job {
        key: ObjectKey::new(id.namespace.clone(), marker.name.clone()).deleted(id.task),
        uid: marker.uid,
        created_at: marker.at,
        spec: Spec {
            generation: 0,
            pool: pool.name.clone(),
            queue: Some(marker.queue.clone()),
            task: "".into(),
            priority: marker.priority,
            overrides: None,
            suspend: false,
            cancel: true,
            hash: marker.spec.unwrap_or(SpecHash([0; 16])),
            invalid: None,
        },
        status: Status {
            phase: Phase::Queued,
            why: Why::Enqueued,
            attempt: Some(attempt),
            queue: Some(marker.queue.clone()),
            spec_hash: marker.spec,
            ..Status::default()
        },
    };
    if job.attempt_in_hand().task != id.task {
        return false;
    }
    let evidence = Evidence::none(id.task);
    bring_to_an_end(ctx, job, evidence);
    true
}

fn bring_to_an_end(ctx: &Context, job: Job, evidence: Evidence) {
    let (key, pool) = (job.key.clone(), job.spec.pool.clone());
    let is_unread = evidence.is_unread();
    ctx.jobs.lock().keep(job, evidence);
    if is_unread {
        ctx.pools.read_levels(&key.namespace, &pool);
    }
    ctx.jobs.look_at(&key);
}

/// Whether an effect makes sense for a job that was deleted: there is nothing that a result could belong to.
pub fn is_wanted(effect: &Effect) -> bool {
    !matches!(effect, Effect::StoreResult(_) | Effect::ExtendResult { .. })
}
