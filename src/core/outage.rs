//! When a Redis that does not answer counts as unreachable: not after a single stall.

use std::time::Duration;

use jiff::Timestamp;

/// How long Redis must not have answered. One call waits for five seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Since when Redis has not answered, and how often it was asked since.
#[derive(Debug, Clone, Default)]
pub struct Outage(Option<(Timestamp, u32)>);

impl Outage {
    /// A call that began at `asked_at` got no answer. Whether that has lasted.
    pub fn unanswered(&mut self, asked_at: Timestamp, now: Timestamp) -> bool {
        let (since, calls) = self.0.unwrap_or((asked_at, 0));
        self.0 = Some((since, calls + 1));
        calls > 0 && Duration::try_from(now.duration_since(since)).is_ok_and(|lasted| lasted >= PATIENCE)
    }

    /// Redis has answered.
    pub fn answered(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_single_stall_of_redis_does_not_count_however_long_it_lasts() {
        let mut outage = Outage::default();
        assert!(!outage.unanswered(at(0), at(5)));
        outage.answered();
        assert!(!outage.unanswered(at(7), at(27)));
    }

    #[test]
    fn a_redis_that_answers_nothing_for_ten_seconds_is_unreachable() {
        let mut outage = Outage::default();
        assert!(!outage.unanswered(at(0), at(0)), "a refused connection fails at once");
        assert!(!outage.unanswered(at(1), at(6)));
        assert!(outage.unanswered(at(7), at(12)));
        outage.answered();
        assert!(!outage.unanswered(at(13), at(13)), "it is counted anew");
    }
}
