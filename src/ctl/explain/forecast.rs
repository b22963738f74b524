//! When a job that waits begins and ends, from how long others took.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// What is known of the slots of a pool's workers, and of what waits for them before a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Tasks that run at a time when all workers there are to be have started.
    pub slots: usize,
    /// How long each of those that run has run.
    pub running: Vec<Duration>,
    /// Messages that are taken before this one.
    pub ahead: usize,
    /// How long runs have taken.
    pub runs: Vec<Duration>,
}

/// What is to be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// When it begins, from now.
    pub starts_in: Duration,
    /// When it ends, from now.
    pub ends_in: Duration,
    /// How long a run takes on the average.
    pub takes: Duration,
}

/// What is to be expected of a message that waits; `None` where nothing was measured or nothing runs tasks.
///
/// Each slot that is free takes the next message. One that runs a task is free when runs of those that lasted at least as
/// long were over, on the average.
pub fn forecast(load: &Load) -> Option<Forecast> {
    let takes = mean(&load.runs)?;
    let slots = load.slots.max(load.running.len());
    let mut free: BinaryHeap<Reverse<Duration>> =
        load.running.iter().map(|elapsed| Reverse(remaining(&load.runs, *elapsed))).collect();
    free.extend(std::iter::repeat_n(Reverse(Duration::ZERO), slots - load.running.len()));
    for _ in 0..load.ahead {
        let Reverse(at) = free.pop()?;
        free.push(Reverse(at.saturating_add(takes)));
    }
    let Reverse(starts_in) = free.pop()?;
    Some(Forecast { starts_in, ends_in: starts_in.saturating_add(takes), takes })
}

/// How much longer a run takes that has taken so long.
pub fn remaining(runs: &[Duration], elapsed: Duration) -> Duration {
    let longer: Vec<Duration> = runs.iter().filter_map(|run| run.checked_sub(elapsed)).collect();
    mean(&longer).unwrap_or_default()
}

fn mean(lengths: &[Duration]) -> Option<Duration> {
    let total: Duration = lengths.iter().sum();
    total.checked_div(u32::try_from(lengths.len()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn of(slots: usize, running: &[u64], ahead: usize, runs: &[u64]) -> Option<(u64, u64)> {
        let all = |lengths: &[u64]| lengths.iter().copied().map(seconds).collect();
        let load = Load { slots, running: all(running), ahead, runs: all(runs) };
        forecast(&load).map(|it| (it.starts_in.as_secs(), it.ends_in.as_secs()))
    }

    #[test]
    fn a_free_slot_takes_the_next_message_at_once() {
        assert_eq!(of(2, &[10], 0, &[60]), Some((0, 60)));
        assert_eq!(of(2, &[10, 30], 0, &[60]), Some((30, 90)), "the longest running one is over first");
        assert_eq!(of(2, &[10, 30], 2, &[60]), Some((90, 150)));
        assert_eq!(of(1, &[], 3, &[60]), Some((180, 240)));
    }

    #[test]
    fn without_a_measure_or_a_slot_nothing_is_expected() {
        assert_eq!(of(2, &[10], 0, &[]), None);
        assert_eq!(of(0, &[], 0, &[60]), None);
    }

    #[test]
    fn a_run_that_lasts_longer_than_all_before_is_over_any_moment() {
        assert_eq!(of(1, &[500], 0, &[60, 100]), Some((0, 80)));
    }

    /// 300 jobs of 20 to 180 s wait for 4 slots; every ten minutes those that wait ask when they will begin.
    #[test]
    fn in_a_replayed_load_the_expected_start_is_off_by_less_than_a_quarter() {
        let mut state = 7_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            20 + (state >> 33) % 161
        };
        let lengths: Vec<u64> = (0..300).map(|_| random()).collect();
        let (mut free, mut starts) = ([0_u64; 4], Vec::new());
        for length in &lengths {
            let slot = (0..4).min_by_key(|slot| free[*slot]).unwrap();
            starts.push(free[slot]);
            free[slot] += length;
        }
        let mut off = Vec::new();
        for now in (600..4000).step_by(600) {
            let ended = |job: &usize| starts[*job] + lengths[*job] <= now;
            let begun = |job: &usize| starts[*job] <= now;
            let runs: Vec<u64> = (0..300).filter(ended).map(|job| lengths[job]).collect();
            let running: Vec<u64> =
                (0..300).filter(|job| begun(job) && !ended(job)).map(|job| now - starts[job]).collect();
            for (ahead, job) in (0..300).filter(|job| !begun(job)).enumerate() {
                let (expected, _) = of(4, &running, ahead, &runs).unwrap();
                let actual = (starts[job] - now).max(1);
                off.push(100 * expected.abs_diff(actual) / actual);
            }
        }
        off.sort_unstable();
        let (half, most) = (off[off.len() / 2], off[off.len() * 95 / 100]);
        assert!(
            off.len() > 500 && half < 10 && most < 25,
            "{} asked, off by {half} %, 95 of 100 by {most} %",
            off.len()
        );
    }
}
