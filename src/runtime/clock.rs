//! The one place that reads the clock and asks for randomness.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// Now.
#[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A random id, for an identity that must differ from every other.
#[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
pub fn random_id() -> Uuid {
    Uuid::new_v4()
}

/// How long ago a time is; zero when it lies ahead.
pub fn since(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at).max(SignedDuration::ZERO)).unwrap_or(Duration::ZERO)
}

/// How long it is until a time; zero when it has passed.
pub fn until(at: Timestamp, now: Timestamp) -> Duration {
    since(now, at)
}
