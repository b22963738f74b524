//! A reading of Redis, turned into knowledge: which jobs are read, where the message of each is, which workers are asked
//! about it, and what is noted.
//!
//! Order matters. Results are read before places, and places before workers: a task that ends in between is seen by its
//! result at the latest in the reading that follows. A job that changed while Redis was read keeps what it has, and is
//! read again.

mod answers;
mod findings;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::claims;
use super::super::claims::clocks::Clocks;
use super::super::evidence::{Document, Evidence, Levels, Mark, Place, Report, SETTLED_AFTER, Sighting};
use super::super::id::{AttemptId, ObjectKey, TaskId};
use super::super::job::Job;
use super::super::observed::Liveness;
use super::pods::{Fleet, Pods};
use super::table::{Entry, Lane, Table};
pub use answers::{Answer, Answers, Asked, RateLimit};
pub use findings::{Findings, Results};

/// How soon a message that was not found is looked for again.
const AGAIN: Duration = Duration::from_secs(3);

/// One job whose Redis side is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// Its name.
    pub key: ObjectKey,
    /// Its attempt in hand.
    pub id: AttemptId,
    /// The task that messages name as their root that follow from any of its attempts.
    pub root: TaskId,
    /// The `turn` of its entry before Redis was read.
    evidence_version: u64,
}

/// What is known of the workers of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Workers<'a> {
    /// All Pods.
    pub pods: &'a Pods,
    /// Those that are the pool's.
    pub fleet: Option<&'a Fleet>,
    /// The clocks of its workers.
    pub clocks: &'a Clocks,
    /// Whether the pool treats a worker on a Node that does not answer as dead.
    pub restarts_unreachable: bool,
}

/// What findings came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Jobs of which something new is known: what asks for a look at each.
    pub changed: Vec<(Lane, ObjectKey)>,
    /// Of each message that was looked for in vain, how often in a row.
    pub missed: Vec<u32>,
    /// Whether a job that must be read changed meanwhile, so that it has to be read again.
    pub is_overtaken: bool,
}

impl Tracked {
    fn of<F>(entry: &Entry<F>) -> Self {
        let job = &entry.job;
        let (key, id, root) = (job.key.clone(), job.attempt_in_hand(), TaskId::derive(job.uid, 1));
        Self { key, id, root, evidence_version: entry.evidence_version }
    }

    /// Whether more was learned of the job since Redis was read for it.
    pub fn is_overtaken<F>(&self, table: &Table<F>) -> bool {
        table.get(&self.key).is_some_and(|entry| entry.evidence_version != self.evidence_version)
    }

    /// The jobs of a pool that have, or may have, something on Redis.
    pub fn all<F>(table: &Table<F>, pool: &ObjectKey) -> Vec<Self> {
        let is_read = |entry: &&Entry<F>| !entry.evidence.is_over() && (entry.evidence.is_unread() || is_begun(entry));
        table.of_pool(pool).filter(is_read).map(Self::of).collect()
    }

    /// Those of which Redis must be read before anything is decided.
    pub fn unread<F>(table: &Table<F>, pool: &ObjectKey) -> Vec<Self> {
        table.unread_of(pool).map(Self::of).collect()
    }
}

/// Whether there ever was a message of it, as far as is known.
fn is_begun<F>(entry: &Entry<F>) -> bool {
    entry.job.status.attempt.is_some() || entry.evidence.is_published()
}

/// Whether all jobs of a pool that have begun wait in a queue, and none is unread.
pub fn all_wait<F>(table: &Table<F>, pool: &ObjectKey) -> bool {
    table.figures(pool).is_none_or(|jobs| jobs.begun() == jobs.queued() && jobs.unread().len() == 0)
}

/// When to look again for what was missed so many times: soon, as long as looking may settle it. What is not settled by
/// then is with a worker that does not answer, for as long as it likes.
pub fn look_again_after(misses: u32, audit_every: Duration) -> Duration {
    let doublings = misses.saturating_sub(SETTLED_AFTER);
    AGAIN.saturating_mul(2u32.saturating_pow(doublings)).min(audit_every)
}

/// Results may have come and gone since Redis was last read: that is noted of every job whose message was published
/// before `expired`, before anything is decided.
pub fn note_possible_expiry<F>(table: &mut Table<F>, pool: &ObjectKey, expired: Timestamp) {
    let is_old = |entry: &Entry<F>| {
        let published_at = entry.job.status.attempt.map(|attempt| attempt.enqueued_at);
        published_at.unwrap_or(entry.job.created_at) < expired
    };
    table.note_all(pool, is_old, Evidence::was_unwatched);
}

/// Whether only the workers can tell where it is. A message that waits in a queue need not be asked about.
pub fn is_to_be_asked_about<F>(table: &Table<F>, tracked: &Tracked, found: &Findings) -> bool {
    let mark = found.marks.get(&tracked.id.task);
    match found.place(tracked.id.task) {
        Place::Queued { .. } | Place::CopyQueued => false,
        Place::InFlight { .. } | Place::CopyInFlight { .. } | Place::GoesOn => true,
        Place::Nowhere => match mark {
            Some(mark) => !mark.withdrawn,
            None => table.get(&tracked.key).is_some_and(is_begun),
        },
    }
}

/// The tasks, by name, of which workers may hold messages back that none claims.
pub fn held_and_denied<F>(
    table: &Table<F>,
    tracked: &[Tracked],
    found: &Findings,
    answers: &Answers,
) -> HashSet<Arc<str>> {
    let is_denied = |it: &&Tracked| may_be_held_back(found, it.id.task) && answers.claim(it.id.task).is_none();
    tracked.iter().filter(is_denied).filter_map(|it| Some(table.get(&it.key)?.job.spec.task.clone())).collect()
}

/// Notes what was found, where nothing has happened since.
pub fn apply_findings<F>(
    table: &mut Table<F>,
    tracked: &[Tracked],
    found: &mut Findings,
    workers: &Workers<'_>,
    now: Timestamp,
    outcome: &mut Outcome,
) {
    for tracked in tracked {
        let Some(entry) = table.get(&tracked.key) else { continue };
        if tracked.is_overtaken(table) {
            outcome.is_overtaken |= entry.evidence.is_unread();
            continue;
        }
        let before = entry.evidence.clone();
        let document = found.results.documents.remove(&tracked.id.task);
        table.note(&tracked.key, |job, evidence| {
            note(job, evidence, tracked.id.task, document, found, workers, now);
        });
        let Some(entry) = table.get(&tracked.key) else { continue };
        outcome.missed.extend(entry.evidence.misses());
        if entry.evidence != before {
            outcome.changed.push(entry.turn_of());
        }
    }
}

/// What Redis and the workers say of one attempt.
fn note(
    job: &Job,
    evidence: &mut Evidence,
    task: TaskId,
    document: Option<Document>,
    found: &Findings,
    workers: &Workers<'_>,
    now: Timestamp,
) {
    let place = found.place(task);
    let marker = found.marks.get(&task);
    let marker = marker.map(|mark| Mark { at: claims::between(job.created_at, mark.at, now), ..*mark });
    let levels = Levels { marker, place, besides: found.is_audit.then(|| found.besides(task)), document };
    if !found.is_audit {
        return evidence.read(levels);
    }
    evidence.audit(levels);
    let Some(answers) = &found.answers else { return };
    if let Some(claim) = answers.claim(task) {
        return evidence.claimed(workers.report(&claim.node, claim.started_at, now));
    }
    let holder = evidence.holder();
    let denied_by_holder = holder.is_some_and(|holder| answers.has_answered(&holder.node));
    // Pods can answer for themselves only: a worker that is no Pod, and was seen with the message, has to deny it itself.
    let is_no_pod = holder.is_some_and(|it| it.container.is_none() && !workers.knows_container_of(&it.node));
    if may_be_held_back(found, task) && may_wait_for_rate(job, evidence, place, answers, now) {
        return evidence.answered(false, false);
    }
    let recorded = job.status.attempt.map(|attempt| attempt.enqueued_at);
    let published_at = evidence.published_at().or(recorded);
    let is_denied = answers.is_denied(place, published_at, workers.clocks.spread(now));
    evidence.answered(is_denied && (denied_by_holder || !is_no_pod), denied_by_holder);
}

/// Whether the message is where one is that a worker holds back: in flight, or gone with what Redis was emptied of.
fn may_be_held_back(found: &Findings, task: TaskId) -> bool {
    let place = found.place(task);
    place.is_in_flight() || place == Place::Nowhere && !found.marks.contains_key(&task)
}

/// Whether a worker may hold the message back although it denies it, because of a rate limit of the task. That counts from
/// the first time that all have denied it: by which clock it was taken is not known.
fn may_wait_for_rate(job: &Job, evidence: &mut Evidence, place: Place, answers: &Answers, now: Timestamp) -> bool {
    let has_begun = evidence.sighting().is_some_and(|seen| seen.report.started_at.is_some());
    // What is known of a run may be of the one before the copy.
    if has_begun && !matches!(place, Place::CopyInFlight { .. }) || evidence.names_end() {
        return false;
    }
    let Some(longest) = answers.longest_wait(&job.spec.task) else { return false };
    evidence.missed_since(now).checked_add(longest).is_ok_and(|until| now < until)
}

impl Workers<'_> {
    /// What a worker says that was asked for a task and has it.
    fn report(&self, node: &Arc<str>, started_at: Option<Timestamp>, now: Timestamp) -> Report {
        let holder = Some(self.pods.holder(self.fleet, node));
        let started_at = started_at.map(|began| self.clocks.ours(node, began, now));
        Report {
            holder,
            said_at: now,
            behind: self.clocks.behind(node),
            started_at,
            celery_retries: 0,
            progress: None,
            account: None,
        }
    }

    fn knows_container_of(&self, node: &Arc<str>) -> bool {
        self.pods.holder(self.fleet, node).container.is_some()
    }

    /// Whether kombu is kept from putting the message back that this worker has. A worker that is no Pod is never dead:
    /// if it has only taken the message and is silent for longer than it can be busy, the message is left to kombu, so
    /// that it is not lost for ever.
    fn keeps(&self, namespace: &Arc<str>, seen: &Sighting, longest_silence: Duration, now: Timestamp) -> bool {
        let (holder, liveness) = self.pods.judge(self.fleet, namespace, seen);
        let is_silent = seen.report.said_at.checked_add(longest_silence).is_ok_and(|until| until < now);
        let is_given_up = holder.container.is_none() && seen.report.started_at.is_none() && is_silent;
        liveness.in_pool(self.restarts_unreachable) != Liveness::Dead && !is_given_up
    }
}

/// The delivery tags of messages that living workers have: kombu is kept from putting these back after its visibility
/// timeout.
pub fn to_renew<F>(
    table: &Table<F>,
    tracked: &[Tracked],
    workers: &Workers<'_>,
    longest_silence: Duration,
    now: Timestamp,
) -> Vec<String> {
    let kept = |tracked: &Tracked| {
        let evidence = &table.get(&tracked.key)?.evidence;
        let is_kept = |seen: &Sighting| workers.keeps(&tracked.key.namespace, seen, longest_silence, now);
        evidence.kept().filter(|_| evidence.sighting().is_some_and(is_kept))
    };
    tracked.iter().filter_map(kept).collect()
}
