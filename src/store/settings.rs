//! What it takes to reach a pool's Redis.

use std::sync::Arc;
use std::time::Duration;

use super::address::Address;
use super::error::ConnectError;
use super::secret::Secret;
use crate::wire::{Bands, BrokerKeys, ResultKeys};

/// What Celery's configuration calls things. All parties on one Redis must agree on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Bytes between a queue's name and its band (`sep`).
    pub separator: String,
    /// Lowest Celery priority of each band, ascending (`priority_steps`).
    pub priority_steps: Vec<u8>,
    /// Goes before every broker key and channel (`global_keyprefix`).
    pub global_prefix: String,
    /// Hash of messages with workers (`unacked_key`). `unacked_index_key` and `unacked_mutex_key` are this name with
    /// `_index` and `_mutex` behind it.
    pub unacked: String,
    /// `global_keyprefix` of the result backend.
    pub result_prefix: String,
}

impl Keys {
    /// The names of all keys and channels on the broker with this database number, and on the result backend.
    pub(super) fn names(&self, database: i64) -> Result<(BrokerKeys, ResultKeys), ConnectError> {
        let Self { separator, priority_steps, global_prefix, unacked, result_prefix } = self;
        let bands = Bands::new(priority_steps.clone(), separator)
            .map_err(|error| ConnectError::Invalid { field: "prioritySteps", detail: error.to_string() })?;
        let broker = BrokerKeys {
            prefix: global_prefix.clone(),
            database,
            bands,
            unacked: unacked.clone(),
            unacked_index: format!("{unacked}_index"),
            unacked_mutex: format!("{unacked}_mutex"),
        };
        Ok((broker, ResultKeys::new(result_prefix)))
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            separator: "\u{6}\u{16}".into(),
            priority_steps: vec![0, 3, 6, 9],
            global_prefix: String::new(),
            unacked: "unacked".into(),
            result_prefix: String::new(),
        }
    }
}

/// Where a Redis is, what things are called there, and how long to wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The broker: `redis://` or `rediss://`, with user, password and database number.
    pub url: Secret,
    /// The result backend, where it is not the broker.
    pub result_url: Option<Secret>,
    /// Certificate authority of `rediss://` servers in PEM; the system's own when absent.
    pub ca: Option<String>,
    /// What Celery's configuration calls things.
    pub keys: Keys,
    /// How long a connection may take, greeting included.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub response_timeout: Duration,
}

impl Access {
    /// The usual key names, and timeouts of 5 s.
    pub fn new(url: Secret) -> Self {
        Self {
            url,
            result_url: None,
            ca: None,
            keys: Keys::default(),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
        }
    }

    pub(super) fn broker(&self) -> Result<Address, ConnectError> {
        Address::parse("REDIS_URL", &self.url, self.ca.as_deref())
    }

    pub(super) fn results(&self) -> Result<Option<Address>, ConnectError> {
        let parse = |url| Address::parse("RESULT_BACKEND_URL", url, self.ca.as_deref());
        self.result_url.as_ref().map(parse).transpose()
    }
}

/// What it takes to work on a pool's Redis as its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where it is.
    pub access: Access,
    /// UID of the cluster (of its `kube-system` namespace): several clusters may share a Redis.
    pub cluster_uid: Arc<str>,
    /// `namespace/name` of the Lease whose epochs fence the writers.
    pub lease: Arc<str>,
}

impl Settings {
    /// Settings with the usual key names and timeouts.
    pub fn new(url: Secret, cluster_uid: impl Into<Arc<str>>, lease: impl Into<Arc<str>>) -> Self {
        Self { access: Access::new(url), cluster_uid: cluster_uid.into(), lease: lease.into() }
    }
}

/// A Celery queue of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Queue {
    /// Its name, which is also its list's.
    pub name: Arc<str>,
    /// The exchange it is bound to.
    pub exchange: Arc<str>,
    /// The routing key it is bound with.
    pub routing_key: Arc<str>,
}

impl Queue {
    /// The queue `name`, bound to the exchange of that name with this routing key.
    pub fn new(name: impl Into<Arc<str>>, routing_key: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Self { exchange: name.clone(), name, routing_key: routing_key.into() }
    }
}
