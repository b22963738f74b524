//! Where a Redis is, and how to get in.

use std::sync::Arc;

use redis::{Client, ConnectionAddr, ConnectionInfo, RedisError};
use tokio_rustls::rustls::ClientConfig;

use super::dial::checked_against;
use super::error::{CLUSTER, ConnectError};
use super::secret::Secret;
use super::tls::Wishes;

/// A Redis database: where, and how to get in.
#[derive(Clone)]
pub(super) struct Address {
    client: Client,
    tls: Option<Arc<ClientConfig>>,
    wishes: Wishes,
    field: &'static str,
}

impl Address {
    pub fn parse(field: &'static str, url: &Secret, ca: Option<&str>) -> Result<Self, ConnectError> {
        let invalid = |detail: String| ConnectError::Invalid { field, detail };
        let url = url.reveal().trim();
        if !url.starts_with("redis://") && !url.starts_with("rediss://") {
            return Err(invalid("it must begin with redis:// or rediss://".into()));
        }
        let is_tls = url.starts_with("rediss://");
        let wishes = if is_tls { Wishes::of(url, ca.is_some()).map_err(invalid)? } else { Wishes::default() };
        // The error's own text may quote the URL, so only its kind is passed on.
        let plain = Client::open(url).map_err(|error| {
            let reason = error.detail().filter(|detail| !url.contains(detail));
            invalid(reason.unwrap_or("expected redis[s]://[user:password@]host[:port][/database]").into())
        })?;
        let tls = if is_tls {
            let detail = "it holds no PEM certificate that can be used";
            let unusable = || ConnectError::Invalid { field: "REDIS_CA", detail: detail.into() };
            Some(checked_against(ca).ok_or_else(unusable)?)
        } else {
            None
        };
        let info = plain.get_connection_info().clone();
        let named = info.redis_settings().clone().set_lib_name("crewjob", env!("CARGO_PKG_VERSION"));
        let client = Client::open(info.set_redis_settings(named)).map_err(|_| invalid("not a Redis URL".into()))?;
        Ok(Self { client, tls, wishes, field })
    }

    pub fn connection_info(&self) -> &ConnectionInfo {
        self.client.get_connection_info()
    }

    /// What certificates are checked against; `None` without TLS.
    pub fn tls_config(&self) -> Option<&Arc<ClientConfig>> {
        self.tls.as_ref()
    }

    pub fn database(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }

    /// Where it is, for people.
    pub fn place(&self) -> Place {
        let info = self.client.get_connection_info();
        let user = info.redis_settings().username().map(ToString::to_string);
        let (host, port) = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port),
            ConnectionAddr::Unix(_) | _ => (String::new(), 0),
        };
        Place { host, port, user, tls: self.tls() }
    }

    pub fn has_password(&self) -> bool {
        self.client.get_connection_info().redis_settings().password().is_some()
    }

    pub fn same_database(&self, other: &Self) -> bool {
        self.name() == other.name() && self.database() == other.database()
    }

    pub fn name(&self) -> String {
        // "host:port"
        let addr = self.client.get_connection_info().addr();
        if self.tls() { format!("rediss://{addr}") } else { format!("redis://{addr}") }
    }

    fn tls(&self) -> bool {
        matches!(self.client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. })
    }

    /// What a failed attempt to connect means to the person who wrote the URL.
    pub fn explain(&self, error: &RedisError) -> String {
        let field = self.field;
        let seen = error.to_string();
        let tls = self.tls();
        if tls && seen.contains("InvalidContentType") {
            return format!("the server does not speak TLS; use redis:// in {field}");
        }
        // A Redis without TLS waits for the rest of what it takes for a command.
        if tls && error.is_timeout() {
            return format!("{seen}; if the server does not speak TLS, use redis:// in {field}");
        }
        if seen.contains("cluster mode") {
            return CLUSTER.to_owned();
        }
        if tls && seen.contains("CertificateRequired") {
            return format!(
                "{seen}: the server asks for a client certificate, which is not supported; set its tls-auth-clients to no or \
                 optional"
            );
        }
        if tls && seen.contains("certificate") && self.wishes.no_check {
            return format!(
                "{seen}; ssl_cert_reqs=none in {field} is not heeded; give the certificate authority, or the certificate itself, \
                 as REDIS_CA"
            );
        }
        if tls && seen.contains("certificate") {
            return format!("{seen}; give the certificate authority as REDIS_CA");
        }
        if !tls && !error.is_timeout() && (error.is_connection_dropped() || error.kind() == redis::ErrorKind::Parse) {
            return format!("{seen}; if the server speaks TLS, use rediss:// in {field}");
        }
        seen
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name(), self.database())
    }
}

/// Where a Redis is, and the user it is used as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user, if one is named.
    pub user: Option<String>,
    /// Whether the connection is encrypted.
    pub tls: bool,
}
