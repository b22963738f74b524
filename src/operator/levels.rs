//! Reading the levels: results, markers, and where every message is. Hints are only a short cut to what this finds.
//!
//! Order matters. Results are read before places: a task that ends in between is seen by its result at the latest in the
//! second reading, which follows. A job that changed while Redis was read keeps what it has, and is read again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::context::Context;
use super::evidence;
use super::jobs::Entry;
use super::observe::held;
use super::pools::Handle;
use crate::core::job::{AttemptId, ObjectKey, TaskId};
use crate::core::observed::{Held, Holding, Liveness, Search, Task};
use crate::runtime::clock;
use crate::store::{Document, Error, Marker, MarkerId, MarkerState, Node, Place, Store};

/// How often everything is read although nothing asks for it.
const EVERY: Duration = Duration::from_mins(1);
/// How soon a message that was not found is looked for again.
const AGAIN: Duration = Duration::from_secs(3);

/// One job whose Redis side is read.
struct Subject {
    key: ObjectKey,
    id: AttemptId,
    turn: u64,
    task: Task,
    enqueued_at: Option<Timestamp>,
}

/// What Redis and the workers say.
#[derive(Default)]
struct Found {
    documents: HashMap<TaskId, Document>,
    markers: HashMap<TaskId, Marker>,
    places: HashMap<TaskId, Vec<Place>>,
    holders: HashMap<TaskId, (Arc<str>, Option<Timestamp>)>,
    /// Whether every worker that could have a message was asked, after the places were read, and answered.
    all_answered: bool,
    /// Whether no worker but the Deployment's has answered: workers elsewhere are never taken for dead.
    all_known: bool,
}

/// Reads levels when asked, and every minute, for ever.
pub async fn run(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store) {
    let mut next = tokio::time::Instant::now() + EVERY;
    loop {
        let everything = tokio::select! {
            () = pool.audit.notified() => true,
            () = tokio::time::sleep_until(next) => true,
            () = pool.levels.notified() => false,
        };
        match read(ctx, pool, store, everything).await {
            Ok(missing) if everything || missing > 0 => {
                next = tokio::time::Instant::now() + if missing > 0 { AGAIN } else { EVERY };
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(pool = %pool.key, %error, "levels could not be read; trying again");
                next = tokio::time::Instant::now() + AGAIN;
            }
        }
    }
}

/// Reads the levels of the pool's jobs, or only of the unread ones. Returns how many messages were not found.
async fn read(ctx: &Context, pool: &Handle, store: &Store, everything: bool) -> Result<usize, Error> {
    let subjects = subjects(ctx, pool, everything);
    if subjects.is_empty() {
        return Ok(0);
    }
    let mut found = Found::default();
    read_documents(&mut found, store, subjects.iter().map(|subject| subject.id.task)).await?;
    read_markers(&mut found, store, &subjects).await?;
    let audit = store.audit(&pool.queues()).await?;
    if audit.poisoned > 0 {
        tracing::warn!(pool = %pool.key, messages = audit.poisoned, "messages that no worker can read lie on the queues");
    }
    found.places = audit.places;
    let unplaced: Vec<TaskId> =
        subjects.iter().filter(|subject| is_unplaced(&found, subject)).map(|subject| subject.id.task).collect();
    if !unplaced.is_empty() {
        ask_workers(ctx, pool, store, &mut found).await?;
        read_documents(&mut found, store, unplaced.into_iter()).await?;
    }
    renew(store, &subjects, &found).await?;
    Ok(tell(ctx, pool, subjects, &found))
}

fn subjects(ctx: &Context, pool: &Handle, everything: bool) -> Vec<Subject> {
    let table = ctx.jobs.lock();
    let ours = |entry: &&Entry| pool.owns(entry);
    let wanted = |entry: &&Entry| match &entry.task {
        Task::Unread => true,
        Task::Absent(search) => everything && (entry.job.status.attempt.is_some() || search.marker.is_some()),
        Task::Queued { .. } | Task::Held(_) => everything,
        Task::Withdrawn { .. } | Task::Ended(_) => false,
    };
    let subject = |entry: &Entry| Subject {
        key: entry.job.key.clone(),
        id: entry.job.attempt_in_hand(),
        turn: entry.turn,
        task: entry.task.clone(),
        enqueued_at: entry.enqueued_at,
    };
    table.iter().filter(ours).filter(wanted).map(subject).collect()
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

/// In no queue list, and not in flight with a worker that we know.
fn is_unplaced(found: &Found, subject: &Subject) -> bool {
    let attributed = matches!(&subject.task, Task::Held(held) if matches!(held.by, Holding::By(..)));
    let withdrawn = found.markers.get(&subject.id.task).is_some_and(|marker| marker.state == MarkerState::Withdrawn);
    let published = found.markers.contains_key(&subject.id.task) || !matches!(subject.task, Task::Unread);
    match found
        .places
        .get(&subject.id.task)
        .map(|places| places.iter().any(|place| matches!(place, Place::Queued { .. })))
    {
        Some(true) => false,
        Some(false) => !attributed,
        None => published && !withdrawn,
    }
}

/// Asks the workers what they have. Silence is not denial: a draining worker is deaf and still works.
async fn ask_workers(ctx: &Context, pool: &Handle, store: &Store, found: &mut Found) -> Result<(), Error> {
    let pods = pool.spec.deployment_ref.as_ref().map(|deployment| {
        let key = ObjectKey::new(pool.key.namespace.clone(), deployment.name.as_str());
        let known = ctx.workers.is_listed(&pool.key.namespace) && ctx.workers.deployment(&key).is_some();
        known.then(|| ctx.workers.pods_of(&key).0)
    });
    let nodes: Vec<Node> = store.nodes().await?;
    let host = |node: &'_ Node| node.name.rsplit_once('@').map_or(&*node.name, |(_, host)| host).to_owned();
    let answered: HashSet<String> = nodes.iter().map(host).collect();
    (found.all_answered, found.all_known) = match pods {
        Some(Some(pods)) => (
            pods.iter().all(|pod| answered.contains(&**pod)),
            answered.iter().all(|host| pods.iter().any(|pod| **pod == **host)),
        ),
        Some(None) => (false, false),
        // Without a Deployment the workers that answer are all that anybody knows.
        None => (true, false),
    };
    for node in &nodes {
        for task in node.reserved.iter().chain(&node.active) {
            let known = found.holders.entry(task.task).or_insert_with(|| (node.name.clone(), None));
            known.1 = known.1.or(task.started_at);
        }
    }
    Ok(())
}

/// Keeps the messages of living workers from being restored by kombu after its visibility timeout.
async fn renew(store: &Store, subjects: &[Subject], found: &Found) -> Result<(), Error> {
    let in_flight =
        |subject: &&Subject| matches!(&subject.task, Task::Held(_)) || found.holders.contains_key(&subject.id.task);
    let tags: Vec<String> = subjects
        .iter()
        .filter(in_flight)
        .flat_map(|subject| found.places.get(&subject.id.task).into_iter().flatten())
        .filter_map(|place| match place {
            Place::InFlight { tag, .. } => Some(tag.to_string()),
            Place::Queued { .. } => None,
        })
        .collect();
    if !tags.is_empty() {
        store.renew(&tags).await?;
    }
    Ok(())
}

/// Notes what was found, where nothing has happened since.
fn tell(ctx: &Context, pool: &Handle, subjects: Vec<Subject>, found: &Found) -> usize {
    let mut missing = 0;
    let mut changed = Vec::new();
    {
        let mut table = ctx.jobs.lock();
        for subject in subjects {
            if table.get(&subject.key).is_none_or(|entry| entry.turn != subject.turn) {
                continue;
            }
            let task = judge(ctx, &subject, found);
            let marker = found.markers.get(&subject.id.task);
            let at = marker.map(|marker| marker.at).filter(|_| subject.enqueued_at.is_none());
            missing += usize::from(
                matches!(&task, Task::Absent(search) if search.marker.is_some() || subject.enqueued_at.is_some()),
            );
            if task != subject.task || at.is_some() {
                table.update(&subject.key, |entry| entry.enqueued_at = entry.enqueued_at.or(at));
                table.set_task(&subject.key, task);
                changed.push(subject.key);
            }
        }
    }
    tracing::debug!(pool = %pool.key, changed = changed.len(), missing, "levels read");
    for key in changed {
        ctx.jobs.queue.now(key);
    }
    missing
}

/// What the levels say of one attempt.
fn judge(ctx: &Context, subject: &Subject, found: &Found) -> Task {
    let Subject { key, id, task: before, .. } = subject;
    let marker = found.markers.get(&id.task);
    let generation = marker.map_or(id.generation, |marker| marker.generation);
    let base = match before {
        Task::Unread => Task::Queued { generation },
        Task::Absent(_) | Task::Queued { .. } | Task::Withdrawn { .. } | Task::Held(_) | Task::Ended(_) => {
            before.clone()
        }
    };
    let holder = |node: &Arc<str>| ctx.workers.holder(&key.namespace, node);
    let seen = found
        .documents
        .get(&id.task)
        .and_then(|document| evidence::from_document(*id, &base, document, holder, clock::now()));
    if let Some(ended @ Task::Ended(_)) = seen {
        return ended;
    }
    let running = match seen.as_ref().unwrap_or(before) {
        Task::Held(held) => Some(held.clone()),
        Task::Absent(search) => search.seen.clone(),
        Task::Unread | Task::Queued { .. } | Task::Withdrawn { .. } | Task::Ended(_) => None,
    };
    let claimed = found.holders.get(&id.task).map(|(node, started_at)| {
        held(generation, Holding::By(holder(node), Liveness::Alive), *started_at, running.as_ref())
    });
    let places = found.places.get(&id.task).map(Vec::as_slice).unwrap_or_default();
    let queued = places.iter().any(|place| matches!(place, Place::Queued { .. }));
    let in_flight = places.iter().any(|place| matches!(place, Place::InFlight { .. }));
    if let Some(held) = claimed {
        return Task::Held(held);
    }
    if queued && !in_flight {
        return Task::Queued { generation };
    }
    if in_flight {
        return Task::Held(running.unwrap_or_else(|| unattributed(generation, found.all_answered && found.all_known)));
    }
    if marker.is_some_and(|marker| marker.state == MarkerState::Withdrawn) {
        return Task::Withdrawn { generation };
    }
    let audits = match before {
        Task::Absent(search) => search.audits + 1,
        Task::Unread | Task::Queued { .. } | Task::Withdrawn { .. } | Task::Held(_) | Task::Ended(_) => 1,
    };
    Task::Absent(Search {
        marker: marker.map(|marker| marker.generation),
        audits,
        denied: found.all_answered,
        seen: running,
        blind: false,
    })
}

fn unattributed(generation: u32, denied: bool) -> Held {
    let by = if denied { Holding::Nobody } else { Holding::Unattributed };
    Held { generation, started_at: None, by, celery_retries: 0, progress: None }
}

/// A worker was found dead: what it stored before it died is read, then its death counts.
pub async fn confirm_death(ctx: &Context, entry: &Entry, dead: Task) {
    let job = &entry.job;
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
    let said = documents.into_iter().flatten().next().and_then(|document| {
        let seen = evidence::from_document(id, &entry.task, &document, holder, clock::now())?;
        matches!(seen, Task::Ended(_)).then_some(seen)
    });
    let mut table = ctx.jobs.lock();
    if table.get(&job.key).is_some_and(|now| now.turn == entry.turn) {
        table.set_task(&job.key, said.unwrap_or(dead));
    }
    drop(table);
    ctx.jobs.queue.now(job.key.clone());
}
