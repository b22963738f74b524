//! How many requests a caller may make: the generic cell rate algorithm, which needs one number for each caller, the time at which
//! all that it has used is free again. `src/store/lua/rate.lua` is its twin on Redis; `tests/it/redis` compares them.

use std::collections::HashMap;
use std::time::Duration;

/// So many requests in such a time, all at once or spread over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests, at least one.
    pub count: u32,
    /// In this time, at least a millisecond for each of them.
    pub per: Duration,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether it may be made.
    pub is_allowed: bool,
    /// Further requests that may be made at once.
    pub remaining: u32,
    /// When the next one may be made; zero when it may be now.
    pub retry_after: Duration,
    /// When all of them are free again.
    pub reset: Duration,
}

impl Rate {
    /// Reads `600/60s`: a count, and a time in seconds, minutes or hours.
    pub fn parse(text: &str) -> Result<Self, String> {
        let usage = || format!("{text:?} is no rate: write COUNT/TIME, such as 600/60s or 20/1s");
        let (count, per) = text.split_once('/').ok_or_else(usage)?;
        let count: u32 = count.trim().parse().map_err(|_| usage())?;
        let per = per.trim();
        let units = [('s', 1), ('m', 60), ('h', 3600)];
        let (digits, seconds) =
            units.iter().find_map(|(unit, seconds)| Some((per.strip_suffix(*unit)?, *seconds))).ok_or_else(usage)?;
        let per = digits.parse::<u64>().map_err(|_| usage())?.saturating_mul(seconds);
        if !(1..=86_400).contains(&per) {
            return Err(format!("the time of {text:?} is not between a second and a day"));
        }
        if !(1..=per.saturating_mul(1000)).contains(&count.into()) || count > 1_000_000 {
            return Err(format!("the count of {text:?} is not between 1 and 1000 for each second, a million at most"));
        }
        Ok(Self { count, per: Duration::from_secs(per) })
    }

    /// Microseconds that one request takes up.
    pub fn interval(self) -> u64 {
        (micros(self.per) / u64::from(self.count.max(1))).max(1)
    }

    /// Takes one request at `now`. `full_at` is what the one before has left; all times are microseconds of one clock. Returns what
    /// is left for the next one.
    pub fn take(self, full_at: Option<u64>, now: u64) -> (Taken, u64) {
        let (interval, count) = (self.interval(), u64::from(self.count));
        // A clock that was put back, or a planted number, costs no more than one whole time.
        let before = full_at.unwrap_or(now).clamp(now, now + interval * count);
        let after = before + interval;
        let is_allowed = after <= now + interval * count;
        let left = if is_allowed { after } else { before };
        let remaining = (interval * count - (left - now)) / interval;
        let retry_after = (left + interval).saturating_sub(now + interval * count);
        let taken = Taken {
            is_allowed,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            retry_after: Duration::from_micros(retry_after),
            reset: Duration::from_micros(left - now),
        };
        (taken, left)
    }
}

/// A time as the algorithm counts it.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What callers have used, in one process.
#[derive(Debug, Default)]
pub struct Buckets {
    full_at: HashMap<String, u64>,
    /// What all those have used together for which there was no room.
    others: Option<u64>,
}

impl Buckets {
    /// Callers that are counted each for itself.
    pub const ROOM: usize = 10_000;

    /// Takes one request of this caller.
    pub fn take(&mut self, caller: &str, rate: Rate, now: u64) -> Taken {
        if !self.full_at.contains_key(caller) && self.full_at.len() >= Self::ROOM {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if !self.full_at.contains_key(caller) && self.full_at.len() >= Self::ROOM {
            let (taken, left) = rate.take(self.others, now);
            self.others = Some(left);
            return taken;
        }
        let (taken, left) = rate.take(self.full_at.get(caller).copied(), now);
        self.full_at.insert(caller.to_owned(), left);
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn rate(text: &str) -> Rate {
        Rate::parse(text).unwrap()
    }

    #[test]
    fn a_rate_is_a_count_and_a_time_with_bounds() {
        assert_eq!(rate("600/60s"), Rate { count: 600, per: Duration::from_mins(1) });
        assert_eq!(rate("5/2m").per, Duration::from_mins(2));
        for wrong in ["", "5", "5/", "5/s", "0/1s", "5/0s", "5/25h", "1001/1s", "-1/1s", "5/1d", "2000000/24h", "5/1é"]
        {
            assert!(Rate::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_may_come_at_once_and_then_one_after_each_interval() {
        let (rate, mut full_at) = (rate("3/3s"), None);
        let mut take = |now| {
            let (taken, left) = rate.take(full_at, now);
            full_at = Some(left);
            (taken.is_allowed, taken.remaining, taken.retry_after, taken.reset)
        };
        let s = Duration::from_secs;
        assert_eq!(take(SECOND), (true, 2, s(0), s(1)));
        assert_eq!(take(SECOND), (true, 1, s(0), s(2)));
        assert_eq!(take(SECOND), (true, 0, s(1), s(3)));
        assert_eq!(take(SECOND), (false, 0, s(1), s(3)), "what is refused takes nothing");
        assert_eq!(take(2 * SECOND), (true, 0, s(1), s(3)));
        assert_eq!(take(9 * SECOND), (true, 2, s(0), s(1)), "and is free again after its time");
    }

    #[test]
    fn a_clock_that_was_put_back_costs_one_time_at_most() {
        let (taken, left) = rate("3/3s").take(Some(u64::MAX / 2), 10 * SECOND);
        assert!(!taken.is_allowed);
        assert_eq!(left, 13 * SECOND);
        assert!(rate("3/3s").take(Some(left), 11 * SECOND).0.is_allowed);
    }

    #[test]
    fn callers_beyond_the_room_share_one_bucket_and_those_that_used_nothing_lately_make_room() {
        let (mut buckets, rate) = (Buckets::default(), rate("2/2s"));
        for number in 0..Buckets::ROOM {
            assert!(buckets.take(&number.to_string(), rate, 0).is_allowed);
        }
        let allowed = (0..10).filter(|number| buckets.take(&format!("new-{number}"), rate, 1).is_allowed).count();
        assert_eq!(allowed, 2);
        assert_eq!(buckets.take("0", rate, 1).remaining, 0, "a caller that is known goes on");
        assert!((0..10).all(|number| buckets.take(&format!("new-{number}"), rate, 3 * SECOND).is_allowed));
        assert!(buckets.full_at.len() <= Buckets::ROOM);
    }

    proptest! {
        #[test]
        fn never_more_than_twice_the_count_in_a_time_and_never_less_than_the_count(
            count in 1u32..50, per in 1u64..100, pauses in prop::collection::vec(0u64..3 * SECOND, 1..300)
        ) {
            let rate = Rate { count, per: Duration::from_secs(per) };
            let (mut now, mut full_at, mut allowed) = (SECOND, None, Vec::new());
            for pause in pauses {
                now += pause;
                let (taken, left) = rate.take(full_at, now);
                full_at = Some(left);
                prop_assert!(taken.remaining <= count && taken.reset <= rate.per);
                prop_assert!(taken.is_allowed || taken.retry_after > Duration::ZERO);
                if taken.is_allowed {
                    allowed.push(now);
                }
                let window = now.saturating_sub(micros(rate.per));
                let within = allowed.iter().filter(|at| **at > window).count();
                prop_assert!(within <= 2 * count as usize);
                prop_assert!(taken.is_allowed || within >= count as usize);
            }
        }
    }
}
