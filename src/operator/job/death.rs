//! A worker was found dead: what it stored last is read before its death counts, and whether it had acknowledged.

use std::sync::Arc;

use super::documents;
use crate::operator::context::Context;
use crate::operator::state::jobs::Entry;
use crate::runtime::clock;
use crate::store::{Error, MarkerId, Place};

/// A worker was found dead: what it stored before it died is read, then its death counts. Where it had not begun, or may
/// have had another copy, only an audit can tell where the message is.
pub async fn check_death(ctx: &Context, entry: &Entry) -> Result<(), Error> {
    let job = &entry.job;
    if entry.evidence.needs_audit() {
        ctx.pools.audit(&job.key.namespace, &job.spec.pool);
    }
    let id = job.attempt_in_hand();
    let Some(pool) = ctx.pools.get(&job.key.namespace, &job.spec.pool) else { return Ok(()) };
    let Some(store) = pool.store() else { return Ok(()) };
    if let Some(former) = pool.former() {
        // What it stored last may lie on the Redis that the pool has left.
        store.carry_result(&former.store, id.task).await?;
    }
    // In this order: what it has acknowledged it has stored before.
    let places = store.locate(&[MarkerId::new(job.key.namespace.clone(), id.task)]).await?;
    let is_in_flight = matches!(places[..], [Some(Place::InFlight { .. })]);
    let document = store.outcome(id.task).await?;
    let holder = |node: &Arc<str>| ctx.speaker(&pool, node);
    let said = document.and_then(|document| documents::read(id, document, holder, clock::now()));
    ctx.jobs.lock().death_checked(entry, said, is_in_flight);
    if !is_in_flight {
        ctx.pools.read_levels(&job.key.namespace, &job.spec.pool);
    }
    ctx.jobs.look_at(&job.key);
    Ok(())
}
