//! Run-once keys: of all jobs of a namespace with the same key one runs, and the others end as it did.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::status::Phase;

/// How soon a key that another job has is asked for again, if that job's end is not noticed before.
pub const AGAIN: Duration = Duration::from_secs(30);
/// The same where that job will not tell: it has left, or is not known yet.
pub const SOON: Duration = Duration::from_millis(500);
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

impl Claim {
    /// The same, to be asked for again soon.
    #[must_use]
    pub fn to_be_read_soon(self) -> Self {
        match self {
            Self::Held { by, read_at } => Self::Held { by, read_at: earlier(read_at, AGAIN.saturating_sub(SOON)) },
            known @ (Self::Unread | Self::Ours | Self::Ran(_)) => known,
        }
    }
}

/// A time before another one; that one where there is none.
pub(super) fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(at)
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
