use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::core::id::{ObjectKey, Priority, SpecHash};
use crate::core::job::Spec;
use crate::core::status::{End, Phase};

const PATIENCE: Duration = Duration::from_secs(20);

fn job(uid: u128) -> Job {
    let spec = Spec {
        generation: 1,
        pool: "default".into(),
        queue: None,
        task: "run".into(),
        priority: Priority::default(),
        overrides: None,
        suspend: false,
        cancel: false,
        run_once: None,
        dedup: None,
        hash: SpecHash([0; 16]),
        invalid: None,
    };
    let (key, created_at) = (ObjectKey::new("team", "job"), Timestamp::UNIX_EPOCH);
    Job {
        key,
        uid: Uuid::from_u128(uid),
        created_at,
        spec,
        labels: Box::default(),
        cause: None,
        status: Status::default(),
    }
}

/// The status of a job that ended without an attempt: one span.
fn ended() -> Status {
    let end = Some(Box::new(End::new(Timestamp::UNIX_EPOCH)));
    Status { phase: Phase::Failed, end, ..Status::default() }
}

/// What a collector has heard, and how often it is still overloaded.
#[derive(Default)]
struct Heard {
    overloaded: AtomicUsize,
    requests: Mutex<Vec<(HeaderMap, Vec<Value>)>>,
    came: Notify,
}

/// A collector; its URL and what it hears.
async fn collector(overloaded: usize) -> (String, Arc<Heard>) {
    let heard = Arc::new(Heard { overloaded: overloaded.into(), ..Heard::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sink = heard.clone();
    let take = move |headers: HeaderMap, body: Bytes| async move {
        let request: Value = serde_json::from_slice(&body).unwrap();
        let spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
        sink.requests.lock().push((headers, spans));
        sink.came.notify_one();
        let left = sink.overloaded.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() {
            (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")])
        } else {
            (StatusCode::OK, [("x", "")])
        }
    };
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, heard)
}

fn start(url: &str, metrics: &Metrics) -> (Traces, tokio::task::JoinHandle<()>) {
    let variable = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(url.to_owned()),
        "OTEL_EXPORTER_OTLP_HEADERS" => Some("x-team=a".to_owned()),
        _ => None,
    };
    Traces::start(Settings::read(variable, []).unwrap().unwrap(), metrics).unwrap()
}

fn dropped(metrics: &Metrics, why: SpanDropped) -> u64 {
    metrics.spans_dropped.get_or_create(&crate::runtime::metrics::SpanDroppedLabels { why }).get()
}

#[tokio::test]
async fn spans_are_gathered_into_one_request_and_the_last_ones_are_sent_when_the_operator_stops() {
    let (metrics, _) = Metrics::register();
    let (url, heard) = collector(0).await;
    let (traces, sending) = start(&url, &metrics);
    for uid in 1..=3 {
        traces.recorded(&job(uid), &ended());
    }
    drop(traces);
    timeout(PATIENCE, sending).await.unwrap().unwrap();
    let requests = heard.requests.lock();
    let (headers, spans) = &requests[0];
    assert_eq!((requests.len(), spans.len(), metrics.spans_exported.get()), (1, 3, 3));
    assert_eq!(
        (&headers["content-type"], &headers["x-team"]),
        (&"application/json".parse().unwrap(), &"a".parse().unwrap())
    );
}

#[tokio::test]
async fn a_collector_that_is_overloaded_is_asked_again_and_no_span_is_lost_by_that() {
    let (metrics, _) = Metrics::register();
    let (url, heard) = collector(3).await;
    let (traces, sending) = start(&url, &metrics);
    traces.recorded(&job(1), &ended());
    for _ in 0..4 {
        timeout(PATIENCE, heard.came.notified()).await.unwrap();
    }
    drop(traces);
    timeout(PATIENCE, sending).await.unwrap().unwrap();
    assert_eq!(metrics.spans_exported.get(), 1);
    assert_eq!(dropped(&metrics, SpanDropped::Failed), 0);
}

#[tokio::test]
async fn with_a_full_queue_spans_are_dropped_and_counted_and_nothing_waits() {
    let (metrics, _) = Metrics::register();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap(); // which never answers
    let (traces, sending) = start(&format!("http://{}", listener.local_addr().unwrap()), &metrics);
    // No other task has its turn meanwhile.
    for uid in 1..=(QUEUE as u128 + 7) {
        traces.recorded(&job(uid), &ended());
    }
    assert_eq!(dropped(&metrics, SpanDropped::QueueFull), 7);
    sending.abort();
}

#[test]
fn without_settings_there_is_no_span_for_a_message_and_nothing_to_send() {
    let traces = Traces::default();
    assert_eq!(traces.context(&job(1), 1), None);
    traces.recorded(&job(1), &ended());
}
