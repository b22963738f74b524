//! Making a connection to Redis. The crate's own way leaves no room for [`Bounded`](super::bounded::Bounded).

use std::io;
use std::sync::Arc;

use futures::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, RedisConnectionInfo, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::bounded::Bounded;

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

/// Connects and greets. No answer has more than `limit` bytes of values, where there is one.
pub(super) async fn dial(
    info: &ConnectionInfo,
    tls: Option<&Arc<ClientConfig>>,
    greeting: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
    limit: Option<usize>,
) -> Result<Connection, RedisError> {
    let socket: Box<dyn Socket> = match (info.addr(), tls) {
        (ConnectionAddr::Tcp(host, port), _) => Box::new(reach(host, *port).await?),
        (ConnectionAddr::TcpTls { host, port, insecure: false, .. }, Some(tls)) => {
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            Box::new(TlsConnector::from(tls.clone()).connect(name, reach(host, *port).await?).await?)
        }
        _ => {
            let what = "only redis:// and rediss:// with a certificate that is checked are supported";
            return Err(RedisError::from((ErrorKind::InvalidClientConfig, what)));
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

/// How certificates are checked: against this authority, or against those of the system. `None` when the authority holds
/// no certificate that can be used.
pub(super) fn checked_against(ca: Option<&str>) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(ca) => {
            for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
                roots.add(certificate.ok()?).ok()?;
            }
            if roots.is_empty() {
                return None;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Some(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}
