//! The Redis that the Secret of a pool named before: what waits there is brought along, what runs there is followed.
//!
//! Workers keep the Redis that they were started with until they are replaced, so for a while both are in use. A message
//! that waits on the former one is withdrawn there, by the same script as for a cancel, and its marker goes to the new one:
//! from there on it is like any other withdrawn message and is published again. What a worker has is left to it. Its
//! result is copied to the new Redis, where it is read like any other.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::time::Instant;

use crate::core::decide::HARD_LIMIT_MARGIN;
use crate::core::id::ObjectKey;
use crate::core::index::PoolJobs;
use crate::core::policy::Policy;
use crate::operator::context::Context;
use crate::operator::state::former::Former;
use crate::operator::state::jobs::Entry;
use crate::operator::state::pool::Handle;
use crate::store::{Error, Marker, MarkerId, MarkerState, Store, Wanted, Withdrawn};

/// How often the former Redis is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// Messages that are brought along side by side.
const AT_ONCE: usize = 16;
/// In which of these looks its queues are gone through.
const THOROUGH: u32 = 6;
/// How long a former Redis may be unreachable before it is given up.
const PATIENCE: Duration = Duration::from_mins(1);

/// Leaves a Redis for another one: what waits is brought along before anything is read of the new one.
pub async fn leave(ctx: &Context, pool: &Handle, left: Store, store: &Store) {
    match left.is_same_as(store).await {
        Ok(true) => return,
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(pool = %pool.key, %error, "the former Redis does not answer; what waited there is looked for again");
            return;
        }
    }
    let hard = {
        let table = ctx.jobs.lock();
        let longest = table.figures(&pool.key).and_then(PoolJobs::hard_limit).unwrap_or_default();
        longest.max(Policy::resolve(None, &pool.facts.defaults).hard)
    };
    let until = Instant::now() + hard.saturating_add(HARD_LIMIT_MARGIN);
    tracing::info!(pool = %pool.key, from = left.address(), to = store.address(), "the pool moves to another Redis");
    let former = Former { store: left, until };
    match bring(ctx, pool, &former.store, store, true).await {
        Ok(brought) => tracing::info!(pool = %pool.key, brought, "waiting messages were taken off the former Redis"),
        Err(error) => {
            tracing::warn!(pool = %pool.key, %error, "taking messages off the former Redis failed; retrying in 5 s");
        }
    }
    pool.set_former(Some(former));
}

/// Follows what runs on the former Redis, for ever.
pub async fn run(ctx: &Context, pool: &Handle, store: &Store) {
    let mut answered_at = Instant::now();
    for pass in 1_u32.. {
        let Some(former) = pool.former() else { return std::future::pending().await };
        match Box::pin(bring(ctx, pool, &former.store, store, pass % THOROUGH == 0)).await {
            Ok(_) => answered_at = Instant::now(),
            Err(error) => tracing::warn!(pool = %pool.key, %error, "reading the former Redis failed; retrying in 5 s"),
        }
        if Instant::now() >= former.until || answered_at.elapsed() >= PATIENCE {
            tracing::info!(pool = %pool.key, "the former Redis is not looked at any more");
            pool.set_former(None);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Brings along what waits and what has ended; looks through whole queues for messages of unknown bytes where that is
/// asked for. Returns of how many messages nothing is left there.
async fn bring(ctx: &Context, pool: &Handle, from: &Store, to: &Store, thorough: bool) -> Result<usize, Error> {
    let begun: HashMap<MarkerId, ObjectKey> = {
        let table = ctx.jobs.lock();
        let is_begun = |entry: &&Entry| entry.job.status.attempt.is_some() || entry.evidence.is_published();
        let marker = |entry: &Entry| {
            let key = entry.job.key.clone();
            (MarkerId::new(key.namespace.clone(), entry.job.attempt_in_hand().task), key)
        };
        table.of_pool(&pool.key).filter(is_begun).map(marker).collect()
    };
    let ids: Vec<MarkerId> = begun.keys().cloned().collect();
    let mut there: HashMap<MarkerId, Marker> = HashMap::new();
    let mut over: HashSet<MarkerId> = HashSet::new();
    for chunk in ids.chunks(500) {
        let (theirs, ours) = (from.markers(chunk).await?, to.markers(chunk).await?);
        for ((id, theirs), ours) in chunk.iter().zip(theirs).zip(ours) {
            match (theirs, ours) {
                (Some(_), Some(_)) => {
                    over.insert(id.clone()); // published again on the new Redis
                }
                (Some(marker), None) => {
                    there.insert(id.clone(), marker);
                }
                (None, _) => {}
            }
        }
    }
    let moves = there.iter().map(|(id, marker)| bring_one(ctx, from, to, id, marker));
    let done: Vec<_> = stream::iter(moves.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect().await;
    over.extend(done.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten());
    there.retain(|id, _| !over.contains(id));
    if thorough && !there.is_empty() {
        let wanted: HashMap<MarkerId, Wanted> = there.keys().map(|id| (id.clone(), Wanted::Gone)).collect();
        for swept in from.sweep(ctx.epoch(), &wanted, &pool.queues()).await?.into_iter().filter(|it| !it.still_held) {
            let Some(id) = there.keys().find(|id| id.task == swept.task).cloned() else { continue };
            to.carry_marker(ctx.epoch(), from, &id).await?;
            there.remove(&id);
            over.insert(id);
        }
    }
    from.forget(&over.iter().cloned().collect::<Vec<_>>()).await?;
    // kombu is not to put back there what runs.
    let tags: Vec<String> = there.iter().map(|(id, marker)| id.task.delivery_tag(marker.generation)).collect();
    if !tags.is_empty() {
        from.renew(&tags).await?;
    }
    if !over.is_empty() {
        let mut table = ctx.jobs.lock();
        for key in over.iter().filter_map(|id| begun.get(id)) {
            table.note(key, |_, evidence| evidence.unread());
        }
        drop(table);
        pool.levels.notify_one();
    }
    Ok(over.len())
}

/// The message of one attempt: withdrawn there and known here as withdrawn, or ended there and its result here. `None`
/// when a worker has it.
async fn bring_one(
    ctx: &Context,
    from: &Store,
    to: &Store,
    id: &MarkerId,
    marker: &Marker,
) -> Result<Option<MarkerId>, Error> {
    let is_withdrawn = match marker.state {
        MarkerState::Withdrawn => true,
        MarkerState::Queued => from.withdraw(ctx.epoch(), id, marker.generation).await? == Withdrawn::Removed,
    };
    let is_over = is_withdrawn || to.carry_result(from, id.task).await?;
    if is_over {
        // After the result: without a marker it would be one of a Redis that was emptied while its task runs.
        to.carry_marker(ctx.epoch(), from, id).await?;
    }
    Ok(is_over.then(|| id.clone()))
}
