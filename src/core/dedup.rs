//! What a job declares that is to run once however often it is submitted. `twins` says what comes of it.

use std::sync::Arc;
use std::time::Duration;

/// Reason of a job that ends as another one with its key does.
pub const ATTACHED: &str = "Attached";
/// Reason of a job that waits for the end of the one in whose place it runs.
pub const REPLACING: &str = "Replacing";

/// What a job declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dedup {
    /// The key.
    pub key: Arc<str>,
    /// Jobs that were created further apart are no duplicates.
    pub window: Duration,
    /// What becomes of a duplicate.
    pub on_conflict: OnConflict,
}

/// What becomes of a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnConflict {
    /// It fails.
    Reject,
    /// It ends as the other job does.
    Attach,
    /// The other job is cancelled if it has not ended, and this one runs.
    Replace,
}
