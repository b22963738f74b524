//! What workers publish while they work. Every notice is a hint that may be lost; the levels are read as well.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::core::claims::clocks::Moment;
use crate::core::claims::{self, Concern};
use crate::core::evidence::{Report, Sighting};
use crate::core::id::{AttemptId, TaskId};
use crate::core::observed::Liveness;
use crate::core::status::Holder;
use crate::operator::context::Context;
use crate::operator::job::documents;
use crate::operator::job::late;
use crate::operator::state::pool::Handle;
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
            match Box::pin(store.outcome(task)).await {
                Ok(Some(document)) => read_result(ctx, pool, task, document),
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
            Notice::Result { task, document: Some(document) } => result(ctx, pool, task, &document),
            Notice::Result { task, document: None } => {
                if is_awaited(ctx, pool, task) && long.try_send(task).is_err() {
                    pool.audit.notify_one();
                }
            }
            Notice::Task(event) => task_event(ctx, pool, &event),
            Notice::Worker(event) => {
                if let Some(at) = event.at {
                    pool.clocks().hear(&event.node, at, clock::now());
                }
                let now = Instant::now();
                match event.state {
                    WorkerState::Online => {
                        pool.hears_of_worker(clock::now());
                        pool.nodes.started(
                            &event.node,
                            ctx.workers.read(|pods| pods.is_pod(pool.fleet.as_ref(), &event.node)),
                            now,
                        );
                        pool.load.notify_one();
                        pool.started.notify_one();
                    }
                    WorkerState::Offline => {
                        pool.nodes.left(&event.node);
                        pool.load.notify_one();
                    }
                    WorkerState::Heartbeat { .. } => {
                        pool.hears_of_worker(clock::now());
                        let is_pod = ctx.workers.read(|pods| pods.is_pod(pool.fleet.as_ref(), &event.node));
                        if pool.nodes.heard(&event.node, is_pod, now) {
                            pool.started.notify_one();
                        }
                    }
                }
            }
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

/// What something heard on a pool's Redis is about.
enum About {
    /// The attempt in hand of one of the pool's jobs.
    Own(AttemptId),
    /// A job of another pool. Whether it is true only that pool's own Redis can tell.
    Foreign,
    /// No attempt in hand.
    Unknown,
}

fn about(ctx: &Context, pool: &Handle, task: TaskId) -> About {
    let in_hand = ctx.jobs.lock().in_hand(task);
    let Some((namespace, of_pool, id)) = in_hand else { return About::Unknown };
    match claims::concern(&namespace, &of_pool, &pool.key) {
        Concern::Own => {
            pool.hears_of_work(clock::now());
            About::Own(id)
        }
        Concern::Foreign => {
            ctx.count_foreign(pool);
            About::Foreign
        }
    }
}

/// Whether anything follows from a result of this task that was heard on this pool's Redis.
fn is_awaited(ctx: &Context, pool: &Handle, task: TaskId) -> bool {
    match about(ctx, pool, task) {
        About::Own(_) => true,
        About::Foreign => false,
        About::Unknown => ctx.jobs.ended().awaits(task),
    }
}

/// A result was published.
fn result(ctx: &Arc<Context>, pool: &Handle, task: TaskId, document: &[u8]) {
    if is_awaited(ctx, pool, task) {
        read_result(ctx, pool, task, Document::decode(document));
    }
}

fn read_result(ctx: &Arc<Context>, pool: &Handle, task: TaskId, document: Document) {
    match about(ctx, pool, task) {
        About::Own(id) => {
            // A result may be large: it is read before the table is locked.
            let holder = |node: &Arc<str>| ctx.speaker(pool, node);
            if let Some(said) = documents::read(id, document, holder, clock::now())
                && ctx.jobs.hear(task, |_, evidence| evidence.told(said, clock::now()))
            {
                pool.levels.notify_one();
            }
            pool.load.notify_one();
        }
        About::Foreign => {}
        About::Unknown => {
            let first = AttemptId { number: 1, task, generation: 0 };
            let elsewhere = |node: &Arc<str>| (Holder { node: node.clone(), container: None }, 0);
            late::heard(ctx, pool, task, documents::read(first, document, elsewhere, clock::now()));
        }
    }
}

fn task_event(ctx: &Context, pool: &Handle, event: &TaskEvent) {
    let About::Own(_) = about(ctx, pool, event.task) else { return };
    let now = clock::now();
    let Moment { at: said_at, behind } =
        event.at.map_or(Moment { at: now, behind: 0 }, |at| pool.clocks().hear(&event.node, at, now));
    let started_at = match event.stage {
        Stage::Received => None,
        Stage::Started => Some(said_at),
        Stage::Succeeded | Stage::Failed => {
            ctx.jobs.hear(event.task, |_, evidence| evidence.run_ended());
            return;
        }
        // The result document says these, and more.
        Stage::Retried | Stage::Revoked { .. } | Stage::Rejected { .. } => return,
    };
    ctx.jobs.hear(event.task, |job, evidence| {
        let judge = |seen: &Sighting| ctx.workers.read(|pods| pods.judge(pool.fleet.as_ref(), &job.key.namespace, seen)).1;
        let before = evidence.sighting().map(judge);
        if is_second_run(evidence.sighting().map(|seen| &seen.report).zip(before), &event.node, started_at) {
            ctx.metrics.duplicate_runs.inc();
            tracing::warn!(job = %job.key, task.id = %event.task, worker = %event.node, "a task that runs was begun again");
        }
        let holder = ctx.workers.read(|pods| pods.holder(pool.fleet.as_ref(), &event.node));
        if holder.container.is_none() {
            // One outside the cluster may send no heartbeats.
            pool.nodes.heard(&event.node, ctx.workers.read(|pods| pods.is_pod(pool.fleet.as_ref(), &event.node)), Instant::now());
        }
        evidence.hear(Report { holder: Some(holder), said_at, behind, started_at, celery_retries: 0, progress: None, account: None });
    });
}

/// Whether a task that a living worker runs is begun once more: an unguarded stock worker does that after a blip.
fn is_second_run(before: Option<(&Report, Liveness)>, node: &Arc<str>, began: Option<Timestamp>) -> bool {
    let (Some((report, Liveness::Alive | Liveness::Unreachable)), Some(began)) = (before, began) else { return false };
    let (Some(holder), Some(first)) = (&report.holder, report.started_at) else { return false };
    // The start is told twice, by the STARTED document and by the event, a moment apart.
    holder.node != *node || began.duration_since(first).as_secs() >= SAME_START.as_secs().cast_signed()
}
