//! Jobs that were deleted before their end. Deletion cancels: what is left of such a job, one attempt on Redis, stays in the
//! table under a name of its own and is brought to its end as a cancelled job is, with nothing written to the API server.
//!
//! Its marker stays until then, so that a crash, a restart or a pool that is away at that moment only delays this: markers
//! whose job does not exist are looked for ([`crate::operator::pool::strays`]), and taken up here.

use crate::core::evidence::Evidence;
use crate::core::id::ObjectKey;
use crate::core::index::Stray;
use crate::core::job::Job;
use crate::core::plan::Effect;
use crate::operator::context::Context;
use crate::operator::state::jobs::Entry;
use crate::store::{Marker, MarkerId};

/// A job was deleted before its end: no worker shall begin it, and one that runs it is told to stop.
pub fn abandon(ctx: &Context, entry: Entry) {
    let Some((job, evidence)) = entry.remains() else { return };
    // Without a connection nothing can be done now, and the marker tells of it when there is one.
    if ctx.pools.store(&job.key.namespace, &job.spec.pool).is_some() {
        bring_to_an_end(ctx, job, evidence);
    }
}

/// Takes up an attempt that no job stands behind any more. False when the marker does not name its own task.
pub fn take_up(ctx: &Context, pool: &ObjectKey, id: &MarkerId, marker: &Marker) -> bool {
    let stray = Stray {
        job: ObjectKey::new(id.namespace.clone(), marker.name.clone()),
        uid: marker.uid,
        number: marker.attempt,
        pool: pool.name.clone(),
        queue: Some(marker.queue.clone()),
        mark: marker.mark(),
    };
    let Some(job) = stray.into_job(id.task) else { return false };
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

/// Whether an effect makes sense for a job that was deleted: there is nothing that a result could belong to, and it leaves
/// its run-once key to the next job.
pub fn is_wanted(effect: &Effect) -> bool {
    !matches!(
        effect,
        Effect::StoreResult(_)
            | Effect::ExtendResult { .. }
            | Effect::ClaimKey(_)
            | Effect::AskForPermit
            | Effect::ListTwins
            | Effect::CancelTwin { .. }
            | Effect::RememberRun { .. }
    )
}
