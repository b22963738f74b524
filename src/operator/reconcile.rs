//! One job, one look: observe, decide, act.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::act::act;
use super::context::Context;
use super::levels;
use super::observe::{Observation, observe};
use crate::core::decide::decide;
use crate::core::job::ObjectKey;
use crate::core::plan::Next;
use crate::runtime::clock;
use crate::runtime::telemetry::chain;

/// How soon a job is looked at again whose turn came while the claim on the Lease was stale.
const STALE_LEASE: Duration = Duration::from_millis(250);
/// Longest wait after failures of the operator's own.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Looks at jobs, one after the other, for ever. Several of these run side by side.
pub async fn run(ctx: Arc<Context>) {
    loop {
        let key = ctx.jobs.queue.next().await;
        if ctx.leadership.holds() {
            reconcile(&ctx, &key).await;
        } else {
            // The renewal may only be late: a key that is dropped now would stand still for ever.
            ctx.jobs.queue.at(key.clone(), clock::now().checked_add(STALE_LEASE).unwrap_or(Timestamp::MAX));
        }
        ctx.jobs.queue.done(key);
    }
}

async fn reconcile(ctx: &Context, key: &ObjectKey) {
    let Some(Observation { entry, seen, death_is_news }) = observe(ctx, key) else {
        ctx.jobs.queue.forget(key);
        return;
    };
    if death_is_news {
        return levels::confirm_death(ctx, &entry, seen.task).await;
    }
    let now = clock::now();
    let plan = decide(&entry.job, &seen, now);
    tracing::debug!(job = %key, %plan, "decided");
    match act(ctx, entry, plan).await {
        Ok(Next::OnHint) => ctx.jobs.lock().update(key, |entry| entry.stumbles = 0),
        Ok(Next::At(at)) => ctx.jobs.queue.at(key.clone(), at),
        Ok(Next::Never) => ctx.jobs.queue.forget(key),
        Err(error) => {
            ctx.metrics.reconcile_errors.inc();
            let mut stumbles = 0;
            ctx.jobs.lock().update(key, |entry| {
                entry.stumbles += 1;
                stumbles = entry.stumbles;
            });
            let wait = Duration::from_millis(250).saturating_mul(1 << stumbles.min(8)).min(MAX_BACKOFF);
            tracing::warn!(job = %key, error = %chain(&error), retry_in = ?wait, "job could not be brought forward");
            ctx.jobs.queue.at(key.clone(), now.checked_add(wait).unwrap_or(now));
        }
    }
}
