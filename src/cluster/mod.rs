//! The clients of the API server: every call ends in time, and a dead peer is noticed.
//!
//! The stack is kube's own (`ClientBuilder::try_from`) with another connector below it. HTTP/2 carries all calls on one
//! connection, and up to [`WATCHES`] watches on each further one: an API server accepts 100 streams per connection, and
//! a client of hyper's waits for a free one instead of opening another connection, so watches must not take them from
//! calls. What is [`Streamed`] to a reader that may be slow goes with the watches. The Lease has a client with connections of
//! its own, of which each carries one request at a time: a call that is given up takes its connection with it.

mod deadline;
mod goaway;
mod hurry;
mod lines;
pub mod objects;

use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::retry::RetryPolicy;
use kube::client::{ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

use deadline::Deadline;
use goaway::Unprocessed;
use hurry::Hurry;
use lines::{Connector, Http, Lines};

pub use deadline::{Accepted, Patience, is_too_slow};
pub use lines::Streamed;

/// How long the calls of an operator may take, retries included.
const CALL: Patience = Patience { answer: Duration::from_secs(12), rest: Duration::from_secs(20) };
/// The same for the Lease: the next try has a new connection.
const LEASE: Patience = Patience { answer: Duration::from_secs(5), ..CALL };
/// How long connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// After so long without a sign of life the peer is asked for one, and has as long again to give it.
const PING: Duration = Duration::from_secs(5);
/// The same of the kernel: so many unanswered probes, so far apart.
const PROBES: (u32, Duration) = (2, Duration::from_secs(3));
/// How long what was sent may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(12);
/// What one stream may hold back unread, and a connection in all: as much as all its streams together, so that a watch
/// that is not read stops no other.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * WATCHES;
/// Watches per connection.
const WATCHES: u32 = 50;

/// The clients of one operator.
pub struct Clients {
    /// For everything but the Lease.
    pub api: Client,
    /// For the Lease.
    pub lease: Client,
}

impl Clients {
    /// Connects with this configuration; `accepted` hears which watches are accepted.
    pub fn new(config: &Config, accepted: Accepted) -> kube::Result<Self> {
        Ok(Self { api: shared(config, CALL, Some(accepted))?, lease: single(config)? })
    }
}

/// A client for a command that makes a few calls.
pub async fn connect() -> kube::Result<Client> {
    let config = Config::infer().await.map_err(kube::Error::InferConfig)?;
    shared(&config, CALL, None)
}

/// A client whose calls have this long; `accepted` hears which watches are accepted.
pub fn shared(config: &Config, patience: Patience, accepted: Option<Accepted>) -> kube::Result<Client> {
    let connector = connector(config, true)?;
    let lines = Lines::new(move || http(connector.clone()), WATCHES as usize);
    let retries = config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let stack = ServiceBuilder::new()
        .layer_fn(move |inner| Deadline::new(inner, patience, accepted.clone()))
        .layer(config.base_uri_layer())
        .option_layer(retries)
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .layer(RetryLayer::new(Unprocessed::new()))
        .map_err(BoxError::from)
        .service(lines);
    Ok(ClientBuilder::new(stack, &config.default_namespace).build())
}

/// Every call is answered or has failed when its turn to be tried again comes, so nothing is retried here.
fn single(config: &Config) -> kube::Result<Client> {
    let http = http(connector(config, false)?);
    let stack = ServiceBuilder::new()
        .layer_fn(|inner| Deadline::new(inner, LEASE, None))
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(stack, &config.default_namespace).build())
}

fn connector(config: &Config, is_shared: bool) -> kube::Result<Connector> {
    if let Some(proxy) = &config.proxy_url {
        let proxy_url = Box::new(proxy.clone());
        return Err(kube::Error::ProxyProtocolUnsupported { proxy_url });
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(PING));
    tcp.set_keepalive_retries(Some(PROBES.0));
    tcp.set_keepalive_interval(Some(PROBES.1));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let mut tls = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = name.clone().try_into().map_err(kube::client::RustlsTlsError::InvalidServerName);
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name.map_err(kube::Error::RustlsTls)?));
    }
    let tls = tls.enable_http1();
    let https = if is_shared { tls.enable_http2().wrap_connector(tcp) } else { tls.wrap_connector(tcp) };
    Ok(Hurry::new(https, CONNECT))
}

fn http(connector: Connector) -> Http {
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .http2_keep_alive_while_idle(true)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build(connector)
}
