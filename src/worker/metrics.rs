//! What the worker counts, for `/metrics`.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::outcome::Outcome;

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum End {
    /// It succeeded.
    Succeeded,
    /// It failed.
    Failed,
    /// It was stopped.
    Stopped,
}

/// The label of ended runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndLabels {
    /// What came of them.
    pub end: End,
}

/// All metrics.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Runs that have ended.
    pub runs: Family<EndLabels, Counter>,
    /// Runs that go on.
    pub running: Gauge,
}

impl Metrics {
    /// The metrics, and what shows them.
    pub fn register() -> (Self, Registry) {
        let metrics = Self::default();
        let mut registry = Registry::with_prefix("crewjob_worker");
        registry.register("runs", "Runs of tasks that have ended, by what came of them", metrics.runs.clone());
        registry.register("running", "Tasks that run", metrics.running.clone());
        (metrics, registry)
    }

    /// Counts a run that has ended.
    pub fn ended(&self, outcome: &Outcome) {
        let end = match outcome {
            Outcome::Succeeded(_) => End::Succeeded,
            Outcome::Failed { .. } => End::Failed,
            Outcome::Stopped { .. } => End::Stopped,
        };
        self.runs.get_or_create(&EndLabels { end }).inc();
    }
}
