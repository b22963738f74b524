//! Workers that have room and take nothing: they hang, or consume other queues than they should.

use std::time::Duration;

use jiff::Timestamp;

use super::scale::Load;

/// How long nothing must be taken before that means anything. A worker that has lost its connection is back by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Since when no worker has taken a message although one could.
#[derive(Debug, Clone, Default)]
pub struct Stall(Option<(Timestamp, Load)>);

impl Stall {
    /// Notes a look at the load, with how many tasks the workers can run at once and when one of them was last heard of
    /// working. Returns since when nothing is taken, once that has lasted.
    pub fn note(&mut self, load: Load, slots: u64, heard_at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        if load.queued == 0 || load.in_flight >= slots {
            self.0 = None;
            return None;
        }
        let goes_on = |(since, before): &(Timestamp, Load)| {
            load.queued >= before.queued
                && load.in_flight == before.in_flight
                && heard_at.is_none_or(|heard_at| heard_at < *since)
        };
        let since = self.0.filter(goes_on).map_or(now, |(since, _)| since);
        self.0 = Some((since, load));
        let lasts = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        (lasts >= PATIENCE).then_some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    const ONE_WAITS: Load = Load { queued: 1, in_flight: 1, unseen: 0 };

    /// What is found when the load is looked at every two seconds for so long.
    fn after(seconds: i64, looks: impl Fn(i64) -> (Load, u64, Option<Timestamp>)) -> Option<Timestamp> {
        let mut stall = Stall::default();
        let mut found = None;
        for second in (0..=seconds).step_by(2) {
            let (load, slots, heard_at) = looks(second);
            found = stall.note(load, slots, heard_at, at(second));
        }
        found
    }

    #[test]
    fn workers_that_have_room_and_take_nothing_stall_once_that_has_lasted() {
        assert_eq!(after(28, |_| (ONE_WAITS, 2, None)), None);
        assert_eq!(after(30, |_| (ONE_WAITS, 2, None)), Some(at(0)));
        let more_and_more =
            |second: i64| (Load { queued: second.unsigned_abs() + 1, in_flight: 1, unseen: 0 }, 2, None);
        assert_eq!(after(60, more_and_more), Some(at(0)), "a producer that sends more does not take any");
    }

    #[test]
    fn workers_without_room_or_without_messages_do_not_stall() {
        assert_eq!(after(600, |_| (ONE_WAITS, 1, None)), None);
        assert_eq!(after(600, |_| (Load { queued: 0, in_flight: 1, unseen: 0 }, 2, None)), None);
        assert_eq!(after(600, |_| (ONE_WAITS, 0, None)), None, "there are none");
    }

    #[test]
    fn workers_that_take_or_finish_a_task_now_and_then_do_not_stall() {
        assert_eq!(after(600, |second| (ONE_WAITS, 2, Some(at(second - 20)))), None);
        let popped =
            |second: i64| (Load { queued: 9 + (second / 20 % 2).unsigned_abs(), in_flight: 1, unseen: 0 }, 2, None);
        assert_eq!(after(600, popped), None);
        let flown = |second: i64| (Load { queued: 9, in_flight: (second / 20 % 2).unsigned_abs(), unseen: 0 }, 2, None);
        assert_eq!(after(600, flown), None);
        assert_eq!(after(60, |_| (ONE_WAITS, 2, Some(at(-1)))), Some(at(0)), "it was heard of before");
    }
}
