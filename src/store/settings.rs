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
    /// Certificate, with those between it and its authority, that says to a `rediss://` server who its client is; in PEM.
    pub client_cert: Option<String>,
    /// The private key of this certificate, in PEM.
    pub client_key: Option<Secret>,
    /// How to get an answer of the sentinels of `sentinel://` URLs.
    pub sentinel: Sentinel,
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
            client_cert: None,
            client_key: None,
            sentinel: Sentinel::default(),
            keys: Keys::default(),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
        }
    }

    /// What a Secret says; `value` gives the text of one of its keys.
    pub fn of_secret<E>(url: Secret, value: impl Fn(&str) -> Result<Option<String>, E>) -> Result<Self, E> {
        Ok(Self {
            result_url: value("RESULT_BACKEND_URL")?.map(Secret::new),
            ca: value("REDIS_CA")?,
            client_cert: value("REDIS_CLIENT_CERT")?,
            client_key: value("REDIS_CLIENT_KEY")?.map(Secret::new),
            sentinel: Sentinel::of(value)?,
            ..Self::new(url)
        })
    }

    pub(super) fn broker(&self) -> Result<Address, ConnectError> {
        Address::parse("REDIS_URL", &self.url, self)
    }

    pub(super) fn results(&self) -> Result<Option<Address>, ConnectError> {
        let parse = |url| Address::parse("RESULT_BACKEND_URL", url, self);
        self.result_url.as_ref().map(parse).transpose()
    }
}

/// What the URLs of sentinels do not say: Celery has it in `broker_transport_options` and `result_backend_transport_options`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sentinel {
    /// The name under which they know the primary (`master_name`).
    pub master: Option<String>,
    /// A user of the sentinels (`sentinel_kwargs`).
    pub username: Option<String>,
    /// The password for them (`sentinel_kwargs`).
    pub password: Option<Secret>,
    /// `true` where they speak TLS.
    pub tls: Option<String>,
}

impl Sentinel {
    /// What a Secret or an environment says; `value` gives the text of a key or variable.
    pub(super) fn of<E>(value: impl Fn(&str) -> Result<Option<String>, E>) -> Result<Self, E> {
        Ok(Self {
            master: value("REDIS_SENTINEL_MASTER")?,
            username: value("REDIS_SENTINEL_USERNAME")?,
            password: value(SENTINEL_PASSWORD)?.map(Secret::new),
            tls: value("REDIS_SENTINEL_TLS")?,
        })
    }
}

/// The key or variable that has the password of the sentinels.
pub(super) const SENTINEL_PASSWORD: &str = "REDIS_SENTINEL_PASSWORD";

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
