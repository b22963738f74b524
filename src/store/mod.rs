//! Redis by intent: what the operator wants done, not which commands do it.
//!
//! Every change of a job's message is one Lua script that compares the marker's generation, carries the leader's
//! [`Epoch`] and changes marker, queue and in-flight entry together. So a crash between two steps, two operators and a
//! paused old leader cannot publish an attempt twice.
//!
//! Redis types stop here.

mod address;
mod audit;
mod bounded;
mod carry;
mod certificates;
pub mod channel;
mod control;
mod dial;
mod endpoint;
mod environment;
mod error;
mod link;
mod listen;
mod locate;
mod look_up;
mod marker;
mod names;
mod notice;
mod peek;
mod pidbox;
mod quarantine;
mod rate;
mod renewal;
mod results;
mod secret;
mod sentinel;
mod settings;
mod snapshot;
mod subscribe;
mod sweep;
mod tls;
pub mod told;
mod transition;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use audit::{Audit, Place, Poison};
pub use channel::Channel;
pub use control::{Node, RunningTask, TERMINATE};
pub use environment::{EnvironmentError, SECRETS};
pub use error::{ConnectError, Error};
pub use locate::Glance;
pub use look_up::LookedUp;
pub use marker::{Marker, MarkerState};
pub use names::MarkerId;
pub use notice::{Notice, Stage, TaskEvent, WorkerEvent, WorkerState};
pub use peek::Vitals;
pub use rate::Callers;
pub use results::Document;
pub use secret::Secret;
pub use settings::{Access, Keys, Login, Queue, Renewal, Sentinel, Settings};
pub use snapshot::{Incarnation, QueueLoad, Snapshot};
pub use sweep::{Swept, Wanted};
pub use transition::{Enqueued, Epoch, Message, Moved, Requeued, Withdrawn};

use crate::core::id::Priority;
use link::Link;
use names::Names;
use pidbox::Pidbox;

/// Bytes of values in one answer: a page of messages, a chunk of a result, one message of ours, what workers tell of
/// their tasks with all arguments.
const ANSWER: usize = 4 << 20;

/// The Redis of one pool: its broker and its result backend. Cloning is cheap and shares the connections.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    /// Short commands that jobs wait for.
    broker: Link,
    /// Long scans, on a connection of their own so that no enqueue waits behind their answers.
    scans: Link,
    /// The result backend; shares the broker's connection when it is the same database.
    results: Link,
    same_database: bool,
    names: Names,
    round_trips: Arc<AtomicU64>,
    pidbox: Pidbox,
}

impl Store {
    /// Connects to a pool's Redis and checks that it lets us in.
    ///
    /// Afterwards lost connections are made again by themselves, with a bounded backoff during which calls fail at once.
    pub async fn connect(settings: &Settings) -> Result<Self, ConnectError> {
        let round_trips = Arc::new(AtomicU64::new(0));
        let address = settings.access.broker()?;
        let names = Names::new(settings, address.database())?;
        let link = |address: &_| Link::bounded(address, &settings.access, &round_trips, ANSWER);
        let broker = link(&address);
        let (results, same_database) = match settings.access.results()? {
            Some(other) if !other.same_database(&address) => (link(&other), false),
            Some(_) | None => (broker.clone(), true),
        };
        broker.check().await?;
        if !same_database {
            results.check().await?;
        }
        let scans = link(&address);
        let pidbox = Pidbox::new(scans.clone(), names.broker.clone());
        Ok(Self(Arc::new(Inner { broker, scans, results, same_database, names, round_trips, pidbox })))
    }

    /// Scheme, host, port and database of the broker, without credentials.
    pub fn address(&self) -> String {
        self.0.broker.address().to_string()
    }

    /// The host and port of the broker; of one behind sentinels, of the first of these.
    pub fn broker_place(&self) -> (Arc<str>, u16) {
        let place = self.0.broker.address().place();
        (place.host.into(), place.port)
    }

    /// The host, port and database of the results.
    pub fn results_place(&self) -> (Arc<str>, u16, i64) {
        let address = self.0.results.address();
        let place = address.place();
        (place.host.into(), place.port, address.database())
    }

    /// The number of the broker's database.
    pub fn database(&self) -> i64 {
        self.0.broker.address().database()
    }

    /// The Celery priority that a message of this priority carries.
    pub fn celery(&self, priority: Priority) -> u8 {
        self.0.names.celery(priority)
    }

    /// Lowest Celery priority of the band in which messages of this priority wait.
    pub fn band(&self, priority: Priority) -> u8 {
        self.0.names.band(priority)
    }

    /// The command by which a person clears the fence, so that the leader of today makes it anew. Holds no password.
    pub fn clearing_the_fence(&self) -> String {
        format!("{} DEL '{}'", self.0.broker.redis_cli(), self.0.names.fence)
    }

    /// Round trips to Redis that were awaited so far, over all connections.
    pub fn round_trips(&self) -> u64 {
        self.0.round_trips.load(Ordering::Relaxed)
    }
}
