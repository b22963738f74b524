//! Redis behind sentinels: servers that watch a primary and its replicas, and know which one is the primary now.
//!
//! Whenever a connection is made, the sentinels are asked one by one, first the one that was right the last time. What one
//! says is taken for right when the server that it names says of itself that it is a primary: a sentinel that was cut off
//! still names the former one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fmt, io};

use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisConnectionInfo, RedisError};
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use super::dial::{Connection, connect};
use super::endpoint::Endpoint;
use super::error::ConnectError;
use super::settings::Access;

/// How long one sentinel may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of what a sentinel answers.
const ANSWER: usize = 16 << 10;
/// Sentinels that one URL may name.
const MOST: usize = 16;
/// Bytes of a name of a host.
const HOST: usize = 255;

/// What begins the URL of a sentinel.
pub(super) const SCHEME: &str = "sentinel://";

/// The sentinels of a primary.
pub(super) struct Sentinels {
    places: Vec<Endpoint>,
    master: String,
    greeting: RedisConnectionInfo,
    tls: Option<Arc<ClientConfig>>,
    /// Which one is asked first.
    first: AtomicUsize,
    primary: Mutex<Option<Endpoint>>,
}

/// What the URLs of sentinels say of the servers behind them: what the first one says.
pub(super) struct Behind {
    /// The part of the URL for the first sentinel, as one of a Redis server, without parameters.
    pub url: String,
    /// Where the sentinels are.
    pub places: Vec<Endpoint>,
}

/// Reads `sentinel://[user:password@]host:port[/database];sentinel://…`, as kombu and Celery do (`kombu/connection.py`,
/// `celery/backends/redis.py`): user, password and database are those of the first part, and of the Redis servers.
pub(super) fn read(url: &str, is_tls: bool) -> Result<Behind, String> {
    let parts: Vec<&str> = url.split(';').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.len() > MOST {
        return Err(format!("it names more than {MOST} sentinels"));
    }
    let mut read: Vec<(String, ConnectionInfo)> = Vec::new();
    for part in parts {
        let shape = "expected sentinel://[user:password@]host:port[/database], and more of these after semicolons";
        let rest = part.strip_prefix(SCHEME).ok_or(shape)?;
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default().rsplit('@').next().unwrap_or_default();
        let port =
            host.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port)?.parse::<u16>().ok());
        if port.is_none() {
            return Err("each part needs the host and the port of a sentinel, such as sentinel://redis-0:26379".into());
        }
        let plain = format!("{}{rest}", if is_tls { "rediss://" } else { "redis://" });
        let info = redis::Client::open(&*plain).map_err(|_| shape)?.get_connection_info().clone();
        read.push((plain, info));
    }
    let (url, first) = read.first().ok_or("it names no sentinel")?;
    for (other, info) in &read {
        let (ours, theirs) = (first.redis_settings(), info.redis_settings());
        // The number of a scheme's slashes is two.
        if other.matches('/').count() > 2 && theirs.db() != ours.db() {
            return Err(
                "its parts name different databases, and Celery takes that of the first; write the same in each".into(),
            );
        }
        let login = (theirs.username(), theirs.password());
        if login != (None, None) && login != (ours.username(), ours.password()) {
            return Err(
                "its parts have different users or passwords, and Celery takes those of the first; write the same in \
                        each. Those of the sentinels are REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD"
                    .into(),
            );
        }
    }
    let places = read.iter().filter_map(|(_, info)| Endpoint::of(info.addr())).collect();
    Ok(Behind { url: url.clone(), places })
}

impl Sentinels {
    /// These sentinels; `tls` is how TLS is spoken, where it is.
    pub fn new(
        places: Vec<Endpoint>,
        access: &Access,
        tls: impl FnOnce() -> Result<Arc<ClientConfig>, ConnectError>,
    ) -> Result<Self, ConnectError> {
        let invalid = |field, detail: &str| ConnectError::Invalid { field, detail: detail.into() };
        let ours = &access.sentinel;
        let missing = "it is missing; give the name under which the sentinels know the primary";
        let master = ours.master.clone().ok_or_else(|| invalid("REDIS_SENTINEL_MASTER", missing))?;
        let tls = match ours.tls.as_deref() {
            None | Some("false") => None,
            Some("true") => Some(tls()?),
            Some(_) => return Err(invalid("REDIS_SENTINEL_TLS", "it must be true or false")),
        };
        let mut greeting = RedisConnectionInfo::default().set_lib_name("crewjob", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &ours.username {
            greeting = greeting.set_username(user);
        }
        if let Some(password) = &ours.password {
            greeting = greeting.set_password(password.reveal());
        }
        Ok(Self { places, master, greeting, tls, first: AtomicUsize::new(0), primary: Mutex::new(None) })
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.places.len().try_into().unwrap_or(u32::MAX)
    }

    /// What one of them may take.
    pub const fn patience() -> Duration {
        PATIENCE
    }

    /// The primary, when it was last connected to.
    pub fn primary(&self) -> Option<Endpoint> {
        self.primary.lock().clone()
    }

    /// Connects to the primary in the way that `dial` does.
    pub async fn connect<F>(&self, dial: impl Fn(Endpoint) -> F) -> Result<Connection, RedisError>
    where
        F: Future<Output = Result<Connection, RedisError>>,
    {
        let first = self.first.load(Ordering::Relaxed);
        let (mut tried, mut said, mut refused): (Vec<Endpoint>, Vec<String>, _) = (Vec::new(), Vec::new(), None);
        for at in (0..self.places.len()).map(|step| (first + step) % self.places.len()) {
            let sentinel = &self.places[at];
            let named = match timeout(PATIENCE, self.ask(sentinel)).await {
                Ok(Ok(named)) => named,
                Ok(Err(why)) => {
                    said.push(format!("the sentinel {sentinel} {why}"));
                    continue;
                }
                Err(_) => {
                    said.push(format!("the sentinel {sentinel} does not answer"));
                    continue;
                }
            };
            if tried.contains(&named) {
                continue;
            }
            tried.push(named.clone());
            match dial(named.clone()).await {
                Ok(mut connection) => match is_primary(&mut connection).await {
                    Ok(true) => {
                        self.first.store(at, Ordering::Relaxed);
                        *self.primary.lock() = Some(named);
                        return Ok(connection);
                    }
                    Ok(false) => {
                        said.push(format!("{named}, which the sentinel {sentinel} names, is not a primary"));
                    }
                    Err(error) => refused = Some(error),
                },
                Err(error) => refused = Some(error),
            }
        }
        // What the primary itself says is what can be mended.
        Err(refused.unwrap_or_else(|| io::Error::other(said.join("; ")).into()))
    }

    /// The primary, as one sentinel says; or why it does not.
    async fn ask(&self, sentinel: &Endpoint) -> Result<Endpoint, String> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let connected = connect(sentinel, self.tls.as_ref(), &self.greeting, config, Some(ANSWER)).await;
        let failed = |error: RedisError| {
            let is_kept_out = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
                || error.kind() == redis::ErrorKind::AuthenticationFailed;
            if is_kept_out {
                "refuses the user or the password; mend REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD".to_owned()
            } else {
                format!("cannot be asked: {error}")
            }
        };
        let mut connection = connected.map_err(failed)?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let named: Option<(String, u16)> = ask.query_async(&mut connection.commands).await.map_err(failed)?;
        let unknown = || format!("knows no primary {:?}; mend REDIS_SENTINEL_MASTER", self.master);
        let (host, port) = named.ok_or_else(unknown)?;
        if host.is_empty() || host.len() > HOST || port == 0 {
            return Err("names no address".into());
        }
        Ok(Endpoint { host, port })
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<_> = self.places.iter().map(ToString::to_string).collect();
        write!(f, "{SCHEME}{}/{}", places.join(","), self.master)
    }
}

/// Whether a server says of itself that it is a primary. `ROLE` would say the same, and is a right more.
async fn is_primary(connection: &mut Connection) -> Result<bool, RedisError> {
    let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection.commands).await?;
    Ok(info.lines().any(|line| line.trim() == "role:master"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_celery_reads_them_and_parts_that_contradict_each_other_are_refused() {
        let told = |url: &str| {
            read(url, false).map(|behind| {
                let places: Vec<_> = behind.places.iter().map(ToString::to_string).collect();
                format!("{} {}", behind.url, places.join(","))
            })
        };
        for (url, expected) in [
            ("sentinel://a:26379", "redis://a:26379 a:26379"),
            ("sentinel://:pw@a:26379/2;sentinel://b:26380/2", "redis://:pw@a:26379/2 a:26379,b:26380"),
            (" sentinel://u:p%40w@a:1 ; sentinel://u:p%40w@b:2;", "redis://u:p%40w@a:1 a:1,b:2"),
            ("sentinel://a:1/0?ssl_cert_reqs=none;sentinel://b:2/0#x", "redis://a:1/0 a:1,b:2"),
            ("sentinel://[::1]:26379;sentinel://b:26379/0", "redis://[::1]:26379 ::1:26379,b:26379"),
        ] {
            assert_eq!(told(url).as_deref(), Ok(expected), "{url}");
        }
        for (url, reason) in [
            ("sentinel://", "host and the port"),
            ("sentinel://hunter2@a", "host and the port"),
            ("sentinel://:26379", "host and the port"),
            ("sentinel://a:1;redis://b:2", "expected sentinel://"),
            ("sentinel://a:1;b:2", "expected sentinel://"),
            ("sentinel://a:1/x", "expected sentinel://"),
            ("sentinel://a:1;sentinel://b:2/3", "different databases"),
            ("sentinel://:hunter2@a:1;sentinel://:other@b:2", "different users or passwords"),
            ("sentinel://a:1;sentinel://:hunter2@b:2", "REDIS_SENTINEL_PASSWORD"),
            (&"sentinel://a:1;".repeat(17), "more than 16"),
        ] {
            let refused = told(url).expect_err(url);
            assert!(refused.contains(reason) && !refused.contains("hunter2"), "{url}: {refused}");
        }
    }
}
