//! The load of a pool: depth and flight to replicas, in the pass that enqueues and every two seconds.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::problem::{outranked, problem_of};
use super::replicas::Scaler;
use super::report::Reporter;
use super::view::{Census, View};
use crate::core::claims::fence::Fence;
use crate::core::eviction::Eviction;
use crate::core::outage::Outage;
use crate::core::scale::Load;
use crate::core::stall::Stall;
use crate::core::start::{self, Blocked, BlockedKind};
use crate::core::status::PoolProblem;
use crate::operator::context::Context;
use crate::operator::state::pool::Handle;
use crate::runtime::clock;
use crate::store::{Error, Incarnation, Snapshot, Store};

/// How often the load is looked at although nothing asks for it: other producers do not tell us.
const EVERY: Duration = Duration::from_secs(2);
/// Enqueues within this time are one look at the load.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Changes of Pods within this time are one look at the load.
const WORKERS_DEBOUNCE: Duration = Duration::from_millis(250);
/// How often workers are asked whether there are any, when none is heard.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// How often the Redis of the results is asked for its settings, where it is another one.
const ASK_RESULTS_EVERY: Duration = Duration::from_mins(1);

/// What the clock of Redis is called among those of workers.
static REDIS: LazyLock<Arc<str>> = LazyLock::new(|| "the Redis server".into());

/// Follows the load until Redis does not let us in any more; returns what is wrong.
pub async fn run(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store, reporter: &mut Reporter) -> PoolProblem {
    let mut scaler = Scaler::default();
    let mut starting = Starting::of(pool);
    let mut outage = Outage::default();
    let mut incarnation: Option<Incarnation> = None;
    let mut recheck: Option<Timestamp> = None;
    let mut stall = Stall::default();
    let mut results = ResultServer::default();
    let mut round_trips = store.round_trips();
    loop {
        let asked_at = clock::now();
        let snapshot = match Box::pin(store.snapshot(&pool.queues())).await {
            Ok(snapshot) => {
                outage.answered();
                snapshot
            }
            Err(error) => {
                let passes = matches!(error, Error::Unavailable { .. }) && !outage.unanswered(asked_at, clock::now());
                if let Some(problem) = problem_of(&error).filter(|_| !passes) {
                    return problem;
                }
                tracing::warn!(pool = %pool.key, %error, "reading the load failed; retrying in 2 s");
                tokio::time::sleep(EVERY).await;
                continue;
            }
        };
        pool.clocks().hear(&REDIS, snapshot.at, clock::now());
        let fence = snapshot.fence(ctx.epoch());
        if let Fence::Closed(_) = fence {
            return Box::pin(outranked(ctx, store)).await;
        }
        if incarnation.as_ref().is_some_and(|before| *before != snapshot.incarnation) || fence == Fence::Missing {
            if let Err(error) = Box::pin(renewed_redis(ctx, pool, store)).await {
                tracing::warn!(pool = %pool.key, %error, "a Redis that is not what it was could not be prepared");
            } else {
                incarnation = None;
                pool.audit.notify_one();
                pool.strays.notify_one();
            }
        }
        incarnation.get_or_insert_with(|| snapshot.incarnation.clone());
        let census = Census::take(ctx, pool);
        let load = load(&snapshot, &census);
        let mut view = Box::pin(look(ctx, pool, load, &census, &mut scaler)).await;
        if !view.unlisted {
            pool.looked_at.store(true, Ordering::Relaxed);
        }
        pool.is_on(&snapshot.incarnation.run_id);
        view.eviction.clone_from(&snapshot.eviction);
        view.results_eviction = Box::pin(results.eviction(pool, store)).await;
        view.shared = ctx.pools.sharing(pool);
        view.blocked = Box::pin(starting.note(ctx, pool, store, load, &view)).await;
        view.stalled_since =
            stall.note(everything(&snapshot, &census), view.slots, pool.heard_of_work_at(), clock::now());
        ctx.metrics.workers_stalled.get_or_create(&pool.labels()).set(i64::from(view.stalled_since.is_some()));
        recheck = view.scaling.and_then(|scaling| scaling.recheck).or(recheck.filter(|at| *at > clock::now()));
        let now = store.round_trips();
        ctx.metrics.redis_round_trips.get_or_create(&pool.labels()).inc_by(now.saturating_sub(round_trips));
        round_trips = now;
        measure(ctx, pool, &snapshot, &view, &census);
        reporter.report(Some((&snapshot, &view, &census)));
        let pause = recheck.map_or(EVERY, |at| clock::until(at, clock::now()).clamp(Duration::from_millis(50), EVERY));
        tokio::select! {
            () = pool.load.notified() => tokio::time::sleep(DEBOUNCE).await,
            () = async {
                pool.workers.notified().await;
                tokio::time::sleep(WORKERS_DEBOUNCE).await;
            } => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Redis was emptied, restarted or replaced: it is prepared anew, and every job is checked against it.
async fn renewed_redis(ctx: &Context, pool: &Handle, store: &Store) -> Result<(), Error> {
    tracing::warn!(pool = %pool.key, "Redis was emptied, restarted or replaced; every job is checked against it");
    store.claim(ctx.epoch()).await?;
    store.declare(&pool.queues()).await
}

/// What waits for the pool's workers, and all that they have, other producers' queues included. A message that is in no
/// queue waits too: a worker that hung in the middle of a pop may have it.
fn everything(snapshot: &Snapshot, census: &Census) -> Load {
    let load = load(snapshot, census);
    Load { queued: load.queued + census.missed, in_flight: load.in_flight + snapshot.foreign_in_flight, ..load }
}

/// What waits in the pool's queues, what was taken from them, and what the pool's jobs have beyond that.
fn load(snapshot: &Snapshot, census: &Census) -> Load {
    let queued: u64 = snapshot.queues.iter().map(crate::store::QueueLoad::depth).sum();
    let in_flight: u64 = snapshot.queues.iter().map(|queue| queue.in_flight).sum();
    let seen = [queued, in_flight, snapshot.foreign_in_flight, snapshot.held].into_iter().fold(0, u64::saturating_add);
    Load { queued, in_flight, unseen: census.outstanding.saturating_sub(seen) }
}

/// The load by bands, and the workers.
fn measure(ctx: &Context, pool: &Handle, snapshot: &Snapshot, view: &View, census: &Census) {
    let (labels, metrics) = (pool.labels(), &ctx.metrics);
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let depths = snapshot.queues.iter().flat_map(|queue| {
        queue.bands.iter().map(|(step, depth)| (queue.queue.to_string(), u32::from(*step), gauge(*depth)))
    });
    metrics.set_bands(&labels, depths);
    match census.oldest {
        Some(at) => {
            metrics.oldest_queued.get_or_create(&labels).set(at.as_second());
        }
        None => {
            metrics.oldest_queued.remove(&labels);
        }
    }
    if !view.unlisted {
        metrics.replicas_ready.get_or_create(&labels).set(i64::from(view.ready));
        metrics.workers_busy.get_or_create(&labels).set(gauge(census.busy as u64));
    }
}

/// What there is of the pool's workers, scaled to the load.
async fn look(ctx: &Context, pool: &Handle, load: Load, census: &Census, scaler: &mut Scaler) -> View {
    let hard_limit = census.hard_limit;
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    ctx.metrics.queue_depth.get_or_create(&pool.labels()).set(gauge(load.queued));
    ctx.metrics.in_flight.get_or_create(&pool.labels()).set(gauge(load.in_flight));
    let deployment = pool.deployment();
    let known = deployment.as_ref().and_then(|key| ctx.workers.read(|pods| pods.deployment(key).cloned()));
    let unlisted = deployment.as_ref().is_some_and(|key| !ctx.workers.read(|pods| pods.has_listed(&key.namespace)));
    let mut view = View { deployment, known, unlisted, hard_limit, ..View::default() };
    let (Some(fleet), Some(known)) = (&pool.fleet, &view.known) else { return view };
    // One worker, so that it can be asked whether it is set up as it should be by now.
    let wanted = Load { queued: load.queued.max(u64::from(census.wants_other_worker)), ..load };
    let scaling = scaler.rescale(ctx, pool, known, wanted, hard_limit).await;
    ctx.metrics.replicas_desired.get_or_create(&pool.labels()).set(i64::from(scaling.desired));
    let ready: Vec<_> =
        ctx.workers.read(|pods| pods.workers_of(fleet)).into_iter().filter(|pod| pod.is_ready).collect();
    let staying = ready.iter().filter(|pod| pod.leaving_since.is_none()).count();
    view.ready = u32::try_from(ready.len()).unwrap_or(u32::MAX);
    view.slots = staying as u64 * u64::try_from(pool.spec.concurrency).unwrap_or(1);
    view.scaling = Some(scaling);
    view
}

/// The Redis that has the results, where that is another database than the broker's.
#[derive(Default)]
struct ResultServer {
    asked_at: Option<Instant>,
    eviction: Option<Eviction>,
}

impl ResultServer {
    /// Whether it drops keys when it is full, as it said within the last minute.
    async fn eviction(&mut self, pool: &Handle, store: &Store) -> Option<Eviction> {
        if self.asked_at.is_none_or(|at| at.elapsed() > ASK_RESULTS_EVERY) {
            self.asked_at = Some(Instant::now());
            match store.results_eviction().await {
                Ok(eviction) => self.eviction = eviction,
                Err(error) => {
                    tracing::warn!(pool = %pool.key, %error, "whether results are evicted is not known; asking in a minute");
                }
            }
        }
        self.eviction.clone()
    }
}

/// Whether workers start, watched over time.
struct Starting {
    waiting_since: Option<Timestamp>,
    asked_at: Option<Instant>,
    lasting: start::Lasting,
}

impl Starting {
    fn of(pool: &Handle) -> Self {
        let said = pool.blocked();
        let waiting_since = said.as_ref().map(|_| Timestamp::UNIX_EPOCH);
        Self { waiting_since, asked_at: None, lasting: start::Lasting::since_before(said) }
    }

    /// What keeps workers from starting, once that has lasted. The pool's jobs are told when it keeps all of them.
    async fn note(&mut self, ctx: &Context, pool: &Handle, store: &Store, load: Load, view: &View) -> Option<Blocked> {
        if view.unlisted {
            return None;
        }
        let now = clock::now();
        let waits = load.queued > 0 && load.in_flight == 0;
        self.waiting_since = self.waiting_since.or(Some(now)).filter(|_| waits);
        let found = self.found(ctx, pool, load, view, now);
        let unheard = |kind| matches!(kind, BlockedKind::NoWorkerAnswers | BlockedKind::DeploymentNotFound);
        // A worker without heartbeats says nothing until it is asked.
        if found.as_ref().is_some_and(|it| unheard(it.kind)) && self.asked_at.is_none_or(|at| at.elapsed() > ASK_EVERY)
        {
            self.asked_at = Some(Instant::now());
            if store.present().await.is_ok_and(|nodes| !nodes.is_empty()) {
                pool.hears_of_worker(now);
            }
        }
        let lasting = self.lasting.note(found.as_ref(), now);
        if pool.set_blocked(lasting.filter(|_| view.ready == 0)) {
            ctx.look_at_jobs(&pool.key);
        }
        found.filter(|_| lasting.is_some())
    }

    fn found(&self, ctx: &Context, pool: &Handle, load: Load, view: &View, now: Timestamp) -> Option<Blocked> {
        let pods = pool.fleet.as_ref().map(|fleet| ctx.workers.read(|pods| pods.in_trouble(fleet))).unwrap_or_default();
        let known = view.known.as_ref().map(|known| start::Deployment {
            replicas: known.replicas,
            ready: view.ready,
            contested_by: known.owner.as_deref(),
            failure: known.failure.as_deref(),
            stuck: known.stuck.as_deref(),
            pods: &pods,
        });
        let workers = start::Workers {
            deployment: view.deployment.as_ref().map(|key| (&*key.name, known)),
            max_replicas: u32::try_from(pool.spec.max_replicas).unwrap_or(0),
            queued: load.queued,
            waiting_since: self.waiting_since,
            heard_at: pool.worker_heard_at(),
        };
        start::blocked(&workers, now)
    }
}
