//! Where a live object arrives, from a watch or from a read.

use std::sync::Arc;

use super::abandon::abandon;
use super::end;
use crate::api::CrewJob;
use crate::operator::context::Context;
use crate::operator::state::jobs::Applied;

/// Takes a live object. `listing` says that it comes with the first list of all jobs.
pub fn arrive(ctx: &Context, object: CrewJob, listing: bool) {
    let version: Arc<str> = object.metadata.resource_version.as_deref().unwrap_or_default().into();
    let job = match object.to_job() {
        Ok(job) => job,
        Err(error) => return tracing::error!(%error, "an incomplete CrewJob is left alone"),
    };
    let key = job.key.clone();
    let (namespace, pool) = (key.namespace.clone(), job.spec.pool.clone());
    let applied = ctx.jobs.apply(job, version, object, listing);
    ctx.metrics.jobs_live.set(i64::try_from(ctx.jobs.lock().live()).unwrap_or(i64::MAX));
    match applied {
        Applied::Stale => return,
        Applied::Changed => {}
        Applied::Replaced(old) => abandon(ctx, *old),
        Applied::Ended(entry) => return end::recorded_by_another(ctx, &entry),
    }
    if ctx.jobs.lock().get(&key).is_some_and(|entry| entry.evidence.is_unread()) {
        ctx.pools.read_levels(&namespace, &pool);
    }
    ctx.jobs.look_at(&key);
}
