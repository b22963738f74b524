//! What Celery publishes while it works, as far as it concerns our tasks.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::core::claims;
use crate::core::id::TaskId;
use crate::wire::Event;
use crate::wire::event::Detail;

/// Something happened on a pool's Redis. Every notice is a hint: the levels are read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A result document was stored.
    Result {
        /// Whose.
        task: TaskId,
        /// The document's bytes; `None` where there are more than [`Notice::DOCUMENT`]: read it.
        document: Option<Vec<u8>>,
    },
    /// A worker says something about a task.
    Task(TaskEvent),
    /// A worker says something about itself.
    Worker(WorkerEvent),
    /// Listening, from now on. What happened before was missed: read the levels.
    Connected,
    /// Not listening for a while, with the reason. Only said once until the next `Connected`.
    Disconnected(String),
    /// The reader was too slow and notices were dropped: read the levels.
    Lagged,
}

impl Notice {
    /// Longest document that comes with its notice, in bytes: one whose result the status holds.
    pub const DOCUMENT: usize = 8 << 10;

    /// What it takes in memory.
    pub(super) fn size(&self) -> usize {
        let more = match self {
            Self::Result { document, .. } => document.as_ref().map_or(0, Vec::capacity),
            Self::Task(event) => event.node.len(),
            Self::Worker(event) => event.node.len(),
            Self::Disconnected(reason) => reason.len(),
            Self::Connected | Self::Lagged => 0,
        };
        size_of::<Self>() + more
    }
}

/// What a worker says about one of our tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEvent {
    /// Which task.
    pub task: TaskId,
    /// What happened to it.
    pub stage: Stage,
    /// The worker's node name.
    pub node: Arc<str>,
    /// Celery's own retries before this run; said on receipt only.
    pub retries: Option<u32>,
    /// When, by the worker's clock.
    pub at: Option<Timestamp>,
}

/// What happened to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The worker has taken the message.
    Received,
    /// The run has begun.
    Started,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// Celery will run it again by itself.
    Retried,
    /// It was revoked, before it began or while it ran.
    Revoked {
        /// While it ran.
        terminated: bool,
    },
    /// The worker gave it back or threw it away.
    Rejected {
        /// Gave it back.
        requeued: bool,
    },
}

/// What a worker says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerEvent {
    /// Node name.
    pub node: Arc<str>,
    /// What.
    pub state: WorkerState,
    /// When, by the worker's clock.
    pub at: Option<Timestamp>,
}

/// What a worker says about its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkerState {
    /// It has started.
    Online,
    /// It is there.
    Heartbeat {
        /// Tasks that run.
        active: u32,
    },
    /// It takes no more messages and says nothing more. A stock worker still finishes what it runs.
    Offline,
}

/// Reads what was published on an event channel: one event or a batch. Foreign tasks and unknown events are left out.
pub(super) fn events(payload: &[u8]) -> Vec<Notice> {
    Event::decode(payload).unwrap_or_default().into_iter().filter_map(notice).collect()
}

fn notice(event: Event) -> Option<Notice> {
    let node = claims::node_name(&event.hostname?)?;
    let at = event.timestamp.and_then(|seconds| moment(seconds.as_f64()));
    let worker = |state| Some(Notice::Worker(WorkerEvent { node: node.clone(), state, at }));
    let mut retries = None;
    let (task, stage) = match event.detail {
        Detail::WorkerOnline(_) => return worker(WorkerState::Online),
        Detail::WorkerHeartbeat(status) => {
            let active = status.active.and_then(|active| active.try_into().ok()).unwrap_or(0);
            return worker(WorkerState::Heartbeat { active });
        }
        Detail::WorkerOffline(_) => return worker(WorkerState::Offline),
        Detail::TaskReceived { uuid, task } => {
            retries = task.retries.and_then(|retries| retries.try_into().ok());
            (uuid, Stage::Received)
        }
        Detail::TaskStarted { uuid } => (uuid, Stage::Started),
        Detail::TaskSucceeded { uuid, .. } => (uuid, Stage::Succeeded),
        Detail::TaskFailed { uuid, .. } => (uuid, Stage::Failed),
        Detail::TaskRetried { uuid, .. } => (uuid, Stage::Retried),
        Detail::TaskRevoked { uuid, terminated, .. } => {
            (uuid, Stage::Revoked { terminated: terminated.unwrap_or(false) })
        }
        Detail::TaskRejected { uuid, requeue } => (uuid, Stage::Rejected { requeued: requeue.unwrap_or(false) }),
        Detail::TaskSent { .. } | Detail::Other { .. } => return None,
    };
    Some(Notice::Task(TaskEvent { task: TaskId::parse(&task)?, stage, node, retries, at }))
}

/// Seconds since the epoch as a time; `None` where there is no such time.
pub(super) fn moment(seconds: f64) -> Option<Timestamp> {
    Timestamp::from_duration(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
}
