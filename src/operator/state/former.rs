//! A Redis that a pool has left.

use tokio::time::Instant;

use crate::store::Store;

/// A Redis that was left.
#[derive(Clone)]
pub struct Former {
    /// The Redis.
    pub store: Store,
    /// Until when something may run there.
    pub until: Instant,
}
