//! One job, one look: observe, decide, act.

use std::mem::Discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::act::act;
use super::death::check_death;
use super::error::Error;
use super::observe::{Observation, observe};
use super::refused::{self, refusal};
use crate::core::backoff::{ConsecutiveErrors, first_act};
use crate::core::decide::decide;
use crate::core::id::ObjectKey;
use crate::core::plan::{Effect, Next, Plan};
use crate::operator::context::Context;
use crate::operator::lease::Leadership;
use crate::operator::state::jobs::{Entry, Jobs};
use crate::runtime::admin::Heartbeat;
use crate::runtime::clock;
use crate::runtime::telemetry::chain;

/// How often an idle loop turns.
const IDLE: Duration = Duration::from_secs(5);
/// How soon jobs are looked at again whose turn came while the claim on the Lease was stale.
const STALE_LEASE: Duration = Duration::from_millis(250);

/// Looks at jobs for ever, many side by side: how many, and whose turn it is, is the queue's to say.
///
/// The first look waits until all unfinished jobs are listed. What a look writes would compete with the list at the API
/// server: ten thousand large jobs took ten times as long to list, and the jobs at the end of the list waited for that.
pub async fn run(ctx: Arc<Context>, heartbeat: Heartbeat) {
    let mut looks = JoinSet::new();
    loop {
        // It turns as long as looks end, or there are none. With nothing to look at it turns, too.
        if looks.is_empty() {
            heartbeat.turned();
        }
        let (holds, listed) = (ctx.leadership.holds(), ctx.jobs.listed.is_cancelled());
        let key = tokio::select! {
            key = ctx.jobs.queue.next(), if holds && listed => key,
            () = ctx.jobs.listed.cancelled(), if !listed => continue,
            () = tokio::time::sleep(if holds { IDLE } else { STALE_LEASE }) => continue,
            Some(look) = looks.join_next() => match look {
                Ok(()) => {
                    heartbeat.turned();
                    continue;
                }
                Err(error) => return tracing::error!(%error, "looking at a job failed"),
            },
        };
        let ctx = ctx.clone();
        looks.spawn(async move {
            if may_act(&ctx.leadership, &ctx.jobs, &key) {
                let began_at = Instant::now();
                reconcile(&ctx, &key).await;
                ctx.metrics.reconcile_seconds.observe(began_at.elapsed().as_secs_f64());
            }
            ctx.jobs.queue.done(key);
        });
    }
}

/// Whether the claim on the Lease is fresh enough to act on; else the job's turn comes again. The renewal may only be
/// late: a key that is dropped now would stand still for ever.
fn may_act(leadership: &Leadership, jobs: &Jobs, key: &ObjectKey) -> bool {
    let holds = leadership.holds();
    if !holds {
        jobs.look_at_later(key, clock::now().checked_add(STALE_LEASE).unwrap_or(Timestamp::MAX));
    }
    holds
}

/// What a look at a job comes to. The larger parts are in boxes: many jobs are looked at side by side.
enum Look {
    /// There is no such job any more.
    Over,
    /// Nothing may be tried before then.
    NotBefore(Timestamp),
    /// The worker was found dead: what it stored last must be read before anything is decided.
    CheckDeath(Box<Entry>),
    /// This is to be done.
    Act(Box<Entry>, Box<Plan>),
}

fn look(ctx: &Context, key: &ObjectKey) -> Look {
    let Some(Observation { entry, seen, must_check }) = observe(ctx, key) else { return Look::Over };
    let now = clock::now();
    match entry.look_up() {
        Some(it) if it.at <= now => ctx.pools.look_up(&entry.job, it),
        Some(it) => ctx.jobs.look_at_later(key, it.at),
        None => {}
    }
    if must_check {
        let held_up = entry.consecutive_errors.as_ref().and_then(|errors| errors.holds_up_check(now));
        return held_up.map_or(Look::CheckDeath(entry), Look::NotBefore);
    }
    let plan = decide(&entry.job, &seen, now);
    tracing::debug!(job = %key, %plan, "decided");
    let held_up = entry.consecutive_errors.as_ref().and_then(|errors| errors.holds_up(&plan, now));
    held_up.map_or_else(|| Look::Act(entry, Box::new(plan)), Look::NotBefore)
}

async fn reconcile(ctx: &Context, key: &ObjectKey) {
    match look(ctx, key) {
        Look::Over => ctx.jobs.queue.forget(key),
        Look::NotBefore(at) => ctx.jobs.look_at_later(key, at),
        Look::CheckDeath(entry) => match Box::pin(check_death(ctx, &entry)).await {
            Ok(()) => ctx.jobs.lock().update(key, |entry| entry.consecutive_errors = None),
            Err(source) => {
                let error = Error::Store { job: entry.job.key.clone(), source };
                Box::pin(failed(ctx, key, None, &error)).await;
            }
        },
        Look::Act(entry, mut plan) => {
            let tried = first_act(&plan);
            let has_failed = entry.consecutive_errors.as_ref().is_some_and(|errors| errors.is_of(tried));
            match act(ctx, &entry, &mut plan).await {
                Ok(next) => {
                    if has_failed {
                        ctx.jobs.lock().update(key, |entry| entry.consecutive_errors = None);
                    }
                    match next {
                        Next::OnHint => {}
                        Next::At(at) => ctx.jobs.look_at_later(key, at),
                        Next::Never => ctx.jobs.queue.forget(key),
                    }
                }
                Err(error) => Box::pin(failed(ctx, key, tried, &error)).await,
            }
        }
    }
}

/// The reconcile failed: it is tried again later, and what is refused is said.
async fn failed(ctx: &Context, key: &ObjectKey, tried: Option<Discriminant<Effect>>, error: &Error) {
    ctx.metrics.reconcile_errors.inc();
    let (now, refusal) = (clock::now(), refusal(error));
    let mut until = now;
    ctx.jobs.lock().update(key, |entry| {
        let errors =
            ConsecutiveErrors::again(entry.consecutive_errors.as_deref(), entry.job.uid, tried, refusal.is_some(), now);
        until = errors.until();
        entry.consecutive_errors = Some(Box::new(errors));
    });
    let wait = clock::until(until, now);
    tracing::warn!(job = %key, error = %chain(error), retry_in = ?wait, "reconcile failed; retrying");
    if let Some((kind, detail)) = refusal {
        refused::tell(ctx, key, kind, &detail).await;
    }
    ctx.jobs.look_at_later(key, until);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_whose_turn_comes_while_the_lease_is_renewed_late_has_its_turn_afterwards() {
        let (jobs, key) = (Jobs::with_one("team", "job"), ObjectKey::new("team", "job"));
        let (leadership, queue) = (Leadership::stale(), &jobs.queue);
        jobs.look_at(&key);
        let turn = queue.next().await;
        assert!(!may_act(&leadership, &jobs, &turn));
        queue.done(turn);
        leadership.renewed_now();
        let again = tokio::select! { key = queue.next() => key, () = queue.run_timers() => unreachable!() };
        assert_eq!(again, key);
        assert!(may_act(&leadership, &jobs, &again));
    }
}
