//! One message's way through the worker, from its queue to its end.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::admit::{self, Admission, Read};
use super::builtin;
use super::conclude::{self, Conclusion, Terms};
use super::context::{LEASE, RENEW, Worker, locked};
use super::document::About;
use super::entry::{Entry, Stage};
use super::execute::execute;
use super::follow;
use super::outcome::Outcome;
use super::registry;
use crate::runtime::clock;
use crate::store::channel::{Begun, Delivery, Publication, Settlement};
use crate::wire::event::{Detail, TaskSummary};
use crate::wire::{DeliveryInfo, Envelope};

/// The lease of the attempt before is often given up a moment after its retry has been sent.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Room for one task to run.
type Slot = Option<OwnedSemaphorePermit>;

/// Why a task is not run any further here.
struct Left;

/// Brings a message to its end.
pub async fn handle(worker: Arc<Worker>, delivery: Delivery, slot: OwnedSemaphorePermit) {
    let tag = delivery.tag;
    match admit::read(&delivery.envelope) {
        Read::Poison(why) => {
            tracing::error!(%tag, %why, "a message without a task id is moved to the quarantine");
            worker.insist(|| worker.channel.discard(&tag)).await;
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
            // Left: it is back on its queue, or Redis keeps it in flight for whoever sweeps.
            let _: Result<(), Left> = attend(&worker, &listed.entry, Some(slot)).await;
        }
    }
}

async fn attend(worker: &Arc<Worker>, entry: &Arc<Entry>, mut slot: Slot) -> Result<(), Left> {
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
    let mut said = false;
    let mut put_aside = false;
    let redelivered = entry.envelope.properties.delivery_info.redelivered.unwrap_or(false);
    let mut has_waited = !redelivered;
    loop {
        // There is an end to what is remembered; what was told to stop is told so for good.
        let is_revoked = worker.revoked(id) || entry.is_stopped();
        match admit::admit(message, is_revoked, true, clock::now()) {
            Admission::Run => {}
            Admission::Wait(at) => {
                received(worker, entry, &mut said);
                entry.enter(Stage::Scheduled(at));
                pause(worker, entry, &mut slot, until(at)).await?;
                continue;
            }
            refused @ (Admission::Revoked | Admission::Expired) => {
                let expired = refused == Admission::Expired;
                let end = Conclusion::dropped(about, expired, clock::now());
                settle(worker, id, &entry.tag, None, &end).await;
                return Ok(());
            }
            // Looked up before.
            Admission::Unknown => return Ok(()),
        }
        received(worker, entry, &mut said);
        if slot.is_none() {
            slot = Some(room(worker, entry).await?);
            entry.enter(Stage::Reserved);
            // What was known of it is old by now.
            continue;
        }
        let limited = locked(&worker.rates).begin(name, clock::now());
        if let Some(wait) = limited {
            // With its room, or the worker would take the whole queue.
            rest(worker, entry, wait).await?;
            continue;
        }
        // A worker that was cut off for longer than its leases last puts its running tasks back the moment it reaches
        // Redis again, before it renews: what was put back waits for it as long as a lease lasts. It waits anew whenever
        // it sees a lease, or nothing: whoever renews may be cut off once more.
        let is_given_time = std::mem::replace(&mut has_waited, !redelivered);
        let begun = if is_given_time {
            worker.channel.begin(id, &entry.tag, &entry.holder, LEASE).await
        } else {
            worker.channel.look(id, &entry.tag).await
        };
        let wait = match begun {
            Ok(Begun::Taken(head)) => {
                entry.lease(is_given_time);
                if let Some(how) = admit::ended(message, redelivered, &head) {
                    tracing::info!(task.id = id, task.name = name, how, "not run again: the task has ended before");
                    forget(worker, entry).await;
                    return Ok(());
                }
                if is_given_time {
                    break;
                }
                has_waited = true;
                tracing::info!(
                    task.id = id,
                    task.name = name,
                    "put aside: the message was put back, and its former run may go on"
                );
                LEASE
            }
            Ok(Begun::Held(left)) if put_aside => left,
            Ok(Begun::Held(left)) => {
                tracing::info!(task.id = id, task.name = name, "put aside: another run holds the lease");
                left.min(FIRST_WAIT)
            }
            Err(error) => {
                tracing::warn!(task.id = id, task.name = name, %error, "taking the lease failed; putting the message aside and retrying");
                RENEW
            }
        };
        put_aside = true;
        locked(&worker.rates).give_back(name);
        entry.enter(Stage::PutAside);
        pause(worker, entry, &mut slot, wait).await?;
    }
    run(worker, entry, task).await
}

/// Runs a task whose lease is ours, and settles it.
async fn run(worker: &Arc<Worker>, entry: &Arc<Entry>, task: &registry::Task) -> Result<(), Left> {
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
            () = worker.cold.cancelled() => {
                put_back(worker, entry).await;
                return Err(Left);
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
    let terms = Terms {
        sender: &worker.sender(),
        max_retries: task.max_retries(),
        is_native: builtin::is_errback,
        draw: clock::random_id().as_fields().0,
        memory: entry.memory(),
        seconds,
        now,
    };
    let end = conclude::conclude(about, outcome, &terms, || clock::random_id().to_string());
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

/// Settles a task and says so.
async fn settle(worker: &Worker, id: &str, tag: &str, leased: Option<&Entry>, end: &Conclusion) {
    let expires = worker.config.result_expires();
    let others: Vec<_> = end.others.iter().map(|other| (other.task_id.clone(), other.encode())).collect();
    let publish: Vec<Publication> = end.publish.iter().map(|message| publication(worker, message)).collect();
    let settlement = Settlement {
        task: id,
        tag,
        holder: leased.map_or("", |entry| &entry.holder),
        document: end.document.as_deref(),
        others: &others,
        expires,
        is_success: end.is_success,
        publish: &publish,
    };
    let settle = || async {
        // Another database may be slow: meanwhile leases are renewed.
        let stored = worker.channel.conclude(&settlement).await?;
        // A renewal on its way would bring the lease back.
        let _no_renewal = worker.renewal.read().await;
        let settled = worker.channel.settle(&settlement, stored).await?;
        leased.inspect(|entry| entry.lease(false));
        Ok(settled)
    };
    let Some(settled) = worker.insist(settle).await else {
        tracing::error!(
            task.id = id,
            "storing the end of a task failed, and the worker stops: the task will run again"
        );
        return;
    };
    if !settled.taken && end.document.is_some() {
        tracing::warn!(
            task.id = id,
            "the outcome was discarded: the task has succeeded before, or another run holds the lease"
        );
    }
    for why in &end.refused {
        tracing::error!(task.id = id, %why, "a callback or errback cannot be sent; it is left out");
    }
    for (errback, failure) in end.in_place.iter().filter(|_| settled.taken) {
        builtin::call_errback(errback, id, failure);
    }
    if let Some(event) = end.event.clone().filter(|_| settled.taken) {
        worker.events.task(event);
    }
}

/// Acknowledges the message of a task that has ended before.
async fn forget(worker: &Worker, entry: &Entry) {
    let (id, expires) = (&entry.message.headers.id, worker.config.result_expires());
    let forget = || async {
        // Another database may be slow: meanwhile leases are renewed.
        worker.channel.store_noted(&entry.tag, expires).await?;
        let _no_renewal = worker.renewal.read().await;
        let forgotten = worker.channel.drop(id, &entry.tag, entry.lease_holder()).await?;
        entry.lease(false);
        Ok(forgotten)
    };
    if worker.insist(forget).await.is_none() {
        tracing::warn!(task.id = %id, "acknowledging a message failed, and the worker stops: the message will be delivered again");
    }
}

/// A message and the queue it goes to.
fn publication(worker: &Worker, message: &Envelope) -> Publication {
    let DeliveryInfo { exchange, routing_key, .. } = &message.properties.delivery_info;
    let queues = worker.queues.borrow();
    let bound = queues.iter().find(|queue| *queue.exchange == **exchange && *queue.routing_key == **routing_key);
    let queue = bound.map_or_else(|| routing_key.clone(), |queue| queue.name.to_string());
    Publication { queue, priority: message.properties.priority, envelope: message.encode() }
}

/// Waits without taking up room.
async fn pause(worker: &Worker, entry: &Entry, slot: &mut Slot, time: Duration) -> Result<(), Left> {
    slot.take();
    rest(worker, entry, time).await
}

/// Waits until then, or until it is revoked. When the worker leaves, the message goes back.
async fn rest(worker: &Worker, entry: &Entry, time: Duration) -> Result<(), Left> {
    tokio::select! {
        () = sleep(time) => Ok(()),
        _ = entry.stopped() => Ok(()),
        () = worker.leaving.cancelled() => {
            put_back(worker, entry).await;
            Err(Left)
        }
    }
}

/// Waits for room to run.
async fn room(worker: &Worker, entry: &Entry) -> Result<OwnedSemaphorePermit, Left> {
    let free = tokio::select! {
        free = worker.slots.clone().acquire_owned() => free.ok(),
        () = worker.leaving.cancelled() => None,
    };
    if free.is_none() {
        put_back(worker, entry).await;
    }
    free.ok_or(Left)
}

/// Puts the message back on its queue for somebody else, as far as Redis answers. Otherwise it stays in flight, and is
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

/// Announces that the task is here, once.
fn received(worker: &Worker, entry: &Entry, said: &mut bool) {
    if std::mem::replace(said, true) {
        return;
    }
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

fn until(at: Timestamp) -> Duration {
    at.duration_since(clock::now()).try_into().unwrap_or_default()
}
