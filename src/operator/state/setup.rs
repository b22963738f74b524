//! What is known of how the workers of a pool are set up.

use crate::core::setup::Finding;

/// What the settings of a pool's workers come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Setup {
    /// No worker has answered yet.
    #[default]
    Unknown,
    /// Workers are there, and none answers any more.
    Silent,
    /// What those that have answered come to.
    Known(Finding),
}
