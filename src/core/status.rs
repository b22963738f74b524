//! What is recorded of a job: phase, attempt, holder and outcome, and the closed list of reasons.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::job::{SpecHash, TaskId};

/// Where a job stands. The last three are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    /// Not on Redis.
    #[default]
    Pending,
    /// On Redis, no worker has begun.
    Queued,
    /// A worker runs it.
    Running,
    /// The last attempt failed, the next one waits for its backoff.
    Retrying,
    /// Ended with a result.
    Succeeded,
    /// Ended without one.
    Failed,
    /// Ended because it was cancelled.
    Cancelled,
}

impl Phase {
    /// Whether the job has ended.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Why a job is not on its way to Redis, or is not followed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// No CrewWorkerPool of that name in the job's namespace.
    PoolNotFound {
        /// The pool that was asked for.
        pool: Arc<str>,
        /// The pools there are, sorted.
        existing: Vec<Arc<str>>,
    },
    /// The pool does not serve that queue.
    QueueNotInPool {
        /// The queue that was asked for.
        queue: Arc<str>,
        /// The pool's queues.
        queues: Vec<Arc<str>>,
    },
    /// The pool does not allow that task.
    TaskNotAllowed {
        /// The task that was asked for.
        task: Arc<str>,
        /// The pool's tasks.
        allowed: Vec<Arc<str>>,
    },
    /// The pool cannot be used: its namespace, Secret or Redis is not as it must be.
    PoolNotReady {
        /// The pool.
        pool: Arc<str>,
        /// What is wrong with it.
        problem: PoolProblem,
    },
    /// `spec.suspend` is true.
    Suspended,
}

/// What keeps a pool from working.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolProblem {
    /// Which of the closed list.
    pub kind: PoolProblemKind,
    /// One sentence for people: what is wrong and how to mend it. Never holds a secret.
    pub detail: Arc<str>,
}

/// The closed list of what keeps a pool from working.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolProblemKind {
    /// The operator has not looked at the pool yet.
    Connecting,
    /// The operator may not read Pods, Deployments and Secrets in the pool's namespace.
    NamespaceNotGranted,
    /// The Secret does not exist.
    SecretNotFound,
    /// The Secret lacks the label that allows its use.
    SecretNotLabelled,
    /// The Secret has no usable `REDIS_URL`.
    SecretInvalid,
    /// Redis cannot be reached.
    BrokerUnreachable,
    /// Redis refused the user name or the password.
    BrokerAuthenticationFailed,
    /// Redis understood and said no: a missing permission, no memory, a read-only replica.
    BrokerRefused,
    /// The pool's own spec cannot be used.
    PoolInvalid,
}

impl PoolProblemKind {
    /// CamelCase name, as in a condition's `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Connecting => "Connecting",
            Self::NamespaceNotGranted => "NamespaceNotGranted",
            Self::SecretNotFound => "SecretNotFound",
            Self::SecretNotLabelled => "SecretNotLabelled",
            Self::SecretInvalid => "SecretInvalid",
            Self::BrokerUnreachable => "BrokerUnreachable",
            Self::BrokerAuthenticationFailed => "BrokerAuthenticationFailed",
            Self::BrokerRefused => "BrokerRefused",
            Self::PoolInvalid => "PoolInvalid",
        }
    }
}

/// Why a job ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GaveUp {
    /// The inputs are too large, too deep, or hold what Celery would decode.
    InvalidSpec,
    /// Every allowed run failed.
    RetriesExhausted,
    /// The exception's type is one that is not retried.
    NonRetryableError,
    /// Too many workers died under it.
    WorkerLost,
    /// Its message was lost on the broker too often.
    MessageLost,
    /// A worker acknowledged it and never stored a result.
    NoResult,
    /// Its result had expired before it could be read.
    ResultExpired,
    /// `timeouts.total` passed.
    DeadlineExceeded,
    /// `timeouts.queue` passed.
    QueueTimeout,
    /// The payload was changed after the first attempt, and another attempt was due.
    SpecChanged,
    /// A worker, or a person with `celery control revoke`, revoked the task without being asked by the job.
    Revoked,
}

/// Why the phase is what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Why {
    /// Nothing has been looked at yet.
    #[default]
    Unseen,
    /// Held back.
    Held(Hold),
    /// On Redis.
    Enqueued,
    /// With a worker.
    Started,
    /// Waiting for the backoff.
    RetryScheduled,
    /// The worker that held it died and the message was published again.
    WorkerLost,
    /// The message was lost and published again.
    MessageLost,
    /// Ended well.
    Succeeded,
    /// Ended well although cancel was asked for.
    FinishedBeforeCancel,
    /// Ended badly.
    GaveUp(GaveUp),
    /// Ended by cancel.
    Cancelled,
    /// As an earlier operator recorded it.
    Recorded {
        /// CamelCase reason.
        reason: Arc<str>,
        /// One sentence.
        message: Arc<str>,
    },
}

impl Why {
    /// CamelCase name, as in a condition's `reason`. The list is closed and documented with the API.
    pub fn reason(&self) -> &str {
        match self {
            Self::Recorded { reason, .. } => reason,
            Self::Unseen => "Pending",
            Self::Held(Hold::PoolNotFound { .. }) => "PoolNotFound",
            Self::Held(Hold::QueueNotInPool { .. }) => "QueueNotInPool",
            Self::Held(Hold::TaskNotAllowed { .. }) => "TaskNotAllowed",
            Self::Held(Hold::PoolNotReady { problem, .. }) => problem.kind.reason(),
            Self::Held(Hold::Suspended) => "Suspended",
            Self::Enqueued => "Enqueued",
            Self::Started => "Running",
            Self::RetryScheduled => "RetryScheduled",
            Self::WorkerLost | Self::GaveUp(GaveUp::WorkerLost) => "WorkerLost",
            Self::MessageLost | Self::GaveUp(GaveUp::MessageLost) => "MessageLost",
            Self::Succeeded => "Succeeded",
            Self::FinishedBeforeCancel => "FinishedBeforeCancel",
            Self::GaveUp(GaveUp::InvalidSpec) => "InvalidSpec",
            Self::GaveUp(GaveUp::RetriesExhausted) => "RetriesExhausted",
            Self::GaveUp(GaveUp::NonRetryableError) => "NonRetryableError",
            Self::GaveUp(GaveUp::NoResult) => "NoResult",
            Self::GaveUp(GaveUp::ResultExpired) => "ResultExpired",
            Self::GaveUp(GaveUp::DeadlineExceeded) => "DeadlineExceeded",
            Self::GaveUp(GaveUp::QueueTimeout) => "QueueTimeout",
            Self::GaveUp(GaveUp::SpecChanged) => "SpecChanged",
            Self::GaveUp(GaveUp::Revoked) => "Revoked",
            Self::Cancelled => "Cancelled",
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoolNotFound { pool, existing } if existing.is_empty() => write!(
                f,
                "CrewWorkerPool {pool:?} does not exist and this namespace has no pool; create one, or name it in spec.poolRef.name of a new job"
            ),
            Self::PoolNotFound { pool, existing } => {
                write!(
                    f,
                    "CrewWorkerPool {pool:?} does not exist in this namespace; there are: {}",
                    existing.join(", ")
                )
            }
            Self::QueueNotInPool { queue, queues } => {
                write!(f, "spec.queue {queue:?} is not one of the pool's queues: {}", queues.join(", "))
            }
            Self::TaskNotAllowed { task, allowed } => {
                write!(f, "spec.task {task:?} is not one of the pool's allowedTasks: {}", allowed.join(", "))
            }
            Self::PoolNotReady { pool, problem } => write!(f, "CrewWorkerPool {pool:?}: {}", problem.detail),
            Self::Suspended => f.write_str("spec.suspend is true"),
        }
    }
}

/// A worker that holds a message: the Celery node and, inside the cluster, the very container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Celery node name, such as `crew@crewjob-worker-7d4b9-x2x7q`.
    pub node: Arc<str>,
    /// The container behind it; `None` for a worker outside the cluster, which is never declared dead.
    pub container: Option<Container>,
}

/// One run of one container. A restart in place is another container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Pod name.
    pub pod: Arc<str>,
    /// Pod UID.
    pub pod_uid: Arc<str>,
    /// Runtime id, as in `status.containerStatuses[].containerID`.
    pub id: Arc<str>,
    /// When that container started.
    pub started_at: Timestamp,
}

/// The attempt under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Number of its first run, counted from 1.
    pub number: u32,
    /// How often its message has been published again.
    pub generation: u32,
    /// When its message was first published.
    pub enqueued_at: Timestamp,
    /// When a worker began it.
    pub started_at: Option<Timestamp>,
}

/// An attempt that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastAttempt {
    /// Number of its first run.
    pub number: u32,
    /// Its Celery task id.
    pub task: TaskId,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// Celery node that ran it.
    pub worker: Option<Arc<str>>,
    /// When its message was published.
    pub enqueued_at: Option<Timestamp>,
    /// When it was begun.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Timestamp,
    /// Exception type and message.
    pub error: Option<TaskError>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptOutcome {
    /// With a result.
    Succeeded,
    /// With an exception.
    Failed,
    /// Its worker died.
    WorkerLost,
    /// Its message was lost.
    MessageLost,
    /// It was revoked or withdrawn.
    Revoked,
    /// Nobody can tell.
    Unknown,
}

impl AttemptOutcome {
    /// CamelCase name, as in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::WorkerLost => "WorkerLost",
            Self::MessageLost => "MessageLost",
            Self::Revoked => "Revoked",
            Self::Unknown => "Unknown",
        }
    }

    /// Reads what [`AttemptOutcome::name`] wrote.
    pub fn from_name(name: &str) -> Self {
        [Self::Succeeded, Self::Failed, Self::WorkerLost, Self::MessageLost, Self::Revoked]
            .into_iter()
            .find(|outcome| outcome.name() == name)
            .unwrap_or(Self::Unknown)
    }
}

/// An exception as the worker reported it, cut to what a status may hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskError {
    /// Exception type, such as `ValueError`.
    pub kind: Arc<str>,
    /// At most [`TaskError::MESSAGE`] bytes.
    pub message: Arc<str>,
    /// The end of the traceback, at most [`TaskError::TRACEBACK`] bytes.
    pub traceback: Option<Arc<str>>,
}

impl TaskError {
    /// Bytes of message that are kept.
    pub const MESSAGE: usize = 256;
    /// Bytes of traceback that are kept, from its end.
    pub const TRACEBACK: usize = 1024;

    /// An error of this type, its texts cut to size.
    pub fn new(kind: &str, message: &str, traceback: Option<&str>) -> Self {
        Self {
            kind: head(kind, 128).into(),
            message: head(message, Self::MESSAGE).into(),
            traceback: traceback.filter(|text| !text.is_empty()).map(|text| tail(text, Self::TRACEBACK).into()),
        }
    }
}

/// The first `limit` bytes of a text, cut at a character.
pub fn head(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// The last `limit` bytes of a text, cut at a character.
pub fn tail(text: &str, limit: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(limit))..]
}

/// How far a running attempt says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// 0 to 100, when it gives one.
    pub percent: Option<u8>,
    /// At most [`TaskError::MESSAGE`] bytes.
    pub message: Option<Arc<str>>,
    /// When it said so.
    pub at: Timestamp,
}

/// Where a result is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In the status itself.
    Inline,
    /// In a ConfigMap owned by the job.
    ConfigMap,
    /// Only in Redis, until then.
    Redis {
        /// When Redis drops it.
        until: Timestamp,
    },
}

/// A result: its text as the worker wrote it, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResult {
    /// JSON text, verbatim.
    pub text: Arc<str>,
    /// Where it is kept.
    pub kept: Kept,
}

impl StoredResult {
    /// Largest result kept in the status, in bytes.
    pub const INLINE: usize = 4 * 1024;
    /// Largest result kept in a ConfigMap, in bytes: an object may have 1 MiB in all, keys and metadata included.
    pub const CONFIG_MAP: usize = 1024 * 1024 - 16 * 1024;
}

/// What is recorded of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// `metadata.generation` that was last acted on.
    pub observed_generation: i64,
    /// Where the job stands.
    pub phase: Phase,
    /// Why.
    pub why: Why,
    /// The attempt under way.
    pub attempt: Option<Attempt>,
    /// Runs begun so far, Celery-side retries included. Never decreases.
    pub attempts: u32,
    /// Workers that died under the job.
    pub worker_losses: u32,
    /// Messages of the attempt in hand that were lost on the broker.
    pub message_losses: u32,
    /// Attempts that are over, oldest first, at most [`Status::HISTORY`].
    pub history: Vec<PastAttempt>,
    /// When the next attempt begins, in phase `Retrying`.
    pub retry_at: Option<Timestamp>,
    /// Who holds or last held the attempt.
    pub worker: Option<Box<Holder>>,
    /// When the first message was published.
    pub queued_at: Option<Timestamp>,
    /// When the first run began.
    pub started_at: Option<Timestamp>,
    /// When the job ended.
    pub finished_at: Option<Timestamp>,
    /// The result, once.
    pub result: Option<Box<StoredResult>>,
    /// The last error.
    pub error: Option<Box<TaskError>>,
    /// How far the running attempt is.
    pub progress: Option<Box<Progress>>,
    /// Queue in use.
    pub queue: Option<Arc<str>>,
    /// What the first attempt ran; later attempts run the same or nothing.
    pub spec_hash: Option<SpecHash>,
    /// When a payload that was changed after the first attempt was noticed.
    pub spec_changed: Option<Timestamp>,
    /// Since when it is known that the worker cannot carry out a cancel.
    pub cancel_unsupported: Option<Timestamp>,
    /// When a result arrived after the end.
    pub late_result: Option<Timestamp>,
    /// When the finished job may be deleted.
    pub expires_at: Option<Timestamp>,
}

impl Status {
    /// Attempts that the history keeps.
    pub const HISTORY: usize = 5;

    /// One sentence for people about why the phase is what it is.
    pub fn message(&self) -> String {
        let error = || match &self.error {
            Some(error) if error.message.is_empty() => error.kind.to_string(),
            Some(error) => format!("{}: {}", error.kind, error.message),
            None => "no details were reported".to_owned(),
        };
        match &self.why {
            Why::Recorded { message, .. } => message.to_string(),
            Why::Unseen => "waiting for the operator".to_owned(),
            Why::Held(hold) => hold.to_string(),
            Why::Enqueued => "waiting on Redis for a worker".to_owned(),
            Why::Started => "a worker runs the task".to_owned(),
            Why::RetryScheduled => format!("attempt failed ({}), the next one waits for its backoff", error()),
            Why::WorkerLost => "the worker died and the message was published again".to_owned(),
            Why::MessageLost => "the message was lost on the broker and was published again".to_owned(),
            Why::Succeeded => "the task returned a result".to_owned(),
            Why::FinishedBeforeCancel => "the task returned a result before it could be cancelled".to_owned(),
            Why::Cancelled => "cancelled as spec.cancel asks".to_owned(),
            Why::GaveUp(why) => match why {
                GaveUp::InvalidSpec => error(),
                GaveUp::RetriesExhausted => format!("all {} runs failed, the last with {}", self.attempts, error()),
                GaveUp::NonRetryableError => format!("not retried, as retryPolicy.nonRetryable asks: {}", error()),
                GaveUp::WorkerLost => format!("{} workers died under the job", self.worker_losses),
                GaveUp::MessageLost => "the message was lost on the broker again and again".to_owned(),
                GaveUp::NoResult => format!("the worker gave no usable result: {}", error()),
                GaveUp::ResultExpired => "the result expired in Redis before it could be read".to_owned(),
                GaveUp::DeadlineExceeded => "timeouts.total passed".to_owned(),
                GaveUp::QueueTimeout => "no worker took the message within timeouts.queue".to_owned(),
                GaveUp::SpecChanged => {
                    "the payload was changed after the first attempt; create a new job to run it".to_owned()
                }
                GaveUp::Revoked => "the task was revoked on the worker, not by this job".to_owned(),
            },
        }
    }

    /// Appends to the history and drops the oldest beyond its bound.
    pub fn remember(&mut self, past: PastAttempt) {
        self.history.push(past);
        let surplus = self.history.len().saturating_sub(Self::HISTORY);
        self.history.drain(..surplus);
    }
}
