//! Which Events are written: not the same one again and again, and not all of a mass of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

/// For how long the same Event of the same object is not written again.
const SAME_FOR: Duration = Duration::from_mins(10);
/// Events that are remembered for that long; the oldest are forgotten first.
const REMEMBERED: usize = 4096;
/// Events that a namespace may have at once, and one more each second.
const BURST: i64 = 100;

/// What becomes of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is written.
    Write,
    /// It was written a moment ago.
    Repeated,
    /// Its namespace has had too many.
    TooMany,
}

/// What was written of late.
#[derive(Debug, Default)]
pub struct Notices {
    seen: HashSet<u64>,
    order: VecDeque<(Timestamp, u64)>,
    /// Of each namespace, in seconds since 1970: when its allowance was last empty, as far as it has one left to regain.
    empty_at: HashMap<Arc<str>, i64>,
}

impl Notices {
    /// Whether this Event of the object with this UID is to be written now.
    pub fn judge(
        &mut self,
        namespace: &Arc<str>,
        object: Uuid,
        reason: &str,
        message: &str,
        now: Timestamp,
    ) -> Verdict {
        while self.order.front().is_some_and(|(at, _)| now.duration_since(*at).unsigned_abs() > SAME_FOR) {
            self.forget_oldest();
        }
        let mut hasher = DefaultHasher::new();
        (object, reason, message).hash(&mut hasher);
        let event = hasher.finish();
        if self.seen.contains(&event) {
            return Verdict::Repeated;
        }
        if !self.has_allowance(namespace, now.as_second()) {
            return Verdict::TooMany;
        }
        if self.order.len() >= REMEMBERED {
            self.forget_oldest();
        }
        self.seen.insert(event);
        self.order.push_back((now, event));
        Verdict::Write
    }

    fn forget_oldest(&mut self) {
        if let Some((_, event)) = self.order.pop_front() {
            self.seen.remove(&event);
        }
    }

    /// A full allowance is one that was empty so many seconds ago.
    fn has_allowance(&mut self, namespace: &Arc<str>, second: i64) -> bool {
        let full = second - BURST;
        self.empty_at.retain(|_, empty_at| *empty_at > full);
        let empty_at = self.empty_at.entry(namespace.clone()).or_insert(full);
        let has = *empty_at < second;
        *empty_at += i64::from(has);
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn judge(notices: &mut Notices, namespace: &str, object: u128, second: i64) -> Verdict {
        notices.judge(&namespace.into(), Uuid::from_u128(object), "BrokerUnreachable", "Redis", at(second))
    }

    #[test]
    fn the_same_event_of_a_job_is_not_written_twice_within_ten_minutes() {
        let mut notices = Notices::default();
        assert_eq!(judge(&mut notices, "team", 1, 1000), Verdict::Write);
        assert_eq!(judge(&mut notices, "team", 1, 1599), Verdict::Repeated);
        assert_eq!(judge(&mut notices, "team", 1, 1601), Verdict::Write);
    }

    #[test]
    fn of_a_mass_of_jobs_that_are_held_a_hundred_have_events_and_then_one_a_second() {
        let mut notices = Notices::default();
        let written = (0..30_000).filter(|job| judge(&mut notices, "noisy", *job, 1000) == Verdict::Write).count();
        assert_eq!(written, 100);
        assert_eq!(judge(&mut notices, "quiet", 99_999, 1000), Verdict::Write, "another namespace has its own");
        let later =
            (0..30_000).filter(|job| judge(&mut notices, "noisy", 100_000 + *job, 1010) == Verdict::Write).count();
        assert_eq!(later, 10);
    }

    #[test]
    fn the_number_of_remembered_events_has_a_bound() {
        let mut notices = Notices::default();
        for job in 0..20_000_u128 {
            judge(&mut notices, &format!("team-{job}"), job, 1000);
        }
        assert_eq!((notices.seen.len(), notices.order.len()), (REMEMBERED, REMEMBERED));
        judge(&mut notices, "team", 0, 2000);
        assert_eq!((notices.seen.len(), notices.order.len(), notices.empty_at.len()), (1, 1, 1));
    }
}
