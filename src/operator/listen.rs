//! What workers publish while they work. Every notice is a hint that may be lost; the levels are read as well.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;

use super::context::Context;
use super::evidence;
use super::observe::held;
use super::pools::Handle;
use crate::core::observed::{Held, Holding, Liveness, Task};
use crate::runtime::clock;
use crate::store::{Document, Notice, Stage, Store, TaskEvent, WorkerState};

/// Two words about one start are at most so far apart.
const SAME_START: Duration = Duration::from_secs(2);

/// Listens, for ever.
pub async fn run(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store) {
    let mut notices = std::pin::pin!(store.subscribe());
    while let Some(notice) = notices.next().await {
        match notice {
            Notice::Result { task, document } => {
                let document = Document::Whole(document);
                ctx.jobs.see(task, |entry| {
                    let holder = |node: &Arc<str>| ctx.workers.holder(&entry.job.key.namespace, node);
                    evidence::from_document(entry.job.attempt_in_hand(), &entry.task, &document, holder, clock::now())
                });
                pool.load.notify_one();
            }
            Notice::Task(event) => task_event(ctx, &event),
            Notice::Worker(event) => match event.state {
                WorkerState::Online | WorkerState::Offline => pool.load.notify_one(),
                WorkerState::Heartbeat { .. } => {}
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

fn task_event(ctx: &Context, event: &TaskEvent) {
    let began = match event.stage {
        Stage::Received => None,
        Stage::Started => Some(event.at.unwrap_or_else(clock::now)),
        // The result document says these, and more.
        Stage::Succeeded | Stage::Failed | Stage::Retried | Stage::Revoked { .. } | Stage::Rejected { .. } => return,
    };
    ctx.jobs.see(event.task, |entry| {
        let holder = ctx.workers.holder(&entry.job.key.namespace, &event.node);
        let before = match &entry.task {
            Task::Held(held) => Some(held),
            Task::Absent(search) => search.seen.as_ref(),
            Task::Unread | Task::Queued { .. } | Task::Withdrawn { .. } => None,
            Task::Ended(_) => return None, // events come after the document
        };
        if is_second_run(before, &event.node, began) {
            ctx.metrics.duplicate_runs.inc();
            tracing::warn!(job = %entry.job.key, task.id = %event.task, worker = %event.node, "a task that runs was begun again");
        }
        let generation = before.map_or_else(|| published(&entry.task, entry.job.attempt_in_hand().generation), |held| held.generation);
        let by = Holding::By(holder, Liveness::Alive);
        Some(Task::Held(held(generation, by, began, before)))
    });
}

fn published(task: &Task, otherwise: u32) -> u32 {
    match task {
        Task::Queued { generation } | Task::Withdrawn { generation } => *generation,
        Task::Unread | Task::Absent(_) | Task::Held(_) | Task::Ended(_) => otherwise,
    }
}

/// Whether a task that a living worker runs is begun once more: an unguarded stock worker does that after a blip.
fn is_second_run(before: Option<&Held>, node: &Arc<str>, began: Option<Timestamp>) -> bool {
    let (Some(held), Some(began)) = (before, began) else { return false };
    let (Holding::By(holder, Liveness::Alive | Liveness::Unreachable), Some(first)) = (&held.by, held.started_at)
    else {
        return false;
    };
    // The start is told twice, by the STARTED document and by the event, a moment apart.
    holder.node != *node || began.duration_since(first).as_secs() >= SAME_START.as_secs().cast_signed()
}
