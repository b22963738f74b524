//! `crewjob gateway`: start, serve, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::config::AuthInfo;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::body::Room;
use super::caller::Callers;
use super::config::{Config, Mode};
use super::context::Gateway;
use super::form::Fields;
use super::limit::Limiter;
use super::listen::listen;
use super::metrics::Metrics;
use super::openapi;
use super::page::Desk;
use super::tls::{Tls, TlsError};
use super::upstream::Upstream;
use crate::cluster::{self, Patience};
use crate::core::gateway::seats::Seats;
use crate::runtime::admin::{self, Liveness, Readiness};
use crate::runtime::shutdown;
use crate::store::{self, Access, ConnectError, EnvironmentError};

/// How long a call of the API server may take, and its answer to go by.
const CALL: Patience = Patience { answer: Duration::from_secs(30), rest: Duration::from_mins(2) };
/// How long Redis may take to count a request, connecting included.
const COUNTING: Duration = Duration::from_millis(500);
/// How long the requests that are there may take when the process is to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(20);

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Options contradict each other.
    #[error("{0}")]
    Options(String),
    /// No configuration of a cluster.
    #[error("finding the cluster: no usable kubeconfig, and not inside a cluster")]
    Configuration(#[source] Box<kube::config::InferConfigError>),
    /// The client could not be made.
    #[error("connecting to the API server")]
    Client(#[source] Box<kube::Error>),
    /// The certificate cannot be used.
    #[error("preparing TLS")]
    Tls(#[from] TlsError),
    /// The environment names a Redis that cannot be found in it.
    #[error("reading where Redis is")]
    Environment(#[from] EnvironmentError),
    /// The Redis that the environment names cannot be used.
    #[error("preparing to count requests on Redis")]
    Redis(#[from] ConnectError),
    /// An address cannot be used.
    #[error("listening on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("listening to signals")]
    Signals(#[source] std::io::Error),
}

/// Runs until a signal asks to stop.
pub async fn run(config: Config) -> Result<(), StartError> {
    config.check().map_err(StartError::Options)?;
    let signal = shutdown::on_signal().map_err(StartError::Signals)?;
    let mut cluster = kube::Config::infer().await.map_err(|source| StartError::Configuration(Box::new(source)))?;
    // What is passed on is refused or repeated by its sender. And where callers have rights of their own, nothing that the
    // kubeconfig or the Pod knows may be added to them: a client certificate would win over the caller's token.
    cluster.default_retry = false;
    let desk = config.page.then(|| desk(&config, &cluster)).transpose()?;
    if config.mode == Mode::Forward {
        cluster.auth_info = AuthInfo::default();
        cluster.headers.clear();
    }
    let client = cluster::shared(&cluster, CALL, None).map_err(|source| StartError::Client(Box::new(source)))?;
    let tls = match (&config.tls_cert, &config.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::read(certificate, key)?),
        (Some(_) | None, None) | (None, Some(_)) => None,
    };
    let redis = redis()?;
    let counted_on = redis.as_ref().map(store::Callers::address);
    let (metrics, registry) = Metrics::register();
    let (readiness, stop) = (Readiness::default(), CancellationToken::new());
    readiness.missing("interface", "not listening yet");
    let address = config.admin_address;
    admin::serve(address, readiness.clone(), Liveness::default(), registry, stop.clone())
        .await
        .map_err(|source| StartError::Listen { address, source })?;
    let address = config.address;
    let listener = admin::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
    more_files();
    let home = config.namespace.clone().or_else(|| config.pod_namespace.clone());
    let fields = Fields::of_definition();
    let callers = Arc::new(Callers::new(&config));
    let gateway = Arc::new(Gateway {
        openapi: openapi::document(&fields, &config.path_prefix, config.mode).to_string().into(),
        prefix: config.path_prefix.clone(),
        home: home.unwrap_or_else(|| cluster.default_namespace.clone()),
        upstream: Upstream::new(client, callers.clone()),
        callers,
        limiter: Limiter::new(config.rate_limit, redis),
        room: Room::default(),
        fields,
        desk,
        mcp: config.mcp,
        seats: Mutex::new(Seats::new(config.max_streams as usize, config.max_streams_per_caller as usize)),
        metrics,
        stop: stop.clone(),
    });
    let closed = CancellationToken::new();
    let renewing = tls.clone().map(|tls| tokio::spawn(tls.follow()));
    let serving = tokio::spawn(listen(listener, tls, gateway, config.max_connections, closed.clone()));
    readiness.ready("interface", "listening");
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, %address, mode = ?config.mode, counted_on, "crewjob gateway started");
    signal.cancelled().await;
    // The Service's other end still sends connections here for a while.
    readiness.missing("interface", "stopping");
    sleep(Duration::from_secs(config.shutdown_delay.into())).await;
    closed.cancel();
    stop.cancel();
    if timeout(LAST_REQUESTS, serving).await.is_err() {
        tracing::warn!("some requests took too long; their connections are closed");
    }
    if let Some(renewing) = renewing {
        renewing.abort();
    }
    tracing::info!("stopped");
    Ok(())
}

/// What the page needs. Its watch has the gateway's own rights, also where callers have theirs.
fn desk(config: &Config, cluster: &kube::Config) -> Result<Desk, StartError> {
    let client = cluster::shared(cluster, CALL, None).map_err(|source| StartError::Client(Box::new(source)))?;
    Ok(Desk::open(&client, &config.page_namespaces, config.page_max_jobs as usize))
}

/// The Redis that the environment names, if it names one.
fn redis() -> Result<Option<store::Callers>, StartError> {
    match Access::of_environment(|name| std::env::var(name).ok()) {
        Err(EnvironmentError::NoBroker) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(access) => {
            let access = Access { connect_timeout: COUNTING, response_timeout: COUNTING, ..access };
            Ok(Some(store::Callers::new(&access)?))
        }
    }
}

/// Every connection is a file. As many as the system allows, whatever the shell has set.
fn more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let now = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, ..now });
}
