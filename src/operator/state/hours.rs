//! The hours in which finished jobs expire.

use std::collections::BTreeSet;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::expiry_bucket;

/// Hours that are kept, a year's and more; of further ones the last are found again by the next look.
const KEPT: usize = 10_000;

/// The hours in which finished jobs expire, as far as they are known.
#[derive(Debug, Default)]
pub struct Hours {
    known: Mutex<BTreeSet<String>>,
    /// Says that an hour that is over was added.
    pub due: Notify,
}

impl Hours {
    /// Adds an hour.
    pub fn add(&self, hour: String) {
        // It becomes part of a selector.
        if hour.len() > "2026-11-22T15".len()
            || !hour.bytes().all(|byte| byte.is_ascii_digit() || b"-T".contains(&byte))
        {
            return;
        }
        let mut known = self.known.lock();
        known.insert(hour);
        if known.len() > KEPT {
            known.pop_last();
        }
    }

    /// A job was recorded to expire in this hour.
    pub fn note(&self, hour: String, now: Timestamp) {
        let is_over = hour < expiry_bucket(now);
        self.add(hour);
        if is_over {
            self.due.notify_one();
        }
    }

    /// Takes the hours that are over, in which jobs may be left.
    pub fn take_over(&self, now: Timestamp) -> BTreeSet<String> {
        let mut known = self.known.lock();
        let later = known.split_off(&expiry_bucket(now));
        std::mem::replace(&mut known, later)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_hour_is_over_when_the_next_one_has_begun() {
        let hours = Hours::default();
        hours.note("2026-11-22T15".to_owned(), at("2026-11-22T15:00:00Z"));
        assert!(hours.take_over(at("2026-11-22T15:59:59Z")).is_empty());
        assert_eq!(hours.take_over(at("2026-11-22T16:00:00Z")), ["2026-11-22T15".to_owned()].into());
        assert!(hours.take_over(at("2026-11-23T00:00:00Z")).is_empty(), "it is looked at once");
    }

    #[test]
    fn no_hour_is_listed_when_no_job_expires() {
        assert!(Hours::default().take_over(at("2026-11-22T16:00:00Z")).is_empty());
    }

    #[tokio::test]
    async fn a_job_that_is_recorded_in_an_hour_that_is_over_is_deleted_at_once() {
        let hours = Hours::default();
        hours.note("2026-11-22T15".to_owned(), at("2026-11-22T15:30:00Z"));
        assert!(timeout(Duration::ZERO, hours.due.notified()).await.is_err(), "there is time");
        hours.note("2026-11-01T15".to_owned(), at("2026-11-22T15:30:00Z"));
        assert!(timeout(Duration::ZERO, hours.due.notified()).await.is_ok());
    }

    #[test]
    fn the_hours_that_are_kept_are_bounded_and_are_hours() {
        let hours = Hours::default();
        for number in 0..=KEPT {
            hours.add(format!("{:04}-11-22T{:02}", 1000 + number / 24, number % 24));
        }
        hours.add("2026-11-22T15,a=b".to_owned());
        assert_eq!(hours.known.lock().len(), KEPT);
        assert_eq!(hours.known.lock().first().map(String::as_str), Some("1000-11-22T00"));
    }
}
