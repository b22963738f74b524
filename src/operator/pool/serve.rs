//! Serving one pool: connect, listen, read levels, scale, and say in the pool's status how it is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::problem::{outranked, problem, problem_of, unreachable_problem};
use super::report::{self, Reporter};
use super::secret::{self, Found};
use super::{ends, former, listen, load, releases, resync, settings, strays};
use crate::api::{CrewWorkerPoolStatus, RedisStatus};
use crate::core::backoff::AGAIN;
use crate::core::evidence::Evidence;
use crate::core::id::TaskId;
use crate::core::status::{PoolProblem, PoolProblemKind};
use crate::operator::context::Context;
use crate::operator::job::refused;
use crate::operator::state::pool::Handle;
use crate::runtime::backoff::{Backoff, Bounds};
use crate::store::{ConnectError, Error, MarkerId, Store, Swept, Wanted};

/// Shortest and longest wait between two passes through the queues; a pass takes a fifth of the time at most.
const SWEEPS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Longest wait after the first try to connect that failed, and after any.
const RECONNECT: Bounds = (Duration::from_millis(500), Duration::from_secs(4));

/// Serves a pool until it is stopped.
pub async fn serve(ctx: Arc<Context>, pool: Arc<Handle>, status: CrewWorkerPoolStatus) {
    let (mut reporter, wanted) = Reporter::new(ctx.clone(), pool.clone(), status.clone());
    let writing = report::write(&ctx, &pool, status, wanted);
    let stop = pool.stop.clone();
    let lost = ctx.leadership.lost.clone();
    ctx.metrics.show_pool(&pool.labels());
    let serving = async {
        let mut backoff = Backoff::new(RECONNECT);
        let mut found: Option<Found> = None;
        let mut left = pool.take_left();
        loop {
            match Box::pin(connect(&ctx, &pool, found.take())).await {
                Ok((store, current)) => {
                    backoff.reset();
                    if let Some(left) = left.take() {
                        Box::pin(former::leave(&ctx, &pool, left, &store)).await;
                    }
                    connected(&ctx, &pool, &store, &current);
                    match Box::pin(follow(&ctx, &pool, &store, &current, &mut reporter)).await {
                        End::Problem(problem) => trouble(&ctx, &pool, problem),
                        End::Moved(next) => {
                            left = Some(store);
                            found = Some(*next);
                            trouble(&ctx, &pool, problem(PoolProblemKind::Connecting, "the Secret has changed"));
                            continue;
                        }
                    }
                }
                Err(problem) => trouble(&ctx, &pool, problem),
            }
            reporter.report(None);
            if ctx.namespaces.contains(&pool.key.namespace) {
                tokio::time::sleep(backoff.pause()).await;
            } else {
                ctx.namespaces.changed(&pool.key.namespace, true).await;
            }
        }
    };
    let knowing = Box::pin(releases::run(&ctx, &pool));
    tokio::select! { () = serving => {}, () = writing => {}, () = knowing => {}, () = stop.cancelled() => {}, () = lost.cancelled() => {} }
    // A pool whose spec has changed is served by another one by now, which counts on.
    if !ctx.pools.contains(&pool.key) {
        ctx.metrics.drop_pool(&pool.labels());
    } else if ctx.leadership.lost.is_cancelled() {
        ctx.metrics.forget_pool(&pool.labels());
    }
}

/// Why a connection is used no more.
enum End {
    /// Redis does not let us in any more.
    Problem(PoolProblem),
    /// The Secret says something else.
    Moved(Box<Found>),
}

/// Everything that goes on while Redis lets us in and the Secret stays as it is. What is done now and then is in boxes: a pool
/// spends its life waiting, and there are hundreds.
async fn follow(
    ctx: &Arc<Context>,
    pool: &Arc<Handle>,
    store: &Store,
    current: &Found,
    reporter: &mut Reporter,
) -> End {
    let problem = tokio::select! {
        change = secret::follow(ctx, pool, current) => match change {
            secret::Change::To(found) => return End::Moved(found),
            secret::Change::Unusable(problem) => problem,
        },
        problem = load::run(ctx, pool, store, reporter) => problem,
        () = listen::run(ctx, pool, store) => unreachable_problem("the subscription ended"),
        () = resync::run(ctx, pool, store) => unreachable_problem("reading levels ended"),
        () = strays::run(ctx, pool, store) => unreachable_problem("looking for strays ended"),
        () = settings::run(ctx, pool, store) => unreachable_problem("asking for settings ended"),
        () = sweep(ctx, pool, store) => unreachable_problem("looking for copies ended"),
        () = ends::run(ctx, pool, store) => unreachable_problem("looking up messages ended"),
        () = forget(pool, store) => unreachable_problem("forgetting markers ended"),
        () = former::run(ctx, pool, store) => unreachable_problem("following the former Redis ended"),
        () = ctx.namespaces.changed(&pool.key.namespace, false) => secret::not_granted(ctx, &pool.key.namespace),
    };
    End::Problem(problem)
}

/// Deletes markers of attempts that are over, many at a time.
async fn forget(pool: &Handle, store: &Store) {
    loop {
        pool.markers_to_delete.notified().await;
        tokio::time::sleep(Duration::from_millis(20)).await; // so that a burst of ends is one round trip
        let markers = pool.take_markers_to_delete();
        if let Err(error) = Box::pin(store.forget(&markers)).await {
            tracing::warn!(pool = %pool.key, %error, "markers of finished attempts could not be deleted");
        }
    }
}

/// Takes messages off the queues, or moves them, that cannot be named by their bytes: in one pass for as many as there are.
async fn sweep(ctx: &Context, pool: &Handle, store: &Store) {
    let (mut pause, mut failing) = (SWEEPS.0, Backoff::new(AGAIN));
    loop {
        pool.sweep.notified().await;
        tokio::time::sleep(pause).await; // a pass goes through whole queues
        let (errands, began_at) = (pool.take_errands(), Instant::now());
        let wanted = &errands.wanted;
        match Box::pin(store.sweep(ctx.epoch(), wanted, &pool.queues())).await {
            Ok(swept) => {
                tracing::debug!(pool = %pool.key, wanted = wanted.len(), swept = swept.len(), "queues looked through");
                if !withdrawn(ctx, &swept, wanted) {
                    pool.levels.notify_one();
                }
                pool.forget(errands.over);
            }
            Err(error) => {
                let wait = failing.pause();
                tracing::warn!(pool = %pool.key, %error, retry_in = ?wait, "looking through the queues failed");
                let keys = {
                    let table = ctx.jobs.lock();
                    wanted.keys().filter_map(|id| Some(table.of_task(id.task)?.job.key.clone())).collect()
                };
                Box::pin(refused::tell_all(ctx, keys, &error)).await;
                pool.try_again(errands);
                pause = wait;
                continue;
            }
        }
        failing.reset();
        pause = (began_at.elapsed() * 4).clamp(SWEEPS.0, SWEEPS.1);
    }
}

/// Notes which messages were taken back. Whether all were that were to be: Redis is read for the others.
fn withdrawn(ctx: &Context, swept: &[Swept], wanted: &HashMap<MarkerId, Wanted>) -> bool {
    let mut left: HashSet<TaskId> = {
        let table = ctx.jobs.lock();
        let is_awaited =
            |id: &MarkerId, wanted: Wanted| wanted == Wanted::Gone && table.is_in_hand(&id.namespace, id.task);
        wanted.iter().filter(|(id, wanted)| is_awaited(id, **wanted)).map(|(id, _)| id.task).collect()
    };
    for copy in swept.iter().filter(|copy| !copy.still_held) {
        let Some(generation) = copy.generation else { continue };
        ctx.jobs.hear(copy.task, |job, evidence| {
            if job.attempt_in_hand().generation == generation {
                evidence.withdrawn(generation);
                left.remove(&copy.task);
            }
        });
    }
    left.is_empty()
}

fn connected(ctx: &Context, pool: &Handle, store: &Store, found: &Found) {
    pool.uses(RedisStatus {
        secret_name: pool.spec.redis.secret_name.clone(),
        secret_version: found.version.to_string(),
        address: store.address().chars().take(320).collect(),
    });
    // What happened while Redis was not heard is not known: everything is read again before anything is decided.
    ctx.jobs.lock().note_all(&pool.key, |_| true, Evidence::unread_if_published);
    if pool.set(None, Some(store.clone())) {
        tracing::info!(pool = %pool.key, "pool connected");
        ctx.look_at_jobs(&pool.key);
    }
    ctx.metrics.broker_up.get_or_create(&pool.labels()).set(1);
    pool.audit.notify_one();
}

fn trouble(ctx: &Context, pool: &Handle, problem: PoolProblem) {
    ctx.metrics.broker_up.get_or_create(&pool.labels()).set(0);
    let (reason, detail) = (problem.kind.reason(), problem.detail.clone());
    if pool.set(Some(problem), None) {
        tracing::warn!(pool = %pool.key, reason, %detail, "pool cannot be used");
        ctx.look_at_jobs(&pool.key);
    }
}

/// Connects as the Secret says, which is read unless that was done just now.
async fn connect(ctx: &Context, pool: &Handle, found: Option<Found>) -> Result<(Store, Found), PoolProblem> {
    let found = match found {
        Some(found) => found,
        None => secret::read(ctx, pool).await?,
    };
    let store = Store::connect(&found.settings).await.map_err(|error| match &error {
        ConnectError::Unreachable { .. } => problem(PoolProblemKind::BrokerUnreachable, error.to_string()),
        ConnectError::Unsupported { .. } => problem(
            PoolProblemKind::BrokerUnsupported,
            format!("{error}; change REDIS_URL in Secret {:?}", pool.spec.redis.secret_name),
        ),
        ConnectError::AuthenticationFailed { .. } => problem(
            PoolProblemKind::BrokerAuthenticationFailed,
            format!("{error}; mend REDIS_URL in Secret {:?}", pool.spec.redis.secret_name),
        ),
        ConnectError::Invalid { .. } => {
            problem(PoolProblemKind::SecretInvalid, format!("Secret {:?}: {error}", pool.spec.redis.secret_name))
        }
    })?;
    let prepared = async {
        store.claim(ctx.epoch()).await?;
        store.declare(&pool.queues()).await?;
        // What the load is read with: were that refused only later, the pool would work and not work by turns.
        store.snapshot(&pool.queues()).await.map(drop)
    };
    match prepared.await {
        Ok(()) => Ok((store, found)),
        Err(Error::Fenced { .. }) => Err(outranked(ctx, &store).await),
        Err(error) => Err(problem_of(&error).unwrap_or_else(|| unreachable_problem(&error.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size<T>(_: fn() -> T) -> usize {
        size_of::<T>()
    }

    /// 200 pools and 100,000 waiting jobs are to fit into 200 MB (`make bench`).
    #[test]
    #[allow(unreachable_code, clippy::diverging_sub_expression, reason = "only the type of what is returned is needed")]
    fn a_pool_that_waits_takes_at_most_12_kilobytes() {
        let serve = size(|| serve(unreachable!(), unreachable!(), unreachable!()));
        let follow = size(|| follow(unreachable!(), unreachable!(), unreachable!(), unreachable!(), unreachable!()));
        assert!(serve + follow <= 12 << 10, "{serve} + {follow}");
    }
}
