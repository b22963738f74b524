//! Of the jobs with one dedup key one runs, and the others fail, end as it does, or take its place.

use expect_test::expect;

use super::*;
use crate::core::dedup::{Dedup, OnConflict};
use crate::core::twins::{Twin, TwinEnd};

const CHOICES: [OnConflict; 3] = [OnConflict::Reject, OnConflict::Attach, OnConflict::Replace];

pub fn declared(choice: usize) -> Dedup {
    let window = Duration::from_hours(1);
    Dedup { key: "k".into(), window, on_conflict: CHOICES[choice % CHOICES.len()] }
}

pub fn twin(has_ended: bool) -> Twin {
    let end = TwinEnd { phase: Phase::Failed, result: None, error: Some(Box::new(error("ValueError"))) };
    let uid = Uuid::from_u128(1);
    Twin { job: "first".into(), uid, created_at: at(-1_000), stands: Some(uid), end: has_ended.then_some(end) }
}

fn under(on_conflict: OnConflict, twins: Verdict) -> Scene {
    let mut scene = scene().with(|job| {
        job.spec.dedup = Some(Box::new(Dedup { on_conflict, ..declared(0) }));
    });
    scene.seen.twins = twins;
    scene
}

fn of(has_ended: bool) -> Verdict {
    Verdict::Of { twin: Box::new(twin(has_ended)), read_at: at(0) }
}

#[test]
fn the_jobs_with_the_key_are_listed_and_that_the_job_stands_for_it_is_recorded_before_anything_is_published() {
    check(
        under(OnConflict::Reject, Verdict::Unread),
        expect!["list the jobs with its dedup key; Pending (Pending), attempts 0; look again at 2026-01-01T00:00:30Z"],
    );
    let alone = under(OnConflict::Reject, Verdict::Alone);
    assert!(!publishes(&alone.plan()));
    assert!(publishes(&alone.recorded().plan()));
    let waits = under(OnConflict::Reject, Verdict::Undecided { by: "b".into(), read_at: at(0) });
    check(waits.clone(), expect!["Pending (Pending), attempts 0; look again at 2026-01-01T00:00:01Z"]);
    check(
        waits.at(1_000),
        expect!["list the jobs with its dedup key; Pending (Pending), attempts 0; look again at 2026-01-01T00:00:31Z"],
    );
}

#[test]
fn a_duplicate_that_is_to_be_rejected_fails_whether_the_first_one_has_ended_or_not() {
    for has_ended in [false, true] {
        check(
            under(OnConflict::Reject, of(has_ended)),
            expect!["Failed (Duplicate), attempts 0; then forget; warn Duplicate"],
        );
    }
    check_message(
        under(OnConflict::Reject, of(false)),
        expect![[
            r#"not run: CrewJob "first" has the same dedup key "k" and was created within the window of it. To run it, create a job with another key, or delete that one first"#
        ]],
    );
}

#[test]
fn a_duplicate_gives_way_also_while_it_is_suspended_as_others_wait_for_that() {
    let suspended = under(OnConflict::Reject, of(false)).suspend();
    assert_eq!(suspended.plan().status.phase, Phase::Failed);
}

#[test]
fn a_duplicate_that_is_attached_waits_and_ends_as_the_first_one_does() {
    let waits = under(OnConflict::Attach, of(false));
    check(waits.clone(), expect!["Pending (Attached), attempts 0; look again at 2026-01-01T00:00:30Z"]);
    let mut ended = waits.recorded();
    ended.seen.twins = of(true);
    check(ended.clone(), expect!["Failed (Attached), attempts 0; then forget; warn Attached"]);
    assert_eq!(ended.plan().status.error, Some(Box::new(error("ValueError"))));
}

#[test]
fn a_job_that_replaces_another_one_cancels_it_once_and_runs_when_that_has_ended() {
    let waits = under(OnConflict::Replace, of(false));
    check(
        waits.clone(),
        expect![[r#"cancel CrewJob "first"; Pending (Replacing), attempts 0; look again at 2026-01-01T00:00:30Z"#]],
    );
    let mut recorded = waits.recorded();
    check(recorded.clone(), expect!["Pending (Replacing), attempts 0; look again at 2026-01-01T00:00:30Z"]);
    let mut another = recorded.clone();
    let second = Twin { job: "second".into(), ..twin(false) };
    another.seen.twins = Verdict::Of { twin: Box::new(second), read_at: at(0) };
    assert!(another.plan().to_string().contains(r#"cancel CrewJob "second""#), "the next one in its way");
    recorded.seen.twins = Verdict::Alone;
    assert!(publishes(&recorded.recorded().plan()));
}
