//! What it takes to reach a pool's Redis.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

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
    /// Certificate, with those between it and its authority, that a `rediss://` server is shown; in PEM.
    pub client_cert: Option<String>,
    /// The private key of this certificate, in PEM.
    pub client_key: Option<Secret>,
    /// How to get an answer of the sentinels of `sentinel://` URLs.
    pub sentinel: Sentinel,
    /// User and password for URLs without a password.
    pub login: Option<Login>,
    /// What is asked before each connection for all of this but the names; it leads to the same database.
    pub renewal: Option<Renewal>,
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
            login: None,
            renewal: None,
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

type Source = dyn Fn() -> BoxFuture<'static, Result<Access, String>> + Send + Sync;

/// Says how to get in, each time that it is asked.
#[derive(Clone)]
pub struct Renewal(Arc<Source>);

impl Renewal {
    /// Asks `source`, which must come to an end by itself.
    pub fn new(source: impl Fn() -> BoxFuture<'static, Result<Access, String>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    pub(super) async fn ask(&self) -> Result<Access, String> {
        (self.0)().await
    }
}

impl PartialEq for Renewal {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Renewal {}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal(..)")
    }
}

/// A user and a password that take the place of what is missing in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user, unless it is the default one or in the URL.
    pub username: Option<String>,
    /// The password, unless it is in the URL.
    pub password: Secret,
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
