//! The one place that reads the clock and asks for randomness.

use jiff::Timestamp;
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
