//! Where a Redis is, and how to get in.

use std::sync::Arc;
use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, RedisConnectionInfo, RedisError};
use tokio_rustls::rustls::ClientConfig;

use super::certificates::client_config;
use super::dial::{Connection, connect};
use super::endpoint::Endpoint;
use super::error::{CLUSTER, ConnectError};
use super::secret::Secret;
use super::sentinel::{self, SCHEME, Sentinels};
use super::settings::Access;
use super::tls::{Given, Wishes, is_wished};

impl Access {
    pub(super) fn broker(&self) -> Result<Address, ConnectError> {
        Address::parse("REDIS_URL", &self.url, self)
    }

    pub(super) fn results(&self) -> Result<Option<Address>, ConnectError> {
        let parse = |url| Address::parse("RESULT_BACKEND_URL", url, self);
        self.result_url.as_ref().map(parse).transpose()
    }
}

/// A Redis database: where, and how to get in.
#[derive(Clone)]
pub(super) struct Address {
    client: Client,
    endpoint: Endpoint,
    sentinels: Option<Arc<Sentinels>>,
    tls: Option<Arc<ClientConfig>>,
    wishes: Wishes,
    shows_certificate: bool,
    field: &'static str,
}

impl Address {
    pub fn parse(field: &'static str, url: &Secret, access: &Access) -> Result<Self, ConnectError> {
        let invalid = |detail: String| ConnectError::Invalid { field, detail };
        let url = url.reveal().trim();
        let of_sentinels = url.starts_with(SCHEME);
        if !of_sentinels && !url.starts_with("redis://") && !url.starts_with("rediss://") {
            return Err(invalid("it must begin with redis://, rediss:// or sentinel://".into()));
        }
        let is_tls = url.starts_with("rediss://") || of_sentinels && is_wished(url);
        let given = Given { authority: access.ca.is_some(), identity: access.client_cert.is_some() };
        let wishes = if is_tls { Wishes::of(url, given).map_err(invalid)? } else { Wishes::default() };
        let behind = of_sentinels.then(|| sentinel::read(url, is_tls)).transpose().map_err(invalid)?;
        let plain = behind.as_ref().map_or(url, |behind| &*behind.url);
        // The error's own text may quote the URL, so only its kind is passed on.
        let plain = Client::open(plain).map_err(|error| {
            let reason = error.detail().filter(|detail| !url.contains(detail));
            invalid(reason.unwrap_or("expected redis[s]://[user:password@]host[:port][/database]").into())
        })?;
        let tls = is_tls.then(|| client_config(access)).transpose()?;
        let shared = || tls.clone().map_or_else(|| client_config(access), Ok);
        let sentinels = behind.map(|behind| Sentinels::new(behind.places, access, shared).map(Arc::new)).transpose()?;
        let endpoint = Endpoint::of(plain.get_connection_info().addr());
        let endpoint = endpoint.ok_or_else(|| invalid("expected a host and a port".into()))?;
        let info = plain.get_connection_info().clone();
        let mut named = info.redis_settings().clone().set_lib_name("crewjob", env!("CARGO_PKG_VERSION"));
        if let Some(login) = access.login.as_ref().filter(|_| named.password().is_none()) {
            let user = login.username.as_ref().filter(|_| named.username().is_none()).cloned();
            named = named.set_password(login.password.reveal());
            if let Some(user) = user {
                named = named.set_username(user);
            }
        }
        let client = Client::open(info.set_redis_settings(named)).map_err(|_| invalid("not a Redis URL".into()))?;
        let shows_certificate = given.identity;
        Ok(Self { client, endpoint, sentinels, tls, wishes, shows_certificate, field })
    }

    /// The same database as this way in leads to it; an error says why not.
    pub fn again(&self, access: &Access) -> Result<Self, String> {
        let parsed = if self.field == "REDIS_URL" { access.broker().map(Some) } else { access.results() };
        let again = parsed.map_err(|error| error.to_string())?;
        again.filter(|again| again.same_database(self)).ok_or_else(|| {
            format!("{} no longer leads to {self}; restart the process to move it to another Redis", self.field)
        })
    }

    /// What is said first on a connection.
    pub fn greeting(&self) -> &RedisConnectionInfo {
        self.client.get_connection_info().redis_settings()
    }

    /// Where the server is, or the first of the sentinels.
    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    fn sentinels(&self) -> Option<&Sentinels> {
        self.sentinels.as_deref()
    }

    /// How long a connection may take.
    pub fn patience(&self, of_one: Duration) -> Duration {
        // Each sentinel, the primary, and the one before it.
        self.sentinels.as_ref().map_or(of_one, |it| 2 * of_one + it.count() * Sentinels::patience())
    }

    /// Connects, and greets. No answer has more than `limit` bytes of values, where there is one.
    pub async fn dial(
        &self,
        greeting: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
        limit: Option<usize>,
    ) -> Result<Connection, RedisError> {
        let dialled = |at: Endpoint| {
            let config = config.clone();
            async move { connect(&at, self.tls.as_ref(), greeting, config, limit).await }
        };
        match self.sentinels() {
            Some(sentinels) => sentinels.connect(dialled).await,
            None => dialled(self.endpoint()).await,
        }
    }

    pub fn database(&self) -> i64 {
        self.greeting().db()
    }

    /// Where it is, for people: of a Redis behind sentinels, the first of these.
    pub fn place(&self) -> Place {
        let user = self.greeting().username().map(ToString::to_string);
        let Endpoint { host, port } = self.endpoint();
        Place { host, port, user, tls: self.tls() }
    }

    /// Where the server itself is, as far as that is known.
    pub fn server(&self) -> Endpoint {
        self.sentinels().and_then(Sentinels::primary).unwrap_or_else(|| self.endpoint())
    }

    pub fn has_password(&self) -> bool {
        self.greeting().password().is_some()
    }

    pub fn same_database(&self, other: &Self) -> bool {
        self.name() == other.name() && self.database() == other.database()
    }

    pub fn name(&self) -> String {
        if let Some(sentinels) = self.sentinels() {
            return sentinels.to_string();
        }
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
                "{seen}: the server asks for a client certificate; give it as REDIS_CLIENT_CERT and its key as REDIS_CLIENT_KEY"
            );
        }
        if tls && seen.contains("received fatal alert") && self.shows_certificate {
            return format!(
                "{seen}; the server refuses the connection, perhaps because it does not accept the REDIS_CLIENT_CERT"
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
