//! What the gateway counts, for `/metrics`. Labels are closed lists.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::core::gateway::route::Route;

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum For {
    /// Making a job.
    Submit,
    /// How a job is.
    Status,
    /// What came of it.
    Result,
    /// Ending it.
    Cancel,
    /// Following it.
    Events,
    /// A path of Kubernetes.
    Kubernetes,
    /// The page, or what it calls.
    Page,
    /// A tool of an agent.
    Mcp,
    /// The description of the interface, or a probe.
    Other,
    /// A path that leads nowhere.
    Nowhere,
}

impl For {
    /// What a path is for.
    pub fn of(route: Option<&Route>) -> Self {
        match route {
            Some(Route::Submit) => Self::Submit,
            Some(Route::Status(_)) => Self::Status,
            Some(Route::Result(_)) => Self::Result,
            Some(Route::Cancel(_)) => Self::Cancel,
            Some(Route::Events(_)) => Self::Events,
            Some(Route::Kubernetes(_)) => Self::Kubernetes,
            Some(Route::Page(_)) => Self::Page,
            Some(Route::Mcp) => Self::Mcp,
            Some(Route::OpenApi | Route::Health | Route::Ready) => Self::Other,
            None => Self::Nowhere,
        }
    }
}

/// The label of times.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ForLabels {
    /// What was asked for.
    pub path: For,
}

/// The labels of requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// What was asked for.
    pub path: For,
    /// The status of the answer.
    pub code: u16,
}

/// All metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<ForLabels, Histogram>,
    /// Streams that are open.
    pub streams: Gauge,
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections that were refused.
    pub refused: Counter,
    /// Requests that were counted without Redis, although there is one.
    pub counted_alone: Counter,
}

impl Metrics {
    /// The metrics, and what shows them.
    pub fn register() -> (Self, Registry) {
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 14))),
            streams: Gauge::default(),
            connections: Gauge::default(),
            refused: Counter::default(),
            counted_alone: Counter::default(),
        };
        let mut registry = Registry::with_prefix("crewjob_gateway");
        registry.register(
            "requests",
            "Requests, by what they were for and the status of the answer",
            metrics.requests.clone(),
        );
        registry.register("request_seconds", "Time until an answer begins", metrics.seconds.clone());
        registry.register("streams", "Streams of events and watches that are open", metrics.streams.clone());
        registry.register("connections", "Connections that are open", metrics.connections.clone());
        registry.register("connections_refused", "Connections beyond --max-connections", metrics.refused.clone());
        let alone = "Requests that this replica counted for itself because Redis did not";
        registry.register("rate_limit_without_redis", alone, metrics.counted_alone.clone());
        (metrics, registry)
    }

    /// Counts a request that was answered after so long.
    pub fn answered(&self, path: For, code: u16, after: Duration) {
        self.requests.get_or_create(&RequestLabels { path, code }).inc();
        self.seconds.get_or_create(&ForLabels { path }).observe(after.as_secs_f64());
    }
}
