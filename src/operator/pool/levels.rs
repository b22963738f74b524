//! Reading the levels: results, markers, and where every message is. Hints are only a short cut to what this finds.
//!
//! Order matters. Results are read before places: a task that ends in between is seen by its result at the latest in
//! the second reading, which follows. A job that changed while Redis was read keeps what it has, and is read again.

mod ask;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::api::OnWorkerUnreachable;
use crate::core::backoff;
use crate::core::claims;
use crate::core::evidence::{Document, Evidence, Levels, Mark, Place, Sighting, Word};
use crate::core::id::{AttemptId, ObjectKey, TaskId};
use crate::core::job::Job;
use crate::core::observed::Liveness;
use crate::core::status::Holder;
use crate::operator::context::Context;
use crate::operator::job::documents;
use crate::operator::job::refused;
use crate::operator::state::jobs::Entry;
use crate::operator::state::pools::Handle;
use crate::runtime::clock;
use crate::store::{self, Audit, Error, Glance, Marker, MarkerId, MarkerState, Store};
use ask::{Answers, ask_workers};

/// How soon a message that was not found is looked for again.
const AGAIN: Duration = Duration::from_secs(3);
/// How often a message that was not found is looked for that soon.
const SETTLED_AFTER: u32 = 4;
/// Bytes of results that one reading holds; of the others it holds the digests.
const TEXTS: usize = 4 << 20;

/// One job whose Redis side is read.
struct Subject {
    key: ObjectKey,
    id: AttemptId,
    turn: u64,
}

impl Subject {
    fn marker(&self) -> MarkerId {
        MarkerId::new(self.key.namespace.clone(), self.id.task)
    }
}

/// What Redis says, and then the workers.
#[derive(Default)]
struct Found {
    documents: HashMap<TaskId, Document>,
    /// Bytes of results in these.
    texts: usize,
    markers: HashMap<TaskId, Marker>,
    places: HashMap<TaskId, Vec<store::Place>>,
    answers: Option<Answers>,
    /// Whether all messages were looked at, so that one that is nowhere counts as missed.
    is_audit: bool,
}

/// Unread jobs whose messages are looked up one by one; of more, all messages are read.
const FEW: usize = 16;
/// Jobs that are told at once what was found of them: others wait for the table meanwhile.
const TOLD_AT_ONCE: usize = 200;
/// How often all messages are read although nothing was put on the queues and nothing taken from them.
const AT_LEAST_EVERY: u32 = 10;

/// Reads levels when asked, and once in a while, for ever.
pub async fn run(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store) {
    let phase = Phase::of(pool, ctx.audit_every);
    let mut next = phase.next();
    let mut last = LastAudit::default();
    let (pool_id, mut failures) = (Uuid::new_v5(&Uuid::NAMESPACE_URL, pool.key.to_string().as_bytes()), 0);
    loop {
        let scope = tokio::select! {
            () = pool.audit.notified() => Scope::Everything,
            () = tokio::time::sleep_until(next) => Scope::WhatMayHaveChanged,
            () = pool.levels.notified() => Scope::Unread,
        };
        match read(ctx, pool, store, scope, &mut last).await {
            Ok(missed) => {
                failures = 0;
                let soon = missed.map(|rounds| tokio::time::Instant::now() + again(rounds, ctx.audit_every));
                let due = if scope == Scope::Unread { next } else { phase.next() };
                next = soon.map_or(due, |soon| soon.min(due));
            }
            Err(error) => {
                failures += 1;
                let wait = backoff::pause(pool_id, failures);
                tracing::warn!(pool = %pool.key, %error, retry_in = ?wait, "levels could not be read");
                let unread = ctx.jobs.lock().unread_of(&pool.key).map(|entry| entry.job.key.clone()).collect();
                refused::tell_all(ctx, unread, &error).await;
                // Whatever asks for them meanwhile.
                tokio::time::sleep(wait).await;
                next = tokio::time::Instant::now();
            }
        }
    }
}

/// When to look again for what was missed so many times: soon, as long as looking may settle it. What is not settled by
/// then is with a worker that does not answer, for as long as it likes.
fn again(misses: u32, audit_every: Duration) -> Duration {
    let doublings = misses.saturating_sub(SETTLED_AFTER);
    AGAIN.saturating_mul(2u32.saturating_pow(doublings)).min(audit_every)
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
    mark_unwatched(ctx, pool, began_at);
    if scope == Scope::Unread {
        let unread = subjects(ctx, pool, false);
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
    let all_wait = |ctx: &Context| {
        let table = ctx.jobs.lock();
        table.figures(&pool.key).is_none_or(|jobs| jobs.begun() == jobs.queued() && jobs.unread().len() == 0)
    };
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
    subjects: &[Subject],
) -> Result<Option<Option<u32>>, Error> {
    let mut found = Found::default();
    read_documents(ctx, pool, &mut found, store, subjects.iter().map(|subject| subject.id)).await?;
    read_markers(&mut found, store, subjects).await?;
    let ids: Vec<MarkerId> = subjects.iter().map(Subject::marker).collect();
    for (subject, place) in subjects.iter().zip(store.locate(&ids).await?) {
        found.places.insert(subject.id.task, place.into_iter().collect());
        let document = found.documents.get(&subject.id.task);
        let is_placed = match self::place(subject, &found) {
            Place::Queued { .. } => true,
            // A message that no worker says it runs may be with no worker.
            Place::InFlight { .. } => document.is_some(),
            Place::Nowhere => matches!(document, Some(Document::Over { .. })),
        };
        if !is_placed {
            return Ok(None);
        }
    }
    Ok(Some(tell(ctx, pool, subjects, &mut found).await))
}

/// Reads the levels of the pool's jobs, or only of the unread ones, and all messages.
async fn read_all(ctx: &Context, pool: &Handle, store: &Store, everything: bool) -> Result<Option<u32>, Error> {
    let server = ctx.servers.of(&store.address());
    let turn = server.audits.acquire().await;
    let subjects = subjects(ctx, pool, everything);
    let mut missed = None;
    if everything || !subjects.is_empty() {
        let mut found = Found { is_audit: true, ..Found::default() };
        read_documents(ctx, pool, &mut found, store, subjects.iter().map(|subject| subject.id)).await?;
        read_markers(&mut found, store, &subjects).await?;
        let audit = store.audit(&pool.queues()).await?;
        if !audit.poison.is_empty() {
            quarantine(ctx, pool, store, &audit).await;
        }
        found.places = audit.places;
        drop(turn); // what follows waits for workers, not for Redis
        let unplaced: Vec<AttemptId> = subjects
            .iter()
            .filter(|subject| is_to_be_asked_about(ctx, subject, &found))
            .map(|subject| subject.id)
            .collect();
        if !unplaced.is_empty() {
            let tasks: Vec<TaskId> = unplaced.iter().map(|id| id.task).collect();
            found.answers = Some(ask_workers(ctx, pool, store, &tasks).await?);
            read_documents(ctx, pool, &mut found, store, unplaced.into_iter()).await?;
        }
        missed = tell(ctx, pool, &subjects, &mut found).await;
        renew(ctx, pool, store, &subjects).await?;
    }
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
fn mark_unwatched(ctx: &Context, pool: &Handle, now: Timestamp) {
    let Some(expired) = pool.unwatched(now) else { return };
    tracing::warn!(pool = %pool.key, "no operator has watched this pool for longer than results are kept; jobs may have ended unseen");
    let is_old = |entry: &Entry| {
        let published_at = entry.job.status.attempt.map(|attempt| attempt.enqueued_at);
        published_at.unwrap_or(entry.job.created_at) < expired
    };
    ctx.jobs.lock().note_all(&pool.key, is_old, Evidence::was_unwatched);
}

fn subjects(ctx: &Context, pool: &Handle, everything: bool) -> Vec<Subject> {
    let table = ctx.jobs.lock();
    let wanted = |entry: &&Entry| {
        let evidence = &entry.evidence;
        let is_begun = entry.job.status.attempt.is_some() || evidence.is_published();
        !evidence.is_over() && (evidence.is_unread() || is_begun)
    };
    let subject =
        |entry: &Entry| Subject { key: entry.job.key.clone(), id: entry.job.attempt_in_hand(), turn: entry.turn };
    if everything {
        table.of_pool(&pool.key).filter(wanted).map(subject).collect()
    } else {
        table.unread_of(&pool.key).map(subject).collect()
    }
}

/// Reads result documents one at a time, and keeps of each what it says.
async fn read_documents(
    ctx: &Context,
    pool: &Handle,
    found: &mut Found,
    store: &Store,
    ids: impl Iterator<Item = AttemptId>,
) -> Result<(), Error> {
    let ids: Vec<AttemptId> = ids.collect();
    let tasks: Vec<TaskId> = ids.iter().map(|id| id.task).collect();
    let now = clock::now();
    let holder = |node: &Arc<str>| ctx.speaker(pool, node);
    store
        .outcomes(&tasks, |at, document| {
            let Some(mut said) = documents::read(ids[at], document, holder, now) else { return };
            found.texts += said.text_bytes();
            if found.texts > TEXTS {
                said.drop_text();
            }
            found.documents.insert(tasks[at], said);
        })
        .await
}

async fn read_markers(found: &mut Found, store: &Store, subjects: &[Subject]) -> Result<(), Error> {
    let ids: Vec<MarkerId> = subjects.iter().map(Subject::marker).collect();
    let markers = store.markers(&ids).await?;
    found.markers.extend(subjects.iter().zip(markers).filter_map(|(subject, marker)| Some((subject.id.task, marker?))));
    Ok(())
}

/// Where the message of the delivery in hand is. Copies of earlier ones do not count.
fn place(subject: &Subject, found: &Found) -> Place {
    let task = subject.id.task;
    let marked = found.markers.get(&task).map(|marker| marker.generation);
    let current = |tag: &str| task.generation_of(tag).filter(|it| marked.is_none_or(|marked| marked == *it));
    let places = found.places.get(&task).map(Vec::as_slice).unwrap_or_default();
    let in_flight = places.iter().find_map(|place| match place {
        store::Place::InFlight { tag, received_at, eta: _ } => {
            current(tag).map(|generation| Place::InFlight { generation, received_at: *received_at })
        }
        store::Place::Queued { .. } => None,
    });
    let queued = || {
        places.iter().find_map(|place| match place {
            store::Place::Queued { tag, .. } => current(tag).map(|generation| Place::Queued { generation }),
            store::Place::InFlight { .. } => None,
        })
    };
    in_flight.or_else(queued).unwrap_or(Place::Nowhere)
}

/// Whether only the workers can tell where it is. A message that waits in a queue need not be asked about.
fn is_to_be_asked_about(ctx: &Context, subject: &Subject, found: &Found) -> bool {
    let marker = found.markers.get(&subject.id.task);
    match place(subject, found) {
        Place::Queued { .. } => false,
        Place::InFlight { .. } => true,
        Place::Nowhere => {
            let is_withdrawn = marker.is_some_and(|marker| marker.state == MarkerState::Withdrawn);
            let is_begun = |entry: &Entry| entry.job.status.attempt.is_some() || entry.evidence.is_published();
            !is_withdrawn && (marker.is_some() || ctx.jobs.lock().get(&subject.key).is_some_and(is_begun))
        }
    }
}

/// Keeps the messages of living workers from being restored by kombu after its visibility timeout.
async fn renew(ctx: &Context, pool: &Handle, store: &Store, subjects: &[Subject]) -> Result<(), Error> {
    let longest_silence = pool.longest_silence();
    let is_to_be_kept = |seen: &Sighting| {
        let (holder, liveness) = ctx.workers.read(|pods| pods.judge(pool.fleet.as_ref(), &pool.key.namespace, seen));
        let liveness = liveness.in_pool(pool.spec.on_worker_unreachable == OnWorkerUnreachable::Restart);
        // One that is no Pod is never declared dead. If it has only taken the message and is silent for longer than it
        // can be busy, the message is left to kombu, so that it is not lost for ever.
        let is_silent = holder.container.is_none()
            && seen.word.started_at.is_none()
            && clock::since(seen.word.said_at, clock::now()) > longest_silence;
        liveness != Liveness::Dead && !is_silent
    };
    let tags: Vec<String> = {
        let table = ctx.jobs.lock();
        let kept = |subject: &Subject| {
            let evidence = &table.get(&subject.key)?.evidence;
            let generation = evidence.kept().filter(|_| evidence.sighting().is_some_and(is_to_be_kept))?;
            Some(evidence.of().delivery_tag(generation))
        };
        subjects.iter().filter_map(kept).collect()
    };
    if !tags.is_empty() {
        store.renew(&tags).await?;
    }
    Ok(())
}

/// Notes what was found, where nothing has happened since.
async fn tell(ctx: &Context, pool: &Handle, subjects: &[Subject], found: &mut Found) -> Option<u32> {
    let (mut missed, mut changed, mut outdated) = (Vec::new(), Vec::new(), false);
    let mut said = std::mem::take(&mut found.documents);
    for subjects in subjects.chunks(TOLD_AT_ONCE) {
        tokio::task::yield_now().await;
        let mut table = ctx.jobs.lock();
        for subject in subjects {
            let Some(entry) = table.get(&subject.key) else { continue };
            if entry.turn != subject.turn {
                outdated |= entry.evidence.is_unread();
                continue;
            }
            let before = entry.evidence.clone();
            let document = said.remove(&subject.id.task);
            table.note(&subject.key, |job, evidence| note(ctx, pool, job, evidence, subject, document, found));
            let Some(entry) = table.get(&subject.key) else { continue };
            missed.extend(entry.evidence.misses());
            if entry.evidence != before {
                changed.push(entry.turn_of());
            }
        }
    }
    tracing::debug!(pool = %pool.key, changed = changed.len(), missed = missed.len(), "levels read");
    for (lane, key) in changed {
        ctx.jobs.queue.now(lane, key);
    }
    if outdated {
        pool.levels.notify_one();
    }
    missed.into_iter().min()
}

/// What the levels and the workers say of one attempt.
fn note(
    ctx: &Context,
    pool: &Handle,
    job: &Job,
    evidence: &mut Evidence,
    subject: &Subject,
    document: Option<Document>,
    found: &Found,
) {
    let task = subject.id.task;
    let marker = found.markers.get(&task).map(|marker| Mark {
        generation: marker.generation,
        withdrawn: marker.state == MarkerState::Withdrawn,
        at: claims::between(job.created_at, marker.at, clock::now()),
        spec: marker.spec,
        priority: marker.priority,
    });
    let place = place(subject, found);
    let levels = Levels { marker, place, document };
    if !found.is_audit {
        return evidence.read(levels);
    }
    evidence.audit(levels);
    let Some(answers) = &found.answers else { return };
    if let Some((node, started_at)) = answers.claims.get(&task) {
        evidence.claimed(answer(ctx, pool, node, *started_at));
    } else {
        let disowned = evidence.holder().is_some_and(|holder| answers.nodes.contains(&holder.node));
        let recorded = job.status.attempt.map(|attempt| attempt.enqueued_at);
        let published_at = evidence.published_at().or(recorded);
        let spread = pool.clocks().spread(clock::now());
        // Pods can answer for themselves only: a worker that is no Pod, and was seen with the message, has to deny it
        // itself.
        let is_elsewhere = |holder: &Holder| {
            ctx.workers.read(|pods| pods.holder(pool.fleet.as_ref(), &holder.node)).container.is_none()
        };
        let may_have_it =
            !disowned && evidence.holder().is_some_and(|holder| holder.container.is_none() && is_elsewhere(holder));
        evidence.answered(!may_have_it && answers.is_denied(place, published_at, spread), disowned);
    }
}

/// What a worker says that was asked for a task and has it.
fn answer(ctx: &Context, pool: &Handle, node: &Arc<str>, started_at: Option<Timestamp>) -> Word {
    let (holder, now) = (Some(ctx.workers.read(|pods| pods.holder(pool.fleet.as_ref(), node))), clock::now());
    let clocks = pool.clocks();
    let started_at = started_at.map(|began| clocks.ours(node, began, now));
    Word { holder, said_at: now, behind: clocks.behind(node), started_at, celery_retries: 0, progress: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_is_looked_for_again_soon_and_then_more_and_more_rarely() {
        let seconds = |misses| again(misses, Duration::from_mins(1)).as_secs();
        assert_eq!([0, 1, 4, 5, 6, 8, 9, 4000].map(seconds), [3, 3, 3, 6, 12, 48, 60, 60]);
        assert_eq!(again(1, Duration::from_secs(1)), Duration::from_secs(1), "never later than without");
    }
}
