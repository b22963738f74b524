//! Waiting after a failure before the same is tried again: longer each time, and not as long as others that failed at
//! the same moment.

use std::time::Duration;

use super::clock;
use crate::core::backoff;

pub use crate::core::backoff::Bounds;

/// The pauses between tries of one thing.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    bounds: Bounds,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    pub const fn new(bounds: Bounds) -> Self {
        Self { bounds, failures: 0 }
    }

    /// The pause after one more failure.
    pub fn pause(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        pause(self.bounds, self.failures)
    }

    /// It went well: the next pause is a short one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The pause after so many failures in a row, as chance has it.
pub fn pause(bounds: Bounds, failures: u32) -> Duration {
    let [high, low, ..] = *clock::random_id().as_bytes();
    backoff::pause(bounds, failures, u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_differ_from_each_other_and_are_short_again_after_a_success() {
        let bounds = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(bounds);
        for _ in 0..2 {
            assert!(backoff.pause() <= bounds.0);
            let waits: HashSet<Duration> = (0..50).map(|_| backoff.pause()).skip(10).collect();
            assert!(waits.len() > 30 && waits.iter().all(|it| bounds.1 / 2 <= *it && *it <= bounds.1), "{waits:?}");
            backoff.reset();
        }
    }
}
