//! How long to wait after failures before the same is tried again.

use std::mem::Discriminant;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::plan::{Effect, Plan};

/// The longest pause after the first failure, and after any number of failures.
pub type Bounds = (Duration, Duration);

/// How long what failed in the operator waits.
pub const AGAIN: Bounds = (Duration::from_millis(500), Duration::from_secs(30));

/// Reconciles of one job that failed in a row.
#[derive(Debug, Clone)]
pub struct ConsecutiveErrors {
    /// Failures in a row.
    failures: u32,
    /// Until when the same is not tried again.
    until: Timestamp,
    /// Whether it was refused, and only people can mend that; any other failure may have passed when a hint comes.
    refused: bool,
    /// What was to be done first; `None` when only the status was to be written.
    act: Option<Discriminant<Effect>>,
}

impl ConsecutiveErrors {
    /// One more failure of this plan's first act.
    pub fn again(
        before: Option<&Self>,
        job: Uuid,
        act: Option<Discriminant<Effect>>,
        refused: bool,
        now: Timestamp,
    ) -> Self {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        // By the job, so that those that failed together do not come back together.
        let [high, low, ..] = *Uuid::new_v5(&job, &failures.to_be_bytes()).as_bytes();
        let pause = pause(AGAIN, failures, u16::from_be_bytes([high, low]));
        let until = now.checked_add(pause).unwrap_or(now);
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

/// How long to wait after so many failures in a row. The bound doubles with each failure; `drawn` chooses between half of
/// the bound and all of it.
pub fn pause((first, longest): Bounds, failures: u32, drawn: u16) -> Duration {
    let bound = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(longest);
    bound / 2 + bound / 2 * u32::from(drawn) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_between_half_of_it_and_all() {
        for (failures, most) in [(1, 500), (2, 1_000), (3, 2_000), (6, 16_000), (7, 30_000), (u32::MAX, 30_000)] {
            let [half, between, all] = [0, u16::MAX / 2, u16::MAX].map(|drawn| pause(AGAIN, failures, drawn));
            assert_eq!((half * 2, all), (Duration::from_millis(most), Duration::from_millis(most)), "{failures}");
            assert!(half < between && between < all, "{failures}: {between:?}");
        }
    }

    #[test]
    fn jobs_that_failed_together_do_not_come_back_together() {
        let again =
            |job| ConsecutiveErrors::again(None, Uuid::from_u128(job), None, false, Timestamp::UNIX_EPOCH).until();
        let times: std::collections::HashSet<Timestamp> = (0..50).map(again).collect();
        assert!(times.len() > 40, "{times:?}");
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
        let errors = ConsecutiveErrors::again(None, Uuid::from_u128(1), first_act(&revoke), true, at(100));
        assert_eq!(errors.holds_up(&revoke, at(100)), Some(errors.until()));
        assert_eq!(errors.holds_up(&nothing, at(100)), None);
        assert_eq!(errors.holds_up(&revoke, at(101)), None);
        let unavailable = ConsecutiveErrors::again(None, Uuid::from_u128(1), first_act(&revoke), false, at(100));
        assert_eq!(unavailable.holds_up(&revoke, at(100)), None, "a hint may tell that it has passed");
        assert!(ConsecutiveErrors::again(Some(&errors), Uuid::from_u128(1), None, true, at(100)).until() > at(100));
    }
}
