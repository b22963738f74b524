//! The admin server: `/livez`, `/readyz` and `/metrics` on one address.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What must be there before the process is ready, and what is missing of it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Result<String, String>>>>);

impl Readiness {
    /// Says that `part` is there, and in which way.
    pub fn ready(&self, part: &'static str, how: impl Into<String>) {
        self.set(part, Ok(how.into()));
    }

    /// Says what `part` waits for.
    pub fn missing(&self, part: &'static str, why: impl Into<String>) {
        self.set(part, Err(why.into()));
    }

    fn set(&self, part: &'static str, state: Result<String, String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part, state);
    }

    /// Whether all is there, and a line per part.
    pub fn report(&self) -> (bool, String) {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(part, state): (&&str, &Result<String, String>)| match state {
            Ok(how) => format!("[+] {part}: {how}\n"),
            Err(why) => format!("[-] {part}: {why}\n"),
        };
        (parts.values().all(Result::is_ok), parts.iter().map(line).collect())
    }
}

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
}

/// Serves until the token is cancelled. Returns once the address is bound.
pub async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    registry: Registry,
    stop: CancellationToken,
) -> io::Result<SocketAddr> {
    let listener = listen(address, async |address| TcpListener::bind(address).await).await?;
    let bound = listener.local_addr()?;
    let app = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Admin { readiness, registry: Arc::new(registry) });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "admin server ended");
        }
    });
    Ok(bound)
}

/// Binds the address. `[::]` takes IPv4 too; on a node whose kernel has no IPv6 it is `0.0.0.0` instead, so that one
/// setting fits every cluster.
async fn listen<T>(address: SocketAddr, bind: impl AsyncFn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && without_ipv6(&error) => {
            tracing::info!(%address, "this node has no IPv6; listening on IPv4 only");
            bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port())).await
        }
        outcome => outcome,
    }
}

/// Whether the kernel was started without IPv6 (Linux' `EAFNOSUPPORT`), or no interface has an address of it.
fn without_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let (ready, report) = admin.readiness.report();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, report)
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text)
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], format!("encoding: {error}\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYWHERE: &str = "[::]:8080";

    /// Where a process listens that is told `address`, on a node that refuses IPv6 in this way.
    async fn listens(address: &str, refusal: Option<i32>) -> io::Result<String> {
        let bind = async |address: SocketAddr| match refusal {
            Some(code) if address.is_ipv6() => Err(io::Error::from_raw_os_error(code)),
            _ => Ok(address.to_string()),
        };
        listen(address.parse().unwrap(), bind).await
    }

    #[tokio::test]
    async fn a_node_without_ipv6_is_listened_on_by_ipv4() {
        let (no_such_family, no_such_address, in_use) = (97, 99, 98);
        assert_eq!(listens(EVERYWHERE, None).await.unwrap(), "[::]:8080");
        assert_eq!(listens(EVERYWHERE, Some(no_such_family)).await.unwrap(), "0.0.0.0:8080");
        assert_eq!(listens(EVERYWHERE, Some(no_such_address)).await.unwrap(), "0.0.0.0:8080");
        assert!(listens(EVERYWHERE, Some(in_use)).await.is_err());
        assert!(listens("[2001:db8::1]:8080", Some(no_such_address)).await.is_err());
    }

    #[tokio::test]
    async fn clients_of_both_families_reach_a_process_that_listens_everywhere() {
        let (stop, registry) = (CancellationToken::new(), Registry::default());
        let bound = serve("[::]:0".parse().unwrap(), Readiness::default(), registry, stop.clone()).await.unwrap();
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, bound.port())).await.unwrap();
        if bound.is_ipv6() {
            tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, bound.port())).await.unwrap();
        }
        stop.cancel();
    }

    #[test]
    fn readiness_names_each_part_and_what_is_missing() {
        let readiness = Readiness::default();
        readiness.ready("crds", "Established");
        readiness.missing("lease", "held by another replica");
        let (ready, report) = readiness.report();
        assert!(!ready);
        assert_eq!(report, "[+] crds: Established\n[-] lease: held by another replica\n");
        readiness.ready("lease", "standby");
        assert!(readiness.report().0);
    }
}
