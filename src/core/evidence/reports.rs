//! What is said of an attempt: by Redis, by its worker, and by Kubernetes of that worker's container.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::super::claims;
use super::super::id::{Priority, SpecHash};
use super::super::observed::{Besides, Ending};
use super::super::status::{Account, Holder, Progress};

/// What Redis says of one attempt at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// Its marker, when there is one.
    pub marker: Option<Mark>,
    /// Where its message is.
    pub place: Place,
    /// Which copies there are besides; `None` where only the message was looked up that the marker names.
    pub besides: Option<Besides>,
    /// Its result document, when there is one that says anything.
    pub document: Option<Document>,
}

/// The marker of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// How often the message has been published again.
    pub generation: u32,
    /// Whether we have taken it off its queue.
    pub withdrawn: bool,
    /// When the attempt was first published.
    pub at: Timestamp,
    /// Digest of what was published.
    pub spec: Option<SpecHash>,
    /// The priority whose band it was published in, or moved to.
    pub priority: Priority,
}

/// Where the message of an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a queue list.
    Queued {
        /// Generation of the message.
        generation: u32,
    },
    /// Taken by a worker and not acknowledged.
    InFlight {
        /// Generation of the message.
        generation: u32,
        /// When it was taken, by the clock of the worker that took it.
        received_at: Option<Timestamp>,
    },
    /// Not the delivery of the operator: a copy that Celery's own retry, what the task replaced itself by, or a person
    /// has published under its id waits in a queue.
    CopyQueued,
    /// Such a copy was taken by a worker and not acknowledged.
    CopyInFlight {
        /// Its delivery tag, where that is known and is one that kombu makes.
        tag: Option<Uuid>,
        /// When it was taken, by the clock of the worker that took it.
        received_at: Option<Timestamp>,
    },
    /// There is no message of it, but of tasks that follow from it: it has replaced itself by these.
    GoesOn,
    /// None of these.
    Nowhere,
}

impl Place {
    /// Whether it waits in a queue.
    pub fn is_queued(self) -> bool {
        matches!(self, Self::Queued { .. } | Self::CopyQueued)
    }

    /// Whether a worker has taken it.
    pub fn is_in_flight(self) -> bool {
        matches!(self, Self::InFlight { .. } | Self::CopyInFlight { .. })
    }

    /// When it was taken, by the clock of the worker that took it.
    pub fn received_at(self) -> Option<Timestamp> {
        match self {
            Self::InFlight { received_at, .. } | Self::CopyInFlight { received_at, .. } => received_at,
            Self::Queued { .. } | Self::CopyQueued | Self::GoesOn | Self::Nowhere => None,
        }
    }

    /// The same copy, now taken by a worker.
    pub(super) fn taken(self, generation: u32) -> Self {
        match self {
            Self::InFlight { .. } | Self::CopyInFlight { .. } => self,
            Self::CopyQueued | Self::GoesOn => Self::CopyInFlight { tag: None, received_at: None },
            Self::Queued { .. } | Self::Nowhere => Self::InFlight { generation, received_at: None },
        }
    }

    /// Whether a run that was seen before is not one of what is here now: of a copy that is another one than the one
    /// that was here before, as far as that is known.
    pub(super) fn is_of_another_run(self, before: Option<Self>) -> bool {
        match (self, before) {
            (Self::Queued { .. } | Self::InFlight { .. } | Self::Nowhere, _) => false,
            (Self::CopyInFlight { tag, .. }, Some(Self::CopyInFlight { tag: before, .. })) => {
                before.is_some() && before != tag
            }
            (Self::CopyQueued | Self::GoesOn | Self::CopyInFlight { .. }, _) => true,
        }
    }
}

/// What a result document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// The run goes on: `STARTED`, `PROGRESS`, `RETRY`.
    Running(Report),
    /// It is over.
    Over {
        /// Which way.
        how: Ending,
        /// The worker that wrote it.
        worker: Option<Holder>,
        /// Retries that Celery itself had made under this task id.
        celery_retries: u32,
        /// When the document says that it ended.
        finished_at: Option<Timestamp>,
        /// What the run said of itself.
        account: Option<Box<Account>>,
    },
}

impl Document {
    /// Bytes of the result that it holds.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Running(_) => 0,
            Self::Over { how, .. } => how.text_bytes(),
        }
    }

    /// Leaves the result on Redis.
    pub fn drop_text(&mut self) {
        match self {
            Self::Running(_) => {}
            Self::Over { how, .. } => how.drop_text(),
        }
    }
}

/// What a worker says of a task that it has: in a result document, in an event, or when asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The worker that says so; `None` where the document does not tell.
    pub holder: Option<Holder>,
    /// When it was said, or heard where that is not told; by the operator's clock.
    pub said_at: Timestamp,
    /// How far the worker's clock is behind the operator's, in milliseconds. Its Node's kubelet goes by the same clock.
    pub behind: i64,
    /// When the run began; `None` for a message that is only taken.
    pub started_at: Option<Timestamp>,
    /// Retries that Celery itself has made under this task id.
    pub celery_retries: u32,
    /// How far the run says it is.
    pub progress: Option<Progress>,
    /// What else it says of itself.
    pub account: Option<Box<Account>>,
}

/// A worker that was seen with the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Generation of the delivery that it is about.
    pub generation: u32,
    /// What was said.
    pub report: Report,
}

/// The last run of a worker's container, as Kubernetes tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRun {
    /// When it started.
    pub started_at: Timestamp,
    /// When it terminated, if it did.
    pub finished_at: Option<Timestamp>,
}

impl LastRun {
    /// Whether the container that was seen then is surely dead: another one has started since, or this one has
    /// terminated since. A Pod that is between two containers proves nothing about what was seen after the first one's
    /// end. Kubernetes counts whole seconds, and no container is started again within one.
    ///
    /// `is_it` says that this is the very container that was seen. That one has not started since, whatever a clock
    /// says that is not known yet.
    pub fn is_over_since(&self, seen_at: Timestamp, is_it: bool) -> bool {
        let seen_at = seen_at.as_second();
        !is_it && self.started_at.as_second() > seen_at || self.finished_at.is_some_and(|at| at.as_second() >= seen_at)
    }
}

impl Report {
    /// Whether it is of a task that Celery is to run again: a message under the same id was published for that.
    pub fn is_of_retry(&self) -> bool {
        self.holder.is_none() && self.started_at.is_none() && self.celery_retries > 0
    }

    /// When it was said, by the clock of the worker's Node: what Kubernetes tells of its container goes by that.
    pub fn said_at_its_node(&self) -> Timestamp {
        claims::clocks::shifted(self.said_at, self.behind.saturating_neg())
    }

    pub(super) fn node(&self) -> Option<&Arc<str>> {
        self.holder.as_ref().map(|holder| &holder.node)
    }

    /// Whether both are about the same run by the same worker, as far as they tell.
    pub(super) fn same_run_as(&self, other: &Self) -> bool {
        let is_same = match (&self.holder, &other.holder) {
            (Some(one), Some(other)) => {
                let containers = one.container.as_ref().zip(other.container.as_ref());
                one.node == other.node && containers.is_none_or(|(one, other)| one.id == other.id)
            }
            _ => true,
        };
        is_same && other.celery_retries <= self.celery_retries
    }
}

/// What is new, completed by what the same worker said before.
pub fn merge(before: Option<Report>, now: Report) -> Report {
    let Some(before) = before else { return now };
    let celery_retries = before.celery_retries.max(now.celery_retries);
    if !before.same_run_as(&now) {
        return Report { celery_retries, ..now };
    }
    // A Pod that is leaving the API is not found any more when its worker speaks once more.
    let names_container = |report: &Report| report.holder.as_ref().is_some_and(|holder| holder.container.is_some());
    let is_known_better = names_container(&before) && !names_container(&now);
    Report {
        holder: if is_known_better { before.holder } else { now.holder.or(before.holder) },
        said_at: now.said_at.max(before.said_at),
        behind: now.behind,
        started_at: before.started_at.or(now.started_at),
        celery_retries,
        progress: now.progress.or(before.progress),
        account: now.account.or(before.account),
    }
}
