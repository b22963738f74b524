//! What is to be done about a job: effects as values, the status to record, and when to look again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::id::{AttemptId, Priority, SpecHash, TaskId};
use super::status::{Container, Output, Status};

/// One act on the outside world. It leaves nothing to choose and is safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Publish the message of an attempt, unless its marker says that this was done.
    Enqueue(Publication),
    /// Publish it again under a higher generation, if what it replaces is still just so and no result document says that
    /// the attempt is over. A document of an unfinished run goes: it would be taken for the new generation's.
    Requeue {
        /// What is given up.
        in_place_of: InPlaceOf,
        /// What to publish.
        message: Publication,
        /// Whether a failure document of the lost run must go.
        clear_result: bool,
    },
    /// Take the message off its queue.
    Withdraw(AttemptId),
    /// Redis went back to an older delivery of an attempt that is not to be published any more: give that delivery up, and
    /// have the marker say that the recorded one is withdrawn.
    Retire {
        /// What is given up.
        in_place_of: InPlaceOf,
        /// The delivery that is recorded.
        id: AttemptId,
    },
    /// Take a copy of the message out of what is in flight: no worker has it, and the attempt is alive without it or over.
    Drop {
        /// The delivery in the marker.
        id: AttemptId,
        /// The tag of a copy that no operator has published; `None` for that delivery itself.
        copy: Option<Uuid>,
    },
    /// Move a queued message to the band of another priority.
    Move {
        /// Which message.
        id: AttemptId,
        /// Where to.
        priority: Priority,
        /// The queue that it was published on; its bands are lists of their own.
        queue: Arc<str>,
    },
    /// Ask the workers to stop the task.
    Revoke(TaskId),
    /// Delete the Pod of a worker that cannot be asked, at once: nothing that it runs is to go on.
    DeletePod(Container),
    /// Keep a result that is too large for the status in a ConfigMap owned by the job.
    StoreResult(Arc<Output>),
    /// Take this run-once key for the job, or find out which job has it. What is found decides what comes next.
    ClaimKey(Arc<str>),
    /// List all jobs with the key of `dedup`. What is found decides what comes next.
    ListTwins,
    /// Cancel another job, in whose place this one is to run.
    CancelTwin {
        /// Its name.
        job: Arc<str>,
        /// Its UID: another job may have its name by now.
        uid: Uuid,
    },
    /// Ask for a permit under the limits of the pool. Whether it was given decides what comes next.
    AskForPermit,
    /// Remember, under the job's run-once key, that it has run and how it ended.
    RememberRun {
        /// The key.
        key: Arc<str>,
        /// Whether it succeeded; else it failed.
        succeeded: bool,
        /// When it ended.
        at: Timestamp,
        /// When that may be forgotten.
        until: Timestamp,
    },
    /// Ask Redis to keep the result for so long.
    ExtendResult {
        /// Whose result.
        task: TaskId,
        /// How long from now.
        ttl: Duration,
    },
    /// The attempt is over and recorded: delete its marker and what is left of its message in flight, which Kombu would
    /// otherwise restore after the visibility timeout.
    Forget(TaskId),
    /// The attempt was stopped, and is recorded: take every copy of its message off the queues, also those that Kombu has
    /// restored, and then forget it.
    Clear(TaskId),
}

impl Effect {
    /// What it publishes, if it does.
    pub fn publication(&self) -> Option<&Publication> {
        match self {
            Self::Enqueue(message) | Self::Requeue { message, .. } => Some(message),
            Self::Withdraw(_)
            | Self::Retire { .. }
            | Self::Drop { .. }
            | Self::Move { .. }
            | Self::Revoke(_)
            | Self::DeletePod(_)
            | Self::StoreResult(_)
            | Self::ClaimKey(_)
            | Self::AskForPermit
            | Self::ListTwins
            | Self::CancelTwin { .. }
            | Self::RememberRun { .. }
            | Self::ExtendResult { .. }
            | Self::Forget(_)
            | Self::Clear(_) => None,
        }
    }
}

/// What a requeued message replaces. The script publishes only when it still finds just that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InPlaceOf {
    /// There is no marker: Redis was emptied.
    Nothing,
    /// The message of this generation, in flight with a dead worker.
    InFlight(u32),
    /// The message of this generation, which is not in flight: lost, withdrawn, or acknowledged early.
    Nowhere(u32),
    /// The message of this generation, whose run a failure document has ended, acknowledged or not.
    Ended(u32),
    /// A copy that no operator has published, in flight with a dead worker. Its own bytes are published again: a retry may
    /// have other arguments than its task was first called with.
    Copy(u32, Uuid),
}

impl InPlaceOf {
    /// Generation that is given up, where the marker tells.
    pub fn generation(self) -> Option<u32> {
        match self {
            Self::Nothing => None,
            Self::InFlight(generation)
            | Self::Nowhere(generation)
            | Self::Ended(generation)
            | Self::Copy(generation, _) => Some(generation),
        }
    }
}

impl fmt::Display for InPlaceOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::InFlight(generation) => write!(f, "#{generation} in flight"),
            Self::Nowhere(generation) => write!(f, "#{generation} nowhere"),
            Self::Ended(generation) => write!(f, "#{generation} ended"),
            Self::Copy(generation, _) => write!(f, "a copy of #{generation} in flight"),
        }
    }
}

/// What to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Attempt and generation.
    pub id: AttemptId,
    /// Queue.
    pub queue: Arc<str>,
    /// Urgency.
    pub priority: Priority,
    /// Hard and soft time limit.
    pub limits: (Duration, Duration),
    /// Whether it begins with the state that the last attempt left.
    pub resumes: bool,
    /// Digest of the payload.
    pub spec_hash: SpecHash,
    /// Not the job's first message: read the job live before publishing, and drop the plan when it is not as it was.
    pub again: bool,
}

/// A Kubernetes Event to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Warning or normal.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: Arc<str>,
    /// One sentence.
    pub message: Arc<str>,
}

/// When to look at the job again without being told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Only a hint can change anything.
    OnHint,
    /// At this time at the latest.
    At(Timestamp),
    /// Never: the job has ended.
    Never,
}

/// What is to be done: first the effects, in order, then the status, then what must wait for the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Acts, in order, before the status is written.
    pub effects: Vec<Effect>,
    /// The status to record; nothing is written when it equals the recorded one.
    pub status: Status,
    /// Acts after the status has been written.
    pub afterwards: Vec<Effect>,
    /// Events that go with the status: written when it is, and not again.
    pub notices: Vec<Notice>,
    /// When to look again.
    pub next: Next,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enqueue(message) => write!(f, "enqueue {message}"),
            Self::Requeue { in_place_of, message, clear_result } => {
                let clear = if *clear_result { "clear the result, " } else { "" };
                write!(f, "{clear}requeue in place of {in_place_of}: {message}")
            }
            Self::Withdraw(id) => write!(f, "withdraw attempt {}#{}", id.number, id.generation),
            Self::Retire { in_place_of, id } => {
                write!(f, "retire attempt {}#{} in place of {in_place_of}", id.number, id.generation)
            }
            Self::Drop { id, copy } => {
                let whose = if copy.is_some() { "a copy of " } else { "" };
                write!(f, "drop {whose}attempt {}#{}", id.number, id.generation)
            }
            Self::Move { id, priority, queue } => {
                write!(f, "move attempt {}#{} to priority {} of {queue}", id.number, id.generation, priority.get())
            }
            Self::Revoke(_) => f.write_str("revoke"),
            Self::DeletePod(container) => write!(f, "delete Pod {}", container.pod),
            Self::StoreResult(output) => write!(f, "store {} bytes in a ConfigMap", output.bytes),
            Self::ClaimKey(key) => write!(f, "claim the run-once key {key:?}"),
            Self::AskForPermit => f.write_str("ask for a permit"),
            Self::ListTwins => f.write_str("list the jobs with its dedup key"),
            Self::CancelTwin { job, .. } => write!(f, "cancel CrewJob {job:?}"),
            Self::RememberRun { key, until, .. } => {
                write!(f, "remember the run under the run-once key {key:?} until {until}")
            }
            Self::ExtendResult { ttl, .. } => write!(f, "keep the result in Redis for {} s", ttl.as_secs()),
            Self::Forget(_) => f.write_str("forget"),
            Self::Clear(_) => f.write_str("clear"),
        }
    }
}

impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, queue, priority, limits: _, resumes: _, spec_hash: _, again: _ } = self;
        write!(f, "attempt {}#{} on {queue} at priority {}", id.number, id.generation, priority.get())
    }
}

/// The plan in words: effects, the recorded phase with its reason, what follows, and when to look again.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for effect in &self.effects {
            write!(f, "{effect}; ")?;
        }
        write!(f, "{:?} ({}), attempts {}", self.status.phase, self.status.why.reason(), self.status.attempts)?;
        for effect in &self.afterwards {
            write!(f, "; then {effect}")?;
        }
        for notice in &self.notices {
            write!(f, "; {} {}", if notice.warning { "warn" } else { "say" }, notice.reason)?;
        }
        match self.next {
            Next::OnHint => f.write_str("; wait for a hint"),
            Next::At(at) => write!(f, "; look again at {at}"),
            Next::Never => Ok(()),
        }
    }
}
