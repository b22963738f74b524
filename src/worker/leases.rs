//! Keeping what the worker has: leases, and the time of messages in flight.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::context::{LEASE, RENEW, Worker};
use crate::store::channel::IDLE_BEAT;

/// How often messages in flight are renewed; less often where the visibility timeout allows it.
const REFRESH: Duration = Duration::from_mins(1);
/// Messages that are renewed at once.
const AT_ONCE: usize = 1000;

/// Renews until it is aborted.
pub async fn keep(worker: Arc<Worker>) {
    let visibility = Duration::from_secs(worker.config.visibility_timeout.into());
    let refresh = REFRESH.min(visibility / 3);
    let mut turns = interval(RENEW);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut lost, mut noted) = (HashSet::new(), Noted::default());
    let mut refreshed = Instant::now();
    loop {
        turns.tick().await;
        renew(&worker, &mut lost).await;
        beat(&worker, &mut noted).await;
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
    }
}

/// What Redis was told last of the messages that the worker has.
#[derive(Default)]
struct Noted {
    /// Their tags; none where Redis may have lost them, or was not told.
    tags: Option<BTreeSet<String>>,
    at: Option<Instant>,
}

/// Says that the worker lives, and which messages it has where that has changed. A worker without messages says it less
/// often: there may be hundreds of them, and nothing of theirs is to be put back.
async fn beat(worker: &Worker, noted: &mut Noted) {
    let mut gone = worker.entries.gone();
    let tags: BTreeSet<String> = worker.entries.list().iter().map(|entry| entry.tag.clone()).collect();
    gone.retain(|tag| !tags.contains(tag));
    let has_changed = noted.tags.as_ref() != Some(&tags);
    let is_idle = tags.is_empty() && gone.is_empty() && !has_changed;
    if is_idle && noted.at.is_some_and(|at| at.elapsed() + RENEW / 2 < IDLE_BEAT) {
        return;
    }
    let held: Vec<&str> = tags.iter().map(String::as_str).filter(|_| has_changed).collect();
    let began = Instant::now();
    *noted = match worker.channel.beat(&worker.id, &gone, &held).await {
        Ok(is_noted) => {
            // Redis may have lost what was noted; and a message that was given back may have been taken again meanwhile.
            let is_kept = gone.is_empty() && (is_noted || tags.is_empty());
            Noted { tags: is_kept.then_some(tags), at: Some(began) }
        }
        Err(error) => {
            tracing::warn!(%error, "saying that this worker lives failed; retrying at the next renewal");
            for tag in gone {
                worker.entries.went(tag);
            }
            Noted::default()
        }
    };
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
