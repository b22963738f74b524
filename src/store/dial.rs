//! Making a connection to Redis. The crate's own way leaves no room for [`Bounded`](super::bounded::Bounded).

use std::io;
use std::sync::Arc;

use futures::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::bounded::Bounded;
use super::endpoint::Endpoint;

/// A connection, for as long as a clone of it is kept.
#[derive(Clone)]
pub(super) struct Connection {
    pub commands: MultiplexedConnection,
    _driver: Arc<Driver>,
}

/// The task that moves a connection's bytes.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Connects to one server, and greets.
pub(super) async fn connect(
    at: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
    greeting: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
    limit: Option<usize>,
) -> Result<Connection, RedisError> {
    let plain = reach(&at.host, at.port).await?;
    let socket: Box<dyn Socket> = match tls {
        None => Box::new(plain),
        Some(tls) => {
            let name = ServerName::try_from(at.host.clone()).map_err(io::Error::other)?;
            Box::new(TlsConnector::from(tls.clone()).connect(name, plain).await?)
        }
    };
    match limit {
        Some(limit) => drive(greeting, Bounded::new(socket, limit), config).await,
        None => drive(greeting, socket, config).await,
    }
}

async fn drive(
    greeting: &RedisConnectionInfo,
    socket: impl Socket + 'static,
    config: AsyncConnectionConfig,
) -> Result<Connection, RedisError> {
    let (commands, driver) = MultiplexedConnection::new_with_config(greeting, socket, config).await?;
    Ok(Connection { commands, _driver: Arc::new(Driver(tokio::spawn(driver).abort_handle())) })
}

/// The first address of a host that answers.
async fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let attempts: Vec<_> =
        lookup_host((host, port)).await?.map(|address| Box::pin(TcpStream::connect(address))).collect();
    if attempts.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    let (stream, _) = select_ok(attempts).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
