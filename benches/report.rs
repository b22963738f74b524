//! What was measured, as JSON lines on standard output, and what goes on, with the time since the start, on standard
//! error.

use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;

/// Where measures and progress go.
pub struct Report {
    started: Instant,
    measures: AtomicUsize,
}

impl Report {
    /// A report that begins now.
    pub fn new() -> Self {
        Self { started: Instant::now(), measures: AtomicUsize::new(0) }
    }

    /// Prints one measure. The ratio is value to limit, whichever of them is to be the larger.
    pub fn measure(&self, name: &str, value: f64, unit: &str, limit: Option<f64>) {
        let ratio = limit.map(|limit| rounded(value / limit));
        let [value, limit, ratio] = [Some(rounded(value)), limit.map(rounded), ratio].map(|number| json!(number));
        println!(r#"{{"name":"{name}","value":{value},"unit":"{unit}","limit":{limit},"ratio":{ratio}}}"#);
        self.measures.fetch_add(1, Ordering::Relaxed);
    }

    /// Measures printed so far.
    pub fn measures(&self) -> usize {
        self.measures.load(Ordering::Relaxed)
    }

    /// Says what goes on.
    pub fn say(&self, what: impl Display) {
        eprintln!("[{:6.1} s] {what}", self.started.elapsed().as_secs_f64());
    }
}

/// Three digits after the point are enough.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The value below which `share` of all values lie.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub fn number(count: usize) -> f64 {
    count as f64
}
