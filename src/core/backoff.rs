//! How long the operator waits after failures of its own before it tries the same again.

use std::mem::Discriminant;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::plan::{Effect, Plan};

/// Wait after the first failure, at most; it doubles with each one.
const FIRST: Duration = Duration::from_millis(500);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// A job that could not be brought forward.
#[derive(Debug, Clone)]
pub struct Stumble {
    /// Failures in a row.
    failures: u32,
    /// Until when the same is not tried again.
    until: Timestamp,
    /// Whether it was refused, and only people can mend that; any other failure may have passed when a hint comes.
    refused: bool,
    /// What was to be done first; `None` when only the status was to be written.
    act: Option<Discriminant<Effect>>,
}

impl Stumble {
    /// One more failure of this plan's first act.
    pub fn again(
        before: Option<&Self>,
        job: Uuid,
        act: Option<Discriminant<Effect>>,
        refused: bool,
        now: Timestamp,
    ) -> Self {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let until = now.checked_add(pause(job, failures)).unwrap_or(now);
        Self { failures, until, refused, act }
    }

    /// When this plan may be tried, if that is later than now: what was refused is not tried with each hint that comes.
    pub fn holds_up(&self, plan: &Plan, now: Timestamp) -> Option<Timestamp> {
        (self.refused && self.act == first_act(plan) && now < self.until).then_some(self.until)
    }

    /// The same for a look at what a dead worker has left.
    pub fn holds_up_check(&self, now: Timestamp) -> Option<Timestamp> {
        (self.act.is_none() && now < self.until).then_some(self.until)
    }

    /// Whether it was this that failed.
    pub fn is_of(&self, act: Option<Discriminant<Effect>>) -> bool {
        self.act == act
    }

    /// When it is tried again.
    pub fn until(&self) -> Timestamp {
        self.until
    }
}

/// What a plan does first.
pub fn first_act(plan: &Plan) -> Option<Discriminant<Effect>> {
    plan.effects.first().map(std::mem::discriminant)
}

/// How long to wait after so many failures in a row: between half of it and all, by what waits and how often it has, so
/// that those that failed together do not come back together.
pub fn pause(waiter: Uuid, failures: u32) -> Duration {
    let longest = FIRST.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST);
    let drawn = Uuid::new_v5(&waiter, &failures.to_be_bytes()).as_u128() % 1000;
    longest / 2 + longest / 2 * u32::try_from(drawn).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ_from_job_to_job() {
        let job = Uuid::from_u128(1);
        for (failures, most) in [(1, 500), (2, 1_000), (3, 2_000), (6, 16_000), (7, 30_000), (u32::MAX, 30_000)] {
            let (wait, most) = (pause(job, failures), Duration::from_millis(most));
            assert!(most / 2 <= wait && wait <= most, "{failures}: {wait:?}");
        }
        let waits: std::collections::HashSet<Duration> = (0..50).map(|job| pause(Uuid::from_u128(job), 7)).collect();
        assert!(waits.len() > 40, "{waits:?}");
    }

    #[test]
    fn a_refused_plan_is_held_up_until_its_time_and_another_plan_or_failure_is_not() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let plan = |effects| Plan {
            effects,
            status: super::super::status::Status::default(),
            afterwards: Vec::new(),
            notices: Vec::new(),
            next: super::super::plan::Next::OnHint,
        };
        let task = super::super::id::TaskId::derive(Uuid::from_u128(1), 1);
        let (revoke, nothing) = (plan(vec![Effect::Revoke(task)]), plan(Vec::new()));
        let stumble = Stumble::again(None, Uuid::from_u128(1), first_act(&revoke), true, at(100));
        assert_eq!(stumble.holds_up(&revoke, at(100)), Some(stumble.until()));
        assert_eq!(stumble.holds_up(&nothing, at(100)), None);
        assert_eq!(stumble.holds_up(&revoke, at(101)), None);
        let unavailable = Stumble::again(None, Uuid::from_u128(1), first_act(&revoke), false, at(100));
        assert_eq!(unavailable.holds_up(&revoke, at(100)), None, "a hint may tell that it has passed");
        assert!(Stumble::again(Some(&stumble), Uuid::from_u128(1), None, true, at(100)).until() > at(100));
    }
}
