//! What is known of how the workers of a pool are set up.

use crate::api::Reason;

/// What the settings of a pool's workers come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Setup {
    /// No worker has answered yet.
    #[default]
    Unknown,
    /// As they should be.
    Fine,
    /// They endanger jobs.
    Wrong(Complaint),
}

/// What is wrong with the settings of a pool's workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The worst of it.
    pub reason: Reason,
    /// All of it, and how to mend it.
    pub message: String,
}
