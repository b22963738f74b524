//! From a CrewJob, as the API server has it, to what the short form says of it. What is not there is left out.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::core::gateway::events::Seen;
use crate::core::gateway::id::JobId;
use crate::core::gateway::route::{GROUP, VERSION};

const PENDING: &str = "Pending";

/// Where more is to be had. Paths on the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Links {
    /// How the job is.
    pub status: String,
    /// What came of it.
    pub result: String,
    /// What happens to it, as server-sent events.
    pub events: String,
    /// Ends it.
    pub cancel: String,
    /// The CrewJob itself.
    pub kubernetes: String,
}

impl Links {
    /// The links of a job, below the prefix of all paths.
    pub fn of(id: &JobId, prefix: &str) -> Self {
        let to = |what: &str| format!("{prefix}/api/{what}/{id}");
        let JobId { namespace, name } = id;
        Self {
            status: to("status"),
            result: to("result"),
            events: to("events"),
            cancel: to("cancel"),
            kubernetes: format!("{prefix}/apis/{GROUP}/{VERSION}/namespaces/{namespace}/crewjobs/{name}"),
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Progress {
    /// Done so far, in percent: 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<i64>,
    /// What the task is doing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Where a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// In the status of the CrewJob.
    Status,
    /// In a ConfigMap of the job.
    ConfigMap,
    /// On the Redis of its pool.
    Redis,
}

/// What a job has returned, without the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Returned {
    /// Where it is kept.
    pub place: Place,
    /// Bytes of its JSON text.
    pub size_bytes: i64,
    /// SHA-256 of its JSON text.
    pub sha256: String,
}

/// Why the last run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RunError {
    /// The type of the exception, such as `ValueError`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its message.
    pub message: String,
}

/// How a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// The job's id here: NAMESPACE.NAME.
    pub id: String,
    /// Namespace of the CrewJob.
    pub namespace: String,
    /// Name of the CrewJob.
    pub name: String,
    /// UID of the CrewJob: another one under the same name is another job.
    pub uid: String,
    /// What it is about.
    pub topic: String,
    /// Pending, Queued, Running, Retrying, and, never to change again, Succeeded, Failed or Cancelled.
    pub phase: String,
    /// Why it is in this phase: a word of the list in docs/troubleshooting.md; empty before an operator has seen the job.
    pub reason: String,
    /// The same in a sentence.
    pub message: String,
    /// Runs begun so far.
    pub attempts: i64,
    /// How far the running attempt is, where the task says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What it has returned, without the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Returned>,
    /// Why the last run failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// When it was made.
    pub created_at: String,
    /// When the current or last attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it reached its final phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Where more is to be had.
    pub links: Links,
}

/// A text at a JSON pointer; empty where there is none.
pub fn text<'a>(job: &'a Value, at: &str) -> &'a str {
    job.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// The id of a job that the API server has answered with.
pub fn id(job: &Value) -> JobId {
    JobId { namespace: text(job, "/metadata/namespace").into(), name: text(job, "/metadata/name").into() }
}

/// Its phase; that of a new one where no operator has seen it.
pub fn phase(job: &Value) -> &str {
    Some(text(job, "/status/phase")).filter(|phase| !phase.is_empty()).unwrap_or(PENDING)
}

/// Whether it is over.
pub fn is_over(job: &Value) -> bool {
    matches!(phase(job), "Succeeded" | "Failed" | "Cancelled")
}

/// The text `at` of the condition that says where the job is in its life.
pub fn why<'a>(job: &'a Value, at: &str) -> &'a str {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == "Reconciling");
    found.and_then(|condition| condition[at].as_str()).unwrap_or_default()
}

fn progress(job: &Value) -> Option<Progress> {
    let progress = job.pointer("/status/progress").filter(|_| phase(job) == "Running")?;
    Some(Progress { percent: progress["percent"].as_i64(), message: text(progress, "/message").into() })
}

fn returned(job: &Value) -> Option<Returned> {
    let result = job.pointer("/status/result")?;
    let place = if result.get("value").is_some() || result["text"].is_string() {
        Place::Status
    } else if result["configMapName"].is_string() {
        Place::ConfigMap
    } else {
        Place::Redis
    };
    let size_bytes = result["sizeBytes"].as_i64().unwrap_or_default();
    Some(Returned { place, size_bytes, sha256: text(result, "/sha256").into() })
}

impl Job {
    /// What is to be said of a job.
    pub fn of(job: &Value, prefix: &str) -> Self {
        let id = id(job);
        let time = |at: &str| Some(text(job, at)).filter(|time| !time.is_empty()).map(ToOwned::to_owned);
        let error = job.pointer("/status/error").filter(|error| error.is_object());
        Self {
            id: id.to_string(),
            uid: text(job, "/metadata/uid").into(),
            topic: text(job, "/spec/topic").into(),
            phase: phase(job).into(),
            reason: why(job, "reason").into(),
            message: why(job, "message").into(),
            attempts: job.pointer("/status/attempts").and_then(Value::as_i64).unwrap_or_default(),
            progress: progress(job),
            result: returned(job),
            error: error.map(|it| RunError { kind: text(it, "/type").into(), message: text(it, "/message").into() }),
            created_at: text(job, "/metadata/creationTimestamp").into(),
            started_at: time("/status/startedAt"),
            finished_at: time("/status/finishedAt"),
            links: Links::of(&id, prefix),
            namespace: id.namespace,
            name: id.name,
        }
    }
}

/// What a follower may be told of a job.
pub fn seen(job: &Value) -> Seen {
    Seen {
        uid: text(job, "/metadata/uid").into(),
        version: text(job, "/metadata/resourceVersion").into(),
        phase: phase(job).into(),
        reason: why(job, "reason").into(),
        message: why(job, "message").into(),
        progress: progress(job).map(|progress| (progress.percent, progress.message)),
        is_over: is_over(job),
    }
}

#[cfg(test)]
mod tests;
