//! Keeping what the worker has: leases, and the time of messages in flight.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::context::{LEASE, RENEW, Worker};
use crate::runtime::clock;

/// How often messages in flight are renewed; less often where the visibility timeout allows it.
const REFRESH: Duration = Duration::from_mins(1);
/// Messages that are renewed at once.
const AT_ONCE: usize = 1000;
/// How often kombu looks for messages that were not acknowledged.
const SWEEP: Duration = Duration::from_secs(100);

/// Renews and sweeps until it is aborted.
pub async fn keep(worker: Arc<Worker>) {
    let visibility = Duration::from_secs(worker.config.visibility_timeout.into());
    let refresh = REFRESH.min(visibility / 3);
    let mut turns = interval(RENEW);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost = HashSet::new();
    let (mut refreshed, mut swept) = (Instant::now(), None::<Instant>);
    loop {
        turns.tick().await;
        renew(&worker, &mut lost).await;
        if refreshed.elapsed() >= refresh {
            refreshed = Instant::now();
            let entries = worker.entries.list();
            let tags: Vec<&str> = entries.iter().map(|entry| entry.tag.as_str()).collect();
            // A message that is being put back must not look as if another worker had taken it.
            let _none_is_put_back = worker.renewal.write().await;
            for tags in tags.chunks(AT_ONCE) {
                if let Err(error) = worker.channel.renew(tags).await {
                    tracing::warn!(%error, "renewing messages in flight failed; retrying at the next renewal");
                }
            }
        }
        // Once at the start, as kombu does when it connects.
        if swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            swept = Some(Instant::now());
            sweep(&worker, visibility).await;
        }
    }
}

async fn renew(worker: &Worker, lost: &mut HashSet<String>) {
    let _no_run_settles = worker.renewal.write().await;
    let entries: Vec<_> = worker.entries.list().into_iter().filter(|entry| entry.is_leased()).collect();
    let held: Vec<_> = entries.iter().map(|entry| (entry.message.headers.id.as_str(), entry.holder.as_str())).collect();
    match worker.channel.keep(&held, LEASE).await {
        Ok(others) => {
            for (at, other) in others {
                if let Some((id, holder)) = held.get(at)
                    && lost.insert((*holder).to_owned())
                {
                    tracing::error!(task.id = id, other, "a lease was lost: the task may run twice");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "renewing leases failed; retrying at the next renewal"),
    }
    lost.retain(|holder| held.iter().any(|(_, held)| held == holder));
}

async fn sweep(worker: &Worker, visibility: Duration) {
    let queues = worker.queues.borrow().clone();
    let owner = clock::random_id().to_string();
    match worker.channel.restore_visible(visibility, &owner, &queues).await {
        Ok(0) => {}
        Ok(restored) => {
            tracing::info!(restored, "put back messages that were not acknowledged within the visibility timeout");
        }
        Err(error) => tracing::warn!(%error, "looking for unacknowledged messages failed; retrying at the next round"),
    }
}
