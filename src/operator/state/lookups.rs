//! Jobs that must be read from the API server.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::queue::WorkQueue;
use crate::core::id::ObjectKey;
use crate::core::index::{Lane, Limits};
use crate::runtime::backoff::{self, Bounds};

/// Jobs that are read side by side, of one pool and of all: after a list many may be missing at once.
const LIMITS: Limits = Limits { all: 16, lane: 8 };

/// Longest wait after the first failure of a read, and after any.
const AGAIN: Bounds = (Duration::from_millis(250), Duration::from_secs(8));

/// The jobs to read.
pub struct Lookups {
    /// Jobs to read.
    pub queue: WorkQueue<Lane, ObjectKey>,
    /// Failures in a row.
    failures: Mutex<HashMap<ObjectKey, u32>>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self { queue: WorkQueue::new(LIMITS), failures: Mutex::default() }
    }
}

impl Lookups {
    /// Reads this job as soon as its pool has its turn.
    pub fn ask(&self, (lane, key): (Lane, ObjectKey)) {
        self.queue.now(lane, key);
    }

    /// The read of this job was answered.
    pub fn answered(&self, key: &ObjectKey) {
        self.failures.lock().remove(key);
    }

    /// The read of this job failed: it is repeated, later from failure to failure. Says how long it waits.
    pub fn failed(&self, (lane, key): (Lane, ObjectKey), now: Timestamp) -> Duration {
        let wait = {
            let mut failures = self.failures.lock();
            let failures = failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            backoff::pause(AGAIN, *failures)
        };
        self.queue.at(lane, key, now.checked_add(wait).unwrap_or(Timestamp::MAX));
        wait
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::runtime::clock;

    fn turn() -> (Lane, ObjectKey) {
        (Arc::new(ObjectKey::new("team", "pool")), ObjectKey::new("team", "job"))
    }

    #[tokio::test]
    async fn a_job_whose_read_failed_is_read_again() {
        let lookups = Lookups::default();
        lookups.ask(turn());
        let key = lookups.queue.next().await;
        lookups.failed(turn(), clock::now());
        lookups.queue.done(key);
        let again =
            tokio::select! { key = lookups.queue.next() => key, () = lookups.queue.run_timers() => unreachable!() };
        assert_eq!(again, turn().1);
    }

    #[test]
    fn reads_that_fail_again_and_again_are_repeated_later_from_time_to_time_and_soon_after_an_answer() {
        let (lookups, now) = (Lookups::default(), clock::now());
        let is_about =
            |wait: Duration, most: u64| (most / 2..=most).contains(&u64::try_from(wait.as_millis()).unwrap());
        for most in [250, 500, 1000, 2000, 4000, 8000, 8000, 8000] {
            let wait = lookups.failed(turn(), now);
            assert!(is_about(wait, most), "{wait:?}, not {most} ms or up to half less");
        }
        lookups.answered(&turn().1);
        assert!(is_about(lookups.failed(turn(), now), 250));
    }
}
