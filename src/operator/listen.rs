//! What workers publish while they work. Every notice is a hint that may be lost; the levels are read as well.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::context::Context;
use super::documents;
use super::late;
use super::pools::Handle;
use crate::core::evidence::Word;
use crate::core::job::{AttemptId, TaskId};
use crate::core::observed::Liveness;
use crate::core::status::Holder;
use crate::runtime::clock;
use crate::store::{Document, Notice, Stage, Store, TaskEvent, WorkerState};

/// Long results that wait to be read; with more, all levels are read.
const LONG: usize = 256;

/// Two words about one start are at most so far apart.
const SAME_START: Duration = Duration::from_secs(2);

/// Listens, for ever.
pub async fn run(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store) {
    let (long, mut to_read) = mpsc::channel(LONG);
    tokio::join!(hear(ctx, pool, store, &long), async {
        while let Some(task) = to_read.recv().await {
            match store.outcome(task).await {
                Ok(Some(document)) => result(ctx, task, document),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(pool = %pool.key, %error, "a long result could not be read; reading all levels");
                    pool.audit.notify_one();
                }
            }
        }
    });
}

async fn hear(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store, long: &mpsc::Sender<TaskId>) {
    let mut notices = std::pin::pin!(store.subscribe());
    while let Some(notice) = notices.next().await {
        match notice {
            Notice::Result { task, document } => {
                pool.hears_of_work(clock::now());
                match document {
                    Some(document) => result(ctx, task, Document::decode(&document)),
                    None if !is_awaited(ctx, task) => {}
                    None if long.try_send(task).is_ok() => {}
                    None => pool.audit.notify_one(),
                }
                pool.load.notify_one();
            }
            Notice::Task(event) => {
                pool.hears_of_work(clock::now());
                task_event(ctx, &event);
            }
            Notice::Worker(event) => match event.state {
                WorkerState::Online => {
                    pool.hears_of_worker(clock::now());
                    pool.load.notify_one();
                    pool.started.notify_one();
                }
                WorkerState::Offline => pool.load.notify_one(),
                WorkerState::Heartbeat { .. } => pool.hears_of_worker(clock::now()),
            },
            Notice::Connected => {
                tracing::debug!(pool = %pool.key, "listening to results and events");
                pool.audit.notify_one();
            }
            Notice::Lagged => pool.audit.notify_one(),
            Notice::Disconnected(reason) => {
                tracing::warn!(pool = %pool.key, reason, "results and events are not heard");
            }
        }
    }
}

/// Whether anything follows from a result of this task.
fn is_awaited(ctx: &Context, task: TaskId) -> bool {
    ctx.jobs.lock().in_hand(task).is_some() || ctx.jobs.ended.awaits(task)
}

fn result(ctx: &Arc<Context>, task: TaskId, document: Document) {
    let Some((namespace, pool, id)) = ctx.jobs.lock().in_hand(task) else {
        let first = AttemptId { number: 1, task, generation: 0 };
        let nobody = |node: &Arc<str>| Holder { node: node.clone(), container: None };
        return late::heard(ctx, task, documents::read(first, document, nobody, clock::now()));
    };
    // A result may be large: it is read while nobody waits for the table.
    let holder = |node: &Arc<str>| ctx.workers.holder(&namespace, node);
    let Some(said) = documents::read(id, document, holder, clock::now()) else { return };
    if ctx.jobs.hear(task, |_, evidence| evidence.told(said)) {
        ctx.pools.read_levels(&namespace, &pool);
    }
}

fn task_event(ctx: &Context, event: &TaskEvent) {
    let said_at = event.at.unwrap_or_else(clock::now);
    let started_at = match event.stage {
        Stage::Received => None,
        Stage::Started => Some(said_at),
        // The result document says these, and more.
        Stage::Succeeded | Stage::Failed | Stage::Retried | Stage::Revoked { .. } | Stage::Rejected { .. } => return,
    };
    ctx.jobs.hear(event.task, |job, evidence| {
        let before = evidence.sighting().map(|seen| ctx.workers.judge(&job.key.namespace, seen).1);
        if is_second_run(evidence.sighting().map(|seen| &seen.word).zip(before), &event.node, started_at) {
            ctx.metrics.duplicate_runs.inc();
            tracing::warn!(job = %job.key, task.id = %event.task, worker = %event.node, "a task that runs was begun again");
        }
        let holder = Some(ctx.workers.holder(&job.key.namespace, &event.node));
        evidence.hear(Word { holder, said_at, started_at, celery_retries: 0, progress: None });
    });
}

/// Whether a task that a living worker runs is begun once more: an unguarded stock worker does that after a blip.
fn is_second_run(before: Option<(&Word, Liveness)>, node: &Arc<str>, began: Option<Timestamp>) -> bool {
    let (Some((word, Liveness::Alive | Liveness::Unreachable)), Some(began)) = (before, began) else { return false };
    let (Some(holder), Some(first)) = (&word.holder, word.started_at) else { return false };
    // The start is told twice, by the STARTED document and by the event, a moment apart.
    holder.node != *node || began.duration_since(first).as_secs() >= SAME_START.as_secs().cast_signed()
}
