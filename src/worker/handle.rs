//! One message's way through the worker, from its queue to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::admit::{self, Read};
use super::builtin;
use super::conclude::{self, Conclusion, RunEnd};
use super::context::{LEASE, Worker};
use super::document::About;
use super::entry::{Entry, Stage};
use super::execute::execute;
use super::follow;
use super::outcome::Outcome;
use super::registry;
use super::settle::settle;
use super::step::{Answer, Aside, Seen, Step, next};
use crate::runtime::clock;
use crate::store::channel::{Begun, Delivery, Publication};
use crate::wire::event::{Detail, TaskSummary};
use crate::wire::{DeliveryInfo, Envelope};

/// A slot of the worker's concurrency; `None` while the message waits.
type Slot = Option<OwnedSemaphorePermit>;

/// The worker shuts down, and the message is back on its queue, or stays in flight until its visibility timeout.
struct Abandoned;

/// Brings a message to its end.
pub async fn handle(worker: Arc<Worker>, delivery: Delivery, slot: OwnedSemaphorePermit) {
    let tag = delivery.tag;
    match admit::read(&delivery.envelope) {
        Read::Poison(why) => {
            tracing::error!(%tag, %why, "a message without a task id is moved to the quarantine");
            worker.retry_until_done(|| worker.channel.discard(&tag)).await;
        }
        Read::Unreadable { id, task, failure } => {
            tracing::error!(task.id = %id, task.name = task, error = failure.exception.message(), "decoding a message failed; storing FAILURE as its result");
            let end = Conclusion::refused(&id, &failure, clock::now());
            settle(&worker, &id, &tag, None, &end).await;
        }
        Read::Task(task) => {
            drop(delivery.envelope);
            let (envelope, message) = *task;
            let listed = worker.entries.add(tag, worker.holder(), envelope, message);
            let _: Result<(), Abandoned> = attend(&worker, &listed.entry, Some(slot)).await;
        }
    }
}

async fn attend(worker: &Arc<Worker>, entry: &Arc<Entry>, mut slot: Slot) -> Result<(), Abandoned> {
    let message = &entry.message;
    let (id, name) = (message.headers.id.as_str(), message.headers.task.as_str());
    let about = About { message, envelope: &entry.envelope, worker: worker.node() };
    let Some(task) = worker.registry.get(name) else {
        tracing::error!(
            task.id = id,
            task.name = name,
            "no command is configured for this task; storing FAILURE as its result"
        );
        let failure = registry::not_registered(name);
        settle(worker, id, &entry.tag, None, &Conclusion::refused(id, &failure, clock::now())).await;
        return Ok(());
    };
    let redelivered = entry.envelope.properties.delivery_info.redelivered.unwrap_or(false);
    let mut seen = Seen {
        message,
        redelivered,
        is_revoked: false,
        is_announced: false,
        has_slot: true,
        answer: None,
        aside: None,
    };
    loop {
        // The worker forgets old revocations; an entry that was told to stop stays told.
        seen.is_revoked = worker.revoked(id) || entry.is_stopped();
        seen.has_slot = slot.is_some();
        let now = clock::now();
        match next(&seen, now) {
            Step::Announce => {
                announce(worker, entry);
                seen.is_announced = true;
            }
            Step::Wait(at) => {
                entry.enter(Stage::Scheduled(at));
                slot.take();
                rest(worker, entry, clock::until(at, now)).await?;
            }
            Step::TakeSlot => {
                slot = Some(free_slot(worker, entry).await?);
                entry.enter(Stage::Reserved);
            }
            Step::Ask { take } => seen.answer = Some(ask(worker, entry, take).await),
            Step::Rest(time) => {
                seen.answer = None;
                rest(worker, entry, time).await?;
            }
            Step::PutAside(why, time) => {
                log_put_aside(entry, why, seen.aside.is_none());
                (seen.answer, seen.aside) = (None, Some(why));
                worker.rates.lock().give_back(name);
                entry.enter(Stage::PutAside);
                slot.take();
                rest(worker, entry, time).await?;
            }
            Step::Run => return run(worker, entry, task).await,
            Step::Forget(how) => {
                tracing::info!(task.id = id, task.name = name, how, "not run again: the task has ended before");
                forget(worker, entry).await;
                return Ok(());
            }
            Step::Drop { expired } => {
                let end = Conclusion::dropped(about, expired, clock::now());
                settle(worker, id, &entry.tag, None, &end).await;
                return Ok(());
            }
        }
    }
}

/// Asks the rate limit, then Redis for the task's lease. With `take` a free lease is taken, else it is only looked at.
async fn ask(worker: &Worker, entry: &Entry, take: bool) -> Answer {
    let (id, name) = (entry.message.headers.id.as_str(), entry.message.headers.task.as_str());
    let limited = worker.rates.lock().begin(name, clock::now());
    if let Some(time) = limited {
        return Answer::Limited(time);
    }
    let begun = if take {
        worker.channel.begin(id, &entry.tag, &entry.holder, LEASE).await
    } else {
        worker.channel.peek_lease(id, &entry.tag).await
    };
    match begun {
        Ok(Begun::Taken(head)) => {
            entry.lease(take);
            Answer::Free(head)
        }
        Ok(Begun::LeasedElsewhere(left)) => Answer::LeasedElsewhere(left),
        Err(error) => {
            tracing::warn!(task.id = id, task.name = name, %error, "taking the lease failed; putting the message aside and retrying");
            Answer::Failed
        }
    }
}

fn log_put_aside(entry: &Entry, why: Aside, is_first: bool) {
    let (id, name) = (entry.message.headers.id.as_str(), entry.message.headers.task.as_str());
    match why {
        Aside::PutBack => {
            tracing::info!(
                task.id = id,
                task.name = name,
                "put aside: the message was put back, and its former run may go on"
            );
        }
        Aside::LeasedElsewhere if is_first => {
            tracing::info!(task.id = id, task.name = name, "put aside: another run holds the lease");
        }
        // A long wait is logged once, a failure where it was seen.
        Aside::LeasedElsewhere | Aside::NoAnswer => {}
    }
}

/// Runs a task whose lease is ours, and settles it.
async fn run(worker: &Arc<Worker>, entry: &Arc<Entry>, task: &registry::Task) -> Result<(), Abandoned> {
    let message = &entry.message;
    let (id, name) = (message.headers.id.as_str(), message.headers.task.as_str());
    let about = About { message, envelope: &entry.envelope, worker: worker.node() };
    let since = clock::now();
    entry.enter(Stage::Running { since, pid: std::process::id() });
    worker.count(name);
    worker.events.task(Detail::TaskStarted { uuid: id.to_owned() });
    tracing::info!(task.id = id, task.name = name, retries = message.headers.retries, "task begins");
    worker.metrics.running.inc();
    let _ends = Ends(&worker.metrics.running);
    let outcome = if let Some(failure) = follow::refusal(message) {
        Outcome::Failed { failure, retryable: false }
    } else {
        tokio::select! {
            outcome = execute(worker, entry, task) => outcome,
            () = worker.cold_shutdown.cancelled() => {
                put_back(worker, entry).await;
                return Err(Abandoned);
            }
        }
    };
    worker.metrics.ended(&outcome);
    let now = clock::now();
    let seconds = now.duration_since(since).as_secs_f64();
    match &outcome {
        Outcome::Succeeded(_) => tracing::info!(task.id = id, task.name = name, seconds, "task succeeded"),
        Outcome::Failed { failure, .. } => {
            let error = format!("{}: {}", failure.exception.exc_type, failure.exception.message());
            tracing::warn!(task.id = id, task.name = name, seconds, error, "task failed");
        }
        Outcome::Stopped { signal } => tracing::info!(task.id = id, task.name = name, seconds, signal, "task stopped"),
    }
    let run_end = RunEnd {
        sender: &worker.sender(),
        max_retries: task.max_retries(),
        is_builtin_errback: builtin::is_errback,
        jitter_seed: clock::random_id().as_fields().0,
        memory: entry.memory(),
        seconds,
        now,
    };
    let end = conclude::conclude(about, outcome, &run_end, || clock::random_id().to_string());
    settle(worker, id, &entry.tag, Some(entry), &end).await;
    Ok(())
}

/// A run that goes on, as it is counted.
struct Ends<'a>(&'a prometheus_client::metrics::gauge::Gauge);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Acknowledges the message of a task that has ended before.
async fn forget(worker: &Worker, entry: &Entry) {
    let (id, expires) = (&entry.message.headers.id, worker.config.result_expires());
    let forget = || async {
        // Another database may be slow: meanwhile leases are renewed.
        worker.channel.store_noted(&entry.tag, expires).await?;
        let _no_renewal = worker.renewal.read().await;
        let forgotten = worker.channel.acknowledge_ended(id, &entry.tag, entry.lease_holder()).await?;
        entry.lease(false);
        Ok(forgotten)
    };
    if worker.retry_until_done(forget).await.is_none() {
        tracing::warn!(task.id = %id, "acknowledging a message failed, and the worker stops: the message will be delivered again");
    }
}

/// A message and the queue it goes to.
pub(super) fn publication(worker: &Worker, message: &Envelope) -> Publication {
    let DeliveryInfo { exchange, routing_key, .. } = &message.properties.delivery_info;
    let queues = worker.queues.borrow();
    let bound = queues.iter().find(|queue| *queue.exchange == **exchange && *queue.routing_key == **routing_key);
    let queue = bound.map_or_else(|| routing_key.clone(), |queue| queue.name.to_string());
    Publication { queue, priority: message.properties.priority, envelope: message.encode() }
}

/// Waits until then, or until it is revoked. When the worker shuts down, the message goes back.
async fn rest(worker: &Worker, entry: &Entry, time: Duration) -> Result<(), Abandoned> {
    tokio::select! {
        () = sleep(time) => Ok(()),
        _ = entry.stopped() => Ok(()),
        () = worker.warm_shutdown.cancelled() => {
            put_back(worker, entry).await;
            Err(Abandoned)
        }
    }
}

/// Waits for a slot. When the worker shuts down, the message goes back.
async fn free_slot(worker: &Worker, entry: &Entry) -> Result<OwnedSemaphorePermit, Abandoned> {
    let free = tokio::select! {
        free = worker.slots.clone().acquire_owned() => free.ok(),
        () = worker.warm_shutdown.cancelled() => None,
    };
    if free.is_none() {
        put_back(worker, entry).await;
    }
    free.ok_or(Abandoned)
}

/// Puts the message back on its queue for another worker, as far as Redis answers. Otherwise it stays in flight, and is
/// put back when its time there has run out.
async fn put_back(worker: &Worker, entry: &Entry) {
    let id = &entry.message.headers.id;
    let holder = entry.lease_holder();
    let queues = worker.queues.borrow().clone();
    let _no_renewal = worker.renewal.read().await;
    entry.lease(false);
    match worker.channel.restore(&entry.tag, id, holder, &queues).await {
        Ok(_) => tracing::info!(task.id = %id, "put back on its queue for another worker"),
        Err(error) => {
            tracing::error!(task.id = %id, %error, "putting a message back failed; it is delivered again after the visibility timeout");
        }
    }
}

fn announce(worker: &Worker, entry: &Entry) {
    let headers = &entry.message.headers;
    worker.events.task(Detail::TaskReceived {
        uuid: headers.id.clone(),
        task: TaskSummary {
            name: Some(headers.task.clone()),
            args: headers.argsrepr.clone(),
            kwargs: headers.kwargsrepr.clone(),
            root_id: headers.root_id.clone(),
            parent_id: headers.parent_id.clone(),
            retries: Some(headers.retries.unwrap_or(0)),
            eta: headers.eta.clone(),
            expires: headers.expires.clone(),
        },
    });
}
