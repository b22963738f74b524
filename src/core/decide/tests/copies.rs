//! A task that lives on in messages that no operator has published: retries of Celery's own, what a task replaces itself
//! by, copies that people send.

use expect_test::expect;

use super::*;
use crate::core::observed::Besides;

const TAG: Uuid = Uuid::from_u128(0xc0b1);

/// What is judged is such a copy.
fn copy(tag: Option<Uuid>) -> Others {
    Others { is_copy: true, tag, besides: Besides::default() }
}

fn besides(waits: bool, is_in_flight: bool) -> Others {
    Others { besides: Besides { waits, is_in_flight }, ..Others::default() }
}

impl Scene {
    fn others(mut self, others: Others) -> Self {
        self.seen.others = others;
        self
    }
}

#[test]
fn a_retry_that_waits_behind_other_messages_is_queued_for_as_long_as_it_waits() {
    let waits = scene().running().sees(queued()).others(copy(None)).at(9_000);
    check(waits.clone(), expect!["Queued (Enqueued), attempts 1; wait for a hint"]);
    let status = waits.clone().recorded().job.status;
    assert_eq!((status.message_losses, status.worker_losses, status.attempt.unwrap().generation), (0, 0, 0));
    let for_an_hour = waits.recorded().policy(|policy| policy.queue = Some(Duration::from_mins(1))).at(3_600_000);
    check(for_an_hour, expect!["Queued (Enqueued), attempts 1; wait for a hint"]);
}

#[test]
fn a_retry_that_waits_is_taken_off_the_queue_when_its_job_is_cancelled_or_suspended() {
    let waits = || scene().running().sees(queued()).others(copy(None)).at(9_000);
    check(
        waits().cancel(),
        expect!["withdraw attempt 1#0; Running (Running), attempts 1; look again at 2026-01-01T00:00:09.3Z"],
    );
    check(
        waits().suspend(),
        expect!["withdraw attempt 1#0; Running (Running), attempts 1; look again at 2026-01-01T00:00:09.3Z"],
    );
}

#[test]
fn a_copy_whose_worker_died_is_waited_for_until_all_workers_deny_it_and_then_its_own_bytes_are_published_again() {
    let dead = scene().running().sees(Task::Held(runs(1_000, Liveness::Dead))).others(copy(Some(TAG))).at(9_000);
    check(dead, expect!["Running (Running), attempts 1; wait for a hint"]);
    let denied = scene().running().sees(Task::Held(held(None, Holding::NoWorker))).others(copy(Some(TAG))).at(9_000);
    check(
        denied.clone(),
        expect![
            "requeue in place of a copy of #0 in flight: attempt 1#1 on crew_jobs at priority 5; Queued (WorkerLost), attempts 1; warn WorkerLost; wait for a hint"
        ],
    );
    check(denied.cancel(), expect!["drop a copy of attempt 1#0; Cancelled (Cancelled), attempts 1; then clear"]);
}

#[test]
fn a_run_that_celery_has_retried_had_a_copy_so_what_its_worker_leaves_counts_once_all_have_denied_it() {
    let retried = |by| Task::Held(Held { celery_retries: 1, by, ..runs(1_000, Liveness::Dead) });
    let dead = scene().running().sees(retried(runs(1_000, Liveness::Dead).by)).at(9_000);
    check(dead, expect!["Running (Running), attempts 1; wait for a hint"]);
    let denied = || scene().running().sees(retried(Holding::NoWorker)).at(9_000);
    check(
        denied(),
        expect![
            "requeue in place of #0 in flight: attempt 1#1 on crew_jobs at priority 5; Queued (WorkerLost), attempts 2; warn WorkerLost; wait for a hint"
        ],
    );
    check(
        denied().others(besides(false, true)),
        expect!["drop attempt 1#0; Running (Running), attempts 1; look again at 2026-01-01T00:00:09.3Z"],
    );
}

#[test]
fn a_copy_without_a_worker_whose_tag_kombu_does_not_make_is_left_to_kombu() {
    let denied = scene().running().sees(Task::Held(held(None, Holding::NoWorker))).others(copy(None)).at(9_000);
    check(denied, expect!["Running (Running), attempts 1; wait for a hint"]);
}

#[test]
fn a_message_that_no_worker_has_is_no_loss_while_a_copy_is_there_to_go_on_by() {
    let dead = || scene().running().sees(Task::Held(runs(1_000, Liveness::Dead))).at(9_000);
    check(
        dead().others(besides(true, false)),
        expect!["drop attempt 1#0; Running (Running), attempts 1; look again at 2026-01-01T00:00:09.3Z"],
    );
    // The worker that died may have had either.
    check(dead().others(besides(true, true)), expect!["Running (Running), attempts 1; wait for a hint"]);
    let denied = || scene().running().sees(Task::Held(held(None, Holding::NoWorker))).at(9_000);
    for others in [besides(true, false), besides(false, true)] {
        check(
            denied().others(others),
            expect!["drop attempt 1#0; Running (Running), attempts 1; look again at 2026-01-01T00:00:09.3Z"],
        );
    }
}

#[test]
fn a_task_that_replaced_itself_goes_on_as_running_beyond_the_limit_of_its_own_run() {
    let goes_on = || scene().sees(Task::GoesOn { generation: 0 });
    check(goes_on().running().at(90_000_000), expect!["Running (Running), attempts 1; wait for a hint"]);
    check(goes_on().queued().at(9_000), expect!["Queued (Enqueued), attempts 0; wait for a hint"]);
}

#[test]
fn a_task_that_replaced_itself_is_stopped_with_what_it_goes_on_by() {
    check(
        scene().running().sees(Task::GoesOn { generation: 0 }).cancel().at(9_000),
        expect!["revoke; Running (Running), attempts 1; look again at 2026-01-01T00:00:19Z"],
    );
}

/// Whether a worker has one of them cannot be known: a chain whose worker died would keep its job for as long as the
/// visibility timeout of kombu.
#[test]
fn a_task_that_replaced_itself_ends_when_it_is_stopped_once_workers_had_the_time_to_hear_that() {
    let mut stopped = scene().running().sees(Task::GoesOn { generation: 0 }).cancel().at(40_000);
    stopped.seen.stop_asked_at = Some(at(10_000));
    check(stopped, expect!["Cancelled (Cancelled), attempts 1; then clear"]);
}

#[test]
fn copies_that_are_left_when_a_job_ends_are_cleared() {
    let ended = |others| scene().running().sees(succeeded("1")).others(others).at(9_000);
    check(ended(besides(true, false)), expect!["Succeeded (Succeeded), attempts 1; then clear"]);
    check(
        ended(copy(Some(TAG))),
        expect!["drop a copy of attempt 1#0; Succeeded (Succeeded), attempts 1; then forget"],
    );
    let failed = scene().running().sees(failed("ValueError")).others(besides(true, false)).at(9_000);
    check(failed, expect!["Retrying (RetryScheduled), attempts 1; then clear; look again at 2026-01-01T00:00:09Z"]);
}
