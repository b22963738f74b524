//! Remote control: requests are heard, answered and obeyed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::context::Worker;
use super::control::{self, Action, View};
use super::entry::{Entry, Stage};
use super::registry::Limits;
use super::{document, status};
use crate::runtime::clock;
use crate::store::channel;
use crate::wire::event::Detail;
use crate::wire::pidbox::{Request, WorkerConf};
use crate::wire::{Number, Value};

/// The signal that stops what only waits.
const SIGTERM: i32 = 15;

/// Most workers whose settings are compared with one's own: each answer has some 10 kB.
const COMPARED: usize = 8;
/// kombu's `visibility_timeout` where none is set.
const USUAL_VISIBILITY: i64 = 3600;

/// Hears requests until the connection is closed for good.
pub async fn serve(worker: Arc<Worker>, mut calls: mpsc::Receiver<channel::Call>) {
    while let Some(call) = calls.recv().await {
        match call {
            channel::Call::Connected => {
                tracing::debug!("listening to remote control");
                worker.readiness.ready("remote control", "heard");
                worker.hears.notify_one();
            }
            channel::Call::Disconnected(reason) => {
                tracing::warn!(%reason, "listening to remote control failed; retrying");
                worker.readiness.missing("remote control", reason);
            }
            channel::Call::Request(request) if control::is_for(&request, worker.node()) => {
                obey(&worker, &request).await;
            }
            channel::Call::Request(_) => {}
        }
    }
}

/// Asks the other workers which tasks are revoked: only they remember.
pub async fn mingle(worker: &Worker) {
    let revoked = {
        let revoked = worker.revoked.lock();
        revoked.ids(clock::now()).map(str::to_owned).collect()
    };
    let answers = match worker.channel.ask(Request::hello(worker.node(), revoked)).await {
        Ok(answers) => answers,
        Err(error) => {
            return tracing::warn!(%error, "asking the other workers for revoked tasks failed; starting without their answers");
        }
    };
    for (node, answer) in answers.iter().filter(|(node, _)| **node != *worker.node()) {
        tracing::info!(%node, "another worker answered");
        worker.events.adjust(answer.get("clock").and_then(Value::as_i64).unwrap_or(0));
        if let Some(revoked) = answer.get("revoked") {
            worker.revoked.lock().merge(revoked, clock::now());
        }
    }
    let others = answers.iter().map(|(node, _)| node.to_string()).filter(|node| *node != worker.node());
    let some: Vec<String> = others.take(COMPARED).collect();
    if !some.is_empty() {
        compare(worker, some).await;
    }
}

/// Warns of workers with another visibility timeout: the one with the shorter one takes back what the other one runs.
async fn compare(worker: &Worker, nodes: Vec<String>) {
    let answers = match worker.channel.ask(Request::conf(false).to(nodes)).await {
        Ok(answers) => answers,
        Err(error) => {
            return tracing::warn!(%error, "asking the other workers for their settings failed; starting without a comparison");
        }
    };
    let own = i64::from(worker.config.visibility_timeout);
    for (node, answer) in answers {
        let theirs = WorkerConf::decode(&answer).visibility_timeout.unwrap_or(USUAL_VISIBILITY);
        if theirs != own {
            tracing::warn!(
                %node,
                theirs,
                own,
                "another worker has another visibility timeout, so tasks may run twice; set --visibility-timeout and \
                 visibility_timeout in broker_transport_options to the same number of seconds"
            );
        }
    }
}

async fn obey(worker: &Arc<Worker>, request: &Request) {
    let entries = worker.entries.list();
    let answered = look(worker, &entries, |view| control::answer(request, view, clock::now()));
    tracing::debug!(method = request.method, "remote control");
    // Before the answer: a task that is taken while that is on its way must not begin.
    for action in &answered.actions {
        if let Action::Revoke { ids, signal } = action {
            stop(worker, ids, *signal);
        }
    }
    if let (Some(address), Some(reply)) = (&request.reply, answered.reply) {
        let tag = clock::random_id().to_string();
        if let Err(error) = worker.channel.reply(address, worker.node(), reply, worker.events.tick(), tag).await {
            tracing::warn!(%error, method = request.method, "replying to a remote control request failed; the request stays without reply");
        }
    }
    for action in answered.actions {
        act(worker, action).await;
    }
}

/// Shows what the worker knows at this moment.
fn look<T>(worker: &Worker, entries: &[Arc<Entry>], see: impl FnOnce(&View<'_>) -> T) -> T {
    let now = clock::now();
    let clock = worker.events.tick();
    let (mut running, mut reserved, mut scheduled) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let task = |started, pid| control::Task {
            message: &entry.message,
            properties: &entry.envelope.properties,
            started,
            pid,
            acknowledged: false,
        };
        match entry.stage() {
            Stage::Running { since, pid } => running.push(task(Some(since), Some(pid))),
            // What is put aside is here as well: a worker that denies to have a task has lost it, in the eyes of the operator.
            Stage::Reserved | Stage::PutAside => reserved.push(task(None, None)),
            Stage::Scheduled(_) => scheduled.push(task(None, None)),
        }
    }
    let concurrency = worker.concurrency();
    let prefetch = i64::from(concurrency) + i64::try_from(scheduled.len()).unwrap_or(i64::MAX);
    let queues = worker.queues.borrow().clone();
    let registered: Vec<String> = worker.registry.names().map(str::to_owned).collect();
    let rate_limits = worker.rates.lock().texts();
    let totals = worker.totals.lock().clone();
    let revoked = worker.revoked.lock();
    let view = View {
        node: worker.node(),
        pid: std::process::id(),
        uptime: now.duration_since(worker.since).unsigned_abs(),
        clock,
        concurrency,
        running,
        reserved,
        scheduled,
        registered: &registered,
        rate_limits: &rate_limits,
        queues: &queues,
        revoked: &revoked,
        totals: &totals,
        broker: &worker.broker,
        prefetch_count: prefetch,
        usage: status::usage(),
        memory: status::memory(),
        config: &worker.config,
        time_limit: &worker.time_limit,
        routes: &worker.routes,
        events: worker.events.announces_tasks(),
    };
    see(&view)
}

async fn act(worker: &Arc<Worker>, action: Action) {
    match action {
        Action::Revoke { ids, .. } => show_revoked(worker, &ids).await,
        Action::Merge { revoked } => worker.revoked.lock().add(revoked, clock::now()),
        Action::EnableEvents => drop(worker.events.enable_tasks(true)),
        Action::DisableEvents => drop(worker.events.enable_tasks(false)),
        Action::Heartbeat => worker.events.say(Detail::WorkerHeartbeat(status::of(worker))),
        Action::Shutdown => {
            tracing::info!("shutdown requested by remote control");
            worker.warm_shutdown.cancel();
        }
        Action::AddConsumer(queue) => {
            if let Err(error) = worker.channel.declare(std::slice::from_ref(&queue)).await {
                tracing::warn!(%error, queue = %queue.name, "binding a queue to its exchange failed; consuming it unbound");
            }
            worker.queues.send_if_modified(|queues| {
                let is_new = queues.iter().all(|known| known.name != queue.name);
                if is_new {
                    queues.push(queue);
                }
                is_new
            });
        }
        Action::CancelConsumer(name) => drop(worker.queues.send_if_modified(|queues| {
            let before = queues.len();
            queues.retain(|queue| *queue.name != *name);
            queues.len() != before
        })),
        Action::Grow(by) => worker.grow(by),
        Action::Shrink(by) => worker.shrink(by),
        Action::TimeLimit { task, hard, soft } => {
            let limits = Limits { hard: limit(hard), soft: limit(soft) };
            worker.limits.lock().insert(task, limits);
        }
        Action::RateLimit { task, text, per_second } => {
            worker.rates.lock().set(task, text, per_second, clock::now());
        }
    }
}

/// What runs is killed if a signal is given, what waits is dropped, what comes later is not begun.
fn stop(worker: &Worker, ids: &[String], signal: Option<i32>) {
    // First, so that no task slips through between the two.
    worker.revoked.lock().add(ids, clock::now());
    for entry in worker.entries.list().iter().filter(|entry| ids.contains(&entry.message.headers.id)) {
        match (entry.stage(), signal) {
            (Stage::Running { .. }, None) => {}
            (Stage::Running { .. }, Some(signal)) => entry.stop(signal),
            (Stage::Reserved | Stage::Scheduled(_) | Stage::PutAside, _) => entry.stop(SIGTERM),
        }
    }
    worker.schedule.hurry_stopped();
}

/// What is not here is stored as revoked, unless it runs elsewhere or has ended.
async fn show_revoked(worker: &Worker, ids: &[String]) {
    let here: HashSet<String> = worker.entries.list().iter().map(|entry| entry.message.headers.id.clone()).collect();
    for id in ids.iter().filter(|id| !here.contains(*id)) {
        let document = document::revoked_unseen(id, clock::now()).encode();
        if let Err(error) = worker.channel.revoke_unseen(id, &document, worker.config.result_expires()).await {
            tracing::warn!(task.id = id, %error, "storing the state REVOKED failed; it is stored when the message is dropped");
        }
    }
}

fn limit(seconds: Option<Number>) -> Option<Duration> {
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.as_f64()).ok())
}
