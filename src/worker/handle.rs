//! One message's way through the worker, from its queue to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use super::admit::{self, Read};
use super::builtin;
use super::conclude::{self, Conclusion, RunEnd};
use super::config::OnDrain;
use super::context::{LEASE, Worker};
use super::deliver;
use super::document::About;
use super::entry::{Entry, Stage};
use super::execute::execute;
use super::follow;
use super::outcome::Outcome;
use super::registry;
use super::schedule;
use super::settle::{self, Run, Settled, finish, settle};
use super::slot::{Asker, Next, Slot};
use super::step::{Answer, Aside, Seen, Step, next};
use crate::core::account::Count;
use crate::runtime::clock;
use crate::store::channel::{Begun, Delivery, End};
use crate::store::told;
use crate::wire::event::{Detail, TaskSummary};
use crate::wire::{Destination, Limits, Message, ResultDocument};

/// How long it is tried to put a message back: a failover of Redis takes less.
const PUT_BACK: Duration = Duration::from_mins(1);
/// How long the next checkpoint of a run is waited for that goes on elsewhere.
const NEXT_CHECKPOINT: Duration = Duration::from_secs(8);

/// The worker shuts down, and the message is back on its queue, or stays in flight until another worker puts it back.
struct Abandoned;

/// Where a message has gone.
enum Gone {
    /// To its end, or to another worker.
    Away,
    /// To its end, and the slot has the next one.
    Followed(Box<(Next, Slot)>),
    /// To those that wait for this time, its ETA.
    Waits(Timestamp, schedule::Place),
}

/// Brings a message to its end, then each one that the slot takes after it.
pub async fn handle(worker: Arc<Worker>, next: Next, slot: Slot) {
    let mut following = Some((next, slot));
    while let Some((next, slot)) = following {
        following = take_on(&worker, next, slot).await;
    }
}

async fn take_on(worker: &Arc<Worker>, next: Next, mut slot: Slot) -> Option<(Next, Slot)> {
    let Next { delivery: Delivery { tag, list, envelope, begun, queue: _ }, holder } = next;
    match admit::read(&envelope) {
        Read::Poison(why) => {
            tracing::error!(%tag, %why, "a message without a task id is moved to the quarantine");
            worker.retry_until_done(|| worker.channel.discard(&tag)).await;
            worker.entries.went(tag);
            None
        }
        Read::Unreadable(unreadable) => {
            let (id, error) = (&unreadable.id, unreadable.failure.exception.message());
            tracing::error!(task.id = %id, task.name = unreadable.task, error, "decoding a message failed; storing FAILURE as its result");
            let end = Conclusion::unreadable(&unreadable, clock::now());
            let is_leased = begun.is_some_and(|(task, _)| task == *id);
            let run = Run { id, tag: &tag, holder: if is_leased { &holder } else { "" }, entry: None };
            let next = settle(worker, run, &end, Some(&mut slot)).await.next;
            worker.entries.went(tag);
            next.map(|next| (next, slot))
        }
        Read::Task(task) => {
            drop(envelope);
            let (envelope, message) = *task;
            let begun = match begun {
                Some((id, head)) if id == message.headers.id => Some(head),
                Some((id, _)) => {
                    worker.retry_until_done(|| worker.channel.give_up_lease(&id, &holder)).await;
                    None
                }
                None => None,
            };
            let listed = worker.entries.add(tag, list, (holder, begun.is_some()), envelope, message);
            match attend(worker, &listed.entry, begun, slot).await {
                Ok(Gone::Followed(following)) => Some(*following),
                Ok(Gone::Waits(at, place)) => {
                    worker.schedule.add(&worker.entries, &listed.entry, at, place);
                    None
                }
                Ok(Gone::Away) | Err(Abandoned) => None,
            }
        }
    }
}

/// Drops a task that was told to stop while it waited. Its arguments, which its result names, are on Redis only.
pub async fn drop_stopped(worker: &Worker, entry: &Entry) {
    let whole =
        worker.channel.in_flight(&entry.tag).await.ok().flatten().and_then(|envelope| admit::message(&envelope));
    let message = whole.unwrap_or_else(|| Message { args: Vec::new(), ..entry.message.clone() });
    let about = About { message: &message, envelope: &entry.envelope, worker: worker.node() };
    finish(worker, entry, Conclusion::dropped(about, false, clock::now()), None).await;
}

/// Brings a task to its end, to another worker, or to its place among those that wait for their ETA. `begun` is what the run
/// before has left, where the lease was taken with the message.
async fn attend(
    worker: &Arc<Worker>,
    entry: &Arc<Entry>,
    mut begun: Option<Vec<u8>>,
    slot: Slot,
) -> Result<Gone, Abandoned> {
    let mut slot = Some(slot);
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
        let end = Conclusion::refused(id, &failure, clock::now()).with_parts(message);
        return Ok(end_with(worker, entry, end, slot).await);
    };
    let mut aside = None;
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
                begun = None;
                give_up_lease(worker, entry).await;
                // Where no place is free it waits with its slot, and the worker takes no more messages than that.
                tokio::select! {
                    biased;
                    Some(place) = worker.schedule.place() => return Ok(Gone::Waits(at, place)),
                    rested = rest(worker, entry, clock::until(at, now)) => rested?,
                }
                entry.enter(Stage::Reserved);
            }
            Step::TakeSlot => {
                slot = Some(free_slot(worker, entry).await?);
                aside = None;
                entry.enter(Stage::Reserved);
            }
            Step::Ask { take } => seen.answer = Some(ask(worker, entry, take, &mut begun).await),
            Step::Rest(time) => {
                seen.answer = None;
                rest(worker, entry, time).await?;
            }
            Step::PutAside(why, time) => {
                log_put_aside(entry, why, seen.aside.is_none());
                (seen.answer, seen.aside) = (None, Some(why));
                worker.rates.lock().give_back(name);
                entry.enter(Stage::PutAside);
                match why {
                    Aside::NoAnswer => {}
                    Aside::PutBack | Aside::LeasedElsewhere => {
                        aside = aside.or_else(|| worker.aside.take(worker.concurrency(), why == Aside::PutBack));
                        if aside.is_none() {
                            worker.aside.went_back();
                            give_back(worker, entry, End::Back).await?;
                            return Ok(Gone::Away);
                        }
                        slot.take();
                    }
                }
                rest(worker, entry, time).await?;
            }
            Step::Run => {
                if let Some(Answer::Free(head)) = &seen.answer {
                    entry.goes_on_counting(counted_before(worker, id, head).await);
                }
                let end = run(worker, entry, task).await?;
                return Ok(end_with(worker, entry, end, slot).await);
            }
            Step::Forget(how) => {
                tracing::info!(task.id = id, task.name = name, how, "not run again: the task has ended before");
                forget(worker, entry).await;
                return Ok(Gone::Away);
            }
            Step::Drop { expired } => {
                let end = Conclusion::dropped(about, expired, clock::now());
                return Ok(end_with(worker, entry, end, slot).await);
            }
        }
    }
}

/// Asks the rate limit, then Redis for the task's lease. With `take` a free lease is taken, else it is only looked at.
async fn ask(worker: &Worker, entry: &Entry, take: bool, begun: &mut Option<Vec<u8>>) -> Answer {
    let (id, name) = (entry.message.headers.id.as_str(), entry.message.headers.task.as_str());
    let limited = worker.rates.lock().begin(name, clock::now());
    if let Some(time) = limited {
        return Answer::Limited(time);
    }
    if let Some(head) = begun.take() {
        return Answer::Free(head);
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

/// What earlier runs under the same task id have consumed, by the result that they left, of which `head` is the beginning.
async fn counted_before(worker: &Worker, id: &str, head: &[u8]) -> Count {
    if head.is_empty() {
        return Count::default();
    }
    let usage = |document: &[u8]| {
        let limits = Limits::default().bytes(document.len());
        ResultDocument::decode_within(document, &limits).ok().map(|document| told::usage(&document.other))
    };
    if let Some(usage) = usage(head) {
        return usage;
    }
    // It was cut.
    let whole = worker.retry_until_done(|| worker.channel.result(id)).await;
    whole.as_deref().and_then(usage).unwrap_or_default()
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

/// Runs a task whose lease is ours.
async fn run(worker: &Arc<Worker>, entry: &Arc<Entry>, task: &registry::Task) -> Result<Conclusion, Abandoned> {
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
            () = goes_on_elsewhere(worker, entry) => {
                // The command was killed when the other branch was dropped.
                if let Some(state) = entry.state() {
                    state.leave(false).await;
                }
                put_back(worker, entry).await;
                return Err(Abandoned);
            }
        }
    };
    let outcome = final_if_unbound(worker, entry, outcome).await;
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
        told: &entry.told(),
        seconds,
        now,
    };
    worker.aside.ran(clock::since(since, now));
    Ok(conclude::conclude(about, outcome, &run_end, || clock::random_id().to_string()))
}

/// Waits until the worker stops in such a way that a run has to go on elsewhere: at once, or at the next checkpoint of a run
/// whose state is saved.
async fn goes_on_elsewhere(worker: &Worker, entry: &Entry) {
    let checkpoint = async {
        worker.warm_shutdown.cancelled().await;
        match entry.state().filter(|state| worker.config.on_drain == OnDrain::Checkpoint && state.is_saved()) {
            Some(state) => {
                // It ends soon, also without another checkpoint.
                let _ = timeout(NEXT_CHECKPOINT, state.saved_again()).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = worker.cold_shutdown.cancelled() => {}
        () = checkpoint => {}
    }
}

/// A failure is final where the message of another attempt would go nowhere: its clients wait for an end.
async fn final_if_unbound(worker: &Worker, entry: &Entry, outcome: Outcome) -> Outcome {
    let Outcome::Failed { failure, retryable: true } = outcome else { return outcome };
    let info = &entry.envelope.properties.delivery_info;
    let found = worker.retry_until_done(|| deliver::destination(worker, info)).await;
    let is_unbound = found == Some(Destination::Nowhere);
    if is_unbound {
        let why = deliver::undeliverable(info);
        tracing::error!(
            task.id = entry.message.headers.id,
            why = why.exception.message(),
            "the task is not tried again"
        );
    }
    Outcome::Failed { failure, retryable: !is_unbound }
}

/// A run that goes on, as it is counted.
struct Ends<'a>(&'a prometheus_client::metrics::gauge::Gauge);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Settles a task in its slot, if it has one, which goes on with the next message.
async fn end_with(worker: &Worker, entry: &Entry, end: Conclusion, mut slot: Option<Slot>) -> Gone {
    let is_success = end.is_success;
    let Settled { next, taken } = finish(worker, entry, end, slot.as_mut()).await;
    if let Some(state) = entry.state().filter(|_| is_success && taken) {
        state.forget().await;
    }
    match next.zip(slot) {
        Some(following) => Gone::Followed(Box::new(following)),
        None => Gone::Away,
    }
}

/// Acknowledges the message of a task that has ended before.
async fn forget(worker: &Worker, entry: &Entry) {
    if !entry.message.embed.chord.is_null() && settle::count_again(worker, entry).await {
        return;
    }
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

/// Waits for a slot. When the worker shuts down, the message goes back; also when none is free for long, for another worker
/// may have one.
async fn free_slot(worker: &Worker, entry: &Entry) -> Result<Slot, Abandoned> {
    let free = tokio::select! {
        free = timeout(LEASE, worker.free(1)) => free.ok().and_then(Result::ok),
        () = worker.warm_shutdown.cancelled() => None,
    };
    if free.is_none() {
        give_back(worker, entry, End::Front).await?;
    }
    free.map(|permit| Slot::new(permit, Asker::new())).ok_or(Abandoned)
}

/// Gives up the lease that was taken with a message that has to wait.
async fn give_up_lease(worker: &Worker, entry: &Entry) {
    if !entry.is_leased() {
        return;
    }
    let _no_renewal = worker.renewal.read().await;
    entry.lease(false);
    let id = &entry.message.headers.id;
    worker.retry_until_done(|| worker.channel.give_up_lease(id, &entry.holder)).await;
}

/// Gives a message that has not run to the fleet.
async fn give_back(worker: &Worker, entry: &Entry, end: End) -> Result<(), Abandoned> {
    let queues = worker.queues.borrow().clone();
    let message = [entry.unbegun()];
    worker.retry_until_done(|| worker.channel.release(&message, end, &queues)).await.ok_or(Abandoned)
}

/// Puts the message back on its queue for another worker, as soon as Redis answers. If it does not for long, the message
/// stays in flight until another worker puts it back.
async fn put_back(worker: &Worker, entry: &Entry) {
    let id = &entry.message.headers.id;
    let holder = entry.lease_holder();
    let queues = worker.queues.borrow().clone();
    let restore = || async {
        let _no_renewal = worker.renewal.read().await;
        entry.lease(false);
        worker.channel.restore(&entry.tag, id, holder, &queues).await
    };
    if timeout(PUT_BACK, worker.retry_until_done(restore)).await.is_ok_and(|done| done.is_some()) {
        tracing::info!(task.id = %id, "put back on its queue for another worker");
    } else {
        worker.leaves_messages.store(true, Ordering::Relaxed);
        tracing::error!(task.id = %id, "putting a message back failed, and the worker stops; the next worker that starts puts it back");
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
