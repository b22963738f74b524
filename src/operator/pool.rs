//! Serving one pool: connect, listen, read levels, scale, and say in the pool's status how it is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, ResourceExt};

use super::context::Context;
use super::pools::{Handle, look_at_jobs};
use super::report::{self, Reporter};
use super::{levels, listen, load, settings, strays};
use crate::api::{CrewWorkerPoolStatus, REDIS_SECRET_LABEL};
use crate::core::claims::fence::Fence;
use crate::core::evidence::Evidence;
use crate::core::job::TaskId;
use crate::core::status::{PoolProblem, PoolProblemKind};
use crate::runtime::metrics::PoolLabels;
use crate::store::{ConnectError, Error, Keys, MarkerId, Secret, Settings, Store, Swept, Wanted};

/// Shortest and longest wait between two passes through the queues; a pass takes a fifth of the time at most.
const SWEEPS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Shortest and longest wait between two tries to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// Serves a pool until it is stopped.
pub async fn serve(ctx: Arc<Context>, pool: Arc<Handle>, status: CrewWorkerPoolStatus) {
    let (mut reporter, wanted) = Reporter::new(pool.clone(), status.clone());
    let writing = report::write(&ctx, &pool, status, wanted);
    let stop = pool.stop.clone();
    let lost = ctx.leadership.lost.clone();
    let serving = async {
        let mut wait = RECONNECT.0;
        loop {
            match connect(&ctx, &pool).await {
                Ok(store) => {
                    wait = RECONNECT.0;
                    connected(&ctx, &pool, &store);
                    let problem = Box::pin(follow(&ctx, &pool, &store, &mut reporter)).await;
                    trouble(&ctx, &pool, problem);
                }
                Err(problem) => trouble(&ctx, &pool, problem),
            }
            reporter.report(None);
            if ctx.namespaces.contains(&pool.key.namespace) {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RECONNECT.1);
            } else {
                ctx.namespaces.changed(&pool.key.namespace, true).await;
            }
        }
    };
    tokio::select! { () = serving => {}, () = writing => {}, () = stop.cancelled() => {}, () = lost.cancelled() => {} }
}

/// Everything that goes on while Redis lets us in; ends with what is wrong when it does not any more.
async fn follow(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store, reporter: &mut Reporter) -> PoolProblem {
    tokio::select! {
        problem = load::run(ctx, pool, store, reporter) => problem,
        () = listen::run(ctx, pool, store) => unreachable_problem("the subscription ended"),
        () = levels::run(ctx, pool, store) => unreachable_problem("reading levels ended"),
        () = strays::run(ctx, pool, store) => unreachable_problem("looking for strays ended"),
        () = settings::run(ctx, pool, store) => unreachable_problem("asking for settings ended"),
        () = sweep(ctx, pool, store) => unreachable_problem("looking for copies ended"),
        () = forget(pool, store) => unreachable_problem("forgetting markers ended"),
        () = ctx.namespaces.changed(&pool.key.namespace, false) => not_granted(ctx, &pool.key.namespace),
    }
}

/// Deletes markers of attempts that are over, many at a time.
async fn forget(pool: &Handle, store: &Store) {
    loop {
        pool.over.notified().await;
        tokio::time::sleep(Duration::from_millis(20)).await; // so that a burst of ends is one round trip
        let markers = pool.take_over();
        if let Err(error) = store.forget(&markers).await {
            tracing::warn!(pool = %pool.key, %error, "markers of finished attempts could not be deleted");
        }
    }
}

/// Takes messages off the queues, or moves them, that cannot be named by their bytes: in one pass for as many as there are.
async fn sweep(ctx: &Context, pool: &Handle, store: &Store) {
    let mut pause = SWEEPS.0;
    loop {
        pool.sweep.notified().await;
        tokio::time::sleep(pause).await; // a pass goes through whole queues
        let (errands, began_at) = (pool.take_errands(), Instant::now());
        let wanted = &errands.wanted;
        match store.sweep(ctx.epoch(), wanted, &pool.queues()).await {
            Ok(swept) => {
                tracing::debug!(pool = %pool.key, wanted = wanted.len(), swept = swept.len(), "queues looked through");
                if !withdrawn(ctx, &swept, wanted) {
                    pool.levels.notify_one();
                }
                pool.forget(errands.over);
            }
            Err(error) => {
                tracing::warn!(pool = %pool.key, %error, "looking through the queues failed; trying again");
                pool.try_again(errands);
            }
        }
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

fn connected(ctx: &Context, pool: &Handle, store: &Store) {
    // What happened while Redis was not heard is not known: everything is read again before anything is decided.
    ctx.jobs.lock().note_all(&pool.key, |_| true, Evidence::unread_if_published);
    if pool.set(None, Some(store.clone())) {
        tracing::info!(pool = %pool.key, "pool connected");
        look_at_jobs(ctx, &pool.key);
    }
    ctx.metrics.broker_up.get_or_create(&labels(pool)).set(1);
    pool.audit.notify_one();
}

fn trouble(ctx: &Context, pool: &Handle, problem: PoolProblem) {
    ctx.metrics.broker_up.get_or_create(&labels(pool)).set(0);
    let (reason, detail) = (problem.kind.reason(), problem.detail.clone());
    if pool.set(Some(problem), None) {
        tracing::warn!(pool = %pool.key, reason, %detail, "pool cannot be used");
        look_at_jobs(ctx, &pool.key);
    }
}

/// Labels of a pool's metrics.
pub fn labels(pool: &Handle) -> PoolLabels {
    PoolLabels { namespace: pool.key.namespace.to_string(), pool: pool.key.name.to_string() }
}

fn problem(kind: PoolProblemKind, detail: impl Into<Arc<str>>) -> PoolProblem {
    PoolProblem { kind, detail: detail.into() }
}

fn unreachable_problem(detail: &str) -> PoolProblem {
    problem(PoolProblemKind::BrokerUnreachable, format!("Redis is not reachable: {detail}"))
}

/// What a failed act on Redis says about the pool; `None` when it says nothing.
pub fn problem_of(error: &Error) -> Option<PoolProblem> {
    match error {
        Error::Unavailable { .. } => Some(problem(PoolProblemKind::BrokerUnreachable, error.to_string())),
        Error::AuthenticationFailed { .. } => Some(problem(
            PoolProblemKind::BrokerAuthenticationFailed,
            "Redis refused the user name or the password; mend REDIS_URL in the pool's Secret",
        )),
        Error::Refused { .. } => Some(problem(PoolProblemKind::BrokerRefused, error.to_string())),
        Error::Fenced { .. } | Error::Unexpected { .. } => None,
    }
}

/// The fence keeps us out. Either another operator leads by now, or no operator wrote what it says: workers can write it,
/// too. Then this pool waits until it is cleared, and the others do not notice.
pub async fn outranked(ctx: &Context, store: &Store) -> PoolProblem {
    let says = match store.snapshot(&[]).await.map(|snapshot| snapshot.fence(ctx.epoch())) {
        Ok(Fence::Closed(says)) => says,
        Ok(Fence::Missing | Fence::Open) => return problem(PoolProblemKind::Connecting, "the fence was cleared"),
        Err(error) => return problem_of(&error).unwrap_or_else(|| unreachable_problem(&error.to_string())),
    };
    match ctx.claim.is_held().await {
        Ok(true) => problem(
            PoolProblemKind::FenceNotOurs,
            format!(
                "the fence on Redis ({says}) is not from this operator; unless another operator works with it, clear it: {}",
                store.clearing_the_fence()
            ),
        ),
        Ok(false) => {
            ctx.leadership.lost.cancel();
            problem(PoolProblemKind::Connecting, "another operator leads")
        }
        Err(error) => problem(PoolProblemKind::Connecting, format!("reading the Lease failed: {error}; trying again")),
    }
}

async fn connect(ctx: &Context, pool: &Handle) -> Result<Store, PoolProblem> {
    let settings = settings(ctx, pool).await?;
    let store = Store::connect(&settings).await.map_err(|error| match &error {
        ConnectError::Unreachable { .. } => problem(PoolProblemKind::BrokerUnreachable, error.to_string()),
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
        store.declare(&pool.queues()).await
    };
    match prepared.await {
        Ok(()) => Ok(store),
        Err(Error::Fenced { .. }) => Err(outranked(ctx, &store).await),
        Err(error) => Err(problem_of(&error).unwrap_or_else(|| unreachable_problem(&error.to_string()))),
    }
}

fn not_granted(ctx: &Context, namespace: &str) -> PoolProblem {
    problem(
        PoolProblemKind::NamespaceNotGranted,
        format!("the operator does not look into namespace {namespace:?}; {}", ctx.namespaces.how_to_add(namespace)),
    )
}

/// Reads the pool's Secret. It must carry the label: else a pool's author could send any Secret anywhere.
async fn settings(ctx: &Context, pool: &Handle) -> Result<Settings, PoolProblem> {
    let (namespace, name) = (&pool.key.namespace, &pool.spec.redis.secret_name);
    if !ctx.namespaces.contains(namespace) {
        return Err(not_granted(ctx, namespace));
    }
    let api: Api<KubeSecret> = Api::namespaced(ctx.client.clone(), namespace);
    let secret = match api.get_opt(name).await {
        Ok(Some(secret)) => secret,
        Ok(None) => {
            return Err(problem(
                PoolProblemKind::SecretNotFound,
                format!(
                    "Secret {name:?} does not exist; create it with the key REDIS_URL and the label {REDIS_SECRET_LABEL}=true"
                ),
            ));
        }
        Err(kube::Error::Api(error)) if error.code == 403 => {
            return Err(problem(
                PoolProblemKind::NamespaceNotGranted,
                format!(
                    "the operator may not read Secret {name:?}; bind its role in namespace {namespace:?}: add the namespace \
                     to the chart's value poolNamespaces or, where a label selects it, create the RoleBinding of the \
                     chart's README; where rbac.secretNames is set, add the Secret to it"
                ),
            ));
        }
        Err(error) => {
            return Err(problem(PoolProblemKind::Connecting, format!("Secret {name:?} cannot be read: {error}")));
        }
    };
    if secret.labels().get(REDIS_SECRET_LABEL).map(String::as_str) != Some("true") {
        return Err(problem(
            PoolProblemKind::SecretNotLabelled,
            format!(
                "Secret {name:?} lacks the label {REDIS_SECRET_LABEL}=true; set it with: kubectl label secret {name} -n {namespace} {REDIS_SECRET_LABEL}=true"
            ),
        ));
    }
    let value = |key: &str| -> Result<Option<String>, PoolProblem> {
        let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(key)) else { return Ok(None) };
        match String::from_utf8(bytes.0.clone()) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(_) => Err(problem(PoolProblemKind::SecretInvalid, format!("key {key} of Secret {name:?} is not text"))),
        }
    };
    let Some(url) = value("REDIS_URL")? else {
        return Err(problem(PoolProblemKind::SecretInvalid, format!("Secret {name:?} has no key REDIS_URL")));
    };
    let mut settings = Settings::new(Secret::new(url), ctx.cluster_uid.clone(), ctx.lease.clone());
    settings.access.result_url = value("RESULT_BACKEND_URL")?.map(Secret::new);
    settings.access.ca = value("REDIS_CA")?;
    settings.access.keys = keys(pool);
    Ok(settings)
}

fn keys(pool: &Handle) -> Keys {
    let celery = &pool.spec.celery;
    let mut keys = Keys::default();
    keys.separator.clone_from(&celery.separator);
    keys.priority_steps = celery.priority_steps.iter().filter_map(|step| u8::try_from(*step).ok()).collect();
    keys.global_prefix = celery.global_key_prefix.clone().unwrap_or_default();
    keys.result_prefix.clone_from(&keys.global_prefix);
    keys.unacked.clone_from(&celery.unacked_key);
    keys
}
