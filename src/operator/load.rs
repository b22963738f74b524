//! The load of a pool: depth and flight to replicas, in the pass that enqueues and every two seconds.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use serde_json::json;

use super::context::Context;
use super::pool::{labels, problem_of};
use super::pools::Handle;
use super::report::Reporter;
use super::workers::{DeploymentView, FIELD_MANAGER, mark_busy};
use crate::core::index::PoolJobs;
use crate::core::job::ObjectKey;
use crate::core::policy::Policy;
use crate::core::scale::{Bounds, Held, Load, Scaling, Window, Workers, scale};
use crate::core::stall::Stall;
use crate::core::status::PoolProblem;
use crate::runtime::clock;
use crate::runtime::metrics::{WriteOutcome, Written};
use crate::store::{Error, Incarnation, Snapshot, Store};

/// How often the load is looked at although nothing asks for it: other producers do not tell us.
const EVERY: Duration = Duration::from_secs(2);
/// Enqueues within this time are one look at the load.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Changes of Pods within this time are one look at the load.
const WORKERS_DEBOUNCE: Duration = Duration::from_millis(250);

/// Follows the load until Redis does not let us in any more; returns what is wrong.
pub async fn run(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store, reporter: &mut Reporter) -> PoolProblem {
    let mut window = Window::default();
    let mut incarnation: Option<Incarnation> = None;
    let mut recheck: Option<Timestamp> = None;
    let mut stall = Stall::default();
    let mut round_trips = store.round_trips();
    loop {
        let snapshot = match store.snapshot(&pool.queues()).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                if let Some(problem) = problem_of(&error) {
                    return problem;
                }
                tracing::warn!(pool = %pool.key, %error, "the load could not be read; trying again");
                tokio::time::sleep(EVERY).await;
                continue;
            }
        };
        if incarnation.as_ref().is_some_and(|before| *before != snapshot.incarnation) || snapshot.epoch.is_none() {
            if let Err(error) = renewed_redis(ctx, pool, store).await {
                tracing::warn!(pool = %pool.key, %error, "a Redis that is not what it was could not be prepared");
            } else {
                incarnation = None;
                pool.audit.notify_one();
                pool.strays.notify_one();
            }
        }
        incarnation.get_or_insert_with(|| snapshot.incarnation.clone());
        let census = Census::take(ctx, pool);
        let mut view = rescale(ctx, pool, &snapshot, census.hard_limit, &mut window).await;
        view.stalled_since = stall.note(everything(&snapshot), view.slots, pool.heard_of_work_at(), clock::now());
        ctx.metrics.workers_stalled.get_or_create(&labels(pool)).set(i64::from(view.stalled_since.is_some()));
        recheck = view.scaling.and_then(|scaling| scaling.recheck).or(recheck.filter(|at| *at > clock::now()));
        let now = store.round_trips();
        ctx.metrics.redis_round_trips.get_or_create(&labels(pool)).inc_by(now.saturating_sub(round_trips));
        round_trips = now;
        reporter.report(Some((&snapshot, &view, &census))).await;
        let pause =
            recheck.map_or(EVERY, |at| super::lease::age(clock::now(), at).clamp(Duration::from_millis(50), EVERY));
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

/// The workers of a pool, as its status shows them.
pub struct View {
    pub(super) deployment: Option<ObjectKey>,
    pub(super) known: Option<DeploymentView>,
    pub(super) ready: u32,
    /// How many tasks they can run at once.
    slots: u64,
    /// Since when they take nothing although they could.
    pub(super) stalled_since: Option<Timestamp>,
    pub(super) scaling: Option<Scaling>,
    /// Who else sets the replicas, by the API server's own words.
    pub(super) contested_by: Option<String>,
    pub(super) hard_limit: Duration,
}

/// What waits for the pool's workers, and all that they have, other producers' queues included.
fn everything(snapshot: &Snapshot) -> Load {
    let load = load(snapshot);
    Load { in_flight: load.in_flight + snapshot.foreign_in_flight, ..load }
}

/// What waits in the pool's queues, and what was taken from them.
fn load(snapshot: &Snapshot) -> Load {
    Load {
        queued: snapshot.queues.iter().map(crate::store::QueueLoad::depth).sum(),
        in_flight: snapshot.queues.iter().map(|queue| queue.in_flight).sum(),
    }
}

async fn rescale(ctx: &Context, pool: &Handle, snapshot: &Snapshot, hard_limit: Duration, window: &mut Window) -> View {
    let load = load(snapshot);
    let foreign = snapshot.foreign_in_flight > 0 || load.in_flight > ctx.jobs.lock().len() as u64;
    pool.foreign_in_flight.store(foreign, Ordering::Relaxed);
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    ctx.metrics.queue_depth.get_or_create(&labels(pool)).set(gauge(load.queued));
    ctx.metrics.in_flight.get_or_create(&labels(pool)).set(gauge(load.in_flight));
    let deployment =
        pool.spec.deployment_ref.as_ref().map(|named| ObjectKey::new(pool.key.namespace.clone(), named.name.as_str()));
    let known = deployment.as_ref().and_then(|key| ctx.workers.deployment(key));
    let (Some(deployment), Some(known)) = (deployment.clone(), known) else {
        return View {
            deployment,
            known: None,
            ready: 0,
            slots: 0,
            stalled_since: None,
            scaling: None,
            contested_by: None,
            hard_limit,
        };
    };
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    let bounds = Bounds {
        min: count(pool.spec.min_replicas),
        max: count(pool.spec.max_replicas),
        target_per_worker: count(pool.spec.target_per_worker()),
        scale_down_delay: pool.spec.scale_down_delay.to_std(),
    };
    let workers = Workers {
        replicas: known.replicas,
        grace_period: known.grace_period,
        rolling_out: known.rolling_out,
        contested: false,
    };
    let mut scaling = scale(load, bounds, workers, hard_limit, window, clock::now());
    ctx.metrics.replicas_desired.get_or_create(&labels(pool)).set(i64::from(scaling.desired));
    let mut contested_by = None;
    if let Some(replicas) = scaling.write.filter(|_| ctx.leadership.holds()) {
        if (1..known.replicas).contains(&replicas) {
            mark_busy(ctx, &deployment, &busy_pods(ctx, pool)).await;
        }
        match write_replicas(ctx, &deployment, &known, replicas).await {
            Ok(()) => tracing::info!(pool = %pool.key, from = known.replicas, to = replicas, "workers scaled"),
            Err(kube::Error::Api(error)) if error.code == 409 => {
                scaling.held = Some(Held::Contested);
                contested_by = Some(error.message.clone());
            }
            Err(error) => tracing::warn!(pool = %pool.key, %error, "workers could not be scaled; trying again"),
        }
    }
    let ready: Vec<_> = ctx.workers.pods_of(&deployment).into_iter().filter(|pod| pod.is_ready).collect();
    let staying = ready.iter().filter(|pod| pod.leaving_since.is_none()).count();
    View {
        deployment: Some(deployment),
        known: Some(known),
        ready: u32::try_from(ready.len()).unwrap_or(u32::MAX),
        slots: staying as u64 * u64::try_from(pool.spec.concurrency).unwrap_or(1),
        stalled_since: None,
        scaling: Some(scaling),
        contested_by,
        hard_limit,
    }
}

/// The Pods that hold a task of this pool.
fn busy_pods(ctx: &Context, pool: &Handle) -> HashSet<Arc<str>> {
    ctx.jobs.lock().figures(&pool.key).into_iter().flat_map(PoolJobs::busy_pods).cloned().collect()
}

/// What the pool's jobs add up to, counted along with every change.
pub struct Census {
    /// The longest hard limit.
    pub(super) hard_limit: Duration,
    /// Workers that have a task.
    pub(super) busy: usize,
    /// When the job was published that waits longest.
    pub(super) oldest: Option<Timestamp>,
}

impl Census {
    fn take(ctx: &Context, pool: &Handle) -> Self {
        let declared = Policy::resolve(None, &pool.facts.defaults).hard;
        let table = ctx.jobs.lock();
        let Some(figures) = table.figures(&pool.key) else {
            return Self { hard_limit: declared, busy: 0, oldest: None };
        };
        let hard_limit = declared.max(figures.hard_limit().unwrap_or_default());
        Self { hard_limit, busy: figures.busy_workers(), oldest: figures.oldest() }
    }
}

/// Applies the one field that we own. Another owner is a conflict, and then it is theirs.
async fn write_replicas(
    ctx: &Context,
    deployment: &ObjectKey,
    known: &DeploymentView,
    replicas: u32,
) -> kube::Result<()> {
    let own = PatchParams::apply(FIELD_MANAGER);
    let mut written = apply_scale(ctx, deployment, replicas, &own).await;
    let is_nobodys = |conflict: &Status| conflict.code == 409 && known.is_default || is_with_nobody(conflict);
    if matches!(&written, Err(kube::Error::Api(conflict)) if is_nobodys(conflict)) {
        written = apply_scale(ctx, deployment, replicas, &own.force()).await;
    }
    let outcome = match &written {
        Ok(()) => WriteOutcome::Done,
        Err(kube::Error::Api(error)) if error.code == 409 => WriteOutcome::Conflict,
        Err(_) => WriteOutcome::Failed,
    };
    ctx.metrics.wrote(Written::Scale, outcome);
    written
}

async fn apply_scale(ctx: &Context, deployment: &ObjectKey, replicas: u32, manager: &PatchParams) -> kube::Result<()> {
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &deployment.namespace);
    let scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": { "name": &*deployment.name, "namespace": &*deployment.namespace },
        "spec": { "replicas": replicas },
    });
    api.patch_scale(&deployment.name, manager, &Patch::Apply(&scale)).await.map(|_| ())
}

/// Whether a conflict is about replicas that nobody set: the API server's default of a Deployment without them. Where
/// a scale has no owner at all, the API server calls the owner so.
fn is_with_nobody(conflict: &Status) -> bool {
    let causes = conflict.details.iter().flat_map(|details| &details.causes);
    let mut owners = causes.map(|cause| cause.message.contains("\"before-first-apply\"")).peekable();
    conflict.code == 409 && owners.peek().is_some() && owners.all(|nobody| nobody)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(owners: &[&str]) -> Status {
        let cause = |owner: &&str| json!({ "reason": "FieldManagerConflict", "message": format!("conflict with \"{owner}\" using apps/v1") });
        let causes: Vec<_> = owners.iter().map(cause).collect();
        let status = json!({ "code": 409, "reason": "Conflict", "details": { "causes": causes } });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn replicas_that_belong_to_the_time_before_the_first_apply_are_nobodys() {
        assert!(is_with_nobody(&conflict(&["before-first-apply"])));
        assert!(!is_with_nobody(&conflict(&["before-first-apply", "argocd"])));
        assert!(!is_with_nobody(&conflict(&["argocd"])));
        assert!(!is_with_nobody(&conflict(&[])), "a conflict of versions names no owner");
    }
}
