//! What the operator reports: the status of a `CrewJob`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Consumption, JobResult, JobState, Usage, UsageCount, schema,
    text::{head, tail},
};

/// Selects the jobs that are not finished.
pub const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Cancelled";
/// Selects the jobs that are finished.
pub const FINISHED: &str =
    "status.phase!=,status.phase!=Pending,status.phase!=Queued,status.phase!=Running,status.phase!=Retrying";
/// How many attempts `status.attemptHistory` keeps.
pub const ATTEMPT_HISTORY_LIMIT: usize = 5;

const MESSAGE_BYTES: usize = 256;
const TRACEBACK_BYTES: usize = 1024;
const SHORT_MESSAGE_BYTES: usize = 128;
const TYPE_BYTES: usize = 64;

/// Where the job is and what came of it. Written by the operator.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = { "phase": "Pending" }))]
pub struct CrewJobStatus {
    /// Where the job is in its life: `Pending` (not enqueued yet; a condition says why), `Queued` (on Redis, no worker
    /// has taken it), `Running`, `Retrying` (a run failed, the next one waits), and, never to change again, `Succeeded`,
    /// `Failed` or `Cancelled`. Can be used in a field selector: `--field-selector status.phase=Failed`.
    #[serde(default)]
    pub phase: Phase,

    /// The `metadata.generation` that this status was derived from; 0 while no operator has acted on the job.
    // Without a number that is behind, kstatus takes a job that no operator has seen for one that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 0))]
    pub observed_generation: Option<i64>,

    /// Fingerprint of what was enqueued first (topic, inputs, task, arguments). A spec that no longer has it is not run;
    /// condition `SpecChanged` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub spec_hash: Option<String>,

    /// The Celery task ID of the current or last attempt, for Flower and `celery inspect`.
    #[serde(default, rename = "taskID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub task_id: Option<String>,

    /// How many runs were begun so far, those that Celery itself retried included; of these at most 1000 per attempt are
    /// counted. At most 10000. Never decreases.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub attempts: i32,

    /// How often the current attempt's message was published again after the first time, because a worker died or the
    /// message was lost. Starts at 0 with each attempt. At most 1000000.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub delivery_generation: i32,

    /// How many workers died holding this job.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub worker_losses: i32,

    /// How often the current attempt's message vanished from Redis before any worker took it.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub message_losses: i32,

    /// The Celery queue the job was put on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub queue: Option<String>,

    /// When the current or last attempt was put on its queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub queued_at: Option<Time>,

    /// When the job was put on its queue for the first time; `timeouts.total` counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub first_queued_at: Option<Time>,

    /// When a worker started the current or last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,

    /// When the job reached its final phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<Time>,

    /// When the next attempt is due, while the phase is `Retrying`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub next_retry_at: Option<Time>,

    /// When the current or last attempt was released under the limits of the pool (`spec.limits` there): from then until
    /// it is over it counts as in flight. None where the pool has no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub released_at: Option<MicroTime>,

    /// The minute (UTC) of that time, such as `2026-11-22T15:04`. Can be used in a field selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub release_minute: Option<String>,

    /// UID of the job that stands for the key of `spec.dedup`: this one, or the one that this one is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub dedup_uid: Option<String>,

    /// The hour (UTC) in which the time of the finished object is over, such as `2026-11-22T15`: it is deleted in the
    /// next one. None when it is kept. Follows `spec.ttlAfterFinished` also after the end. Can be used in a field selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub expiry_bucket: Option<String>,

    /// The worker that holds the current attempt, or held the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Worker>,

    /// How far the running attempt is, where the task says so (Celery's custom state `PROGRESS`). Updated at most every
    /// 5 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,

    /// What all runs have consumed, where the program reports it. Updated at most every 5 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,

    /// The part of `usage` that the run in hand has counted. None at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_count: Option<UsageCount>,

    /// The state that the runs have saved. None where no run has saved any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,

    /// What the task returned. Set once, when the job succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<JobResult>,

    /// Why the last run failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,

    /// The trace of the job, as in its spans and messages: its UID without dashes. Set where the operator traces the job,
    /// with the first change of the phase after that.
    #[serde(default, rename = "traceID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub trace_id: Option<String>,

    /// The last 5 attempts that ended, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    pub attempt_history: Vec<Attempt>,

    /// The state in aspects: `Complete` and `Failed` as in a Job, `Reconciling` until the end and `Stalled` with
    /// `Failed` for Flux and kstatus, and `SpecChanged`, `CancelUnsupported`, `LateResult` when they happen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where a job is in its life.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not enqueued yet: new, suspended, or held up by something that a condition names.
    #[default]
    Pending,
    /// On Redis; no worker has taken it.
    Queued,
    /// A worker runs it.
    Running,
    /// A run failed; the next attempt waits for its backoff.
    Retrying,
    /// The task returned a result. Final.
    Succeeded,
    /// The job failed for good. Final.
    Failed,
    /// The job was cancelled. Final.
    Cancelled,
}

impl Phase {
    /// Whether the phase never changes again.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
            Self::Pending | Self::Queued | Self::Running | Self::Retrying => false,
        }
    }
}

/// The worker that holds a task: the Celery node, and the container that it runs in where it runs in this cluster.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// The Celery node name, such as `crew@crewjob-worker-7d9f-x2x`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub name: String,

    /// The name of its Pod; none for a worker outside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod_name: Option<String>,

    /// The UID of its Pod.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pod_uid: Option<String>,

    /// The container within the Pod, as the kubelet reports it; another one after a restart in place.
    #[serde(default, rename = "containerID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub container_id: Option<String>,

    /// When that container started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,
}

/// How far a running attempt is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Done so far, in percent: 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,

    /// What the task is doing, in at most 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
}

impl Progress {
    /// Progress within its bounds: the percentage clamped, the message cut.
    pub fn new(percent: Option<i32>, message: Option<&str>) -> Self {
        Self { percent: percent.map(|p| p.clamp(0, 100)), message: message.map(|m| head(m, MESSAGE_BYTES).to_owned()) }
    }
}

/// Why a run failed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct JobError {
    /// The type of the exception, such as `ValueError`, in at most 64 bytes.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub type_: String,

    /// Its message, in at most 256 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub message: String,

    /// The end of the traceback, in at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub traceback: Option<String>,
}

impl JobError {
    /// An error within its bounds: the beginning of the message, the end of the traceback.
    pub fn new(type_: &str, message: &str, traceback: Option<&str>) -> Self {
        Self {
            type_: head(type_, TYPE_BYTES).to_owned(),
            message: head(message, MESSAGE_BYTES).to_owned(),
            traceback: traceback.map(|t| tail(t, TRACEBACK_BYTES).to_owned()),
        }
    }
}

/// One attempt that ended.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Which attempt it was, counted from 1.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub number: i32,

    /// Its Celery task ID.
    #[serde(default, rename = "taskID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub task_id: Option<String>,

    /// How it ended: `Succeeded`, `Failed`, `TimedOut`, `WorkerLost`, `MessageLost`, `NoResult`, `ResultExpired` or
    /// `Cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,

    /// The Celery node that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub worker: Option<String>,

    /// When it was put on its queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub enqueued_at: Option<Time>,

    /// When a worker started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,

    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<Time>,

    /// The type of the exception, where it failed, in at most 64 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub error_type: Option<String>,

    /// What happened, in at most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub message: Option<String>,

    /// Whether it began with the state that an earlier attempt had left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,

    /// What it consumed, where the program reports it. Of an attempt that went on after the loss of a worker, the last
    /// entry has all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Consumption>,
}

impl Attempt {
    /// The same attempt with what happened, cut to its bounds.
    #[must_use]
    pub fn because(self, error_type: Option<&str>, message: &str) -> Self {
        Self {
            error_type: error_type.map(|t| head(t, TYPE_BYTES).to_owned()),
            message: Some(head(message, SHORT_MESSAGE_BYTES).to_owned()),
            ..self
        }
    }
}

/// How an attempt ended.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[schemars(description = "")]
pub enum Outcome {
    /// The task returned a result.
    Succeeded,
    /// The task raised an exception.
    Failed,
    /// The task ran into a time limit.
    TimedOut,
    /// The worker died while it held the task.
    WorkerLost,
    /// The message vanished from Redis before any worker took it.
    MessageLost,
    /// The task ended without a result.
    NoResult,
    /// The result expired before the operator could read it.
    ResultExpired,
    /// The attempt was withdrawn or revoked.
    Cancelled,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests;
