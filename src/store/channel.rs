//! Redis as a worker uses it: messages taken and settled, leases, remote control, events.
//!
//! A message is taken off its queue and noted as in flight in one script, and settled in one script: what follows is
//! published, the result stored, the message acknowledged, the lease given up. So a crash loses no task, and between two
//! scripts a task is either still in flight or wholly done. Where results are kept in another database, what has to be
//! stored there is noted in the broker until it is. Everything else on the keys of kombu stays as kombu has it.

mod cache;
mod chord;
mod control;
mod flight;
mod housekeeping;
mod job_state;
mod owners;
mod release;
mod route;
mod settle;
mod take;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

pub use chord::{Counted, Part};
pub use control::Call;
pub use flight::{Begun, Swept};
pub use housekeeping::Cleaned;
pub use job_state::Snapshot;
pub use owners::{IDLE_BEAT, Silent};
pub use release::{End, Unbegun};
pub use settle::{Publication, Settled, Settlement};
pub use take::{Ask, Delivery, Taken};
pub use wait::Arrivals;

use super::address::Place;
use super::link::Link;
use super::{Access, ConnectError, Error, Queue};
use crate::wire::{BrokerKeys, ResultKeys};

/// Elements that the quarantine keeps, about; the oldest go first.
const QUARANTINED: usize = 1000;

/// A worker's way to its broker and result backend. Cloning is cheap and shares the connections.
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    access: Access,
    place: Place,
    broker: Link,
    /// The result backend; the broker's connection when it is the same database.
    results: Link,
    same_database: bool,
    keys: BrokerKeys,
    result_keys: ResultKeys,
    /// Whether Redis was full when a task ended, and the task has left more there than its message was.
    fills: AtomicBool,
}

impl Channel {
    /// Connects, and checks that Redis lets us in. Lost connections are made again by themselves.
    pub async fn connect(access: &Access) -> Result<Self, ConnectError> {
        let round_trips = Arc::new(AtomicU64::new(0));
        let address = access.broker()?;
        let (keys, result_keys) = access.keys.names(address.database())?;
        let broker = Link::new(&address, access, &round_trips);
        let (results, same_database) = match access.results()? {
            Some(other) if !other.same_database(&address) => (Link::new(&other, access, &round_trips), false),
            Some(_) | None => (broker.clone(), true),
        };
        broker.check().await?;
        if !same_database {
            results.check().await?;
        }
        Ok(Self(Arc::new(Inner {
            access: access.clone(),
            place: address.place(),
            broker,
            results,
            same_database,
            keys,
            result_keys,
            fills: AtomicBool::new(false),
        })))
    }

    /// Binds the queues as kombu does, so that producers that name an exchange find them.
    pub async fn declare(&self, queues: &[Queue]) -> Result<(), Error> {
        super::upkeep::declare(&self.0.broker, &self.0.keys, queues).await
    }

    /// Where the broker is.
    pub fn place(&self) -> Place {
        self.0.place.clone()
    }

    /// The names of keys and channels on the broker.
    pub fn keys(&self) -> &BrokerKeys {
        &self.0.keys
    }

    /// Where elements of queues are kept that are no messages, and messages that no queue is bound for: a stream of `element`
    /// with `list`, or with `exchange` and `routing_key`. Read with `XRANGE`.
    pub fn quarantine_stream(&self) -> String {
        format!("{}crewjob:quarantine", self.0.keys.prefix)
    }

    /// The lease on a task, in the broker's Redis; the same key that the guard of Python workers uses.
    fn lease(&self, task: &str) -> String {
        format!("{}crewjob-lease:{task}", self.0.keys.prefix)
    }
}
