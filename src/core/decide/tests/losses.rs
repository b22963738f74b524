//! Dead workers, vanished messages, emptied Redis.

use expect_test::expect;

use super::*;
use crate::core::policy::OnUnknown;

fn dead() -> Held {
    runs(1_000, Liveness::Dead)
}

#[test]
fn the_message_of_a_dead_worker_is_published_at_once_under_a_new_generation() {
    let scene = scene().running().sees(Task::Held(dead())).at(9_000);
    check(
        scene.clone(),
        expect![
            "requeue in place of #0 in flight: attempt 1#1 on crew_jobs at priority 5; Queued (WorkerLost), attempts 1; warn WorkerLost; wait for a hint"
        ],
    );
    check_message(scene.clone(), expect!["the worker died and the message was published again"]);
    let status = scene.plan().status;
    assert_eq!((status.worker_losses, status.worker, status.attempt.unwrap().started_at), (1, None, None));
}

#[test]
fn a_message_in_flight_that_every_worker_denies_lost_its_worker() {
    check(
        scene().queued().sees(Task::Held(held(None, Holding::NoWorker))).at(9_000),
        expect![
            "requeue in place of #0 in flight: attempt 1#1 on crew_jobs at priority 5; Queued (WorkerLost), attempts 0; warn WorkerLost; wait for a hint"
        ],
    );
}

#[test]
fn a_message_in_flight_without_a_known_worker_is_waited_for() {
    check(
        scene().queued().sees(Task::Held(held(None, Holding::Unattributed))).at(9_000_000),
        expect!["Queued (Enqueued), attempts 0; wait for a hint"],
    );
}

#[test]
fn a_fourth_dead_worker_is_one_too_many() {
    let lost = |worker_losses| scene().running().with(|job| job.status.worker_losses = worker_losses);
    check(
        lost(2).sees(Task::Held(dead())).at(9_000),
        expect![
            "requeue in place of #0 in flight: attempt 1#1 on crew_jobs at priority 5; Queued (WorkerLost), attempts 1; warn WorkerLost; wait for a hint"
        ],
    );
    check(
        lost(3).sees(Task::Held(dead())).at(9_000),
        expect!["Failed (WorkerLost), attempts 1; then forget; warn WorkerLost"],
    );
    check_message(lost(3).sees(Task::Held(dead())).at(9_000), expect!["4 workers died under the job"]);
}

#[test]
fn a_worker_whose_node_does_not_answer_is_waited_for_unless_its_pool_gives_it_up() {
    let scene = |restarts| {
        let liveness = Liveness::Unreachable.in_pool(restarts);
        scene().running().sees(Task::Held(runs(1_000, liveness))).at(9_000)
    };
    check(scene(false), expect!["Running (Running), attempts 1; look again at 2026-01-01T01:01:01Z"]);
    check(
        scene(true),
        expect![
            "requeue in place of #0 in flight: attempt 1#1 on crew_jobs at priority 5; Queued (WorkerLost), attempts 1; warn WorkerLost; wait for a hint"
        ],
    );
    assert_eq!(Liveness::Alive.in_pool(true), Liveness::Alive);
}

#[test]
fn a_child_process_that_died_counts_as_a_dead_worker_and_its_document_goes() {
    check(
        scene().running().sees(Task::Ended(child_lost())).at(9_000),
        expect![
            "clear the result, requeue in place of #0 ended: attempt 1#1 on crew_jobs at priority 5; Queued (WorkerLost), attempts 1; warn WorkerLost; wait for a hint"
        ],
    );
    let once_more = Ended { marker: Some(1), ..child_lost() };
    check(
        scene().running().sees(Task::Ended(once_more)).at(9_000),
        expect![
            "clear the result, requeue in place of #1 ended: attempt 1#2 on crew_jobs at priority 5; Queued (WorkerLost), attempts 1; warn WorkerLost; wait for a hint"
        ],
    );
    let emptied = Ended { marker: None, ..child_lost() };
    check(
        scene().running().sees(Task::Ended(emptied)).at(9_000),
        expect![
            "clear the result, requeue in place of nothing: attempt 1#1 on crew_jobs at priority 5; Queued (WorkerLost), attempts 1; warn WorkerLost; wait for a hint"
        ],
    );
}

#[test]
fn a_vanished_message_is_lost_only_after_two_audits_and_when_every_worker_denies_it() {
    let scene = || scene().queued().at(9_000);
    check(scene().sees(Task::Absent(vanished(1))), expect!["Queued (Enqueued), attempts 0; wait for a hint"]);
    check(
        scene().sees(Task::Absent(Search { denied: false, ..vanished(9) })),
        expect!["Queued (Enqueued), attempts 0; wait for a hint"],
    );
    check(
        scene().sees(Task::Absent(vanished(2))),
        expect![
            "requeue in place of #0 nowhere: attempt 1#1 on crew_jobs at priority 5; Queued (MessageLost), attempts 0; warn MessageLost; wait for a hint"
        ],
    );
}

#[test]
fn a_third_vanished_message_is_one_too_many() {
    let lost = |message_losses| scene().queued().with(|job| job.status.message_losses = message_losses).at(9_000);
    check(
        lost(1).sees(Task::Absent(vanished(2))),
        expect![
            "requeue in place of #0 nowhere: attempt 1#1 on crew_jobs at priority 5; Queued (MessageLost), attempts 0; warn MessageLost; wait for a hint"
        ],
    );
    check(
        lost(2).sees(Task::Absent(vanished(2))),
        expect!["Failed (MessageLost), attempts 0; then forget; warn MessageLost"],
    );
}

#[test]
fn an_emptied_redis_costs_no_audit_when_no_worker_has_the_message() {
    check(
        scene().queued().sees(Task::Absent(emptied())).at(9_000),
        expect![
            "requeue in place of nothing: attempt 1#1 on crew_jobs at priority 5; Queued (MessageLost), attempts 0; warn MessageLost; wait for a hint"
        ],
    );
    let unrecorded = scene().enqueued(0).sees(Task::Absent(emptied())).at(100);
    check(
        unrecorded,
        expect![
            "requeue in place of nothing: attempt 1#1 on crew_jobs at priority 5; Queued (MessageLost), attempts 0; warn MessageLost; wait for a hint"
        ],
    );
    let asked_too_soon = Search { denied: false, ..emptied() };
    check(
        scene().queued().sees(Task::Absent(asked_too_soon)).at(9_000),
        expect!["Queued (Enqueued), attempts 0; wait for a hint"],
    );
}

#[test]
fn an_emptied_redis_is_not_a_lost_message_of_the_budget() {
    let scene = scene().queued().with(|job| job.status.message_losses = 2);
    assert_eq!(scene.sees(Task::Absent(emptied())).plan().status.message_losses, 2);
}

#[test]
fn a_worker_that_lives_through_an_emptied_redis_runs_on() {
    let lives = Search { seen: Some(runs(1_000, Liveness::Alive)), denied: false, ..emptied() };
    check(
        scene().running().sees(Task::Absent(lives)).at(60_000),
        expect!["Running (Running), attempts 1; look again at 2026-01-01T01:01:01Z"],
    );
    let died = Search { seen: Some(dead()), ..emptied() };
    check(
        scene().running().sees(Task::Absent(died)).at(60_000),
        expect![
            "requeue in place of nothing: attempt 1#1 on crew_jobs at priority 5; Queued (WorkerLost), attempts 1; warn WorkerLost; wait for a hint"
        ],
    );
}

#[test]
fn a_worker_that_acknowledged_early_is_waited_for_until_the_hard_limit_and_a_minute() {
    let early = Search { seen: Some(runs(1_000, Liveness::Alive)), ..vanished(9) };
    let scene = scene().running().sees(Task::Absent(early));
    check(scene.clone().at(3_660_999), expect!["Running (Running), attempts 1; look again at 2026-01-01T01:01:01Z"]);
    check(scene.clone().at(3_661_000), expect!["revoke; Failed (NoResult), attempts 1; then forget; warn NoResult"]);
    check_message(
        scene.clone().at(3_661_000),
        expect!["the worker gave no usable result: NoResult: the message was acknowledged and no result was stored"],
    );
    check(
        scene.policy(|policy| policy.on_unknown = Some(OnUnknown::Retry)).at(3_661_000),
        expect!["revoke; Retrying (RetryScheduled), attempts 1; then forget; look again at 2026-01-01T01:01:01Z"],
    );
}

#[test]
fn a_worker_that_never_said_when_it_began_is_not_waited_for_without_end() {
    let silent =
        Search { seen: Some(held(None, Holding::By(worker("a"), Liveness::Alive))), denied: false, ..vanished(9) };
    check(
        scene().queued().sees(Task::Absent(silent)).at(3_660_000),
        expect!["revoke; Failed (NoResult), attempts 1; then forget; warn NoResult"],
    );
}

#[test]
fn a_message_that_was_reserved_and_is_denied_now_was_lost() {
    let reserved = Search { seen: Some(held(None, Holding::By(worker("a"), Liveness::Alive))), ..vanished(2) };
    check(
        scene().queued().sees(Task::Absent(reserved.clone())).at(9_000),
        expect![
            "requeue in place of #0 nowhere: attempt 1#1 on crew_jobs at priority 5; Queued (MessageLost), attempts 0; warn MessageLost; wait for a hint"
        ],
    );
    check(
        scene().queued().sees(Task::Absent(Search { denied: false, ..reserved })).at(9_000),
        expect!["Queued (Enqueued), attempts 0; look again at 2026-01-01T01:01:00Z"],
    );
}

/// Kombu puts back what a worker had when its connection broke, also what it ran, and notes what it pops a moment later.
#[test]
fn a_message_that_is_nowhere_when_its_worker_died_may_be_with_another_worker() {
    let search = |audits| Search { seen: Some(dead()), ..vanished(audits) };
    let scene = || scene().running().at(9_000);
    let waits = "Running (Running), attempts 1; wait for a hint";
    let emptied_and_not_denied = Search { seen: Some(dead()), denied: false, ..emptied() };
    for too_soon in [search(0), search(1), Search { denied: false, ..search(9) }, emptied_and_not_denied] {
        assert_eq!(scene().sees(Task::Absent(too_soon)).plan().to_string(), waits);
    }
    check(
        scene().sees(Task::Absent(search(2))),
        expect![
            "requeue in place of #0 nowhere: attempt 1#1 on crew_jobs at priority 5; Queued (WorkerLost), attempts 1; warn WorkerLost; wait for a hint"
        ],
    );
    // Its task may have replaced itself by others before the worker died, which are to be stopped, too.
    check(scene().cancel().sees(Task::Absent(search(0))), expect!["Running (Running), attempts 1; wait for a hint"]);
    check(scene().cancel().sees(Task::Absent(search(1))), expect!["Cancelled (Cancelled), attempts 1; then clear"]);
}

#[test]
fn the_holder_of_an_earlier_generation_proves_nothing_about_the_next_one() {
    let search = Search { marker: Some(1), seen: Some(dead()), ..vanished(1) };
    check(
        scene().queued().sees(Task::Absent(search)).at(9_000),
        expect!["Queued (Enqueued), attempts 0; wait for a hint"],
    );
}

#[test]
fn a_run_that_may_have_ended_while_no_operator_watched_is_never_repeated_silently() {
    let unseen = Search { may_have_expired_unread: true, ..vanished(2) };
    let scene = scene().running().sees(Task::Absent(unseen)).at(9_000_000);
    check(scene.clone(), expect!["Failed (ResultExpired), attempts 1; then forget; warn ResultExpired"]);
    check_message(scene.clone(), expect!["the result expired in Redis before it could be read"]);
    check(
        scene.policy(|policy| policy.on_unknown = Some(OnUnknown::Retry)),
        expect!["Retrying (RetryScheduled), attempts 1; then forget; look again at 2026-01-01T02:30:00Z"],
    );
}

/// Recorded as published for the fourth time.
fn fourth() -> Scene {
    scene().queued().with(|job| job.status.attempt.as_mut().unwrap().generation = 3).at(9_000)
}

#[test]
fn a_redis_that_came_back_from_an_old_snapshot_gets_a_generation_that_was_never_used() {
    check(
        fourth().sees(Task::Absent(vanished(2))),
        expect![
            "clear the result, requeue in place of #0 nowhere: attempt 1#4 on crew_jobs at priority 5; Queued (MessageLost), attempts 0; warn MessageLost; wait for a hint"
        ],
    );
    check(
        fourth().sees(Task::Held(dead())),
        expect![
            "clear the result, requeue in place of #0 in flight: attempt 1#4 on crew_jobs at priority 5; Queued (MessageLost), attempts 0; warn MessageLost; wait for a hint"
        ],
    );
}

#[test]
fn the_task_of_a_dead_worker_is_not_revoked_when_redis_came_back_from_an_old_snapshot() {
    let seen = |liveness| {
        let held = Held { generation: 3, ..runs(1_000, liveness) };
        Task::Absent(Search { seen: Some(held), denied: false, ..vanished(0) })
    };
    check(
        fourth().sees(seen(Liveness::Alive)).at(3_661_000),
        expect!["revoke; Queued (Enqueued), attempts 0; look again at 2026-01-01T01:01:11Z"],
    );
    // Its next message must not be refused by every worker.
    check(fourth().sees(seen(Liveness::Dead)).at(3_661_000), expect!["Queued (Enqueued), attempts 0; wait for a hint"]);
}

#[test]
fn a_reading_from_before_the_status_was_written_ends_no_job() {
    let worn_out = || {
        fourth().with(|job| {
            job.status.worker_losses = 3;
            job.status.message_losses = 2;
        })
    };
    for task in [
        Task::Held(dead()),
        Task::Ended(child_lost()),
        Task::Withdrawn { generation: 0 },
        Task::Absent(vanished(2)),
        Task::Absent(Search { may_have_expired_unread: true, ..vanished(2) }),
        Task::Absent(Search { seen: Some(dead()), ..vanished(2) }),
    ] {
        for scene in [worn_out(), worn_out().cancel(), worn_out().changed(), worn_out().suspend()] {
            let plan = scene.sees(task.clone()).plan();
            assert!(!plan.status.phase.is_terminal(), "{plan}");
            assert_eq!((plan.status.worker_losses, plan.status.message_losses), (3, 2), "{plan}");
        }
    }
}

#[test]
fn a_lost_message_waits_while_its_queue_is_not_the_pools() {
    let pool = PoolFacts { queues: vec!["other".into()], ..pool() };
    let scene = scene().running().pool(Pool::Ready(Arc::new(pool))).sees(Task::Held(dead())).at(9_000);
    check(scene.clone(), expect!["Pending (QueueNotInPool), attempts 1; warn QueueNotInPool; wait for a hint"]);
    check_message(scene, expect![[r#"spec.queue "crew_jobs" is not one of the pool's queues: other"#]]);
}

#[test]
fn a_worker_that_has_neither_task_nor_result_is_not_waited_for() {
    let early = |denials_by_holder| Search {
        seen: Some(runs(1_000, Liveness::Alive)),
        denials_by_holder,
        denied: false,
        ..vanished(9)
    };
    let scene = |denials_by_holder| scene().running().sees(Task::Absent(early(denials_by_holder))).at(9_000);
    assert_eq!(scene(1).plan().status.phase, Phase::Running, "it may be about to store the result");
    check(scene(2), expect!["Failed (NoResult), attempts 1; then forget; warn NoResult"]);
}

#[test]
fn a_worker_that_denies_a_message_it_had_only_reserved_has_given_it_back() {
    let reserved = held(None, Holding::By(worker("a"), Liveness::Alive));
    let search = Search { seen: Some(reserved), denials_by_holder: 2, denied: false, ..vanished(2) };
    let scene = scene().queued().sees(Task::Absent(search)).at(9_000);
    assert_eq!(scene.plan().status.phase, Phase::Queued, "a worker that does not answer yet may have it");
}

#[test]
fn a_dead_worker_that_had_only_reserved_a_vanished_message_proves_no_loss() {
    let reserved = held(None, Holding::By(worker("a"), Liveness::Dead));
    let search = Search { seen: Some(reserved), denied: false, ..vanished(1) };
    check(
        scene().queued().sees(Task::Absent(search)).at(9_000),
        expect!["Queued (Enqueued), attempts 0; wait for a hint"],
    );
}

#[test]
fn nothing_is_published_under_an_id_that_workers_were_told_to_refuse_because_its_run_took_too_long() {
    let mut scene = scene().running().sees(Task::Held(held(None, Holding::NoWorker))).at(9_000);
    scene.seen.stop_asked_at = Some(at(5_000));
    check(scene, expect!["Retrying (RetryScheduled), attempts 1; then forget; look again at 2026-01-01T00:00:09Z"]);
}

#[test]
fn two_audits_find_that_an_emptied_redis_has_lost_a_message_that_a_living_worker_was_seen_with() {
    let held = || held(None, Holding::By(worker("a"), Liveness::Alive));
    let lost =
        |audits| scene().queued().sees(Task::Absent(Search { seen: Some(held()), ..Search { audits, ..emptied() } }));
    check(lost(1).at(9_000), expect!["Queued (Enqueued), attempts 0; wait for a hint"]);
    check(
        lost(2).at(9_000),
        expect![
            "requeue in place of nothing: attempt 1#1 on crew_jobs at priority 5; Queued (MessageLost), attempts 0; warn MessageLost; wait for a hint"
        ],
    );
}
