//! What is known of a job, put together from memory: no round trip per job.

use super::pod_deletion::pod_deletion;
use crate::core::id::ObjectKey;
use crate::core::index::pods::Fleet;
use crate::core::observed::{Observed, PodDeletion, Published};
use crate::operator::context::Context;
use crate::operator::state::jobs::Entry;
use crate::runtime::clock;

/// What is known of one job.
pub struct Observation {
    /// The job's entry.
    pub entry: Box<Entry>,
    /// What `decide` may know.
    pub seen: Observed,
    /// Whether the holder was found dead and Redis was not read since: what it stored before must be seen first.
    pub must_check: bool,
}

/// What is known of a job; `None` when it is over or gone.
pub fn observe(ctx: &Context, key: &ObjectKey) -> Option<Observation> {
    let (entry, permit) = {
        let table = ctx.jobs.lock();
        (table.get(key)?.clone(), table.permit(key, clock::now()))
    };
    let mut entry = Box::new(entry);
    let fleet = ctx.pools.fleet(&key.namespace, &entry.job.spec.pool);
    attribute(ctx, fleet.as_ref(), &mut entry);
    let pool = ctx.pools.view(&entry.job.key.namespace, &entry.job.spec.pool);
    let evidence = &entry.evidence;
    let restarts = ctx.pools.restarts_unreachable(&key.namespace, &entry.job.spec.pool);
    let task = evidence.task(|seen| {
        let (holder, liveness) = ctx.workers.read(|pods| pods.judge(fleet.as_ref(), &key.namespace, seen));
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
        stop_repeated_at: evidence.stop_repeated_at(),
        pod_deletion: evidence.stop_asked_at().map_or(PodDeletion::Useless, |_| pod_deletion(ctx, &entry)),
        task,
        others: evidence.others(),
        claim: entry.claim(),
        permit,
        twins: entry.twins(),
    };
    Some(Observation { entry, seen, must_check })
}

/// Notes the Pod of a worker that was not known yet when it spoke: later the Pod may be gone, and only what was seen of it
/// tells that it was one. A container that has started since is not the one that spoke.
fn attribute(ctx: &Context, fleet: Option<&Fleet>, entry: &mut Entry) {
    let Some(seen) = entry.evidence.sighting() else { return };
    let Some(known) = seen.report.holder.as_ref().filter(|holder| holder.container.is_none()) else { return };
    let holder = ctx.workers.read(|pods| pods.holder(fleet, &known.node));
    let seen_at = seen.report.said_at_its_node().as_second();
    if holder.container.as_ref().is_some_and(|container| container.started_at.as_second() <= seen_at) {
        ctx.jobs.lock().update(&entry.job.key, |entry| entry.evidence.attributed(&holder));
        entry.evidence.attributed(&holder);
    }
}
