//! Reading the levels: results, markers, and where every message is. Hints are only a short cut to what this finds.
//!
//! This keeps the order of the readings (results, places, workers: see [`core::index::audit`](audit)) and when they take
//! place; what follows from them is decided there.

mod fetch;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::api::OnWorkerUnreachable;
use crate::core::backoff;
use crate::core::claims::clocks::Clocks;
use crate::core::id::{AttemptId, TaskId};
use crate::core::index::audit::{self, Findings, Outcome, Results, Tracked, Workers};
use crate::core::index::pods::Pods;
use crate::operator::context::Context;
use crate::operator::job::refused;
use crate::operator::state::pool::Handle;
use crate::runtime::backoff::Backoff;
use crate::runtime::clock;
use crate::store::{Audit, Error, Glance, Store};
use fetch::{ask_workers, copies, followers, locate, read_documents, read_markers};

/// Unread jobs whose messages are looked up one by one; of more, all messages are read.
const FEW: usize = 16;
/// Jobs of which findings are noted at once: what else needs the table waits meanwhile.
const NOTED_AT_ONCE: usize = 200;
/// How often all messages are read although nothing was put on the queues and nothing taken from them.
const AT_LEAST_EVERY: u32 = 10;

/// Reads levels when asked, and once in a while, for ever.
pub async fn run(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store) {
    // Before that each part of the list would ask for a reading of all messages.
    ctx.jobs.listed.cancelled().await;
    let phase = Phase::of(pool, ctx.audit_every);
    let mut next = phase.next();
    let mut last = LastAudit::default();
    let mut backoff = Backoff::new(backoff::AGAIN);
    loop {
        let scope = tokio::select! {
            () = pool.audit.notified() => Scope::Everything,
            () = tokio::time::sleep_until(next) => Scope::WhatMayHaveChanged,
            () = pool.levels.notified() => Scope::Unread,
        };
        match Box::pin(read(ctx, pool, store, scope, &mut last)).await {
            Ok(missed) => {
                backoff.reset();
                let again = |rounds| tokio::time::Instant::now() + audit::look_again_after(rounds, ctx.audit_every);
                let soon = missed.map(again);
                let due = if scope == Scope::Unread { next } else { phase.next() };
                next = soon.map_or(due, |soon| soon.min(due));
            }
            Err(error) => {
                let wait = backoff.pause();
                tracing::warn!(pool = %pool.key, %error, retry_in = ?wait, "levels could not be read");
                let unread = ctx.jobs.lock().unread_of(&pool.key).map(|entry| entry.job.key.clone()).collect();
                Box::pin(refused::tell_all(ctx, unread, &error)).await;
                // Whatever asks for them meanwhile.
                tokio::time::sleep(wait).await;
                next = tokio::time::Instant::now();
            }
        }
    }
}

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Of all jobs of the pool.
    Everything,
    /// The same, unless a glance at the queues tells that nothing can have changed.
    WhatMayHaveChanged,
    /// Of the unread jobs.
    Unread,
}

/// The pool's own place in the time between two audits: not all pools audit at the same moment.
#[derive(Clone, Copy)]
struct Phase {
    first: tokio::time::Instant,
    every: Duration,
}

impl Phase {
    fn of(pool: &Handle, every: Duration) -> Self {
        let spread = Uuid::new_v5(&Uuid::NAMESPACE_URL, pool.key.to_string().as_bytes()).as_u128() % 1000;
        let part = every.saturating_mul(u32::try_from(spread).unwrap_or(0)) / 1000;
        Self { first: tokio::time::Instant::now() + part, every }
    }

    /// The next turn from now on.
    fn next(self) -> tokio::time::Instant {
        let now = tokio::time::Instant::now();
        let Some(since) = now.checked_duration_since(self.first) else { return self.first };
        let turns = since.as_nanos() / self.every.as_nanos().max(1) + 1;
        self.first + self.every.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
    }
}

/// What the last reading of all messages saw of the queues, while no job but waiting ones was out and none was missed.
#[derive(Default)]
struct LastAudit {
    seen: Option<Seen>,
    spared: u32,
}

/// What must not have changed for an audit to be spared. The queues alone do not tell: a message that was published
/// since, and that a worker has popped and lost, leaves them as they were.
#[derive(PartialEq)]
struct Seen {
    glance: Glance,
    publications: u64,
}

/// Reads levels. Returns how often what was looked for in vain has been, at least.
async fn read(
    ctx: &Context,
    pool: &Handle,
    store: &Store,
    scope: Scope,
    last: &mut LastAudit,
) -> Result<Option<u32>, Error> {
    let began_at = clock::now();
    note_possible_expiry(ctx, pool, began_at);
    if scope == Scope::Unread {
        let unread = Tracked::unread(&ctx.jobs.lock(), &pool.key);
        if unread.is_empty() {
            return Ok(None);
        }
        if unread.len() <= FEW
            && let Some(missed) = read_few(ctx, pool, store, &unread).await?
        {
            return Ok(missed);
        }
        let missed = read_all(ctx, pool, store, false).await?;
        if missed.is_some() {
            last.seen = None;
        }
        return Ok(missed);
    }
    // Both before the audit, and the count first: what changes during the audit shows the next time.
    let publications = pool.publications.load(Ordering::Relaxed);
    let seen = Seen { publications, glance: store.glance(&pool.queues()).await? };
    let all_wait = |ctx: &Context| audit::all_wait(&ctx.jobs.lock(), &pool.key);
    let is_same = last.seen.as_ref() == Some(&seen) && last.spared < AT_LEAST_EVERY;
    if scope == Scope::WhatMayHaveChanged && is_same && all_wait(ctx) {
        last.spared += 1;
        pool.audited(began_at);
        return Ok(None);
    }
    let missed = read_all(ctx, pool, store, true).await?;
    pool.audited(began_at);
    *last = LastAudit { seen: Some(seen).filter(|_| missed.is_none() && all_wait(ctx)), spared: 0 };
    Ok(missed)
}

/// Reads the levels of a few jobs without a look at the other messages. `None` where that does not tell of each where
/// its message is.
async fn read_few(
    ctx: &Context,
    pool: &Handle,
    store: &Store,
    tracked: &[Tracked],
) -> Result<Option<Option<u32>>, Error> {
    let mut results = Results::default();
    read_documents(ctx, pool, &mut results, store, tracked.iter().map(|it| it.id)).await?;
    let mut found = Findings::of_few(results);
    read_markers(&mut found, store, tracked).await?;
    locate(&mut found, store, tracked).await?;
    if !tracked.iter().all(|it| found.is_placed(it.id.task)) {
        return Ok(None);
    }
    // A document that was read before may be of a task that had not acknowledged by then.
    let gone = tracked.iter().map(|it| it.id).filter(|id| !found.is_there(id.task)).collect::<Vec<_>>();
    if !gone.is_empty() {
        read_documents(ctx, pool, &mut found.results, store, gone.into_iter()).await?;
    }
    Ok(Some(apply_findings(ctx, pool, tracked, &mut found).await))
}

/// Reads the levels of the pool's jobs, or only of the unread ones, and all messages.
async fn read_all(ctx: &Context, pool: &Handle, store: &Store, everything: bool) -> Result<Option<u32>, Error> {
    let server = ctx.servers.of(&store.address());
    let turn = server.audits.acquire().await;
    let tracked = {
        let table = ctx.jobs.lock();
        if everything { Tracked::all(&table, &pool.key) } else { Tracked::unread(&table, &pool.key) }
    };
    if !everything && tracked.is_empty() {
        return Ok(None);
    }
    let mut results = Results::default();
    read_documents(ctx, pool, &mut results, store, tracked.iter().map(|it| it.id)).await?;
    let mut found = Findings::of_audit(results);
    read_markers(&mut found, store, &tracked).await?;
    let audit = store.audit(&pool.queues()).await?;
    if !audit.poison.is_empty() {
        quarantine(ctx, pool, store, &audit).await;
    }
    found.copies = copies(&tracked, &audit.places);
    pool.follow(followers(&mut found, &tracked, audit.followers), everything);
    drop((audit.places, audit.poison, turn)); // what follows waits for workers, not for Redis
    let unplaced: Vec<AttemptId> = {
        let table = ctx.jobs.lock();
        let is_asked_about = |it: &&Tracked| audit::is_to_be_asked_about(&table, it, &found);
        tracked.iter().filter(is_asked_about).map(|it| it.id).collect()
    };
    if !unplaced.is_empty() {
        let tasks: Vec<TaskId> = unplaced.iter().map(|id| id.task).collect();
        let mut answers = ask_workers(ctx, pool, store, &tasks).await?;
        let held = {
            let table = ctx.jobs.lock();
            audit::held_and_denied(&table, &tracked, &found, &answers)
        };
        if !held.is_empty() {
            answers.limited(store.rate_limits(&held).await?);
        }
        found.answers = Some(answers);
        read_documents(ctx, pool, &mut found.results, store, unplaced.into_iter()).await?;
    }
    let missed = apply_findings(ctx, pool, &tracked, &mut found).await;
    renew(ctx, pool, store, &tracked).await?;
    Ok(missed)
}

/// Takes off the queues what no worker survives. An audit goes on without it: a user of Redis may lack the permission.
async fn quarantine(ctx: &Context, pool: &Handle, store: &Store, audit: &Audit) {
    match store.quarantine(&audit.poison).await {
        Ok(moved) => {
            ctx.metrics.quarantined.get_or_create(&pool.labels()).inc_by(moved);
            tracing::warn!(
                pool = %pool.key, found = audit.poisoned, moved, stream = store.quarantine_stream(),
                "what no worker survives was taken off the queues"
            );
        }
        Err(error) => tracing::warn!(
            pool = %pool.key, found = audit.poisoned, %error, "what no worker survives lies on the queues"
        ),
    }
}

/// Results may have come and gone since Redis was last read: that is noted of every job before anything is decided.
fn note_possible_expiry(ctx: &Context, pool: &Handle, now: Timestamp) {
    let Some(expired) = pool.unwatched(now) else { return };
    tracing::warn!(pool = %pool.key, "no operator has watched this pool for longer than results are kept; jobs may have ended unseen");
    audit::note_possible_expiry(&mut ctx.jobs.lock(), &pool.key, expired);
}

/// Notes what was found, where nothing has happened since. Returns how often what was looked for in vain has been, at
/// least.
async fn apply_findings(ctx: &Context, pool: &Handle, tracked: &[Tracked], found: &mut Findings) -> Option<u32> {
    let mut outcome = Outcome::default();
    for tracked in tracked.chunks(NOTED_AT_ONCE) {
        tokio::task::yield_now().await;
        let (mut table, clocks) = (ctx.jobs.lock(), pool.clocks());
        ctx.workers.read(|pods| {
            let workers = workers_of(pool, pods, &clocks);
            audit::apply_findings(&mut table, tracked, found, &workers, clock::now(), &mut outcome);
        });
    }
    let Outcome { changed, missed, is_overtaken } = outcome;
    tracing::debug!(pool = %pool.key, changed = changed.len(), missed = missed.len(), "levels read");
    for (lane, key) in changed {
        ctx.jobs.queue.now(lane, key);
    }
    if is_overtaken {
        pool.levels.notify_one();
    }
    missed.into_iter().min()
}

fn workers_of<'a>(pool: &'a Handle, pods: &'a Pods, clocks: &'a Clocks) -> Workers<'a> {
    let restarts_unreachable = pool.spec.on_worker_unreachable == OnWorkerUnreachable::Restart;
    Workers { pods, fleet: pool.fleet.as_ref(), clocks, restarts_unreachable }
}

/// Keeps the messages of living workers from being restored by kombu after its visibility timeout.
async fn renew(ctx: &Context, pool: &Handle, store: &Store, tracked: &[Tracked]) -> Result<(), Error> {
    let silence = pool.longest_silence();
    let tags = {
        let (table, clocks) = (ctx.jobs.lock(), pool.clocks());
        ctx.workers.read(|pods| {
            let workers = workers_of(pool, pods, &clocks);
            audit::to_renew(&table, tracked, &workers, silence, clock::now())
        })
    };
    if !tags.is_empty() {
        store.renew(&tags).await?;
    }
    Ok(())
}
