//! Sending spans to a collector, beside everything else. What cannot be sent is dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::otlp;
use super::settings::{Problem, Settings};
use crate::core::trace::Span;
use crate::runtime::backoff::{Bounds, pause};
use crate::runtime::metrics::{Metrics, SpanDropped};
use crate::runtime::telemetry::{Repeated, chain};

/// Spans in one request, at most.
const BATCH: usize = 512;
/// How long spans are gathered for one request.
const GATHER: Duration = Duration::from_secs(1);
/// How often a request is sent that the collector does not take.
const TRIES: u32 = 5;
/// The pauses in between.
const PAUSES: Bounds = (Duration::from_secs(1), Duration::from_secs(10));
/// Longest pause that a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Bytes that are read of an answer.
const ANSWER: usize = 64 << 10;

/// Sends spans.
pub struct Exporter {
    settings: Settings,
    metrics: Metrics,
    http: Client<HttpsConnector<HttpConnector>, Body>,
    failures: Repeated,
}

/// What became of a request.
enum Sent {
    /// All spans but these were taken.
    Taken(u64),
    /// None were, and none would be with another try.
    Refused(String),
    /// None were; there may be a time that the collector asks to wait.
    Failed(String, Option<Duration>),
}

impl Exporter {
    /// Will send to this collector.
    pub fn new(settings: Settings, metrics: Metrics) -> Result<Self, Problem> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(settings.timeout));
        let tls = HttpsConnectorBuilder::new().with_tls_config(tls(&settings)?).https_or_http();
        let mut http = Client::builder(TokioExecutor::new());
        http.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(30)).pool_max_idle_per_host(1);
        let http = http.build(tls.enable_http1().wrap_connector(tcp));
        Ok(Self { settings, metrics, http, failures: Repeated::default() })
    }

    /// Sends what comes, until nothing can come any more.
    pub async fn run(mut self, mut queued: Receiver<Span>) {
        let mut batch = Vec::new();
        while queued.recv_many(&mut batch, BATCH).await > 0 {
            let until = Instant::now() + GATHER;
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                match timeout_at(until, queued.recv_many(&mut batch, room)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            self.send(&batch, || queued.is_closed()).await;
            batch.clear();
        }
    }

    /// Sends a batch, several times if need be; only once when the operator stops.
    async fn send(&mut self, batch: &[Span], stops: impl Fn() -> bool) {
        let body = otlp::request(&self.settings.resource, batch);
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        for tried in 1..=TRIES {
            let (why, is_over) = match self.post(body.clone()).await {
                Sent::Taken(refused) => {
                    self.metrics.spans_exported.inc_by(spans.saturating_sub(refused));
                    if refused > 0 {
                        self.metrics.dropped_spans(SpanDropped::Refused, refused.min(spans));
                    }
                    if self.failures.is_over() {
                        tracing::info!("spans are sent to the collector again");
                    }
                    return;
                }
                Sent::Refused(why) => {
                    self.metrics.dropped_spans(SpanDropped::Refused, spans);
                    (why, true)
                }
                Sent::Failed(why, asked) if tried < TRIES && !stops() => {
                    sleep(asked.unwrap_or_else(|| pause(PAUSES, tried)).min(LONGEST_PAUSE)).await;
                    (why, false)
                }
                Sent::Failed(why, _) => {
                    self.metrics.dropped_spans(SpanDropped::Failed, spans);
                    (why, true)
                }
            };
            if self.failures.is_to_be_said(Instant::now()) {
                let collector = self.settings.endpoint.authority().map(ToString::to_string);
                tracing::warn!(
                    collector,
                    why,
                    "sending spans failed; jobs go on, and spans that wait too long are dropped"
                );
            }
            if is_over {
                return;
            }
        }
    }

    async fn post(&self, body: Vec<u8>) -> Sent {
        let mut request = Request::post(&self.settings.endpoint);
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.settings.headers);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(USER_AGENT, HeaderValue::from_static(concat!("crewjob/", env!("CARGO_PKG_VERSION"))));
        }
        let request = match request.body(Body::from(body)) {
            Ok(request) => request,
            Err(error) => return Sent::Refused(error.to_string()),
        };
        let answered = async {
            let answer = self.http.request(request).await.map_err(|error| chain(&error))?;
            let (head, body) = answer.into_parts();
            // The rest of a longer one, and one that breaks off, change nothing.
            let body = to_bytes(Body::new(body), ANSWER).await.unwrap_or_default();
            Ok::<_, String>((head, body))
        };
        match timeout(self.settings.timeout, answered).await {
            Err(_) => Sent::Failed("no answer in time".to_owned(), None),
            Ok(Err(why)) => Sent::Failed(why, None),
            Ok(Ok((head, body))) => match head.status {
                status if status.is_success() => Sent::Taken(otlp::refused(&body)),
                // As the protocol says; any other answer would be the same again.
                status @ (StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT) => Sent::Failed(status.to_string(), asked_pause(&head.headers)),
                status => Sent::Refused(status.to_string()),
            },
        }
    }
}

/// The seconds that a collector asks to wait.
fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// How the collector's certificate is checked.
fn tls(settings: &Settings) -> Result<ClientConfig, Problem> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &settings.authority {
        let problem = |why: String| Problem { name: "OTEL_EXPORTER_OTLP_CERTIFICATE", why };
        let unusable = || problem(format!("{} holds no certificate that can be used", path.display()));
        let text = std::fs::read(path).map_err(|error| problem(format!("reading {}: {error}", path.display())))?;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
        }
        if roots.is_empty() {
            return Err(unusable());
        }
    } else if settings.endpoint.scheme() == Some(&http::uri::Scheme::HTTPS) {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(ClientConfig::builder().with_root_certificates(Arc::new(roots)).with_no_client_auth())
}
