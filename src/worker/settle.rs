//! The end of a task on Redis: stored, published and acknowledged, however often it takes.

use super::builtin;
use super::conclude::Conclusion;
use super::context::Worker;
use super::entry::Entry;
use super::handle::publication;
use super::outcome::Failure;
use crate::runtime::clock;
use crate::store::Error;
use crate::store::channel::{Publication, Settlement};

/// Settles a task and says so.
pub async fn settle(worker: &Worker, id: &str, tag: &str, leased: Option<&Entry>, end: &Conclusion) {
    let why = match bring_about(worker, id, tag, leased, end).await {
        Some(Err(why)) => why,
        Some(Ok(())) => return,
        None => {
            tracing::error!(
                task.id = id,
                "storing the end of a task failed, and the worker stops: the task will run again"
            );
            return;
        }
    };
    tracing::error!(task.id = id, %why, "Redis refuses the end of a task or what follows it; storing FAILURE as its result");
    let failure =
        Failure::new("kombu.exceptions", "OperationalError", format!("the end of the task was refused: {why}"));
    let refused = Conclusion::refused(id, &failure, clock::now());
    if let Some(Err(why)) = bring_about(worker, id, tag, leased, &refused).await {
        leased.inspect(|entry| entry.lease(false));
        tracing::error!(task.id = id, %why, "storing the failure was refused, too; the message stays in flight until its visibility timeout");
    }
}

/// Tries until it is done; answers why not when Redis refuses it for good.
async fn bring_about(
    worker: &Worker,
    id: &str,
    tag: &str,
    leased: Option<&Entry>,
    end: &Conclusion,
) -> Option<Result<(), Error>> {
    let expires = worker.config.result_expires();
    let others: Vec<_> = end.others.iter().map(|other| (other.task_id.clone(), other.encode())).collect();
    let publish: Vec<Publication> = end.publish.iter().map(|message| publication(worker, message)).collect();
    let (place, end_id) = (worker.places.take(), clock::random_id().to_string());
    let settlement = Settlement {
        task: id,
        tag,
        holder: leased.map_or("", |entry| &entry.holder),
        place: &place.name(),
        id: &end_id,
        document: end.document.as_deref(),
        others: &others,
        expires,
        is_success: end.is_success,
        publish: &publish,
    };
    let settle = || async {
        // Another database may be slow: meanwhile leases are renewed.
        let stored = worker.channel.publish_and_store(&settlement).await?;
        // A renewal on its way would bring the lease back.
        let _no_renewal = worker.renewal.read().await;
        let settled = worker.channel.settle(&settlement, stored).await?;
        leased.inspect(|entry| entry.lease(false));
        Ok(settled)
    };
    let settled = match worker.retry_unless_refused(settle).await? {
        Ok(settled) => settled,
        Err(why) => return Some(Err(why)),
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
    Some(Ok(()))
}
