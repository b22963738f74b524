//! What all parts of a worker share.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{RwLock, Semaphore, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::announce::Announcer;
use super::config::Config;
use super::entry::Entries;
use super::registry::Registry;
use crate::runtime::clock;
use crate::store::{Channel, Error, Queue};

/// How long a lease lasts, and how often it is renewed. The same as for Python workers with the guard.
pub const LEASE: Duration = Duration::from_secs(6);
/// How often leases are renewed.
pub const RENEW: Duration = Duration::from_secs(2);

/// First and longest pause between two tries of what must not fail.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A worker.
pub struct Worker {
    /// How it was set up.
    pub config: Config,
    /// The way to Redis.
    pub channel: Channel,
    /// How tasks are run.
    pub registry: Registry,
    /// The queues it consumes; more and less by remote control.
    pub queues: watch::Sender<Vec<Queue>>,
    /// The tasks it has.
    pub entries: Arc<Entries>,
    /// Where events go.
    pub events: Announcer,
    /// Room for tasks that run.
    pub slots: Arc<Semaphore>,
    /// Tasks begun since the start, by name.
    pub totals: Mutex<BTreeMap<String, u64>>,
    /// Tasks that nobody wants any more.
    pub revoked: Mutex<HashSet<String>>,
    /// Read by whoever gives a lease up, written by the renewal of all: the two must not cross.
    pub renewal: RwLock<()>,
    /// When it started.
    pub since: Timestamp,
    /// Cancelled when it is to take no more tasks.
    pub leaving: CancellationToken,
    /// Cancelled when it is to stop the tasks that run, too.
    pub cold: CancellationToken,
}

impl Worker {
    /// Node name.
    pub fn node(&self) -> &str {
        self.config.hostname.as_str()
    }

    /// Another identity on a lease: `<node>/<process>/<uuid>`.
    pub fn holder(&self) -> String {
        format!("{}/{}/{}", self.node(), std::process::id(), clock::random_id())
    }

    /// Whether nobody wants this task any more.
    pub fn revoked(&self, id: &str) -> bool {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// Counts a task that begins.
    pub fn count(&self, task: &str) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner).entry(task.to_owned()).or_default() += 1;
    }

    /// Tasks begun since the start.
    pub fn processed(&self) -> u64 {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Tries until it is done, however long Redis is away. `None` when the worker has to go before.
    pub async fn insist<T, F>(&self, what: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pause = PAUSE.0;
        let mut told = false;
        loop {
            let error = match what().await {
                Ok(done) => return Some(done),
                Err(error) => error,
            };
            if !told {
                tracing::warn!(%error, "Redis is asked again until it works");
                told = true;
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(PAUSE.1),
                () = self.cold.cancelled() => return None,
            }
        }
    }
}
