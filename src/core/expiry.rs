//! When a finished job is deleted.

use std::time::Duration;

use jiff::Timestamp;

/// When a job that ended at this time has been kept for long enough; `None` keeps it.
pub fn expires_at(finished_at: Timestamp, ttl: Option<Duration>) -> Option<Timestamp> {
    ttl.and_then(|ttl| finished_at.checked_add(ttl).ok())
}
