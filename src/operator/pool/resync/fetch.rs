//! Reads Redis and asks the workers, and says in the words of the decision core what they said.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use crate::api::OnWorkerUnreachable;
use crate::core::evidence::Place;
use crate::core::id::{AttemptId, TaskId};
use crate::core::index::audit::{Answer, Answers, Asked, Findings, Results, Tracked};
use crate::operator::context::Context;
use crate::operator::job::documents;
use crate::operator::state::pool::Handle;
use crate::runtime::clock;
use crate::store::{self, Error, MarkerId, Store};

/// Reads result documents one at a time, and keeps of each what it says.
pub async fn read_documents(
    ctx: &Context,
    pool: &Handle,
    results: &mut Results,
    store: &Store,
    ids: impl Iterator<Item = AttemptId>,
) -> Result<(), Error> {
    let ids: Vec<AttemptId> = ids.collect();
    let tasks: Vec<TaskId> = ids.iter().map(|id| id.task).collect();
    let now = clock::now();
    let holder = |node: &Arc<str>| ctx.speaker(pool, node);
    store
        .outcomes(&tasks, |at, document| {
            if let Some(said) = documents::read(ids[at], document, holder, now) {
                results.document(tasks[at], said);
            }
        })
        .await
}

/// Reads the markers of these attempts.
pub async fn read_markers(found: &mut Findings, store: &Store, tracked: &[Tracked]) -> Result<(), Error> {
    let markers = store.markers(&marker_ids(tracked)).await?;
    let marks = tracked.iter().zip(markers).filter_map(|(it, marker)| Some((it.id.task, marker?.mark())));
    found.marks.extend(marks);
    Ok(())
}

/// Looks up the messages of these attempts, one by one.
pub async fn locate(found: &mut Findings, store: &Store, tracked: &[Tracked]) -> Result<(), Error> {
    let places = store.locate(&marker_ids(tracked)).await?;
    for (tracked, place) in tracked.iter().zip(places) {
        let task = tracked.id.task;
        found.copies.insert(task, place.iter().map(|place| copy(task, place)).collect());
    }
    Ok(())
}

/// Where an audit has found copies of the messages of these attempts.
pub fn copies(tracked: &[Tracked], places: &HashMap<TaskId, Vec<store::Place>>) -> HashMap<TaskId, Vec<Place>> {
    let found = |task: TaskId| Some((task, places.get(&task)?.iter().map(|it| copy(task, it)).collect()));
    tracked.iter().filter_map(|tracked| found(tracked.id.task)).collect()
}

/// Notes from which attempts messages of other tasks follow. The ids of these, of those that have no message themselves.
pub fn followers(
    found: &mut Findings,
    tracked: &[Tracked],
    mut of_roots: HashMap<TaskId, Vec<Arc<str>>>,
) -> HashMap<TaskId, Vec<Arc<str>>> {
    found.followed = tracked.iter().filter(|it| of_roots.contains_key(&it.root)).map(|it| it.id.task).collect();
    let goes_on = |it: &&Tracked| found.place(it.id.task) == Place::GoesOn;
    tracked.iter().filter(goes_on).filter_map(|it| Some((it.id.task, of_roots.remove(&it.root)?))).collect()
}

/// Asks the workers which of these tasks they have.
pub async fn ask_workers(ctx: &Context, pool: &Handle, store: &Store, tasks: &[TaskId]) -> Result<Answers, Error> {
    let asked = ctx.workers.read(|pods| Asked::of(pods, pool.fleet.as_ref()));
    let answer = |node: store::Node| Answer {
        node: node.name,
        has: node.tasks.into_iter().map(|task| (task.task, task.started_at)).collect(),
    };
    let answers = store.holders(tasks).await?.into_iter().map(answer).collect();
    let elsewhere = pool.nodes.elsewhere(pool.longest_silence(), Instant::now());
    let restarts_unreachable = pool.spec.on_worker_unreachable == OnWorkerUnreachable::Restart;
    Ok(asked.answered(answers, &elsewhere, restarts_unreachable))
}

fn marker_ids(tracked: &[Tracked]) -> Vec<MarkerId> {
    tracked.iter().map(|it| MarkerId::new(it.key.namespace.clone(), it.id.task)).collect()
}

/// A copy of a task's message: of one of the operator's deliveries, or one that another client of Redis has published.
fn copy(task: TaskId, place: &store::Place) -> Place {
    match place {
        store::Place::Queued { tag, .. } => match task.generation_of(tag) {
            Some(generation) => Place::Queued { generation },
            None => Place::CopyQueued,
        },
        store::Place::InFlight { tag, received_at, eta: _ } => match task.generation_of(tag) {
            Some(generation) => Place::InFlight { generation, received_at: *received_at },
            None => Place::CopyInFlight { tag: kombu_tag(tag), received_at: *received_at },
        },
    }
}

/// A delivery tag as `kombu.utils.uuid` makes it.
fn kombu_tag(tag: &str) -> Option<Uuid> {
    Uuid::try_parse(tag).ok().filter(|uuid| uuid.hyphenated().to_string() == tag)
}
