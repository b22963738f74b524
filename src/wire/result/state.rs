use std::fmt;

/// The state of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// Unknown, or waiting: Celery does not store this.
    Pending,
    /// A worker has it.
    Received,
    /// Running, if the task tracks that.
    Started,
    /// Finished; never overwritten.
    Success,
    /// Failed for good.
    Failure,
    /// Failed, and sent again.
    Retry,
    /// Cancelled or expired.
    Revoked,
    /// Refused by the worker.
    Rejected,
    /// The task asked for no result.
    Ignored,
    /// A state that the task has invented, `PROGRESS` for example.
    Custom(String),
}

impl State {
    /// Celery's name of it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "PENDING",
            Self::Received => "RECEIVED",
            Self::Started => "STARTED",
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Retry => "RETRY",
            Self::Revoked => "REVOKED",
            Self::Rejected => "REJECTED",
            Self::Ignored => "IGNORED",
            Self::Custom(name) => name,
        }
    }
}

impl From<String> for State {
    fn from(name: String) -> Self {
        match name.as_str() {
            "PENDING" => Self::Pending,
            "RECEIVED" => Self::Received,
            "STARTED" => Self::Started,
            "SUCCESS" => Self::Success,
            "FAILURE" => Self::Failure,
            "RETRY" => Self::Retry,
            "REVOKED" => Self::Revoked,
            "REJECTED" => Self::Rejected,
            "IGNORED" => Self::Ignored,
            _ => Self::Custom(name),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
