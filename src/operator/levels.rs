//! Reading the levels: results, markers, and where every message is. Hints are only a short cut to what this finds.
//!
//! Order matters. Results are read before places: a task that ends in between is seen by its result at the latest in the
//! second reading, which follows. A job that changed while Redis was read keeps what it has, and is read again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::context::Context;
use super::documents;
use super::jobs::Entry;
use super::pool::labels;
use super::pools::Handle;
use super::workers::{self, WorkerPod};
use crate::core::evidence::{Evidence, Levels, Mark, Place, Word};
use crate::core::job::{AttemptId, Job, ObjectKey, TaskId};
use crate::core::observed::Liveness;
use crate::runtime::clock;
use crate::store::{self, Audit, Document, Error, Marker, MarkerId, MarkerState, Store};

/// A worker that is told to go takes no more messages after so long, and clocks do not differ by more.
const FAREWELL: Duration = Duration::from_secs(10);
/// How soon a message that was not found is looked for again.
const AGAIN: Duration = Duration::from_secs(3);

/// One job whose Redis side is read.
struct Subject {
    key: ObjectKey,
    id: AttemptId,
    turn: u64,
}

/// What Redis says, and then the workers.
#[derive(Default)]
struct Found {
    documents: HashMap<TaskId, Document>,
    markers: HashMap<TaskId, Marker>,
    places: HashMap<TaskId, Vec<store::Place>>,
    answers: Option<Answers>,
}

/// What the workers answered when they were asked for tasks, after the places were read.
struct Answers {
    /// Who has answered.
    nodes: HashSet<Arc<str>>,
    claims: HashMap<TaskId, (Arc<str>, Option<Timestamp>)>,
    /// The Pods that could have a message and have not answered; `None` when nobody can say which Pods there are.
    silent: Option<Vec<WorkerPod>>,
    /// Whether no worker but the Deployment's has answered: workers elsewhere are never taken for dead.
    all_known: bool,
}

/// Reads levels when asked, and once in a while, for ever.
pub async fn run(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store) {
    let mut next = tokio::time::Instant::now() + ctx.audit_every;
    loop {
        let everything = tokio::select! {
            () = pool.audit.notified() => true,
            () = tokio::time::sleep_until(next) => true,
            () = pool.levels.notified() => false,
        };
        match read(ctx, pool, store, everything).await {
            Ok(missed) if everything || missed > 0 => {
                next = tokio::time::Instant::now() + if missed > 0 { AGAIN } else { ctx.audit_every };
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(pool = %pool.key, %error, "levels could not be read; trying again");
                next = tokio::time::Instant::now() + AGAIN;
            }
        }
    }
}

/// Reads the levels of the pool's jobs, or only of the unread ones. Returns how many messages were looked for in vain.
async fn read(ctx: &Context, pool: &Handle, store: &Store, everything: bool) -> Result<usize, Error> {
    let began_at = clock::now();
    mark_unwatched(ctx, pool, began_at);
    let subjects = subjects(ctx, pool, everything);
    let mut missed = 0;
    if everything || !subjects.is_empty() {
        let mut found = Found::default();
        read_documents(&mut found, store, subjects.iter().map(|subject| subject.id.task)).await?;
        read_markers(&mut found, store, &subjects).await?;
        let audit = store.audit(&pool.queues()).await?;
        if !audit.poison.is_empty() {
            quarantine(ctx, pool, store, &audit).await;
        }
        found.places = audit.places;
        let unplaced: Vec<TaskId> = subjects
            .iter()
            .filter(|subject| is_to_be_asked_about(ctx, subject, &found))
            .map(|subject| subject.id.task)
            .collect();
        if !unplaced.is_empty() {
            found.answers = Some(ask_workers(ctx, pool, store, &unplaced).await?);
            read_documents(&mut found, store, unplaced.into_iter()).await?;
        }
        renew(ctx, store, &subjects, &found).await?;
        missed = tell(ctx, pool, subjects, &found);
    }
    if everything {
        pool.audited(began_at);
    }
    Ok(missed)
}

/// Takes off the queues what no worker survives. An audit goes on without it: a user of Redis may lack the permission.
async fn quarantine(ctx: &Context, pool: &Handle, store: &Store, audit: &Audit) {
    match store.quarantine(&audit.poison).await {
        Ok(moved) => {
            ctx.metrics.quarantined.get_or_create(&labels(pool)).inc_by(moved);
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
    tracing::warn!(pool = %pool.key, "nobody has watched for longer than results are kept");
    let is_old = |entry: &Entry| {
        let published_at = entry.job.status.attempt.map(|attempt| attempt.enqueued_at);
        pool.owns(entry) && published_at.unwrap_or(entry.job.created_at) < expired
    };
    ctx.jobs.lock().note_all(is_old, Evidence::was_unwatched);
}

fn subjects(ctx: &Context, pool: &Handle, everything: bool) -> Vec<Subject> {
    let table = ctx.jobs.lock();
    let wanted = |entry: &&Entry| {
        let evidence = &entry.evidence;
        let is_begun = entry.job.status.attempt.is_some() || evidence.is_published();
        pool.owns(entry) && !evidence.is_over() && (evidence.is_unread() || everything && is_begun)
    };
    let subject =
        |entry: &Entry| Subject { key: entry.job.key.clone(), id: entry.job.attempt_in_hand(), turn: entry.turn };
    table.iter().filter(wanted).map(subject).collect()
}

async fn read_documents(found: &mut Found, store: &Store, tasks: impl Iterator<Item = TaskId>) -> Result<(), Error> {
    let tasks: Vec<TaskId> = tasks.collect();
    let documents = store.outcomes(&tasks).await?;
    found.documents.extend(tasks.into_iter().zip(documents).filter_map(|(task, document)| Some((task, document?))));
    Ok(())
}

async fn read_markers(found: &mut Found, store: &Store, subjects: &[Subject]) -> Result<(), Error> {
    let ids: Vec<MarkerId> =
        subjects.iter().map(|subject| MarkerId::new(subject.key.namespace.clone(), subject.id.task)).collect();
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

/// Whether only the workers can tell where it is. Whoever waits in a queue need not be asked about.
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

/// Asks the workers which of these tasks they have. Silence is not denial: a draining worker is deaf and still works.
async fn ask_workers(ctx: &Context, pool: &Handle, store: &Store, tasks: &[TaskId]) -> Result<Answers, Error> {
    let pods = pool.spec.deployment_ref.as_ref().map(|deployment| {
        let key = ObjectKey::new(pool.key.namespace.clone(), deployment.name.as_str());
        let known = ctx.workers.is_listed(&pool.key.namespace) && ctx.workers.deployment(&key).is_some();
        known.then(|| ctx.workers.pods_of(&key))
    });
    let nodes = store.holders(tasks).await?;
    let answered: HashSet<&str> = nodes.iter().map(|node| workers::host_of(&node.name)).collect();
    let (all_known, silent) = match pods {
        Some(Some(pods)) => (
            answered.iter().all(|host| pods.iter().any(|pod| *pod.name == **host)),
            Some(pods.into_iter().filter(|pod| !answered.contains(&*pod.name)).collect()),
        ),
        Some(None) => (false, None),
        // Without a Deployment the workers that answer are all that anybody knows.
        None => (false, Some(Vec::new())),
    };
    let mut claims = HashMap::new();
    for node in &nodes {
        for task in &node.tasks {
            // Who runs it counts for more than who has a copy that waits.
            let claim = claims.entry(task.task).or_insert_with(|| (node.name.clone(), task.started_at));
            if claim.1.is_none() && task.started_at.is_some() {
                *claim = (node.name.clone(), task.started_at);
            }
        }
    }
    let nodes = nodes.iter().map(|node| node.name.clone()).collect();
    Ok(Answers { nodes, claims, silent, all_known })
}

impl Answers {
    /// Whether everybody who could have this message, published then, has denied it.
    fn is_denied(&self, place: Place, published_at: Option<Timestamp>) -> bool {
        let Some(silent) = &self.silent else { return false };
        match place {
            // Who started after it was taken did not take it, nor did who was told to go before.
            Place::InFlight { received_at, .. } => {
                let did_not = |pod: &WorkerPod| {
                    received_at.is_some_and(|received_at| pod.started_at > received_at || has_left(pod, received_at))
                };
                self.all_known && silent.iter().all(did_not)
            }
            Place::Nowhere | Place::Queued { .. } => {
                silent.iter().all(|pod| published_at.is_some_and(|published_at| has_left(pod, published_at)))
            }
        }
    }
}

/// Whether a worker was told to go, and had the time to hear it, before then.
fn has_left(pod: &WorkerPod, at: Timestamp) -> bool {
    pod.leaving_since.and_then(|since| since.checked_add(FAREWELL).ok()).is_some_and(|gone| gone < at)
}

/// Keeps the messages of living workers from being restored by kombu after its visibility timeout.
async fn renew(ctx: &Context, store: &Store, subjects: &[Subject], found: &Found) -> Result<(), Error> {
    let is_claimed = |task| found.answers.as_ref().is_some_and(|answers| answers.claims.contains_key(&task));
    let is_attributed = |subject: &&Subject| {
        is_claimed(subject.id.task)
            || ctx.jobs.lock().get(&subject.key).is_some_and(|entry| {
                let alive = |seen| ctx.workers.judge(&subject.key.namespace, seen).1 != Liveness::Dead;
                entry.evidence.sighting().is_some_and(alive)
            })
    };
    let tags: Vec<String> = subjects
        .iter()
        .filter(is_attributed)
        .filter_map(|subject| match place(subject, found) {
            Place::InFlight { generation, .. } => Some(subject.id.task.delivery_tag(generation)),
            Place::Queued { .. } | Place::Nowhere => None,
        })
        .collect();
    if !tags.is_empty() {
        store.renew(&tags).await?;
    }
    Ok(())
}

/// Notes what was found, where nothing has happened since.
fn tell(ctx: &Context, pool: &Handle, subjects: Vec<Subject>, found: &Found) -> usize {
    let (mut missed, mut changed, mut outdated) = (0, Vec::new(), false);
    {
        let mut table = ctx.jobs.lock();
        for subject in subjects {
            let Some(entry) = table.get(&subject.key) else { continue };
            if entry.turn != subject.turn {
                outdated |= entry.evidence.is_unread();
                continue;
            }
            let before = entry.evidence.clone();
            table.note(&subject.key, |job, evidence| note(ctx, job, evidence, &subject, found));
            let Some(entry) = table.get(&subject.key) else { continue };
            missed += usize::from(entry.evidence.is_missed());
            if entry.evidence != before {
                changed.push(subject.key);
            }
        }
    }
    tracing::debug!(pool = %pool.key, changed = changed.len(), missed, "levels read");
    for key in changed {
        ctx.jobs.queue.now(key);
    }
    if outdated {
        pool.levels.notify_one();
    }
    missed
}

/// What the levels and the workers say of one attempt.
fn note(ctx: &Context, job: &Job, evidence: &mut Evidence, subject: &Subject, found: &Found) {
    let task = subject.id.task;
    let now = clock::now();
    let holder = |node: &Arc<str>| ctx.workers.holder(&job.key.namespace, node);
    let document = found.documents.get(&task).and_then(|document| documents::read(subject.id, document, holder, now));
    let marker = found.markers.get(&task).map(|marker| Mark {
        generation: marker.generation,
        withdrawn: marker.state == MarkerState::Withdrawn,
        at: marker.at,
        spec: marker.spec,
        priority: marker.priority,
    });
    let place = place(subject, found);
    evidence.audit(Levels { marker, place, document });
    let Some(answers) = &found.answers else { return };
    if let Some((node, started_at)) = answers.claims.get(&task) {
        evidence.claimed(Word {
            holder: Some(holder(node)),
            said_at: now,
            started_at: *started_at,
            celery_retries: 0,
            progress: None,
        });
    } else {
        let disowned = evidence.holder().is_some_and(|holder| answers.nodes.contains(&holder.node));
        let recorded = job.status.attempt.map(|attempt| attempt.enqueued_at);
        let published_at = evidence.published_at().or(recorded);
        evidence.answered(answers.is_denied(place, published_at), disowned);
    }
}

/// A worker was found dead: what it stored before it died is read, then its death counts. Where it had not begun, only
/// an audit can tell where the message is.
pub async fn check_death(ctx: &Context, entry: &Entry) {
    let job = &entry.job;
    if entry.evidence.sighting().is_some_and(|seen| seen.word.started_at.is_none()) {
        ctx.pools.audit(&job.key.namespace, &job.spec.pool);
    }
    let id = job.attempt_in_hand();
    let Some(store) = ctx.pools.store(&job.key.namespace, &job.spec.pool) else { return };
    let documents = match store.outcomes(&[id.task]).await {
        Ok(documents) => documents,
        Err(error) => {
            tracing::warn!(job = %job.key, %error, "the last word of a dead worker could not be read; trying again");
            let later = clock::now().checked_add(Duration::from_secs(1)).unwrap_or(Timestamp::MAX);
            return ctx.jobs.queue.at(job.key.clone(), later);
        }
    };
    let holder = |node: &Arc<str>| ctx.workers.holder(&job.key.namespace, node);
    let document = documents.into_iter().flatten().next();
    let said = document.and_then(|document| documents::read(id, &document, holder, clock::now()));
    let mut table = ctx.jobs.lock();
    if table.get(&job.key).is_some_and(|now| now.turn == entry.turn) {
        table.note(&job.key, |_, evidence| evidence.death_checked(said));
    }
    drop(table);
    ctx.jobs.queue.now(job.key.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(started: i64, leaving: Option<i64>) -> WorkerPod {
        WorkerPod::silent("w", at(started), leaving.map(at))
    }

    fn denied(silent: Vec<WorkerPod>, place: Place) -> bool {
        let answers = Answers { nodes: HashSet::new(), claims: HashMap::new(), silent: Some(silent), all_known: true };
        answers.is_denied(place, Some(at(1000)))
    }

    #[test]
    fn a_silent_worker_may_have_what_is_nowhere_unless_it_was_leaving_when_that_was_published() {
        assert!(denied(vec![], Place::Nowhere));
        assert!(!denied(vec![pod(5, None)], Place::Nowhere));
        assert!(!denied(vec![pod(5, Some(995))], Place::Nowhere), "it may not have heard yet");
        assert!(denied(vec![pod(5, Some(900))], Place::Nowhere));
    }

    #[test]
    fn a_silent_worker_may_have_what_was_taken_unless_it_came_later_or_was_leaving() {
        let taken = Place::InFlight { generation: 0, received_at: Some(at(1000)) };
        assert!(!denied(vec![pod(999, None)], taken));
        assert!(denied(vec![pod(1001, None), pod(5, Some(900))], taken));
        let nobody_knows_when = Place::InFlight { generation: 0, received_at: None };
        assert!(!denied(vec![pod(1001, None)], nobody_knows_when));
    }
}
