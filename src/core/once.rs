//! Run-once keys: of all jobs of a namespace with the same key one runs, and the others end as it did.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::status::Phase;

/// How soon a key that another job has is asked for again, if that job's end is not noticed before.
pub const AGAIN: Duration = Duration::from_secs(30);
/// How long a run is remembered where no pool says so.
pub const RETENTION: Duration = Duration::from_hours(720);

/// What is known of the key of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Claim {
    /// The API server has not been asked.
    #[default]
    Unread,
    /// It is the job's own.
    Ours,
    /// Another job has it and has not ended.
    Held {
        /// Its name.
        by: Arc<str>,
        /// When that was read.
        read_at: Timestamp,
    },
    /// A job with this key has run and ended.
    Ran(Ran),
}

/// The job that has run under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its name.
    pub job: Arc<str>,
    /// Its UID: there may be another job of that name by now.
    pub uid: Uuid,
    /// Whether it succeeded; else it failed.
    pub succeeded: bool,
    /// When it ended.
    pub at: Timestamp,
}

impl Ran {
    /// The phase in which it ended.
    pub fn phase(&self) -> Phase {
        if self.succeeded { Phase::Succeeded } else { Phase::Failed }
    }
}
