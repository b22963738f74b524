//! The trace of a job: which spans it has, and their ids.
//!
//! All ids follow from the job's UID. So nothing is remembered from one span to the next, a message that is published
//! again names the same span, and an operator that says a span a second time says the same one. The trace id is the UID
//! without dashes, so that a trace is found from `kubectl get`.

use jiff::Timestamp;
use uuid::Uuid;

pub use super::id::SpanContext;
use super::job::Job;
use super::status::{AttemptOutcome, PastAttempt, Phase, Status};
use super::usage::{Consumed, Usage};

/// The bits of a trace id that are random, by which it is chosen: the right-hand 56 (W3C Trace Context, level 2). Of a
/// UUID version 4 these are random.
const RANDOM: u64 = (1 << 56) - 1;

/// Which jobs are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Random bits below this are not traced.
    threshold: u64,
    /// Whether the span that a job names as its cause decides for the job, if it names one.
    pub is_parent_based: bool,
}

impl Sampler {
    /// Traces this part of all jobs, 0 to 1.
    pub fn new(ratio: f64, is_parent_based: bool) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let threshold = ((1.0 - ratio.clamp(0.0, 1.0)) * (RANDOM + 1) as f64) as u64;
        Self { threshold, is_parent_based }
    }

    /// The context of an attempt of this job, for its message; `None` for a UID of zeros, which is no trace id.
    pub fn context(&self, job: &Job, number: u32) -> Option<SpanContext> {
        let trace = job.uid.as_u128();
        (trace != 0).then(|| SpanContext { trace, span: attempt_id(job.uid, number), is_sampled: self.samples(job) })
    }

    /// Whether this job is traced. The answer is the same in every operator.
    pub fn samples(&self, job: &Job) -> bool {
        let (random, trace) = (job.uid.as_u64_pair().1 & RANDOM, job.uid.as_u128());
        match job.cause.as_deref() {
            Some(cause) if self.is_parent_based => cause.is_sampled && trace != 0,
            Some(_) | None => random >= self.threshold && trace != 0,
        }
    }
}

/// What a span is to those that follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of this process alone.
    Internal,
    /// Something was sent; what receives it is a child.
    Producer,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

/// A part of a job's life that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Trace id.
    pub trace: u128,
    /// Its id.
    pub id: u64,
    /// The span it is a part of.
    pub parent: Option<u64>,
    /// Its name: one of few.
    pub name: String,
    /// What it is to those that follow it.
    pub kind: Kind,
    /// When it began.
    pub start: Timestamp,
    /// When it ended, not before it began.
    pub end: Timestamp,
    /// What is said of it: names, numbers and reasons, never a topic, inputs, results or messages of exceptions.
    pub attributes: Vec<(&'static str, Value)>,
    /// When a worker began.
    pub started: Option<Timestamp>,
    /// Whether it went wrong.
    pub is_error: bool,
    /// The span that caused it, in another trace.
    pub link: Option<SpanContext>,
}

/// The spans that are over with this status, and were not with the one recorded before: of attempts, and of the job.
///
/// ```text
/// crewjob TASK   from the creation of the object to its end; linked to the span that the object names as its cause
/// ├ enqueue      from the creation to the first message on Redis
/// ├ attempt 1    from its message to its end; the message names this one, so that a worker's span is its child
/// └ attempt 2
/// ```
pub fn spans(job: &Job, written: &Status) -> Vec<Span> {
    let ended = written.history.iter().filter(|past| !job.status.history.contains(past));
    let mut spans: Vec<Span> = ended.map(|past| attempt(job, past)).collect();
    if let Some(end) = written.finished_at() {
        spans.extend(written.queued_at.map(|queued| {
            let name = "enqueue".to_owned();
            Span { parent: Some(root_id(job.uid)), ..span(job, id(job.uid, "enqueue"), name, job.created_at, queued) }
        }));
        spans.push(root(job, written, end));
    }
    spans
}

fn root(job: &Job, written: &Status, end: Timestamp) -> Span {
    let mut root = span(job, root_id(job.uid), format!("crewjob {}", job.spec.task), job.created_at, end);
    root.attributes.extend([
        ("crewjob.phase", Value::Text(format!("{:?}", written.phase))),
        ("crewjob.reason", Value::Text(written.why.reason().to_owned())),
        ("crewjob.attempts", Value::Number(written.attempts.into())),
    ]);
    Span { is_error: written.phase == Phase::Failed, link: job.cause.as_deref().copied(), ..root }
}

fn attempt(job: &Job, past: &PastAttempt) -> Span {
    let start = past.enqueued_at.or(past.started_at).unwrap_or(past.finished_at);
    let (id, name) = (attempt_id(job.uid, past.number), format!("attempt {}", past.number));
    let mut span = span(job, id, name, start, past.finished_at);
    span.attributes.extend([
        ("crewjob.attempt", Value::Number(past.number.into())),
        ("crewjob.outcome", Value::Text(past.outcome.name().to_owned())),
        ("crewjob.task_id", Value::Text(past.task.to_string())),
    ]);
    let texts =
        [("crewjob.worker", past.worker.as_deref()), ("error.type", past.error.as_ref().map(|error| &*error.kind))];
    span.attributes.extend(texts.into_iter().filter_map(|(name, text)| Some((name, Value::Text(text?.to_owned())))));
    if let Some(account) = &past.account {
        span.attributes.extend(consumed(&account.count.usage));
    }
    let is_error = !matches!(past.outcome, AttemptOutcome::Succeeded | AttemptOutcome::Revoked);
    Span { parent: Some(root_id(job.uid)), kind: Kind::Producer, started: past.started_at, is_error, ..span }
}

/// What an attempt consumed, in the words of OpenTelemetry's conventions for generative AI, which have none for a cost.
fn consumed(usage: &Usage) -> impl Iterator<Item = (&'static str, Value)> {
    let Consumed { input, output, cost, .. } = usage.total();
    let mut models = usage.models().map(|(model, _)| model).filter(|model| !model.is_empty());
    let model = models.next().filter(|_| models.next().is_none());
    let tokens = [("gen_ai.usage.input_tokens", input), ("gen_ai.usage.output_tokens", output)];
    let tokens: Vec<_> =
        tokens.into_iter().filter(|_| !usage.is_empty()).map(|(name, count)| (name, Value::Number(count))).collect();
    let texts =
        [("gen_ai.request.model", model.map(str::to_owned)), ("crewjob.cost_usd", cost.map(|cost| cost.to_string()))];
    let texts: Vec<_> = texts.into_iter().filter_map(|(name, text)| Some((name, Value::Text(text?)))).collect();
    tokens.into_iter().chain(texts)
}

/// A span with what all spans of a job say.
fn span(job: &Job, id: u64, name: String, start: Timestamp, end: Timestamp) -> Span {
    let attributes = [
        ("crewjob.namespace", &job.key.namespace),
        ("crewjob.name", &job.key.name),
        ("crewjob.pool", &job.spec.pool),
        ("crewjob.task", &job.spec.task),
    ];
    Span {
        trace: job.uid.as_u128(),
        id,
        parent: None,
        name,
        kind: Kind::Internal,
        start,
        end: end.max(start), // the clocks of the API server and of workers are others
        attributes: attributes.into_iter().map(|(name, text)| (name, Value::Text(text.to_string()))).collect(),
        started: None,
        is_error: false,
        link: None,
    }
}

fn root_id(uid: Uuid) -> u64 {
    id(uid, "crewjob")
}

fn attempt_id(uid: Uuid, number: u32) -> u64 {
    id(uid, &format!("attempt {number}"))
}

/// Never 0, which is no span id.
fn id(uid: Uuid, what: &str) -> u64 {
    Uuid::new_v5(&uid, format!("span {what}").as_bytes()).as_u64_pair().0.max(1)
}

#[cfg(test)]
mod tests;
