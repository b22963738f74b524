//! One connection to one Redis database that is made again when it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, FromRedisValue, RedisError, ScriptInvocation};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::ClientConfig;

use super::dial::{Connection, checked_against, dial};
use super::error::{ConnectError, Error};
use super::settings::{Access, Secret};

/// A script of this folder.
macro_rules! script {
    ($file:literal) => {
        std::sync::LazyLock::new(|| redis::Script::new(include_str!($file)))
    };
}

/// A script of this folder that runs under the fence.
macro_rules! fenced {
    ($file:literal) => {
        std::sync::LazyLock::new(|| redis::Script::new(concat!(include_str!("lua/prelude.lua"), include_str!($file))))
    };
}

pub(super) use {fenced, script};

/// Longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Bytes of an event or result that is heard: those of the largest batch of events that Celery sends, and some more.
const HEARD: usize = 128 << 10;

/// A Redis database: where, and how to get in.
#[derive(Clone)]
pub(super) struct Address {
    client: Client,
    tls: Option<Arc<ClientConfig>>,
    field: &'static str,
}

impl Address {
    pub fn parse(field: &'static str, url: &Secret, ca: Option<&str>) -> Result<Self, ConnectError> {
        let invalid = |detail: String| ConnectError::Invalid { field, detail };
        let url = url.reveal().trim();
        if !url.starts_with("redis://") && !url.starts_with("rediss://") {
            return Err(invalid("it must begin with redis:// or rediss://".into()));
        }
        // The error's own text may quote the URL, so only its kind is passed on.
        let plain = Client::open(url).map_err(|error| {
            let reason = error.detail().filter(|detail| !url.contains(detail));
            invalid(reason.unwrap_or("expected redis[s]://[user:password@]host[:port][/database]").into())
        })?;
        let tls = if url.starts_with("rediss://") {
            let detail = "it holds no PEM certificate that can be used";
            let unusable = || ConnectError::Invalid { field: "REDIS_CA", detail: detail.into() };
            Some(checked_against(ca).ok_or_else(unusable)?)
        } else {
            None
        };
        let info = plain.get_connection_info().clone();
        let named = info.redis_settings().clone().set_lib_name("crewjob", env!("CARGO_PKG_VERSION"));
        let client = Client::open(info.set_redis_settings(named)).map_err(|_| invalid("not a Redis URL".into()))?;
        Ok(Self { client, tls, field })
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

    fn has_password(&self) -> bool {
        self.client.get_connection_info().redis_settings().password().is_some()
    }

    pub fn same_database(&self, other: &Self) -> bool {
        self.name() == other.name() && self.database() == other.database()
    }

    fn name(&self) -> String {
        // "host:port"
        let addr = self.client.get_connection_info().addr();
        if self.tls() { format!("rediss://{addr}") } else { format!("redis://{addr}") }
    }

    fn tls(&self) -> bool {
        matches!(self.client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name(), self.database())
    }
}

/// Where a Redis is, and as whom it is used.
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

/// A connection that is made when first used, and again after it was lost.
#[derive(Clone)]
pub(super) struct Link(Arc<Shared>);

struct Shared {
    address: Address,
    config: AsyncConnectionConfig,
    connect_timeout: Duration,
    /// Bytes that one answer may have; see [`super::bounded`].
    limit: Option<usize>,
    state: Mutex<State>,
    round_trips: Arc<AtomicU64>,
}

enum State {
    Up { connection: Connection, serial: u64 },
    Down { failures: u32, pause: Option<(Instant, RedisError)>, serial: u64 },
}

impl Link {
    /// A way to this database on which answers may have any size.
    pub fn new(address: &Address, access: &Access, round_trips: &Arc<AtomicU64>) -> Self {
        Self::with(address, access, round_trips, None)
    }

    /// A way to this database on which an answer has at most so many bytes of values. The rest of it is passed over
    /// without being held: an error stands in the place of each value that is missing.
    pub fn bounded(address: &Address, access: &Access, round_trips: &Arc<AtomicU64>, limit: usize) -> Self {
        Self::with(address, access, round_trips, Some(limit))
    }

    fn with(address: &Address, access: &Access, round_trips: &Arc<AtomicU64>, limit: Option<usize>) -> Self {
        Self(Arc::new(Shared {
            address: address.clone(),
            config: AsyncConnectionConfig::new().set_response_timeout(Some(access.response_timeout)),
            connect_timeout: access.connect_timeout,
            limit,
            state: Mutex::new(State::Down { failures: 0, pause: None, serial: 0 }),
            round_trips: round_trips.clone(),
        }))
    }

    /// Where it leads.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Connects and asks what answers.
    pub async fn check(&self) -> Result<(), ConnectError> {
        let address = self.0.address.name();
        let asked: Result<String, _> = match self.connection().await {
            Ok((mut connection, _)) => redis::cmd("INFO").arg("server").query_async(&mut connection.commands).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(info) => match too_old(&info) {
                Some(detail) => Err(ConnectError::Unreachable { address, detail }),
                None => Ok(()),
            },
            Err(error) if matches!(Error::of("", &error), Error::AuthenticationFailed { .. }) => {
                Err(ConnectError::AuthenticationFailed { address })
            }
            Err(error) => Err(ConnectError::Unreachable { address, detail: explain(&self.0.address, &error) }),
        }
    }

    /// The command that opens a shell on this database. It asks for the password, if there is one.
    pub fn redis_cli(&self) -> String {
        let Place { host, port, user, tls } = self.0.address.place();
        let database = Some(self.0.address.database()).filter(|number| *number != 0);
        let options = [
            database.map(|number| format!(" -n {number}")),
            tls.then(|| " --tls".to_owned()),
            user.map(|user| format!(" --user {user}")),
            self.0.address.has_password().then(|| " --askpass".to_owned()),
        ];
        format!("redis-cli -h {host} -p {port}{}", options.into_iter().flatten().collect::<String>())
    }

    pub async fn query<T: FromRedisValue>(&self, act: &'static str, command: &redis::Cmd) -> Result<T, Error> {
        self.run(act, |mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// The answer as it is, errors in it included.
    pub async fn ask(&self, act: &'static str, command: &redis::Cmd) -> Result<redis::Value, Error> {
        self.run(act, |mut connection| async move { connection.req_packed_command(command).await }).await
    }

    pub async fn pipe<T: FromRedisValue>(&self, act: &'static str, pipe: &redis::Pipeline) -> Result<T, Error> {
        self.run(act, |mut connection| async move { pipe.query_async(&mut connection).await }).await
    }

    pub async fn script<T>(&self, act: &'static str, script: &ScriptInvocation<'_>) -> Result<T, Error>
    where
        T: FromRedisValue,
    {
        self.run(act, |mut connection| async move { script.invoke_async(&mut connection).await }).await
    }

    /// A connection of its own that listens to these channel patterns and hands what comes to `push`.
    pub async fn listener(
        &self,
        act: &'static str,
        push: impl redis::aio::AsyncPushSender,
        patterns: &[String],
    ) -> Result<Connection, Error> {
        let address = self.0.address.client.get_connection_info();
        let greeting = address.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
        let config = self.0.config.clone().set_push_sender(push);
        let subscribe = async {
            let limit = self.0.limit.map(|_| HEARD);
            let mut connection = dial(address, self.0.address.tls.as_ref(), &greeting, config, limit).await?;
            connection.commands.psubscribe(patterns).await?;
            Ok(connection)
        };
        self.in_time(subscribe).await.map_err(|error| Error::of(act, &error))
    }

    async fn in_time<T>(&self, connect: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
        let too_late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        timeout(self.0.connect_timeout, connect).await.map_err(too_late)?
    }

    /// Runs `ask`, and once more when the connection turns out to have been lost: everything asked here may be repeated.
    async fn run<T, F>(&self, act: &'static str, ask: impl Fn(MultiplexedConnection) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let mut retried = false;
        loop {
            let (connection, serial) = self.connection().await.map_err(|error| Error::of(act, &error))?;
            self.0.round_trips.fetch_add(1, Ordering::Relaxed);
            let error = match ask(connection.commands.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.is_timeout() || error.is_unrecoverable_error() || is_replica(&error) {
                self.discard(serial).await;
            }
            if retried || !error.is_connection_dropped() {
                return Err(Error::of(act, &error));
            }
            retried = true;
        }
    }

    async fn connection(&self) -> Result<(Connection, u64), RedisError> {
        let mut state = self.0.state.lock().await;
        let (failures, serial) = match &*state {
            State::Up { connection, serial } => return Ok((connection.clone(), *serial)),
            State::Down { pause: Some((until, error)), .. } if *until > Instant::now() => return Err(error.clone()),
            State::Down { failures, serial, .. } => (*failures, *serial),
        };
        let info = self.0.address.client.get_connection_info();
        let config = self.0.config.clone();
        match self.in_time(dial(info, self.0.address.tls.as_ref(), info.redis_settings(), config, self.0.limit)).await {
            Ok(connection) => {
                *state = State::Up { connection: connection.clone(), serial };
                Ok((connection, serial))
            }
            Err(error) => {
                let pause = Duration::from_millis(100 << failures.min(6)).min(LONGEST_PAUSE);
                let pause = Some((Instant::now() + pause, error.clone()));
                *state = State::Down { failures: failures + 1, pause, serial };
                Err(error)
            }
        }
    }

    /// Gives up the connection with this number, unless somebody has made a new one since.
    async fn discard(&self, lost: u64) {
        let mut state = self.0.state.lock().await;
        if matches!(&*state, State::Up { serial, .. } if *serial == lost) {
            *state = State::Down { failures: 0, pause: None, serial: lost + 1 };
        }
    }
}

/// Whether the server follows another one by now: the name may lead to that one.
fn is_replica(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
}

/// Why a server of this version cannot be used. The scripts need commands of Redis 6.2.
fn too_old(info: &str) -> Option<String> {
    let version = info.lines().find_map(|line| line.trim().strip_prefix("redis_version:"))?;
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next()?, parts.next().unwrap_or(0));
    ((major, minor) < (6, 2)).then(|| format!("the server is Redis {version}; 6.2 or newer is needed"))
}

/// What a failed attempt to connect means to the person who wrote the URL.
fn explain(address: &Address, error: &RedisError) -> String {
    let field = address.field;
    let seen = error.to_string();
    let tls = address.tls();
    if tls && seen.contains("InvalidContentType") {
        return format!("the server does not speak TLS; use redis:// in {field}");
    }
    // A Redis without TLS waits for the rest of what it takes for a command.
    if tls && error.is_timeout() {
        return format!("{seen}; if the server does not speak TLS, use redis:// in {field}");
    }
    if tls && seen.contains("certificate") {
        return format!("{seen}; give the certificate authority as REDIS_CA");
    }
    if !tls && !error.is_timeout() && (error.is_connection_dropped() || error.kind() == redis::ErrorKind::Parse) {
        return format!("{seen}; if the server speaks TLS, use rediss:// in {field}");
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::too_old;

    #[test]
    fn servers_without_the_needed_commands_are_refused() {
        let told = too_old("# Server\r\nredis_version:6.0.16\r\n");
        assert_eq!(told.as_deref(), Some("the server is Redis 6.0.16; 6.2 or newer is needed"));
        for fine in ["redis_version:6.2.0\r\n", "redis_version:7.0.15\r\n", "redis_version:unknown\r\n", ""] {
            assert_eq!(too_old(fine), None, "{fine:?}");
        }
    }
}
