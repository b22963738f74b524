//! Queue depth to replicas: activation, bounds, stabilization, and the reasons not to touch a Deployment.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

/// How much longer than the hard limit a Pod's grace period must be, so that a warm shutdown never ends in SIGKILL.
pub const GRACE_MARGIN: Duration = Duration::from_mins(1);

/// What waits and what runs on the queues of a pool, foreign Celery messages included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Messages in the queue lists, all bands.
    pub queued: u64,
    /// Messages taken and not acknowledged, future ETAs left out.
    pub in_flight: u64,
    /// Messages of unfinished jobs that are in neither. Kombu pops a message first and notes it as unacknowledged in a
    /// second call (`kombu/transport/redis.py`, `_brpop_read`); between the two Redis has it in no place.
    pub unseen: u64,
}

/// How a pool scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
    /// Messages that one replica is meant to serve.
    pub target_per_worker: u32,
    /// How long less must be enough before replicas go down.
    pub scale_down_delay: Duration,
}

/// The worker Deployment as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// `spec.replicas`.
    pub replicas: u32,
    /// `terminationGracePeriodSeconds` of its Pods.
    pub grace_period: Duration,
    /// Whether a rollout is under way.
    pub rolling_out: bool,
    /// Whether another field manager owns `spec.replicas`.
    pub contested: bool,
}

/// What to do with the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaling {
    /// Replicas that the load asks for, within the bounds.
    pub desired: u32,
    /// Replicas to write now.
    pub write: Option<u32>,
    /// Why fewer are not written although fewer would do.
    pub restraint: Option<Restraint>,
    /// When to look again.
    pub recheck: Option<Timestamp>,
}

/// Why replicas stay up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restraint {
    /// Less has not been enough for long enough.
    Stabilizing,
    /// A Pod that is chosen could be killed before its job is over.
    GracePeriodTooShort,
    /// A rollout is replacing Pods already.
    RollingOut,
    /// Another field manager sets the replicas.
    Contested,
}

/// Replicas for this load: `ceil((queued + in flight) / target)`, within the bounds. A message that is not seen brings no
/// replica, as it may be lost; it keeps one, as the worker may have popped it.
pub fn desired(load: Load, bounds: Bounds, replicas: u32) -> u32 {
    let seen = load.queued.saturating_add(load.in_flight);
    let wanted = |messages: u64| {
        let wanted = messages.div_ceil(u64::from(bounds.target_per_worker.max(1)));
        u32::try_from(wanted).unwrap_or(u32::MAX).clamp(bounds.min, bounds.max.max(bounds.min))
    };
    wanted(seen).max(wanted(seen.saturating_add(load.unseen)).min(replicas))
}

/// The most that was desired within the last `scale_down_delay`.
#[derive(Debug, Clone, Default)]
pub struct Window {
    // Falling in value, rising in time: an entry is dropped when a later one is at least as large.
    peaks: VecDeque<(Timestamp, u32)>,
}

impl Window {
    /// Notes what is desired now.
    fn push(&mut self, now: Timestamp, desired: u32) {
        while self.peaks.back().is_some_and(|(_, peak)| *peak <= desired) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, desired));
    }

    /// The peak within the window, and when it will have left it.
    fn peak(&mut self, now: Timestamp, length: Duration) -> (u32, Option<Timestamp>) {
        let leaves = |at: Timestamp| at.checked_add(length).unwrap_or(Timestamp::MAX);
        while self.peaks.len() > 1 && self.peaks.front().is_some_and(|(at, _)| leaves(*at) <= now) {
            self.peaks.pop_front();
        }
        match self.peaks.front() {
            Some((at, peak)) if self.peaks.len() > 1 => (*peak, Some(leaves(*at))),
            Some((_, peak)) => (*peak, None),
            None => (0, None),
        }
    }
}

/// What to do with a pool's replicas. Up at once; down only when no job can be cut short.
pub fn scale(
    load: Load,
    bounds: Bounds,
    workers: Workers,
    hard_limit: Duration,
    window: &mut Window,
    now: Timestamp,
) -> Scaling {
    let desired = desired(load, bounds, workers.replicas);
    if window.peaks.is_empty() {
        window.push(now, workers.replicas); // a fresh operator does not know how long less has been enough
    }
    window.push(now, desired);
    let (peak, recheck) = window.peak(now, bounds.scale_down_delay);
    // What was desired before the bounds were lowered does not count any more.
    let ceiling = bounds.max.max(bounds.min);
    let peak = peak.min(ceiling);
    let scaling = |write, restraint, recheck| Scaling { desired, write, restraint, recheck };
    let up = desired > workers.replicas;
    if !up && peak >= workers.replicas {
        let restraint = (desired < workers.replicas).then_some(Restraint::Stabilizing);
        return scaling(None, restraint, recheck);
    }
    if workers.contested {
        return scaling(None, Some(Restraint::Contested), None);
    }
    if up {
        return scaling(Some(desired), None, recheck);
    }
    if workers.grace_period < hard_limit.saturating_add(GRACE_MARGIN) {
        return scaling(None, Some(Restraint::GracePeriodTooShort), recheck);
    }
    // A rollout may be stuck for good, while lowered bounds ask for fewer Pods now.
    if workers.rolling_out && workers.replicas <= ceiling {
        return scaling(None, Some(Restraint::RollingOut), recheck);
    }
    scaling(Some(peak), None, recheck)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { min: 0, max: 4, target_per_worker: 1, scale_down_delay: Duration::from_mins(5) };
    const AT_ONCE: Bounds = Bounds { scale_down_delay: Duration::ZERO, ..BOUNDS };
    const HOUR: Duration = Duration::from_hours(1);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn workers(replicas: u32) -> Workers {
        Workers { replicas, grace_period: HOUR + GRACE_MARGIN, rolling_out: false, contested: false }
    }

    fn load(queued: u64, in_flight: u64) -> Load {
        Load { queued, in_flight, ..Load::default() }
    }

    fn write(load: Load, workers: Workers, window: &mut Window, second: i64) -> Option<u32> {
        scale(load, BOUNDS, workers, HOUR, window, at(second)).write
    }

    #[test]
    fn a_running_task_counts_as_much_as_a_waiting_one() {
        assert_eq!(desired(load(1, 2), BOUNDS, 0), 3);
        assert_eq!(desired(load(5, 0), Bounds { target_per_worker: 2, ..BOUNDS }, 0), 3);
    }

    #[test]
    fn the_bounds_hold_whatever_the_load() {
        assert_eq!(desired(load(u64::MAX, u64::MAX), BOUNDS, 0), 4);
        assert_eq!(desired(load(0, 0), Bounds { min: 2, ..BOUNDS }, 0), 2);
    }

    #[test]
    fn the_first_message_brings_the_first_worker_at_once() {
        assert_eq!(write(load(1, 0), workers(0), &mut Window::default(), 0), Some(1));
    }

    #[test]
    fn replicas_go_down_only_after_the_delay_and_to_the_peak_within_it() {
        let mut window = Window::default();
        assert_eq!(write(load(4, 0), workers(4), &mut window, 0), None);
        assert_eq!(write(load(2, 0), workers(4), &mut window, 100), None);
        assert_eq!(write(load(0, 0), workers(4), &mut window, 200), None);
        assert_eq!(write(load(0, 0), workers(4), &mut window, 301), Some(2));
        assert_eq!(write(load(0, 0), workers(2), &mut window, 399), None);
        assert_eq!(write(load(0, 0), workers(2), &mut window, 401), Some(0));
    }

    #[test]
    fn a_waiting_scale_down_says_when_to_look_again() {
        let mut window = Window::default();
        scale(load(1, 0), BOUNDS, workers(1), HOUR, &mut window, at(0));
        let scaling = scale(load(0, 0), BOUNDS, workers(1), HOUR, &mut window, at(10));
        assert_eq!((scaling.restraint, scaling.recheck), (Some(Restraint::Stabilizing), Some(at(300))));
    }

    #[test]
    fn a_message_in_the_middle_of_a_pop_keeps_its_worker_and_brings_none() {
        let popped = |replicas, second, window: &mut Window| {
            scale(Load { unseen: 1, ..Load::default() }, AT_ONCE, workers(replicas), HOUR, window, at(second))
        };
        let mut window = Window::default();
        assert_eq!(scale(load(1, 0), AT_ONCE, workers(0), HOUR, &mut window, at(0)).write, Some(1));
        assert_eq!(popped(1, 1, &mut window).write, None, "its worker is told to stop");
        assert_eq!(popped(3, 2, &mut Window::default()).write, Some(1), "it keeps all workers");
        assert_eq!(popped(0, 3, &mut Window::default()).write, None, "a message that may be lost brings a worker");
    }

    #[test]
    fn a_fresh_operator_waits_the_whole_delay_before_it_scales_down() {
        let mut window = Window::default();
        assert_eq!(write(load(0, 0), workers(3), &mut window, 0), None);
        assert_eq!(write(load(0, 0), workers(3), &mut window, 300), Some(0));
    }

    #[test]
    fn a_grace_period_shorter_than_a_job_keeps_replicas_up_but_not_down() {
        let short = Workers { grace_period: HOUR, ..workers(2) };
        let scaling = scale(load(0, 0), AT_ONCE, short, HOUR, &mut Window::default(), at(0));
        assert_eq!((scaling.write, scaling.restraint), (None, Some(Restraint::GracePeriodTooShort)));
        assert_eq!(write(load(3, 0), short, &mut Window::default(), 0), Some(3));
    }

    #[test]
    fn nothing_is_scaled_down_during_a_rollout() {
        let rolling = Workers { rolling_out: true, ..workers(2) };
        let scaling = scale(load(0, 0), AT_ONCE, rolling, HOUR, &mut Window::default(), at(0));
        assert_eq!((scaling.write, scaling.restraint), (None, Some(Restraint::RollingOut)));
    }

    #[test]
    fn a_lowered_max_replicas_is_obeyed_at_once_even_during_a_rollout() {
        let busy = load(9, 9);
        for rolling_out in [false, true] {
            let many = Workers { rolling_out, ..workers(7) };
            let scaling = scale(busy, BOUNDS, many, HOUR, &mut Window::default(), at(0));
            assert_eq!((scaling.write, scaling.restraint), (Some(4), None), "rolling out: {rolling_out}");
        }
        let none = Bounds { max: 0, ..BOUNDS };
        assert_eq!(scale(busy, none, workers(7), HOUR, &mut Window::default(), at(0)).write, Some(0));
    }

    #[test]
    fn a_lowered_max_replicas_waits_for_a_grace_period_that_a_job_outlives() {
        let short = Workers { grace_period: HOUR, ..workers(7) };
        let scaling = scale(load(9, 9), BOUNDS, short, HOUR, &mut Window::default(), at(0));
        assert_eq!((scaling.write, scaling.restraint), (None, Some(Restraint::GracePeriodTooShort)));
    }

    #[test]
    fn a_raised_min_replicas_is_obeyed_at_once() {
        let bounds = Bounds { min: 3, ..BOUNDS };
        assert_eq!(scale(load(0, 0), bounds, workers(1), HOUR, &mut Window::default(), at(0)).write, Some(3));
    }

    #[test]
    fn replicas_that_another_field_manager_sets_are_left_alone() {
        let contested = Workers { contested: true, ..workers(0) };
        let scaling = scale(load(9, 0), BOUNDS, contested, HOUR, &mut Window::default(), at(0));
        assert_eq!((scaling.write, scaling.restraint), (None, Some(Restraint::Contested)));
    }
}
