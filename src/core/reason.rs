//! Why a job stands where it does: the closed list of reasons.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::dedup::{ATTACHED, REPLACING};
use super::limits::{LIMIT_REACHED, RELEASED, Wait};
use super::once::Ran;
use super::setup::{FaultKind, Futile};
use super::start::{Blocked, BlockedKind};

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
    /// The pool was deleted after the job was published: what is on its Redis is not followed any more.
    PoolDeleted {
        /// The pool.
        pool: Arc<str>,
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
    /// A worker of the pool would store the result where, or as, it cannot be read.
    Futile {
        /// The pool.
        pool: Arc<str>,
        /// What is wrong with the worker.
        futile: Arc<Futile>,
    },
    /// `spec.suspend` is true.
    Suspended,
    /// Another job has the run-once key and has not ended.
    KeyHeld {
        /// The key.
        key: Arc<str>,
        /// The job that has it.
        by: Arc<str>,
    },
    /// A limit of the pool is reached.
    LimitReached(Box<Wait>),
    /// Another job stands for its key, and it ends as that one does.
    Attached {
        /// The key.
        key: Arc<str>,
        /// The job that stands for it.
        to: Arc<str>,
    },
    /// Another job with its key is cancelled, and is to end first.
    Replacing {
        /// The key.
        key: Arc<str>,
        /// The job that is cancelled.
        job: Arc<str>,
    },
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
    /// The server answers and cannot be used: it is too old, or a Redis Cluster.
    BrokerUnsupported,
    /// Redis refused the user name or the password.
    BrokerAuthenticationFailed,
    /// Redis understood and said no: a missing permission, no memory, a read-only replica.
    BrokerRefused,
    /// The fence on Redis is of no term of this operator, which leads: another client of that Redis wrote it.
    FenceNotOurs,
}

impl PoolProblemKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Connecting,
        Self::NamespaceNotGranted,
        Self::SecretNotFound,
        Self::SecretNotLabelled,
        Self::SecretInvalid,
        Self::BrokerUnreachable,
        Self::BrokerUnsupported,
        Self::BrokerAuthenticationFailed,
        Self::BrokerRefused,
        Self::FenceNotOurs,
    ];

    /// The kind with this name.
    pub fn named(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.reason() == reason)
    }

    /// CamelCase name, as in a condition's `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Connecting => "Connecting",
            Self::NamespaceNotGranted => "NamespaceNotGranted",
            Self::SecretNotFound => "SecretNotFound",
            Self::SecretNotLabelled => "SecretNotLabelled",
            Self::SecretInvalid => "SecretInvalid",
            Self::BrokerUnreachable => "BrokerUnreachable",
            Self::BrokerUnsupported => "BrokerUnsupported",
            Self::BrokerAuthenticationFailed => "BrokerAuthenticationFailed",
            Self::BrokerRefused => "BrokerRefused",
            Self::FenceNotOurs => "FenceNotOurs",
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
    /// The run ended, and its worker could not encode what it returned.
    ResultNotEncodable,
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

impl GaveUp {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::InvalidSpec,
        Self::RetriesExhausted,
        Self::NonRetryableError,
        Self::WorkerLost,
        Self::MessageLost,
        Self::NoResult,
        Self::ResultNotEncodable,
        Self::ResultExpired,
        Self::DeadlineExceeded,
        Self::QueueTimeout,
        Self::SpecChanged,
        Self::Revoked,
    ];

    /// CamelCase name, as in a condition's `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::InvalidSpec => "InvalidSpec",
            Self::RetriesExhausted => "RetriesExhausted",
            Self::NonRetryableError => "NonRetryableError",
            Self::WorkerLost => "WorkerLost",
            Self::MessageLost => "MessageLost",
            Self::NoResult => "NoResult",
            Self::ResultNotEncodable => "ResultNotEncodable",
            Self::ResultExpired => "ResultExpired",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::QueueTimeout => "QueueTimeout",
            Self::SpecChanged => "SpecChanged",
            Self::Revoked => "Revoked",
        }
    }
}

/// Why the phase is what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Why {
    /// Nothing has been looked at yet.
    #[default]
    Unseen,
    /// It may not run yet, or not be followed.
    OnHold(Hold),
    /// Allowed by the limits of its pool, and about to be published.
    Released,
    /// On Redis.
    Enqueued,
    /// On Redis, and the workers of its pool do not start.
    Blocked {
        /// The pool.
        pool: Arc<str>,
        /// What keeps them from it.
        blocked: Blocked,
    },
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
    /// Not run, because a job with the same run-once key has. It ends as that one did.
    AlreadyRan {
        /// The key.
        key: Arc<str>,
        /// The job that has run.
        ran: Box<Ran>,
    },
    /// Not run, and ended as the job did that it is attached to.
    Attached {
        /// The key that both have.
        key: Arc<str>,
        /// That job.
        to: Arc<str>,
    },
    /// Not run, because another job with its key was created within the window.
    Duplicate {
        /// The key.
        key: Arc<str>,
        /// The other job.
        of: Arc<str>,
    },
    /// As an earlier operator recorded it.
    Recorded {
        /// CamelCase reason.
        reason: Arc<str>,
        /// One sentence.
        message: Arc<str>,
    },
}

/// Something that the job needs and that Redis or the API server refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the closed list.
    pub kind: RefusalKind,
    /// For people: what is refused and how to mend it. Never holds a secret.
    pub detail: Arc<str>,
    /// When this text was recorded.
    pub told_at: Timestamp,
}

/// The closed list of what may be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// A command, by Redis: no memory, no permission, a read-only replica.
    Broker,
    /// The ConfigMap of a result, by the API server.
    Result,
    /// The same, because its name belongs to something else.
    ConfigMapTaken,
    /// What workers say of themselves, as a part of the status, by the API server.
    Status,
    /// The deletion of a worker's Pod, by the API server.
    PodDeletion,
    /// The ConfigMap that remembers a run-once key, by the API server, or its name belongs to something else.
    RunOnce,
}

impl RefusalKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Broker, Self::Result, Self::ConfigMapTaken, Self::Status, Self::PodDeletion, Self::RunOnce];

    /// The kind with this name.
    pub fn named(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.reason() == reason)
    }

    /// CamelCase name, as in a condition's `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Broker => "BrokerRefused",
            Self::Result => "ResultRefused",
            Self::ConfigMapTaken => "ConfigMapTaken",
            Self::Status => "StatusRefused",
            Self::PodDeletion => "PodDeletionRefused",
            Self::RunOnce => "RunOnceRefused",
        }
    }
}

/// Why a run or a message of a cancelled job may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unstopped {
    /// Its worker does not take orders, and its Pod cannot be deleted.
    WorkerDeaf,
    /// Its pool was deleted, and with it the way to its Redis.
    PoolDeleted,
}

impl Unstopped {
    /// CamelCase name, as in a condition's `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::WorkerDeaf => "WorkerDeaf",
            Self::PoolDeleted => "PoolNotFound",
        }
    }

    /// One sentence for people.
    pub fn message(self) -> &'static str {
        match self {
            Self::WorkerDeaf => "the worker does not hear a revoke and shares its Pod with other tasks",
            Self::PoolDeleted => {
                "the job's pool does not exist, so its message or run was not stopped; that is done when the pool is back on \
                 the same Redis"
            }
        }
    }
}

impl Why {
    /// Whether it says that the workers of the job's pool do not start.
    pub fn is_of_blocked_workers(&self) -> bool {
        BlockedKind::named(self.reason()).is_some()
    }

    /// Whether it says that the job has a permit, and nothing of its message.
    pub fn is_released(&self) -> bool {
        self.reason() == RELEASED
    }

    /// Whether it says that a run would be in vain.
    pub fn is_futile(&self) -> bool {
        FaultKind::named(self.reason()).is_some()
    }

    /// Whether it says that the job's pool was deleted while the job was out.
    pub fn is_of_deleted_pool(&self) -> bool {
        match self {
            Self::OnHold(Hold::PoolDeleted { .. }) => true,
            Self::Recorded { reason, .. } => &**reason == "PoolNotFound",
            Self::Unseen
            | Self::OnHold(
                Hold::PoolNotFound { .. }
                | Hold::QueueNotInPool { .. }
                | Hold::TaskNotAllowed { .. }
                | Hold::PoolNotReady { .. }
                | Hold::Futile { .. }
                | Hold::Suspended
                | Hold::KeyHeld { .. }
                | Hold::LimitReached(_)
                | Hold::Attached { .. }
                | Hold::Replacing { .. },
            )
            | Self::Released
            | Self::Enqueued
            | Self::Blocked { .. }
            | Self::Started
            | Self::RetryScheduled
            | Self::WorkerLost
            | Self::MessageLost
            | Self::Succeeded
            | Self::FinishedBeforeCancel
            | Self::GaveUp(_)
            | Self::Cancelled
            | Self::Attached { .. }
            | Self::Duplicate { .. }
            | Self::AlreadyRan { .. } => false,
        }
    }

    /// CamelCase name, as in a condition's `reason`. The list is closed and documented with the API.
    pub fn reason(&self) -> &str {
        match self {
            Self::Recorded { reason, .. } => reason,
            Self::Unseen => "Pending",
            Self::OnHold(Hold::PoolNotFound { .. } | Hold::PoolDeleted { .. }) => "PoolNotFound",
            Self::OnHold(Hold::QueueNotInPool { .. }) => "QueueNotInPool",
            Self::OnHold(Hold::TaskNotAllowed { .. }) => "TaskNotAllowed",
            Self::OnHold(Hold::PoolNotReady { problem, .. }) => problem.kind.reason(),
            Self::OnHold(Hold::Futile { futile, .. }) => futile.kind.reason(),
            Self::OnHold(Hold::Suspended) => "Suspended",
            Self::OnHold(Hold::KeyHeld { .. }) => "RunOnceHeld",
            Self::OnHold(Hold::LimitReached(_)) => LIMIT_REACHED,
            Self::Released => RELEASED,
            Self::Enqueued => "Enqueued",
            Self::Blocked { blocked, .. } => blocked.kind.reason(),
            Self::Started => "Running",
            Self::RetryScheduled => "RetryScheduled",
            Self::WorkerLost => "WorkerLost",
            Self::MessageLost => "MessageLost",
            Self::Succeeded => "Succeeded",
            Self::FinishedBeforeCancel => "FinishedBeforeCancel",
            Self::GaveUp(why) => why.reason(),
            Self::Cancelled => "Cancelled",
            Self::AlreadyRan { .. } => "AlreadyRan",
            Self::OnHold(Hold::Attached { .. }) | Self::Attached { .. } => ATTACHED,
            Self::OnHold(Hold::Replacing { .. }) => REPLACING,
            Self::Duplicate { .. } => "Duplicate",
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
            Self::PoolDeleted { pool } => write!(
                f,
                "CrewWorkerPool {pool:?} does not exist any more, so the job is not followed; create it again on the same Redis and \
                 the job goes on. spec.cancel ends the job at once; its message or run is stopped when the pool is back"
            ),
            Self::QueueNotInPool { queue, queues } => {
                write!(f, "spec.queue {queue:?} is not one of the pool's queues: {}", queues.join(", "))
            }
            Self::TaskNotAllowed { task, allowed } => {
                write!(f, "spec.task {task:?} is not one of the pool's allowedTasks: {}", allowed.join(", "))
            }
            Self::PoolNotReady { pool, problem } => write!(f, "CrewWorkerPool {pool:?}: {}", problem.detail),
            Self::Futile { pool, futile } => write!(f, "CrewWorkerPool {pool:?}: {}", futile.detail),
            Self::Suspended => f.write_str("spec.suspend is true"),
            Self::KeyHeld { key, by } => write!(
                f,
                "CrewJob {by:?} has the run-once key {key:?} and has not ended; this job ends as that one does, and runs \
                 only if that one is cancelled or deleted"
            ),
            Self::LimitReached(wait) => wait.fmt(f),
            Self::Attached { key, to } => {
                write!(
                    f,
                    "CrewJob {to:?} has the same dedup key {key:?}; this job ends as that one does, and is not run"
                )
            }
            Self::Replacing { key, job } => write!(
                f,
                "CrewJob {job:?} has the same dedup key {key:?} and is cancelled; this job runs when that one has ended"
            ),
        }
    }
}
