//! What is recorded, and what is over too soon to be.

use expect_test::expect;

use super::*;
use crate::core::status::Progress;

/// Status changes of a job that is seen so at these times.
#[track_caller]
fn writes(seen: &[(i64, Task)]) -> usize {
    let mut scene = scene().enqueued(0);
    let mut writes = 0;
    for (millis, task) in seen {
        let before = scene.job.status.clone();
        scene = scene.at(*millis).sees(task.clone()).recorded();
        writes += usize::from(scene.job.status != before);
    }
    writes
}

fn reserved() -> Task {
    Task::Held(held(None, Holding::Unattributed))
}

#[test]
fn a_new_job_is_published_and_nothing_is_written() {
    check(
        scene(),
        expect![
            "enqueue attempt 1#0 on crew_jobs at priority 5; Pending (Pending), attempts 0; look again at 2026-01-01T00:00:00.3Z"
        ],
    );
}

#[test]
fn a_job_under_a_second_costs_exactly_one_status_change() {
    let run = Task::Held(runs(120, Liveness::Alive));
    assert_eq!(writes(&[(100, queued()), (110, reserved()), (120, run.clone()), (900, run), (990, succeeded("1"))]), 1);
    assert_eq!(writes(&[(3, succeeded("1"))]), 1);
}

#[test]
fn a_job_that_waits_and_runs_long_costs_three() {
    let run = Task::Held(runs(5_000, Liveness::Alive));
    let seen = [(300, queued()), (4_000, queued()), (5_000, reserved()), (6_000, run.clone()), (90_000, run)];
    assert_eq!(writes(&seen), 2);
    assert_eq!(writes(&[&seen[..], &[(95_000, succeeded("1"))]].concat()), 3);
}

#[test]
fn queued_is_recorded_only_after_300_milliseconds() {
    check(
        scene().enqueued(0).sees(queued()).at(299),
        expect!["Pending (Pending), attempts 0; look again at 2026-01-01T00:00:00.3Z"],
    );
    check(scene().enqueued(0).sees(queued()).at(300), expect!["Queued (Enqueued), attempts 0; wait for a hint"]);
}

#[test]
fn a_message_that_is_only_reserved_is_still_queued_to_people() {
    check(
        scene().enqueued(0).sees(reserved()).at(299),
        expect!["Pending (Pending), attempts 0; look again at 2026-01-01T00:00:00.3Z"],
    );
    check(scene().enqueued(0).sees(reserved()).at(300), expect!["Queued (Enqueued), attempts 0; wait for a hint"]);
}

#[test]
fn a_message_whose_publication_an_operator_did_not_live_to_record_is_recorded_now() {
    check(scene().sees(queued()).at(50), expect!["Queued (Enqueued), attempts 0; wait for a hint"]);
    check(scene().sees(reserved()).at(50), expect!["Queued (Enqueued), attempts 0; wait for a hint"]);
}

#[test]
fn running_is_recorded_only_after_a_second() {
    let run = Task::Held(runs(500, Liveness::Alive));
    check(
        scene().queued().sees(run.clone()).at(1_499),
        expect!["Queued (Enqueued), attempts 0; look again at 2026-01-01T00:00:01.5Z"],
    );
    check(
        scene().queued().sees(run).at(1_500),
        expect!["Running (Running), attempts 1; look again at 2026-01-01T01:01:00.5Z"],
    );
}

#[test]
fn a_running_job_names_its_worker_and_a_restarted_operator_changes_nothing() {
    let scene = scene().queued().sees(Task::Held(runs(1_000, Liveness::Alive))).at(2_000).recorded();
    assert_eq!(scene.job.status.worker.as_deref(), Some(&worker("a")));
    assert_eq!(scene.clone().at(9_000).plan().status, scene.job.status);
    check(scene.sees(Task::Unread), expect!["Running (Running), attempts 1; wait for a hint"]);
}

#[test]
fn a_silent_worker_still_runs_its_job() {
    check(
        scene().running().sees(Task::Held(runs(1_000, Liveness::Unreachable))).at(99_000),
        expect!["Running (Running), attempts 1; look again at 2026-01-01T01:01:01Z"],
    );
    check(scene().running().sees(reserved()).at(99_000), expect!["Running (Running), attempts 1; wait for a hint"]);
}

#[test]
fn a_running_message_that_is_back_on_the_queue_is_queued() {
    check(scene().running().sees(queued()).at(5_000), expect!["Queued (Enqueued), attempts 1; wait for a hint"]);
}

#[test]
fn progress_is_recorded_every_five_seconds_and_at_the_end() {
    let says = |percent, millis| {
        let progress = Some(Progress { percent: Some(percent), message: None, at: at(millis) });
        Task::Held(Held { progress, ..runs(1_000, Liveness::Alive) })
    };
    let percent = |scene: &Scene| scene.job.status.progress.as_ref().and_then(|progress| progress.percent);
    let first = scene().running().sees(says(10, 2_000)).at(2_000).recorded();
    assert_eq!(percent(&first), Some(10));
    let soon = first.clone().sees(says(20, 3_000)).at(3_000);
    check(soon.clone(), expect!["Running (Running), attempts 1; look again at 2026-01-01T00:00:07Z"]);
    assert_eq!(percent(&soon.clone().recorded()), Some(10));
    assert_eq!(percent(&soon.clone().at(7_000).recorded()), Some(20));
    assert_eq!(percent(&soon.sees(says(100, 3_500)).recorded()), Some(100));
}

#[test]
fn retries_that_celery_made_itself_count_as_runs() {
    let run = Held { celery_retries: 2, ..runs(1_000, Liveness::Alive) };
    check(
        scene().running().sees(Task::Held(run)).at(9_000),
        expect!["Running (Running), attempts 3; look again at 2026-01-01T01:01:01Z"],
    );
}

#[test]
fn evidence_about_another_attempt_decides_nothing() {
    let mut scene = scene().retrying(1).at(70_000).sees(failed("ValueError"));
    scene.seen.of = crate::core::id::TaskId::derive(scene.job.uid, 1);
    check(scene, expect!["Retrying (RetryScheduled), attempts 1; wait for a hint"]);
}

#[test]
fn a_generation_that_an_operator_did_not_live_to_record_is_recorded_now() {
    let scene = scene().queued().sees(Task::Queued { generation: 1 }).at(9_000).recorded();
    assert_eq!(scene.job.status.attempt.map(|attempt| attempt.generation), Some(1));
    let scene = scene.sees(Task::Held(Held { generation: 2, ..held(None, Holding::Unattributed) })).recorded();
    assert_eq!(scene.job.status.attempt.map(|attempt| attempt.generation), Some(2));
}
