//! What is recorded of a job: phase, attempt, holder and outcome.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

pub use super::account::{Account, JobAccount, SavedState, Spent};
use super::id::{SpecHash, TaskId};
pub use super::reason::{GaveUp, Hold, PoolProblem, PoolProblemKind, Refusal, RefusalKind, Unstopped, Why};

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

/// A worker that holds a message: the Celery node and, inside the cluster, the very container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Celery node name, such as `crew@crewjob-worker-7d4b9-x2x7q`.
    pub node: Arc<str>,
    /// The container behind it; `None` for a worker outside the cluster, which is never declared dead.
    pub container: Option<Container>,
}

/// The host of a node `crew@host`; that of a worker in the cluster is its Pod.
pub fn host_of(node: &str) -> &str {
    node.rsplit_once('@').map_or(node, |(_, host)| host)
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
    /// When this delivery of its message was published.
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
    /// What it said of itself. In a box, as few attempts say anything.
    pub account: Option<Box<Account>>,
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
    /// That cannot be known.
    Unknown,
}

impl AttemptOutcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Succeeded, Self::Failed, Self::WorkerLost, Self::MessageLost, Self::Revoked, Self::Unknown];

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
    /// In this ConfigMap, which another job owns.
    Elsewhere(Arc<str>),
    /// Only in Redis, until then.
    Redis {
        /// Key of the result document.
        key: Arc<str>,
        /// When Redis drops it.
        until: Timestamp,
    },
}

/// What a run has returned: a JSON text, which is only held where it is short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its length.
    pub bytes: u64,
    /// Its digest.
    pub sha256: [u8; 32],
    /// The text, verbatim. Redis has it where it is missing here.
    pub text: Option<Arc<str>>,
}

impl Output {
    /// The same without its text.
    #[must_use]
    pub fn without_text(&self) -> Self {
        Self { text: None, ..self.clone() }
    }

    /// Whether the status holds it.
    pub fn is_inline(&self) -> bool {
        self.bytes <= StoredResult::INLINE as u64
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Arc<Self> {
        let held = text.len() <= StoredResult::INLINE;
        Arc::new(Self { bytes: text.len() as u64, sha256: [7; 32], text: held.then(|| text.into()) })
    }
}

/// A result, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResult {
    /// What it is.
    pub output: Arc<Output>,
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
    /// When the next attempt begins, in phase `Retrying`. In a box, as few jobs wait for one.
    pub retry_at: Option<Box<Timestamp>>,
    /// The worker that holds or last held the attempt.
    pub worker: Option<Box<Holder>>,
    /// When the first message was published.
    pub queued_at: Option<Timestamp>,
    /// When the attempt in hand, or the last one, was released under the limits of the pool. In a box, as few pools have
    /// limits.
    pub released_at: Option<Box<Timestamp>>,
    /// When the job ended, and what follows from that. In a box, as the jobs in memory have not ended.
    pub end: Option<Box<End>>,
    /// The result, once.
    pub result: Option<Box<StoredResult>>,
    /// The last error.
    pub error: Option<Box<TaskError>>,
    /// How far the running attempt is.
    pub progress: Option<Box<Progress>>,
    /// What its runs have said of themselves. In a box, as few jobs that wait have had one.
    pub account: Option<Box<JobAccount>>,
    /// UID of the job that stands for the key of `dedup`: this one, or the one that it is attached to.
    pub stands: Option<Box<Uuid>>,
    /// Queue in use.
    pub queue: Option<Arc<str>>,
    /// Whether spans of the job are sent; its UID is the trace id.
    pub is_traced: bool,
    /// What the first attempt ran; later attempts run the same or nothing.
    pub spec_hash: Option<SpecHash>,
    /// What is remarkable. In a box, as it is of few jobs.
    pub remarks: Option<Box<Remarks>>,
    /// What is refused that the job needs.
    pub refused: Option<Box<Refusal>>,
}

/// What is remarkable of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remarks {
    /// When a payload that was changed after the first attempt was noticed.
    pub spec_changed: Option<Timestamp>,
    /// Since when it is known that a cancel cannot be carried out, and why.
    pub cancel_unsupported: Option<(Timestamp, Unstopped)>,
}

/// When a job ended, and what follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// When it ended.
    pub at: Timestamp,
    /// When the job may be deleted.
    pub expires_at: Option<Timestamp>,
    /// When a result arrived after the end.
    pub late_result: Option<Timestamp>,
}

impl End {
    /// An end at this time, of a job that is kept.
    pub fn new(at: Timestamp) -> Self {
        Self { at, expires_at: None, late_result: None }
    }
}

impl Status {
    /// When the job ended.
    pub fn finished_at(&self) -> Option<Timestamp> {
        self.end.as_ref().map(|end| end.at)
    }

    /// Whether anything of what a run says of itself is new.
    pub fn is_news(&self, account: &Account) -> bool {
        match self.account.as_deref() {
            Some(known) => known.is_news(account),
            None => !account.is_empty(),
        }
    }

    /// Takes what a run says of itself.
    pub fn hear(&mut self, account: &Account, now: Timestamp) {
        if !account.is_empty() {
            self.account.get_or_insert_default().hear(account, now);
        }
    }

    /// What all runs have consumed.
    pub fn spent(&self) -> Option<&Spent> {
        self.account.as_deref().map(|account| &account.spent).filter(|spent| **spent != Spent::default())
    }

    /// What became of the job's state.
    pub fn state(&self) -> Option<&SavedState> {
        self.account.as_deref()?.state.as_ref()
    }

    /// What is remarkable.
    pub fn remarks(&self) -> Remarks {
        self.remarks.as_deref().copied().unwrap_or_default()
    }

    /// Changes what is remarkable.
    #[must_use]
    pub fn remarked(mut self, change: impl FnOnce(&mut Remarks)) -> Self {
        let mut remarks = self.remarks();
        change(&mut remarks);
        self.remarks = (remarks != Remarks::default()).then(|| Box::new(remarks));
        self
    }

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
            Why::OnHold(hold) => hold.to_string(),
            Why::Released => "released under the limits of its pool; it is put on its queue next".to_owned(),
            Why::Enqueued => "waiting on Redis for a worker".to_owned(),
            Why::Blocked { pool, blocked } => {
                format!("waiting on Redis; the workers of CrewWorkerPool {pool:?} do not start: {}", blocked.detail)
            }
            Why::Started => "a worker runs the task".to_owned(),
            Why::RetryScheduled => format!("attempt failed ({}), the next one waits for its backoff", error()),
            Why::WorkerLost => "the worker died and the message was published again".to_owned(),
            Why::MessageLost => "the message was lost on the broker and was published again".to_owned(),
            Why::Succeeded => format!("the task returned a result{}", self.only_on_redis()),
            Why::FinishedBeforeCancel => {
                format!("the task returned a result before it could be cancelled{}", self.only_on_redis())
            }
            Why::Cancelled => "cancelled as spec.cancel asks".to_owned(),
            Why::AlreadyRan { key, ran } => format!(
                "not run: CrewJob {:?} (UID {}) has run under the run-once key {key:?} and {} at {:.0}. To run it again, \
                 create a job with another key",
                ran.job,
                ran.uid,
                if ran.succeeded { "succeeded" } else { "failed" },
                ran.at
            ),
            Why::Attached { key, to } => {
                format!("ended as CrewJob {to:?}, which has the same dedup key {key:?}; not run itself")
            }
            Why::Duplicate { key, of } => format!(
                "not run: CrewJob {of:?} has the same dedup key {key:?} and was created within the window of it. To run it, \
                 create a job with another key, or delete that one first"
            ),
            Why::GaveUp(why) => match why {
                GaveUp::InvalidSpec => error(),
                GaveUp::RetriesExhausted => format!("all {} runs failed, the last with {}", self.attempts, error()),
                GaveUp::NonRetryableError => {
                    format!("not retried, as retryPolicy.nonRetryable or the task itself asks: {}", error())
                }
                GaveUp::WorkerLost => format!("{} workers died under the job", self.worker_losses),
                GaveUp::MessageLost => "the message was lost on the broker again and again".to_owned(),
                GaveUp::NoResult => format!("the worker gave no usable result: {}", error()),
                GaveUp::ResultNotEncodable => format!(
                    "the run ended, and its worker could not encode what it returned, so that it is not run again; return \
                     what the worker's result_serializer can encode, as text, numbers, lists and dicts: {}",
                    error()
                ),
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

    /// Where the result is and for how long, if only Redis has it.
    fn only_on_redis(&self) -> String {
        match self.result.as_deref() {
            Some(StoredResult { output, kept: Kept::Redis { key, until } }) => {
                format!("; its {} bytes are on Redis only, in {key} until {until:.0}", output.bytes)
            }
            Some(StoredResult { kept: Kept::Inline | Kept::ConfigMap | Kept::Elsewhere(_), .. }) | None => {
                String::new()
            }
        }
    }

    /// The same without what an API server could refuse because of its content: what workers and tasks say of
    /// themselves.
    #[must_use]
    pub fn without_details(self) -> Self {
        let error = self.error.map(|error| Box::new(TaskError::new(&error.kind, "", None)));
        Self { worker: None, progress: None, history: Vec::new(), error, ..self }
    }

    /// Appends to the history and drops the oldest beyond its bound.
    pub fn remember(&mut self, past: PastAttempt) {
        if let Some(account) = &past.account {
            self.hear(account, past.finished_at);
        }
        self.history.push(past);
        let surplus = self.history.len().saturating_sub(Self::HISTORY);
        self.history.drain(..surplus);
    }
}
