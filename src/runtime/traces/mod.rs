//! Traces: spans of jobs, sent to a collector as OTLP over HTTP.
//!
//! | file | what |
//! |---|---|
//! | `settings` | what OpenTelemetry's environment variables say |
//! | `otlp` | spans as OTLP's JSON, and what a collector answers |
//! | `export` | sending them: in batches, again after a failure, and never in the way of a job |
//!
//! Without an endpoint there is no queue, no task and no header in messages.

mod export;
mod otlp;
mod settings;

use std::sync::Arc;

use tokio::sync::mpsc::{self, Sender};

use self::export::Exporter;
use super::metrics::{Metrics, SpanDropped};
use crate::core::job::Job;
use crate::core::status::Status;
use crate::core::trace::{Sampler, Span, SpanContext, spans};

pub use self::settings::{Problem, Settings};

/// Spans that wait to be sent, at most; about a megabyte.
const QUEUE: usize = 2048;

/// Where spans go, if anywhere. Cloning shares the queue.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    sampler: Sampler,
    spans: Sender<Span>,
    metrics: Metrics,
}

impl Traces {
    /// Spans go as these settings say. The task that sends them ends when all clones are gone, and tries to send the
    /// last ones; wait for it.
    pub fn start(settings: Settings, metrics: &Metrics) -> Result<(Self, tokio::task::JoinHandle<()>), Problem> {
        let (sender, queued) = mpsc::channel(QUEUE);
        let sampler = settings.sampler;
        let exporter = Exporter::new(settings, metrics.clone())?;
        let queue = Queue { sampler, spans: sender, metrics: metrics.clone() };
        Ok((Self(Some(Arc::new(queue))), tokio::spawn(exporter.run(queued))))
    }

    /// The span of an attempt, for its message; `None` where jobs are not traced.
    pub fn context(&self, job: &Job, number: u32) -> Option<SpanContext> {
        self.0.as_ref()?.sampler.context(job, number)
    }

    /// Whether spans of this job are sent.
    pub fn samples(&self, job: &Job) -> bool {
        self.0.as_ref().is_some_and(|queue| queue.sampler.samples(job))
    }

    /// Sends what is over with this status of a job, which is recorded by now. Nothing waits for that: with a full queue
    /// spans are dropped and counted.
    pub fn recorded(&self, job: &Job, written: &Status) {
        let Some(queue) = self.0.as_ref().filter(|queue| queue.sampler.samples(job)) else { return };
        for span in spans(job, written) {
            if queue.spans.try_send(span).is_err() {
                queue.metrics.dropped_spans(SpanDropped::QueueFull, 1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
