//! Attempts on Redis that no unfinished job stands behind: what a crash between the status and `Forget` leaves, and
//! what was deleted while no operator ran.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};

use crate::api::{self, CrewJob};
use crate::core::id::TaskId;
use crate::operator::context::Context;
use crate::operator::job::abandon::take_up;
use crate::operator::state::pool::Handle;
use crate::operator::state::servers::{Owner, Server};
use crate::store::{self, Marker, MarkerId, Queue, Store, Wanted};

/// How often they are looked for, besides after every connect and whenever Redis is not what it was.
const EVERY: Duration = Duration::from_mins(10);
/// How soon after a failure.
const AGAIN: Duration = Duration::from_secs(30);
/// How soon when there were more than one look takes up.
const GOING_ON: Duration = Duration::from_secs(10);
/// Pools on one Redis that ask within this time share one look through its keys.
const TOGETHER: Duration = Duration::from_secs(2);
/// Attempts that are taken off at once, and the time between two of these batches: deleting a namespace, or going back
/// to an older copy of the cluster, may leave thousands.
const BATCH: usize = 200;
const BREATHER: Duration = Duration::from_secs(1);

/// Whether a marker's job needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is the attempt in hand of an unfinished job.
    InUse,
    /// The job has ended, or has another attempt in hand.
    Over,
    /// There is no such job any more.
    Gone,
}

/// Looks for them, for ever.
pub async fn run(ctx: &Context, pool: &Handle, store: &Store) {
    ctx.jobs.listed.cancelled().await; // before that every marker looks stray
    let server = ctx.servers.of(&store.address());
    let mut asked_at = Instant::now();
    loop {
        tokio::time::sleep(TOGETHER).await;
        let pause = match Box::pin(sweep(ctx, pool, store, &server, asked_at)).await {
            Ok(0) => EVERY,
            Ok(_) => GOING_ON,
            Err(error) => {
                tracing::warn!(pool = %pool.key, %error, "looking for attempts without a job failed; trying again");
                AGAIN
            }
        };
        let slept_at = Instant::now();
        tokio::select! {
            // What another pool on this Redis has found meanwhile will do.
            () = tokio::time::sleep(pause) => asked_at = slept_at + pause / 2,
            () = pool.strays.notified() => asked_at = Instant::now(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading Redis: {0}")]
    Store(#[from] store::Error),
    #[error("reading the API server: {0}")]
    Kube(#[from] kube::Error),
}

/// Looks once; how many there are that it did not come to.
async fn sweep(
    ctx: &Context,
    pool: &Handle,
    store: &Store,
    server: &Server,
    asked_at: Instant,
) -> Result<usize, Error> {
    let is_stray = |id: &MarkerId| !ctx.jobs.lock().is_in_hand(&id.namespace, id.task);
    let found = server
        .suspects(asked_at, async |round| {
            let meet = |id: MarkerId| {
                if is_stray(&id) {
                    round.offer(Some(id.namespace.clone()).filter(|it| ctx.pools.is_any_in(it)), id);
                }
            };
            store.scan_markers(meet).await
        })
        .await?;
    // Those of other namespaces are for the pools there, where there are any.
    let owners: [Owner; 2] = [Some(pool.key.namespace.clone()), None];
    let ours = || owners.iter().filter_map(|owner| found.get(owner));
    let put_off = ours().map(|chosen| chosen.put_off).sum();
    ctx.metrics.strays_put_off.get_or_create(&pool.labels()).set(i64::try_from(put_off).unwrap_or(i64::MAX));
    if put_off > 0 {
        tracing::warn!(
            pool = %pool.key, attempts = put_off,
            "Redis names more attempts without a job than are looked up at once; looking up the others in 10 s"
        );
    }
    let suspects: Vec<MarkerId> = ours().flat_map(|chosen| &chosen.items).filter(|id| is_stray(id)).cloned().collect();
    let mut taken = 0;
    for batch in suspects.chunks(BATCH) {
        // A resource that is not installed answers 404 for every job too.
        if !is_established(ctx).await? {
            return Ok(0);
        }
        let mut strays = Vec::new();
        for (id, marker) in batch.iter().zip(store.markers(batch).await?) {
            let Some(marker) = marker.filter(|marker| is_worth_a_look(ctx, pool, id, marker)) else { continue };
            if look(ctx, id, &marker).await? != Verdict::InUse {
                strays.push((id, marker));
            }
        }
        taken += strays.len();
        take_off(ctx, pool, store, &strays).await?;
        ctx.metrics.strays.get_or_create(&pool.labels()).inc_by(strays.len() as u64);
        if !strays.is_empty() && batch.len() == BATCH {
            tokio::time::sleep(BREATHER).await; // so that jobs that exist have their turn
        }
    }
    if taken > 0 {
        tracing::warn!(pool = %pool.key, attempts = taken, "attempts without a job are taken off Redis");
    }
    Ok(put_off)
}

/// Whether the API server is asked for a marker's job: not for what no operator has written, nor for what another pool
/// of the namespace looks after.
fn is_worth_a_look(ctx: &Context, pool: &Handle, id: &MarkerId, marker: &Marker) -> bool {
    let is_its_task = TaskId::derive(marker.uid, marker.attempt) == id.task;
    is_its_task && (id.namespace != pool.key.namespace || !ctx.pools.is_left_to_another(&pool.key, &marker.queue))
}

/// Takes attempts off Redis that no job stands behind: no worker shall begin them, and one that runs them is told to
/// stop.
async fn take_off(
    ctx: &Context,
    pool: &Handle,
    store: &Store,
    strays: &[(&MarkerId, Marker)],
) -> Result<(), store::Error> {
    let (mut elsewhere, mut queues) = (HashMap::new(), pool.queues());
    for (id, marker) in strays {
        if id.namespace == pool.key.namespace {
            if !take_up(ctx, &pool.key, id, marker) {
                tracing::warn!(pool = %pool.key, task.id = %id.task, "a marker that does not name its task is left alone");
            }
        } else if !ctx.pools.is_any_in(&id.namespace) {
            // A namespace that was deleted with its pools and jobs, on a Redis that it shared.
            elsewhere.insert((*id).clone(), Wanted::Gone);
            queues.push(Queue::new(&*marker.queue, &*marker.queue));
        }
    }
    if elsewhere.is_empty() {
        return Ok(());
    }
    let tasks: Vec<TaskId> = elsewhere.keys().map(|id| id.task).collect();
    queues.sort_by(|one, other| one.name.cmp(&other.name));
    queues.dedup_by(|one, other| one.name == other.name);
    store.sweep(ctx.epoch(), &elsewhere, &queues).await?;
    store.revoke(&tasks, Some(store::TERMINATE), None).await?;
    store.forget(&elsewhere.into_keys().collect::<Vec<_>>()).await
}

/// A resource that is not installed answers 404 for every job too.
async fn is_established(ctx: &Context) -> kube::Result<bool> {
    let crds: Api<CustomResourceDefinition> = Api::all(ctx.client.clone());
    for crd in api::crds() {
        if !crds.get_opt(&crd.name_any()).await?.is_some_and(|crd| api::is_established(&crd)) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn look(ctx: &Context, id: &MarkerId, marker: &Marker) -> kube::Result<Verdict> {
    let jobs: Api<CrewJob> = Api::namespaced(ctx.client.clone(), &id.namespace);
    let live = jobs.get_opt(&marker.name).await?;
    let Some(job) = live.and_then(|live| live.to_job().ok()).filter(|job| job.uid == marker.uid) else {
        return Ok(Verdict::Gone);
    };
    let is_in_hand = !job.status.phase.is_terminal() && job.attempt_in_hand().task == id.task;
    Ok(if is_in_hand { Verdict::InUse } else { Verdict::Over })
}
