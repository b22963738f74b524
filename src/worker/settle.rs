//! The end of a task on Redis: stored, published and acknowledged, however often it takes.

use std::sync::atomic::Ordering;

use super::builtin;
use super::chord;
use super::conclude::Conclusion;
use super::context::Worker;
use super::deliver;
use super::entry::Entry;
use super::follow;
use super::outcome::Failure;
use super::slot::{Next, Question, Slot};
use crate::runtime::clock;
use crate::store::Error;
use crate::store::channel::Settlement;

/// What is settled.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The task.
    pub id: &'a str,
    /// The delivery tag of its message.
    pub tag: &'a str,
    /// The holder of its lease; empty where this worker does not have it.
    pub holder: &'a str,
    /// The task among those of the worker, where it is there.
    pub entry: Option<&'a Entry>,
}

impl<'a> Run<'a> {
    /// The run of a task that the worker has.
    pub fn of(entry: &'a Entry) -> Self {
        Self { id: &entry.message.headers.id, tag: &entry.tag, holder: entry.lease_holder(), entry: Some(entry) }
    }
}

/// What came of settling a task.
#[derive(Debug, Default)]
pub struct Settled {
    /// The next message for its slot.
    pub next: Option<Next>,
    /// Whether its end was taken.
    pub taken: bool,
}

/// Counts the parts of chords that end with a task, then settles it.
pub async fn finish(worker: &Worker, entry: &Entry, mut end: Conclusion, slot: Option<&mut Slot>) -> Settled {
    let claims = chord::count(worker, &entry.message, &mut end).await;
    let settled = settle(worker, Run::of(entry), &end, slot).await;
    chord::close(worker, &claims, settled.taken).await;
    settled
}

/// A worker may have died after it stored how a part of a chord has ended, and before it counted the part. Answers whether
/// the message is acknowledged, together with what follows the chord.
pub async fn count_again(worker: &Worker, entry: &Entry) -> bool {
    let id = &entry.message.headers.id;
    let Some(document) = worker.retry_until_done(|| worker.channel.result(id)).await else { return false };
    let parts = follow::parts(&entry.message, &document, &[]);
    let mut end = Conclusion { parts, ..Conclusion::default() };
    let claims = chord::count(worker, &entry.message, &mut end).await;
    if claims.is_empty() {
        return false;
    }
    let Settled { taken, .. } = settle(worker, Run::of(entry), &end, None).await;
    chord::close(worker, &claims, taken).await;
    taken
}

/// Settles a task and says so. Takes the next message for its slot in the same step.
pub async fn settle(worker: &Worker, run: Run<'_>, end: &Conclusion, mut slot: Option<&mut Slot>) -> Settled {
    let id = run.id;
    let why = match bring_about(worker, run, end, slot.as_deref_mut()).await {
        Some(Err(why)) => why,
        Some(Ok(settled)) => return settled,
        None => {
            worker.leaves_messages.store(true, Ordering::Relaxed);
            tracing::error!(
                task.id = id,
                "storing the end of a task failed, and the worker stops: the task will run again"
            );
            return Settled::default();
        }
    };
    tracing::error!(task.id = id, %why, "Redis refuses the end of a task or what follows it; storing FAILURE as its result");
    let failure =
        Failure::new("kombu.exceptions", "OperationalError", format!("the end of the task was refused: {why}"));
    let refused = Conclusion::refused(id, &failure, clock::now());
    match bring_about(worker, run, &refused, slot).await {
        Some(Ok(Settled { next, taken: _ })) => Settled { next, taken: false },
        Some(Err(why)) => {
            run.entry.inspect(|entry| entry.lease(false));
            tracing::error!(task.id = id, %why, "storing the failure was refused, too; the message stays in flight until its visibility timeout");
            Settled::default()
        }
        None => {
            worker.leaves_messages.store(true, Ordering::Relaxed);
            Settled::default()
        }
    }
}

/// Tries until it is done; answers why not when Redis refuses it for good.
async fn bring_about(
    worker: &Worker,
    run: Run<'_>,
    end: &Conclusion,
    slot: Option<&mut Slot>,
) -> Option<Result<Settled, Error>> {
    let Run { id, tag, holder, entry } = run;
    let question = slot.as_ref().and_then(|slot| slot.asker.question_at_end(worker));
    let queues = question.as_ref().map(Question::queues);
    let ask = question.as_ref().zip(queues.as_ref()).map(|(question, queues)| question.ask(queues));
    let expires = worker.config.result_expires();
    let delivered = match worker.retry_unless_refused(|| deliver::deliveries(worker, &end.publish)).await? {
        Ok(delivered) => delivered,
        Err(why) => return Some(Err(why)),
    };
    let others = end.others.iter().map(|other| (other.task_id.clone(), other.encode()));
    let others: Vec<_> = others.chain(delivered.failed).collect();
    let (place, end_id) = (worker.places.take(), clock::random_id().to_string());
    let settlement = Settlement {
        task: id,
        tag,
        holder,
        place: &place.name(),
        id: &end_id,
        document: end.document.as_deref(),
        others: &others,
        expires,
        is_success: end.is_success,
        publish: &delivered.publish,
    };
    let settle = || async {
        // Another database may be slow: meanwhile leases are renewed.
        let stored = worker.channel.publish_and_store(&settlement).await?;
        // A renewal on its way would bring the lease back.
        let _no_renewal = worker.renewal.read().await;
        let settled = worker.channel.settle_and_take(&settlement, stored, ask.as_ref()).await?;
        entry.inspect(|entry| entry.lease(false));
        Ok(settled)
    };
    let (settled, taken) = match worker.retry_unless_refused(settle).await? {
        Ok(settled) => settled,
        Err(why) => return Some(Err(why)),
    };
    if !settled.taken && end.document.is_some() {
        tracing::warn!(
            task.id = id,
            "the outcome was discarded: the task has succeeded before, or another run holds the lease"
        );
    }
    for (info, envelope) in delivered.broadcast.iter().filter(|_| settled.taken) {
        worker.retry_unless_refused(|| worker.channel.broadcast(info, envelope)).await;
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
    let next = slot
        .zip(question)
        .zip(taken)
        .and_then(|((slot, question), taken)| slot.asker.answered(worker, &question, taken));
    Some(Ok(Settled { next, taken: settled.taken }))
}
