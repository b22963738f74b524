//! The jobs that wait, asked for whenever metrics are shown, so that no figure outlives what it counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// What jobs wait for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct WaitingLabels {
    /// Namespace of the jobs.
    pub namespace: String,
    /// Their pool; empty for those that ask for one that does not exist, since anything may be asked for.
    pub pool: String,
    /// The reason, from the closed list.
    pub reason: &'static str,
}

/// How many jobs wait for what.
pub type Figures = BTreeMap<WaitingLabels, i64>;

type Source = Arc<dyn Fn() -> Figures + Send + Sync>;

/// The jobs that wait. Cloning shares what is asked.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<Option<Source>>>);

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

impl Waiting {
    /// Asks this whenever metrics are shown.
    pub fn ask(&self, source: impl Fn() -> Figures + Send + Sync + 'static) {
        *self.0.lock() = Some(Arc::new(source));
    }

    /// Shows none any more.
    pub fn forget(&self) {
        *self.0.lock() = None;
    }
}

impl Collector for Waiting {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Unfinished jobs that do not run, by what they wait for; the pool is empty where it does not exist.";
        let mut metric = encoder.encode_descriptor("jobs_waiting", help, None, MetricType::Gauge)?;
        let source = self.0.lock().clone();
        for (labels, jobs) in source.map(|source| source()).unwrap_or_default() {
            ConstGauge::new(jobs).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
