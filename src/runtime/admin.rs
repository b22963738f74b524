//! The admin server: `/livez`, `/readyz` and `/metrics` on one address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
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
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
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
