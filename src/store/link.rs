//! One connection to one Redis database that is made again when it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, FromRedisValue, RedisError, ScriptInvocation};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::address::{Address, Place};
use super::dial::Connection;
use super::endpoint::Endpoint;
use super::error::{CLUSTER, ConnectError, Error, is_replica};
use super::renewal::Renewed;
use super::settings::Access;
use crate::runtime::backoff::{Backoff, Bounds};

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

/// Longest pause after the first attempt to connect that failed, and after any.
const PAUSE: Bounds = (Duration::from_millis(100), Duration::from_secs(5));
/// Bytes of an event or result that is heard: those of the largest batch of events that Celery sends, and some more.
const HEARD: usize = 128 << 10;

/// A connection that is made when first used, and again after it was lost.
#[derive(Clone)]
pub(super) struct Link(Arc<Shared>);

struct Shared {
    address: Address,
    renewed: Renewed,
    config: AsyncConnectionConfig,
    connect_timeout: Duration,
    /// Bytes that one answer may have; see [`super::bounded`].
    limit: Option<usize>,
    state: Mutex<State>,
    round_trips: Arc<AtomicU64>,
}

enum State {
    Up { connection: Connection, serial: u64 },
    Down { backoff: Backoff, pause: Option<(Instant, RedisError)>, serial: u64 },
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
            renewed: Renewed::new(address, access),
            config: AsyncConnectionConfig::new().set_response_timeout(Some(access.response_timeout)),
            connect_timeout: access.connect_timeout,
            limit,
            state: Mutex::new(State::Down { backoff: Backoff::new(PAUSE), pause: None, serial: 0 }),
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
            Ok(info) => match unsupported(&info) {
                Some(detail) => Err(ConnectError::Unsupported { address, detail }),
                None => Ok(()),
            },
            Err(error) if matches!(Error::of("", &error), Error::AuthenticationFailed { .. }) => {
                Err(ConnectError::AuthenticationFailed { address })
            }
            Err(error) => Err(ConnectError::Unreachable { address, detail: self.0.address.explain(&error) }),
        }
    }

    /// The command that opens a shell on this database. It asks for the password, if there is one.
    pub fn redis_cli(&self) -> String {
        let Place { user, tls, .. } = self.0.address.place();
        let Endpoint { host, port } = self.0.address.server();
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
        let subscribe = async {
            let mut connection = self.pushed(push).await?;
            self.in_time(connection.commands.psubscribe(patterns)).await?;
            Ok(connection)
        };
        Box::pin(subscribe).await.map_err(|error| Error::of(act, &error))
    }

    /// A connection of its own over which the server tells of changes to keys that were read over it; says whether the
    /// server does that: not every service that speaks the protocol of Redis knows the command, nor may every user run it.
    pub async fn tracker(
        &self,
        act: &'static str,
        push: impl redis::aio::AsyncPushSender,
    ) -> Result<(Connection, bool), Error> {
        let track = async {
            let mut connection = self.pushed(push).await?;
            let mut ask = redis::cmd("CLIENT");
            ask.arg("TRACKING").arg("ON");
            let told = self.in_time(ask.exec_async(&mut connection.commands)).await;
            match told {
                Err(error) if error.is_unrecoverable_error() || error.is_timeout() => Err(error),
                Ok(()) | Err(_) => Ok((connection, told.is_ok())),
            }
        };
        Box::pin(track).await.map_err(|error| Error::of(act, &error))
    }

    async fn pushed(&self, push: impl redis::aio::AsyncPushSender) -> Result<Connection, RedisError> {
        let address = self.0.renewed.now().await;
        let greeting = address.greeting().clone().set_protocol(redis::ProtocolVersion::RESP3);
        let config = self.0.config.clone().set_push_sender(push);
        let limit = self.0.limit.map(|_| HEARD);
        self.in_time(address.dial(&greeting, config, limit)).await
    }

    async fn in_time<T>(&self, connect: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
        let too_late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        timeout(self.0.address.patience(self.0.connect_timeout), connect).await.map_err(too_late)?
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
            // A server that follows another one by now is as good as gone: the name, or a sentinel, may lead to that one.
            let follows = is_replica(&error);
            if error.is_timeout() || error.is_unrecoverable_error() || follows {
                self.discard(serial).await;
            }
            if retried || !follows && !error.is_connection_dropped() {
                return Err(Error::of(act, &error));
            }
            retried = true;
        }
    }

    async fn connection(&self) -> Result<(Connection, u64), RedisError> {
        let mut state = self.0.state.lock().await;
        let (mut backoff, serial) = match &*state {
            State::Up { connection, serial } => return Ok((connection.clone(), *serial)),
            State::Down { pause: Some((until, error)), .. } if *until > Instant::now() => return Err(error.clone()),
            State::Down { backoff, serial, .. } => (*backoff, *serial),
        };
        let address = self.0.renewed.now().await;
        let dialled = address.dial(address.greeting(), self.0.config.clone(), self.0.limit);
        // In a box, since it is rarely needed and larger than all the rest that waits for an answer.
        match Box::pin(self.in_time(dialled)).await {
            Ok(connection) => {
                *state = State::Up { connection: connection.clone(), serial };
                Ok((connection, serial))
            }
            Err(error) => {
                let pause = Some((Instant::now() + backoff.pause(), error.clone()));
                *state = State::Down { backoff, pause, serial };
                Err(error)
            }
        }
    }

    /// Gives up the connection with this number, unless a new one was made since.
    async fn discard(&self, lost: u64) {
        let mut state = self.0.state.lock().await;
        if matches!(&*state, State::Up { serial, .. } if *serial == lost) {
            *state = State::Down { backoff: Backoff::new(PAUSE), pause: None, serial: lost + 1 };
        }
    }
}

/// Why a server that says this of itself cannot be used. The scripts need commands of Redis 6.2.
fn unsupported(info: &str) -> Option<String> {
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name));
    if field("redis_mode:") == Some("cluster") {
        return Some(CLUSTER.to_owned());
    }
    let version = field("redis_version:")?;
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next()?, parts.next().unwrap_or(0));
    ((major, minor) < (6, 2)).then(|| format!("the server is Redis {version}; 6.2 or newer is needed"))
}

#[cfg(test)]
mod tests {
    use super::unsupported;

    #[test]
    fn servers_without_the_needed_commands_are_refused() {
        let told = unsupported("# Server\r\nredis_version:6.0.16\r\n");
        assert_eq!(told.as_deref(), Some("the server is Redis 6.0.16; 6.2 or newer is needed"));
        let cluster = unsupported("# Server\r\nredis_version:7.2.4\r\nredis_mode:cluster\r\n").unwrap();
        assert!(cluster.contains("Redis Cluster is not supported"), "{cluster}");
        for fine in [
            "redis_version:6.2.0\r\nredis_mode:standalone\r\n",
            "redis_version:7.0.15\r\n",
            "redis_version:unknown\r\n",
            "",
        ] {
            assert_eq!(unsupported(fine), None, "{fine:?}");
        }
    }
}
