//! The admin server: `/livez`, `/readyz` and `/metrics` on one address.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A loop that has not turned for so long hangs.
const HANGS_AFTER: Duration = Duration::from_mins(1);

/// How a part of the process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// As it should be, and in which way.
    Ready(String),
    /// Something is wrong that does not concern the whole process.
    Degraded(String),
    /// The process cannot do its work: why.
    Missing(String),
}

/// What must be there before the process is ready, and what is missing of it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Part>>>);

enum Part {
    Said(State),
    Asked(Arc<dyn Fn() -> State + Send + Sync>),
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(state) => f.debug_tuple("Said").field(state).finish(),
            Self::Asked(_) => f.write_str("Asked"),
        }
    }
}

impl Readiness {
    /// Says that `part` is there, and in which way.
    pub fn ready(&self, part: &'static str, how: impl Into<String>) {
        self.0.lock().insert(part, Part::Said(State::Ready(how.into())));
    }

    /// Says what `part` waits for.
    pub fn missing(&self, part: &'static str, why: impl Into<String>) {
        self.0.lock().insert(part, Part::Said(State::Missing(why.into())));
    }

    /// Asks for the state of `part` whenever it is shown.
    pub fn ask(&self, part: &'static str, state: impl Fn() -> State + Send + Sync + 'static) {
        self.0.lock().insert(part, Part::Asked(Arc::new(state)));
    }

    /// Forgets `part`.
    pub fn forget(&self, part: &str) {
        self.0.lock().remove(part);
    }

    /// Whether all is there, and a line per part.
    pub fn report(&self) -> (bool, String) {
        let parts: Vec<(&str, Part)> = self.0.lock().iter().map(|(name, part)| (*name, part.clone())).collect();
        let (mut ready, mut report) = (true, String::new());
        for (name, part) in parts {
            let (sign, text) = match part.state() {
                State::Ready(how) => ("+", how),
                State::Degraded(what) => ("!", what),
                State::Missing(why) => {
                    ready = false;
                    ("-", why)
                }
            };
            report.extend(["[", sign, "] ", name, ": ", &text, "\n"]);
        }
        (ready, report)
    }
}

impl Clone for Part {
    fn clone(&self) -> Self {
        match self {
            Self::Said(state) => Self::Said(state.clone()),
            Self::Asked(state) => Self::Asked(state.clone()),
        }
    }
}

impl Part {
    fn state(&self) -> State {
        match self {
            Self::Said(state) => state.clone(),
            Self::Asked(state) => state(),
        }
    }
}

/// The loops that must turn as long as the process lives.
#[derive(Debug, Clone)]
pub struct Liveness {
    began_at: Instant,
    loops: Arc<Mutex<BTreeMap<&'static str, Arc<AtomicU64>>>>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { began_at: Instant::now(), loops: Arc::default() }
    }
}

impl Liveness {
    /// A loop that turns from now on, until the heartbeat is dropped.
    pub fn heartbeat(&self, name: &'static str) -> Heartbeat {
        let heartbeat = Heartbeat { liveness: self.clone(), name, turned_at: Arc::default() };
        heartbeat.turned();
        self.loops.lock().insert(name, heartbeat.turned_at.clone());
        heartbeat
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began_at).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether all loops turn, and a line for each.
    pub fn report(&self, now: Instant) -> (bool, String) {
        let (mut alive, mut report) = (true, String::new());
        for (name, turned_at) in self.loops.lock().iter() {
            let idle = self.millis(now).saturating_sub(turned_at.load(Ordering::Relaxed)) / 1000;
            let hangs = idle >= HANGS_AFTER.as_secs();
            alive &= !hangs;
            let line =
                if hangs { format!("[-] {name}: has not turned for {idle} s\n") } else { format!("[+] {name}\n") };
            report.push_str(&line);
        }
        (alive, report)
    }
}

/// Says of a loop that it turns.
#[derive(Debug)]
pub struct Heartbeat {
    liveness: Liveness,
    name: &'static str,
    turned_at: Arc<AtomicU64>,
}

impl Heartbeat {
    /// It has turned.
    pub fn turned(&self) {
        self.turned_at(Instant::now());
    }

    fn turned_at(&self, now: Instant) {
        self.turned_at.store(self.liveness.millis(now), Ordering::Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.liveness.loops.lock().remove(self.name);
    }
}

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    liveness: Liveness,
    registry: Arc<Registry>,
}

/// Serves until the token is cancelled. Returns once the address is bound.
pub async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    liveness: Liveness,
    registry: Registry,
    stop: CancellationToken,
) -> io::Result<SocketAddr> {
    let listener = bind(address).await?;
    let bound = listener.local_addr()?;
    let app = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Admin { readiness, liveness, registry: Arc::new(registry) });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "admin server ended");
        }
    });
    Ok(bound)
}

/// Binds an address, as [`listen`] says.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, async |address| TcpListener::bind(address).await).await
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

async fn livez(Shared(admin): Shared<Admin>) -> impl IntoResponse {
    let (alive, report) = admin.liveness.report(Instant::now());
    answer((alive, if alive { format!("{report}ok\n") } else { report }))
}

async fn readyz(Shared(admin): Shared<Admin>) -> impl IntoResponse {
    answer(admin.readiness.report())
}

fn answer((fine, report): (bool, String)) -> impl IntoResponse {
    (if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, report)
}

async fn metrics(Shared(admin): Shared<Admin>) -> impl IntoResponse {
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
        let (readiness, liveness) = (Readiness::default(), Liveness::default());
        let bound = serve("[::]:0".parse().unwrap(), readiness, liveness, registry, stop.clone()).await.unwrap();
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

    #[test]
    fn readiness_asks_anew_each_time_and_what_concerns_one_tenant_is_shown_only() {
        let (readiness, broken) = (Readiness::default(), Arc::new(Mutex::new(State::Degraded("a: refused".into()))));
        readiness.ask("pools", {
            let broken = broken.clone();
            move || broken.lock().clone()
        });
        assert_eq!(readiness.report(), (true, "[!] pools: a: refused\n".to_owned()));
        *broken.lock() = State::Missing("all".into());
        assert_eq!(readiness.report(), (false, "[-] pools: all\n".to_owned()));
        readiness.forget("pools");
        assert_eq!(readiness.report(), (true, String::new()));
    }

    #[test]
    fn liveness_fails_when_a_loop_has_not_turned_for_a_minute_and_recovers_when_it_does() {
        let (liveness, began) = (Liveness::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let (lease, reconcilers) = (liveness.heartbeat("lease"), liveness.heartbeat("reconcilers"));
        assert!(liveness.report(at(59)).0);
        lease.turned_at(at(59));
        let (alive, report) = liveness.report(at(61));
        assert!(!alive && report.starts_with("[+] lease\n[-] reconcilers: has not turned for 6"), "{report}");
        reconcilers.turned_at(at(61));
        assert!(liveness.report(at(61)).0);
        drop(reconcilers);
        assert_eq!(liveness.report(at(61)).1, "[+] lease\n");
    }
}
