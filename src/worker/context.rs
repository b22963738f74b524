//! What all parts of a worker share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, RwLock, Semaphore, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::announce::Announcer;
use super::aside::AsidePlaces;
use super::config::Config;
use super::control::{Broker, Revoked};
use super::entry::Entries;
use super::follow::{Defaults, Sender};
use super::metrics::Metrics;
use super::places::Places;
use super::rate::Rates;
use super::registry::{Limits, Registry};
use super::routes::Routes;
use super::schedule::Schedule;
use super::servers::Servers;
use super::slots::Slots;
use super::state::Vault;
use crate::runtime::admin::Readiness;
use crate::runtime::backoff::{Backoff, Bounds};
use crate::runtime::clock;
use crate::store::{Channel, Error, Queue};
use crate::wire::TimeLimit;

/// How long a lease lasts, and how often it is renewed. The same as for Python workers with the guard.
pub const LEASE: Duration = Duration::from_secs(6);
/// How often leases are renewed.
pub const RENEW: Duration = Duration::from_secs(2);

/// Most tasks that may run at once.
const MOST: u32 = 1000;

/// How long a worker that stops at once goes on trying what Redis has not answered.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Longest pause after the first failure of what must not fail, and after any.
const PAUSE: Bounds = (Duration::from_millis(100), Duration::from_secs(5));

/// How often Redis may refuse the same step for a reason that does not go away, before it is given up.
const REFUSALS: u32 = 3;

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
    /// One permit for each task that may still begin.
    pub slots: Arc<Semaphore>,
    /// Tasks begun since the start, by name.
    pub totals: Mutex<BTreeMap<String, i64>>,
    /// Revoked tasks.
    pub revoked: Mutex<Revoked>,
    /// How often tasks may begin.
    pub rates: Mutex<Rates>,
    /// Limits of tasks whose message has none, as set by remote control.
    pub limits: Mutex<BTreeMap<String, Limits>>,
    /// Its name among all workers, of this process only: `<node>/<process>/<uuid>`.
    pub id: String,
    /// Whether it leaves messages in flight behind, which another worker has to put back.
    pub leaves_messages: AtomicBool,
    /// The sender that its messages name, `gen<process>@<host>`.
    pub origin: String,
    /// What all slots share.
    pub shared_slots: Slots,
    /// The messages that wait for their ETA.
    pub schedule: Schedule,
    /// Places for messages that are put aside.
    pub aside: Arc<AsidePlaces>,
    /// Where the states of jobs are kept.
    pub vault: Vault,
    /// Commands that stay.
    pub servers: Servers,
    /// What is counted.
    pub metrics: Metrics,
    /// Told when remote control is heard.
    pub hears: Notify,
    /// What it needs to be ready.
    pub readiness: Readiness,
    /// The broker, as it is shown.
    pub broker: Broker,
    /// Limits of tasks whose message has none.
    pub time_limit: TimeLimit,
    /// Where following tasks go.
    pub routes: Routes,
    /// What following tasks get whose signature does not say.
    pub defaults: Defaults,
    /// Tasks that may run at once. After [`Worker::shrink`] more may run until they end.
    pub concurrency: Mutex<u32>,
    /// Read-locked while a lease is given up, write-locked while all are renewed: the two must not cross.
    pub renewal: RwLock<()>,
    /// Where ends of runs are marked.
    pub places: Places,
    /// When it started.
    pub since: Timestamp,
    /// Cancelled when it is to take no more messages, and to stop once its tasks have ended: Celery's warm shutdown.
    pub warm_shutdown: CancellationToken,
    /// Cancelled when it is to stop the tasks that run, too: Celery's cold shutdown.
    pub cold_shutdown: CancellationToken,
}

impl Worker {
    /// Node name.
    pub fn node(&self) -> &str {
        self.config.hostname.as_str()
    }

    /// Another identity on a lease: `<node>/<process>/<uuid>`.
    pub fn holder(&self) -> String {
        identity(self.node())
    }

    /// Whether this task is revoked.
    pub fn revoked(&self, id: &str) -> bool {
        self.revoked.lock().contains(id, clock::now())
    }

    /// Tasks that run at once.
    pub fn concurrency(&self) -> u32 {
        *self.concurrency.lock()
    }

    /// Runs so many more at once.
    pub fn grow(&self, by: u32) {
        let mut concurrency = self.concurrency.lock();
        let by = by.min(MOST.saturating_sub(*concurrency));
        *concurrency += by;
        self.slots.add_permits(by as usize);
    }

    /// Runs so many fewer at once, as soon as they are free.
    pub fn shrink(self: &Arc<Self>, by: u32) {
        let mut concurrency = self.concurrency.lock();
        let by = by.min(concurrency.saturating_sub(1));
        *concurrency -= by;
        let worker = self.clone();
        tokio::spawn(async move {
            if let Ok(free) = worker.free(by).await {
                free.forget();
            }
        });
    }

    /// So many slots, before any of them takes another message from a queue.
    pub async fn free(&self, slots: u32) -> Result<OwnedSemaphorePermit, AcquireError> {
        let _waits = self.shared_slots.wanted.one();
        self.slots.clone().acquire_many_owned(slots).await
    }

    /// The sender of what follows a run.
    pub fn sender(&self) -> Sender<'_> {
        Sender { origin: &self.origin, reply_to: "", routes: &self.routes, defaults: &self.defaults }
    }

    /// Counts a task that begins.
    pub fn count(&self, task: &str) {
        *self.totals.lock().entry(task.to_owned()).or_default() += 1;
    }

    /// Tasks begun since the start.
    pub fn processed(&self) -> i64 {
        self.totals.lock().values().sum()
    }

    /// Tries until it is done, however long Redis is away. `None` when that takes longer than [`LAST_WORDS`] after a cold
    /// shutdown.
    pub async fn retry_until_done<T, F>(&self, what: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.retry(what, u32::MAX).await.and_then(Result::ok)
    }

    /// The same, but what Redis refuses each time is given up: a right that is missing, a key of another type.
    pub async fn retry_unless_refused<T, F>(&self, what: impl Fn() -> F) -> Option<Result<T, Error>>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.retry(what, REFUSALS).await
    }

    async fn retry<T, F>(&self, what: impl Fn() -> F, refusals: u32) -> Option<Result<T, Error>>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut backoff = Backoff::new(PAUSE);
        let (mut told, mut refused) = (false, 0);
        let time_is_up = async {
            self.cold_shutdown.cancelled().await;
            sleep(LAST_WORDS).await;
        };
        tokio::pin!(time_is_up);
        loop {
            let error = match what().await {
                Ok(done) => return Some(Ok(done)),
                Err(error) => error,
            };
            refused = if error.is_for_good() { refused + 1 } else { 0 };
            if refused >= refusals {
                return Some(Err(error));
            }
            if !told {
                tracing::warn!(%error, "a step on Redis failed; retrying until Redis answers");
                told = true;
            }
            tokio::select! {
                () = sleep(backoff.pause()) => {}
                () = &mut time_is_up => return None,
            }
        }
    }
}

/// A new name of a run or of a worker: `<node>/<process>/<uuid>`.
pub fn identity(node: &str) -> String {
    format!("{node}/{}/{}", std::process::id(), clock::random_id())
}
