//! Where the workers of a pool run.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::super::id::ObjectKey;

/// Where the workers of a pool run: the Deployment that it names, and which container of its Pods is the worker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// The Deployment.
    pub deployment: ObjectKey,
    /// What the pool names; `None` leaves it to the Pods.
    pub container: Option<Arc<str>>,
}

/// How long a Pod stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// It is none of the pool's.
    Foreign,
    /// It was not told to go.
    Stays,
    /// It was told to be gone by then.
    Until(Timestamp),
}

/// A Pod in which a worker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerPod {
    /// Name of the Pod.
    pub name: Arc<str>,
    /// When the worker's container started.
    pub started_at: Timestamp,
    /// Since when it is told to go: from then on it takes no message.
    pub leaving_since: Option<Timestamp>,
    /// Whether it is ready.
    pub is_ready: bool,
    /// Whether its Node does not answer.
    pub is_unreachable: bool,
    /// Whether its deletion cost says that it is busy.
    pub is_marked_busy: bool,
}

#[cfg(test)]
impl WorkerPod {
    /// One that has not answered.
    pub fn silent(name: &str, started_at: Timestamp, leaving_since: Option<Timestamp>) -> Self {
        Self {
            name: name.into(),
            started_at,
            leaving_since,
            is_ready: false,
            is_unreachable: false,
            is_marked_busy: false,
        }
    }
}
