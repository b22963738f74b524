//! Cancel and suspend are desired state: they hold whatever happens next.

use expect_test::expect;

use super::*;

#[test]
fn a_job_that_was_never_published_is_cancelled_at_once() {
    check(scene().cancel(), expect!["Cancelled (Cancelled), attempts 0; then forget"]);
    check(scene().retrying(1).cancel(), expect!["Cancelled (Cancelled), attempts 1; then forget"]);
}

#[test]
fn a_queued_job_is_withdrawn_first_and_cancelled_when_that_is_seen() {
    check(
        scene().queued().cancel().sees(queued()),
        expect!["withdraw attempt 1#0; Queued (Enqueued), attempts 0; look again at 2026-01-01T00:00:00.3Z"],
    );
    check(
        scene().queued().cancel().sees(Task::Withdrawn { generation: 0 }),
        expect!["Cancelled (Cancelled), attempts 0; then forget"],
    );
    check(
        scene().enqueued(0).cancel().sees(queued()).at(100),
        expect!["withdraw attempt 1#0; Pending (Pending), attempts 0; look again at 2026-01-01T00:00:00.4Z"],
    );
}

#[test]
fn a_running_job_is_revoked_again_and_again_until_its_worker_says_so() {
    let scene = scene().running().cancel().at(9_000);
    check(
        scene.clone().sees(Task::Held(runs(1_000, Liveness::Alive))),
        expect!["revoke; Running (Running), attempts 1; look again at 2026-01-01T00:00:19Z"],
    );
    check(
        scene.clone().sees(Task::Held(runs(1_000, Liveness::Unreachable))),
        expect!["revoke; Running (Running), attempts 1; look again at 2026-01-01T00:00:19Z"],
    );
    check(scene.sees(Task::Ended(ended(Ending::Revoked))), expect!["Cancelled (Cancelled), attempts 1; then clear"]);
}

#[test]
fn a_worker_is_told_to_stop_a_task_once_a_second_at_most_however_often_there_is_news_of_it() {
    let mut scene = scene().running().cancel().sees(Task::Held(runs(1_000, Liveness::Alive))).at(9_000);
    (scene.seen.stop_asked_at, scene.seen.stop_repeated_at) = (Some(at(2_000)), Some(at(8_001)));
    check(scene.clone(), expect!["Running (Running), attempts 1; look again at 2026-01-01T00:00:09.001Z"]);
    check(scene.at(9_001), expect!["revoke; Running (Running), attempts 1; look again at 2026-01-01T00:00:19.001Z"]);
}

#[test]
fn a_worker_that_acknowledged_early_is_told_to_stop_too() {
    let early = Search { seen: Some(runs(1_000, Liveness::Alive)), ..vanished(9) };
    check(
        scene().running().cancel().sees(Task::Absent(early)).at(9_000),
        expect!["revoke; Running (Running), attempts 1; look again at 2026-01-01T00:00:19Z"],
    );
    let unknown = Search { denied: false, ..vanished(9) };
    check(
        scene().queued().cancel().sees(Task::Absent(unknown)).at(9_000),
        expect!["revoke; Queued (Enqueued), attempts 0; look again at 2026-01-01T00:00:19Z"],
    );
}

#[test]
fn a_result_that_wins_the_race_is_a_success() {
    check(
        scene().running().cancel().sees(succeeded("1")),
        expect!["Succeeded (FinishedBeforeCancel), attempts 1; then clear"],
    );
}

#[test]
fn a_failure_that_wins_the_race_is_not_retried() {
    check(
        scene().running().cancel().sees(failed("ValueError")),
        expect!["Cancelled (Cancelled), attempts 1; then clear"],
    );
}

#[test]
fn a_cancelled_job_is_not_published_again_whatever_is_lost() {
    let scene = || scene().running().cancel().at(9_000);
    for task in [
        Task::Held(runs(1_000, Liveness::Dead)),
        Task::Held(held(None, Holding::NoWorker)),
        Task::Ended(child_lost()),
        Task::Absent(vanished(2)),
        Task::Absent(emptied()),
        Task::Absent(Search { seen: Some(runs(1_000, Liveness::Dead)), ..emptied() }),
        Task::Absent(Search { may_have_expired_unread: true, ..vanished(2) }),
    ] {
        let plan = scene().sees(task).plan();
        assert_eq!((plan.status.phase, publishes(&plan)), (Phase::Cancelled, false), "{plan}");
    }
}

#[test]
fn a_suspended_job_is_withdrawn_and_waits() {
    let scene = scene().queued().suspend();
    check(
        scene.clone().sees(queued()),
        expect!["withdraw attempt 1#0; Queued (Enqueued), attempts 0; look again at 2026-01-01T00:00:00.3Z"],
    );
    check(
        scene.clone().sees(Task::Withdrawn { generation: 0 }),
        expect!["Pending (Suspended), attempts 0; wait for a hint"],
    );
}

#[test]
fn a_resumed_job_is_published_under_the_next_generation() {
    let suspended = scene().queued().suspend().sees(Task::Withdrawn { generation: 0 }).recorded();
    let resumed = suspended.with(|job| job.spec.suspend = false).at(99_000);
    check(
        resumed.clone(),
        expect![
            "requeue in place of #0 nowhere: attempt 1#1 on crew_jobs at priority 5; Queued (Enqueued), attempts 0; wait for a hint"
        ],
    );
    assert_eq!(resumed.plan().status.attempt.unwrap().enqueued_at, at(99_000));
}

#[test]
fn a_resumed_job_whose_redis_was_emptied_meanwhile_is_published_too() {
    let suspended = scene().queued().suspend().sees(Task::Withdrawn { generation: 0 }).recorded();
    check(suspended.clone().sees(Task::Absent(emptied())), expect!["Pending (Suspended), attempts 0; wait for a hint"]);
    check(
        suspended.with(|job| job.spec.suspend = false).sees(Task::Absent(emptied())),
        expect![
            "requeue in place of nothing: attempt 1#1 on crew_jobs at priority 5; Queued (MessageLost), attempts 0; warn MessageLost; wait for a hint"
        ],
    );
}

#[test]
fn suspend_does_nothing_once_a_worker_has_the_job() {
    check(
        scene().running().suspend().sees(Task::Held(runs(1_000, Liveness::Alive))).at(9_000),
        expect!["Running (Running), attempts 1; look again at 2026-01-01T01:01:01Z"],
    );
    check(
        scene().running().suspend().sees(succeeded("1")).at(9_000),
        expect!["Succeeded (Succeeded), attempts 1; then forget"],
    );
}

#[test]
fn a_suspended_job_is_not_published_again_whatever_is_lost_until_it_is_resumed() {
    for task in [
        Task::Held(runs(1_000, Liveness::Dead)),
        Task::Held(held(None, Holding::NoWorker)),
        Task::Ended(child_lost()),
        Task::Absent(vanished(2)),
        Task::Absent(emptied()),
    ] {
        let suspended = scene().running().suspend().at(9_000).sees(task);
        let plan = suspended.plan();
        assert_eq!((plan.status.phase, publishes(&plan)), (Phase::Pending, false), "{plan}");
        let resumed = suspended.recorded().with(|job| job.spec.suspend = false);
        assert!(publishes(&resumed.plan()));
    }
}

#[test]
fn a_suspended_retry_waits_and_has_the_reason_of_a_retry_again_when_resumed() {
    let suspended = scene().retrying(1).suspend().at(2_000).recorded();
    check(suspended.clone(), expect!["Retrying (Suspended), attempts 1; wait for a hint"]);
    let resumed = suspended.with(|job| job.spec.suspend = false);
    check(resumed.clone(), expect!["Retrying (RetryScheduled), attempts 1; look again at 2026-01-01T00:01:00Z"]);
    check(
        resumed.at(60_000),
        expect![
            "enqueue attempt 2#0 on crew_jobs at priority 5; Retrying (Suspended), attempts 1; look again at 2026-01-01T00:01:00.3Z"
        ],
    );
}

fn limited(total: Option<u64>, queue: Option<u64>) -> Scene {
    scene().policy(|policy| {
        policy.total = total.map(Duration::from_secs);
        policy.queue = queue.map(Duration::from_secs);
    })
}

#[test]
fn a_job_that_outlives_its_total_timeout_is_stopped_wherever_it_is() {
    let late = || limited(Some(60), None).at(60_000);
    check(
        late().queued().sees(queued()),
        expect!["withdraw attempt 1#0; Queued (Enqueued), attempts 0; look again at 2026-01-01T00:01:00.3Z"],
    );
    check(
        late().queued().sees(Task::Withdrawn { generation: 0 }),
        expect!["Failed (DeadlineExceeded), attempts 0; then forget; warn DeadlineExceeded"],
    );
    let running = Task::Held(runs(1_000, Liveness::Alive));
    check(
        late().running().sees(running),
        expect!["revoke; Running (Running), attempts 1; look again at 2026-01-01T00:01:10Z"],
    );
    check(
        late().running().sees(Task::Ended(ended(Ending::Revoked))),
        expect!["Failed (DeadlineExceeded), attempts 1; then clear; warn DeadlineExceeded"],
    );
    check(late().retrying(1), expect!["Failed (DeadlineExceeded), attempts 1; then forget; warn DeadlineExceeded"]);
}

#[test]
fn a_result_that_comes_in_spite_of_the_deadline_is_kept() {
    let late = limited(Some(60), None).at(60_000);
    check(late.running().sees(succeeded("1")), expect!["Succeeded (Succeeded), attempts 1; then clear"]);
}

#[test]
fn a_job_is_looked_at_again_at_its_next_deadline() {
    let early = limited(Some(60), Some(30)).at(9_000);
    check(
        early.clone().queued().sees(queued()),
        expect!["Queued (Enqueued), attempts 0; look again at 2026-01-01T00:00:30Z"],
    );
    let running = Task::Held(runs(1_000, Liveness::Alive));
    check(early.running().sees(running), expect!["Running (Running), attempts 1; look again at 2026-01-01T00:01:00Z"]);
}

#[test]
fn a_message_that_no_worker_takes_in_time_is_withdrawn_and_its_job_has_failed() {
    let late = || limited(None, Some(30)).at(30_000).queued();
    check(
        late().sees(queued()),
        expect!["withdraw attempt 1#0; Queued (Enqueued), attempts 0; look again at 2026-01-01T00:00:30.3Z"],
    );
    check(
        late().sees(Task::Withdrawn { generation: 0 }),
        expect!["Failed (QueueTimeout), attempts 0; then forget; warn QueueTimeout"],
    );
    check(
        late().sees(Task::Held(runs(29_900, Liveness::Alive))),
        expect!["Queued (Enqueued), attempts 0; look again at 2026-01-01T00:00:30.9Z"],
    );
}

#[test]
fn time_in_suspension_is_not_time_in_the_queue() {
    let suspended = limited(None, Some(30)).queued().suspend().sees(Task::Withdrawn { generation: 0 }).at(9_000);
    let plan = suspended.plan();
    let resumed = suspended.with(|job| (job.status, job.spec.suspend) = (plan.status, false)).at(99_000);
    assert!(publishes(&resumed.plan()), "{}", resumed.plan());
}

#[test]
fn a_run_that_outlives_its_hard_limit_is_stopped_and_counts_as_failed() {
    let late = || scene().running().at(3_661_000);
    check(
        late().sees(Task::Held(runs(1_000, Liveness::Alive))),
        expect!["revoke; Running (Running), attempts 1; look again at 2026-01-01T01:01:11Z"],
    );
    check(
        late().sees(Task::Ended(ended(Ending::Revoked))),
        expect!["Retrying (RetryScheduled), attempts 1; then forget; look again at 2026-01-01T01:01:01Z"],
    );
    // Its id is revoked on every worker: it is not published once more.
    check(
        late().sees(Task::Held(runs(1_000, Liveness::Dead))),
        expect!["Retrying (RetryScheduled), attempts 1; then forget; look again at 2026-01-01T01:01:01Z"],
    );
}

#[test]
fn a_worker_that_does_not_react_to_a_cancel_is_deleted_when_its_pod_runs_no_other_job() {
    let mut scene = scene().running().cancel().sees(Task::Held(runs(1_000, Liveness::Alive))).at(40_000);
    scene.seen.stop_asked_at = Some(at(10_000));
    check(scene.clone(), expect!["revoke; Running (Running), attempts 1; look again at 2026-01-01T00:00:50Z"]);
    assert_eq!(
        scene.plan().status.remarks().cancel_unsupported,
        Some((at(40_000), Unstopped::WorkerDeaf)),
        "said when nothing can be done"
    );
    scene.seen.pod_deletion = PodDeletion::UnderWay;
    assert_eq!(
        (scene.plan().effects.len(), scene.plan().status.remarks().cancel_unsupported),
        (1, None),
        "once is enough"
    );
    scene.seen.pod_deletion = PodDeletion::Fine;
    check(
        scene.clone(),
        expect!["delete Pod a; revoke; Running (Running), attempts 1; look again at 2026-01-01T00:00:50Z"],
    );
    check(scene.at(39_999), expect!["revoke; Running (Running), attempts 1; look again at 2026-01-01T00:00:49.999Z"]);
}

#[test]
fn a_queued_message_moves_to_the_band_of_a_new_priority_and_nothing_else_does() {
    let mut scene = scene().queued().with(|job| job.spec.priority = Priority::clamped(10)).sees(queued()).at(9_000);
    scene.seen.published.priority = Some(Priority::clamped(5));
    check(
        scene.clone(),
        expect!["move attempt 1#0 to priority 10 of crew_jobs; Queued (Enqueued), attempts 0; wait for a hint"],
    );
    let held = scene.clone().sees(Task::Held(runs(8_900, Liveness::Alive)));
    assert_eq!(held.plan().effects, []);
    scene.seen.published.priority = Some(Priority::clamped(10));
    assert_eq!(scene.plan().effects, []);
}

#[test]
fn a_dead_worker_that_had_not_begun_may_have_given_the_message_back() {
    let reserved = held(None, Holding::By(worker("a"), Liveness::Dead));
    check(
        scene().queued().sees(Task::Held(reserved)).at(9_000),
        expect!["Queued (Enqueued), attempts 0; wait for a hint"],
    );
}

#[test]
fn a_priority_that_changes_before_queued_is_recorded_moves_the_message_within_its_own_queue() {
    let raised = |job: &mut Job| job.spec.priority = Priority::clamped(9);
    let published = |scene: Scene| {
        let mut scene = scene.sees(Task::Queued { generation: 0 });
        scene.seen.published.priority = Some(Priority::default());
        scene
    };
    check(
        published(scene().enqueued(0).with(raised)).at(100),
        expect![
            "move attempt 1#0 to priority 9 of crew_jobs; Pending (Pending), attempts 0; look again at 2026-01-01T00:00:00.3Z"
        ],
    );
    check(
        published(scene().enqueued(0).with(raised).with(|job| job.spec.queue = Some("default".into()))).at(100),
        expect![
            "move attempt 1#0 to priority 9 of default; Pending (Pending), attempts 0; look again at 2026-01-01T00:00:00.3Z"
        ],
    );
}
