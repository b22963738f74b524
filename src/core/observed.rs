//! What was seen of a job: evidence as enums, no handles.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::id::{Priority, SpecHash, TaskId};
use super::limits::{Limits, Permit};
use super::once::Claim;
use super::policy::Overrides;
use super::setup::Futile;
use super::start::Blocked;
use super::status::{Account, Holder, Output, PoolProblem, Progress, TaskError};
use super::twins::Verdict;
use super::usage::Price;

/// Everything `decide` may know besides the job itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The pool that the job names.
    pub pool: Pool,
    /// Which attempt was looked for. Evidence about another one than the one in hand is stale and decides nothing.
    pub of: TaskId,
    /// What is known of its publication.
    pub published: Published,
    /// Since when its worker is asked to stop it.
    pub stop_asked_at: Option<Timestamp>,
    /// When it was last asked to.
    pub stop_repeated_at: Option<Timestamp>,
    /// Whether the holder's Pod may be deleted to stop it.
    pub pod_deletion: PodDeletion,
    /// The attempt in hand, as its pool's Redis and workers show it.
    pub task: Task,
    /// Copies of its message that no operator has published.
    pub others: Others,
    /// Its run-once key, if it has one.
    pub claim: Claim,
    /// How it stands under the limits of its pool.
    pub permit: Permit,
    /// What other jobs with its dedup key mean for it, if it has one.
    pub twins: Verdict,
}

/// Copies of a message that no operator has published: Celery's own retry publishes the same task id anew, so does what a
/// task replaces itself by, and so may a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Others {
    /// What [`Observed::task`] tells of is such a copy.
    pub is_copy: bool,
    /// Its delivery tag, where it is in flight and the tag is one that kombu makes.
    pub tag: Option<Uuid>,
    /// Which there are besides.
    pub besides: Besides,
}

/// Which copies of a message there are besides the one that an attempt is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Besides {
    /// One waits in a queue.
    pub waits: bool,
    /// One is in flight.
    pub is_in_flight: bool,
}

impl Besides {
    /// Whether there is any.
    pub fn any(self) -> bool {
        self.waits || self.is_in_flight
    }
}

/// Whether the Pod of a worker that does not hear may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodDeletion {
    /// It runs other tasks, there is none, or it was told to go and has long to: no kubelet ends it sooner for being
    /// asked again (kubernetes/kubernetes#83916).
    #[default]
    Useless,
    /// It runs nothing that is not to be stopped.
    Fine,
    /// It is under way.
    UnderWay,
}

/// What was published as the attempt in hand. The spec may have changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// When this delivery of its message was published, where that is known.
    pub at: Option<Timestamp>,
    /// Digest of the payload, where that is known.
    pub spec: Option<SpecHash>,
    /// The priority whose band the message waits in, where that is known.
    pub priority: Option<Priority>,
}

/// A pool as the job sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pool {
    /// There is none of that name.
    Missing {
        /// The pools of the namespace, sorted.
        existing: Vec<Arc<str>>,
    },
    /// It exists and cannot be used now. Nothing is decided about tasks that are on its Redis.
    Unusable(PoolProblem),
    /// It works.
    Ready(Arc<PoolFacts>),
}

/// What a working pool says about its jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolFacts {
    /// Its queues, first is the default.
    pub queues: Vec<Arc<str>>,
    /// Task names that it runs.
    pub allowed_tasks: Vec<Arc<str>>,
    /// Policies for jobs that set none.
    pub defaults: Overrides,
    /// How long Redis keeps a result unless told otherwise.
    pub result_expires: Duration,
    /// What precedes the task id in the key of a result document.
    pub result_prefix: Arc<str>,
    /// How long the operator asks Redis to keep a result that is too large for Kubernetes.
    pub keep_large_results: Duration,
    /// Where a result is kept that is too large for a status.
    pub large_results: LargeResults,
    /// How long it is remembered that a job with a run-once key has run.
    pub remember_runs: Duration,
    /// What limits its jobs, if anything.
    pub limits: Option<Arc<Limits>>,
    /// What models cost.
    pub prices: Arc<[Price]>,
    /// What keeps all its workers from starting, once that has lasted. Its words stay as they are until it is over or
    /// another kind takes its place.
    pub blocked: Option<Blocked>,
    /// Why a run would be paid for in vain, because of how its workers are set up.
    pub futile: Option<Arc<Futile>>,
}

#[cfg(test)]
impl Default for PoolFacts {
    fn default() -> Self {
        Self {
            queues: vec!["crew_jobs".into()],
            allowed_tasks: vec!["run".into()],
            defaults: Overrides::default(),
            result_expires: Duration::from_hours(1),
            result_prefix: "celery-task-meta-".into(),
            keep_large_results: Duration::from_hours(168),
            large_results: LargeResults::ConfigMap,
            remember_runs: super::once::RETENTION,
            limits: None,
            prices: Arc::default(),
            blocked: None,
            futile: None,
        }
    }
}

/// Where a result is kept that is too large for a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LargeResults {
    /// In a ConfigMap, where it is not too large for that as well.
    ConfigMap,
    /// On Redis, for as long as any other result.
    Redis,
}

/// The attempt in hand, as Redis and the workers show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Redis has not been read for this attempt since the operator took over or reconnected.
    Unread,
    /// Neither in a queue nor in flight, and without a result.
    Absent(Search),
    /// Its message waits in a queue list.
    Queued {
        /// Generation of the message.
        generation: u32,
    },
    /// The operator has taken its message off the queue.
    Withdrawn {
        /// Generation of the message.
        generation: u32,
    },
    /// There is no message of it, but of tasks that follow from it: it has replaced itself by a chain, a group or a chord
    /// that goes on.
    GoesOn {
        /// Generation in the marker.
        generation: u32,
    },
    /// A worker has taken its message and not acknowledged it.
    Held(Held),
    /// A result document says how the run ended.
    Ended(Ended),
}

/// How thoroughly a missing message was looked for; by default not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Search {
    /// Generation in the marker of this attempt; `None` when it was never enqueued or Redis was emptied.
    pub marker: Option<u32>,
    /// Full audits in a row that did not find it, counted for the generation in the marker.
    pub audits: u32,
    /// Whether every worker that could hold it has denied it since the last audit, or there is none.
    pub denied: bool,
    /// A worker that was seen with it, and whether that worker lives.
    pub seen: Option<Held>,
    /// Audits in a row after which that very worker has answered that it does not have it.
    pub denials_by_holder: u32,
    /// Whether no operator watched for longer than results are kept, so that it may have ended unseen.
    pub may_have_expired_unread: bool,
}

/// A message with a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Generation of the message.
    pub generation: u32,
    /// When the run began; `None` while it is reserved only, or unknown.
    pub started_at: Option<Timestamp>,
    /// The worker that holds it.
    pub by: Holding,
    /// Retries that Celery itself has made under this task id.
    pub celery_retries: u32,
    /// How far the run says it is.
    pub progress: Option<Progress>,
    /// What else it says of itself.
    pub account: Option<Box<Account>>,
    /// Its task has stored a failure by itself, which must not be taken for the end of another run.
    pub has_stored_failure: bool,
}

impl Held {
    /// Whether no living worker has it.
    pub fn is_lost(&self) -> bool {
        matches!(self.by, Holding::By(_, Liveness::Dead) | Holding::NoWorker)
    }
}

/// Which worker holds a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// No worker has said so yet.
    Unattributed,
    /// Every worker that could have it has denied it or is dead.
    NoWorker,
    /// A worker, inside or outside the cluster.
    By(Holder, Liveness),
}

/// Whether a worker lives. Silence is not death: only Kubernetes declares a worker dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Its container runs, or it is outside the cluster and that cannot be known.
    Alive,
    /// Its container has terminated, its Pod object is gone, or its Node is gone or out of service.
    Dead,
    /// Its Node does not answer: it may still run.
    Unreachable,
}

impl Liveness {
    /// What it comes to in a pool that runs the tasks of unreachable workers again, or waits for them.
    #[must_use]
    pub fn in_pool(self, restarts_unreachable: bool) -> Self {
        if restarts_unreachable && self == Self::Unreachable { Self::Dead } else { self }
    }
}

/// How a run ended, by its result document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Generation in the marker of this attempt; `None` when Redis was emptied since.
    pub marker: Option<u32>,
    /// Which way.
    pub how: Ending,
    /// Celery node that wrote it.
    pub worker: Option<Holder>,
    /// Retries that Celery itself had made under this task id.
    pub celery_retries: u32,
    /// When the run began, where known.
    pub started_at: Option<Timestamp>,
    /// When the document says it ended.
    pub finished_at: Option<Timestamp>,
    /// What the run said of itself.
    pub account: Option<Box<Account>>,
}

/// A failure, and what its document says of it besides the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The error.
    pub error: TaskError,
    /// The module of the exception, where the document names one.
    pub module: Option<Arc<str>>,
    /// The worker says that another run would fail, too. Only native workers say so.
    pub is_permanent: bool,
    /// The document names an exception, as those do that Celery itself stores. One that a task has stored may as well.
    pub names_exception: bool,
}

impl Failure {
    /// Whether a policy means it by this name: `ValueError`, or with its module `openai.AuthenticationError`.
    pub fn is_named(&self, name: &str) -> bool {
        let with_module = || name.rsplit_once('.').map(|(module, kind)| (Some(module), kind));
        *self.error.kind == *name || with_module() == Some((self.module.as_deref(), &*self.error.kind))
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        Self { error, module: None, is_permanent: false, names_exception: true }
    }
}

/// Which way a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// `SUCCESS`, with the result.
    Succeeded(Arc<Output>),
    /// `FAILURE`.
    Failed(Failure),
    /// `FAILURE` with `WorkerLostError`: the worker lives, its child process died.
    ChildLost(TaskError),
    /// `REVOKED` by the worker that had it; the short form that other workers write is not evidence.
    Revoked,
    /// A document that cannot be read.
    Unreadable(Arc<str>),
}

impl Ending {
    /// Whether a worker may have stored it at the end of a run. A failure without an exception is stored by tasks alone.
    pub fn may_be_of_a_worker(&self) -> bool {
        !matches!(self, Self::Failed(Failure { names_exception: false, .. }))
    }

    /// Bytes of the result that it holds.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Succeeded(output) => output.text.as_ref().map_or(0, |text| text.len()),
            Self::Failed(_) | Self::ChildLost(_) | Self::Revoked | Self::Unreadable(_) => 0,
        }
    }

    /// Leaves the result on Redis.
    pub fn drop_text(&mut self) {
        if let Self::Succeeded(output) = self {
            *output = Arc::new(output.without_text());
        }
    }
}
