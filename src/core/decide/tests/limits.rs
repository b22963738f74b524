//! A job of a pool with limits is published once its permit is recorded, and waits in Kubernetes until then.

use expect_test::expect;

use super::*;
use crate::core::limits::{LIMIT_REACHED, Reached, Wait};
use crate::core::status::{PoolProblem, PoolProblemKind};

/// What a job waits for that has this place.
pub fn wait(position: u32) -> Wait {
    Wait {
        pool: "default".into(),
        limit: "tenants".into(),
        key: Some("a".into()),
        reached: Reached::InFlight(2),
        position,
        expected_at: Some(at(400_000)),
    }
}

fn under(permit: Permit) -> Scene {
    stands(scene(), permit)
}

fn stands(mut scene: Scene, permit: Permit) -> Scene {
    scene.seen.permit = permit;
    scene
}

fn waits(position: u32) -> Permit {
    Permit::Waits(Box::new(wait(position)))
}

fn granted(millis: i64) -> Permit {
    Permit::Granted { at: at(millis) }
}

#[test]
fn a_job_asks_for_a_permit_records_it_and_is_published_then() {
    check(
        under(Permit::Unasked),
        expect!["ask for a permit; Pending (Pending), attempts 0; look again at 2026-01-01T00:00:00.3Z"],
    );
    let given = under(granted(5)).at(7);
    check(given.clone(), expect!["Pending (Released), attempts 0; look again at 2026-01-01T00:00:00.007Z"]);
    assert_eq!(given.plan().status.released_at.as_deref(), Some(&at(5)));
    check(
        given.recorded(),
        expect![
            "enqueue attempt 1#0 on crew_jobs at priority 5; Pending (Released), attempts 0; look again at 2026-01-01T00:00:00.307Z"
        ],
    );
}

#[test]
fn over_a_limit_it_waits_and_says_for_what() {
    check(
        under(waits(12)).at(1_000),
        expect!["Pending (LimitReached), attempts 0; look again at 2026-01-01T00:05:00.25Z"],
    );
    check_message(
        under(waits(12)),
        expect![[
            r#"limit "tenants" of CrewWorkerPool "default" is reached for key "a": 2 jobs may be in flight; this job is number 12 of those that wait with the same keys, and is expected to be released at about 2026-01-01T00:06:40Z"#
        ]],
    );
}

#[test]
fn its_place_is_told_again_only_when_that_is_much_better_as_each_time_costs_a_write() {
    let told = under(waits(100)).recorded();
    let is_told = |position| stands(told.clone(), waits(position)).plan().status != told.job.status;
    assert_eq!([90, 50, 26, 25, 1].map(is_told), [false, false, false, true, true]);
    let mut by_another = told.clone();
    by_another.job.status.why = Why::Recorded { reason: LIMIT_REACHED.into(), message: "number 100".into() };
    let is_told = |position| stands(by_another.clone(), waits(position)).plan().status != by_another.job.status;
    assert_eq!([90, 2, 1].map(is_told), [false, false, true]);
}

#[test]
fn a_permit_of_an_earlier_leader_is_asked_for_anew_and_given_back_only_with_a_record() {
    let released = under(granted(5)).recorded().at(60_000);
    check(
        stands(released.clone(), Permit::Unasked),
        expect!["ask for a permit; Pending (Released), attempts 0; look again at 2026-01-01T00:01:00.3Z"],
    );
    let waiting = stands(released.clone(), waits(1));
    assert_eq!(waiting.plan().status, released.job.status);
    let anew = stands(released, granted(60_000));
    assert_eq!(anew.plan().status.released_at.as_deref(), Some(&at(60_000)));
    assert!(!publishes(&anew.plan()) && publishes(&anew.recorded().plan()));
}

#[test]
fn a_retry_needs_a_permit_of_its_own_and_a_message_in_place_of_a_lost_one_does_not() {
    let failed = scene().retrying(1).at(61_000);
    check(
        stands(failed.clone(), waits(1)),
        expect!["Retrying (LimitReached), attempts 1; look again at 2026-01-01T00:05:15.25Z"],
    );
    check(
        stands(failed, granted(60_000)),
        expect!["Retrying (Released), attempts 1; look again at 2026-01-01T00:01:01Z"],
    );
    let lost = scene().queued().at(1_000).sees(Task::Absent(vanished(2)));
    assert!(publishes(&stands(lost, Permit::Unasked).plan()));
}

#[test]
fn a_job_that_was_suspended_needs_a_permit_again() {
    let suspended = scene().queued().suspend().sees(Task::Withdrawn { generation: 0 }).recorded();
    let resumed = suspended.with(|job| job.spec.suspend = false);
    check(
        stands(resumed.clone(), Permit::Unasked),
        expect!["ask for a permit; Pending (Suspended), attempts 0; look again at 2026-01-01T00:00:00.3Z"],
    );
    let released = stands(resumed, granted(0)).recorded();
    assert!(publishes(&released.plan()), "{}", released.plan());
}

#[test]
fn a_released_job_keeps_its_permit_while_its_pool_cannot_be_reached() {
    let released = under(granted(5)).recorded();
    let cut_off = released
        .clone()
        .pool(Pool::Unusable(PoolProblem { kind: PoolProblemKind::BrokerUnreachable, detail: "gone".into() }));
    assert_eq!(cut_off.plan().status, released.job.status);
}

#[test]
fn a_released_job_that_is_suspended_gives_its_permit_back() {
    let suspended = under(granted(5)).recorded().suspend();
    check(suspended, expect!["Pending (Suspended), attempts 0; wait for a hint"]);
}
