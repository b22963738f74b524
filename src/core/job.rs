//! A job as the operator holds it: what was declared and what was last recorded, a few hundred bytes.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::dedup::Dedup;
use super::id::{AttemptId, ObjectKey, Priority, SpanContext, SpecHash, TaskId};
use super::policy::Overrides;
use super::status::Status;

/// What was declared, without the payload: topic, inputs and arguments are read when an attempt is enqueued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// `metadata.generation` that these values are from.
    pub generation: i64,
    /// Name of the pool that serves the job, in the job's namespace.
    pub pool: Arc<str>,
    /// Queue to use; `None` means the pool's first.
    pub queue: Option<Arc<str>>,
    /// Celery task name.
    pub task: Arc<str>,
    /// Urgency.
    pub priority: Priority,
    /// Policies that the job sets itself; the pool's and the built-in ones fill the rest.
    pub overrides: Option<Box<Overrides>>,
    /// Do not enqueue until this is false again.
    pub suspend: bool,
    /// Stop the job for good.
    pub cancel: bool,
    /// Of all jobs of the namespace with this key one runs.
    pub run_once: Option<Arc<str>>,
    /// Of the jobs of the pool with this key that are created within a window one runs. In a box, as few have one.
    pub dedup: Option<Box<Dedup>>,
    /// Digest of what an attempt runs.
    pub hash: SpecHash,
    /// Why no worker could ever take the job, where the API server cannot tell: inputs too large or too deep.
    pub invalid: Option<Box<str>>,
}

/// One CrewJob that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID; a job deleted and created again under the same name is another job.
    pub uid: Uuid,
    /// When the object was created.
    pub created_at: Timestamp,
    /// What was declared.
    pub spec: Spec,
    /// Its labels by name, as far as they are kept.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// The span of another trace that the object names as its cause. In a box, as few name one.
    pub cause: Option<Box<SpanContext>>,
    /// What was last recorded.
    pub status: Status,
}

impl Job {
    /// The value of this label.
    pub fn label(&self, name: &str) -> Option<&Arc<str>> {
        self.labels.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// The attempt that is under way or, when none is, the one to begin next.
    ///
    /// Attempts are numbered by runs, Celery-side retries included: after a task that Celery retried twice by itself
    /// (runs 1 to 3) the next attempt is number 4, and its message says `retries: 3`.
    pub fn attempt_in_hand(&self) -> AttemptId {
        let (number, generation) = match &self.status.attempt {
            Some(attempt) => (attempt.number, attempt.generation),
            None => (self.status.attempts.saturating_add(1), 0),
        };
        AttemptId { number, task: TaskId::derive(self.uid, number), generation }
    }
}
