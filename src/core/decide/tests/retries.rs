//! Retries belong to the operator, and share one budget with Celery's own.

use expect_test::expect;

use super::*;

#[test]
fn a_failed_attempt_is_retried_after_its_backoff_under_the_next_attempts_id() {
    let scene = scene().policy(|policy| policy.backoff_initial = Some(Duration::from_secs(8)));
    let scene = scene.running().sees(failed("ValueError")).at(2_000);
    check(
        scene.clone(),
        expect!["Retrying (RetryScheduled), attempts 1; then forget; look again at 2026-01-01T00:00:09.889Z"],
    );
    check_message(scene.clone(), expect!["attempt failed (ValueError: no luck), the next one waits for its backoff"]);
    let retrying = scene.recorded().sees(never_sent());
    check(
        retrying.clone().at(2_100),
        expect!["Retrying (RetryScheduled), attempts 1; look again at 2026-01-01T00:00:09.889Z"],
    );
    check(
        retrying.at(10_001),
        expect![
            "enqueue attempt 2#0 on crew_jobs at priority 5; Retrying (RetryScheduled), attempts 1; look again at 2026-01-01T00:00:10.301Z"
        ],
    );
}

#[test]
fn the_next_attempt_is_not_with_the_worker_of_the_last_one() {
    assert_eq!(scene().running().sees(failed("ValueError")).plan().status.worker, None);
}

#[test]
fn while_the_next_attempt_is_on_its_way_the_job_stays_retrying_until_it_is_visible() {
    check(
        scene().retrying(1).enqueued(60_000).sees(queued()).at(60_200),
        expect!["Retrying (RetryScheduled), attempts 1; look again at 2026-01-01T00:01:00.3Z"],
    );
    check(
        scene().retrying(1).enqueued(60_000).sees(queued()).at(60_300),
        expect!["Queued (Enqueued), attempts 1; wait for a hint"],
    );
}

#[test]
fn three_retries_are_four_runs() {
    let last = |attempts| scene().retrying(attempts).sees(failed("ValueError")).at(90_000);
    check(last(2), expect!["Retrying (RetryScheduled), attempts 3; then forget; look again at 2026-01-01T00:01:30Z"]);
    check(last(3), expect!["Failed (RetriesExhausted), attempts 4; then forget; warn RetriesExhausted"]);
    check_message(last(3), expect!["all 4 runs failed, the last with ValueError: no luck"]);
}

#[test]
fn no_retries_is_one_run() {
    check(
        scene().policy(|policy| policy.max_retries = Some(0)).running().sees(failed("ValueError")),
        expect!["Failed (RetriesExhausted), attempts 1; then forget; warn RetriesExhausted"],
    );
}

#[test]
fn retries_that_celery_made_itself_come_off_the_same_budget() {
    let failed = |celery_retries| {
        let Task::Ended(ended) = failed("ValueError") else { unreachable!() };
        scene().running().sees(Task::Ended(Ended { celery_retries, ..ended }))
    };
    let twice = failed(2).recorded();
    assert_eq!(twice.job.status.attempts, 3);
    check(
        twice.sees(never_sent()).at(60_000),
        expect![
            "enqueue attempt 4#0 on crew_jobs at priority 5; Retrying (RetryScheduled), attempts 3; look again at 2026-01-01T00:01:00.3Z"
        ],
    );
    check(failed(3), expect!["Failed (RetriesExhausted), attempts 4; then forget; warn RetriesExhausted"]);
}

#[test]
fn an_error_that_is_not_to_be_retried_ends_the_job() {
    let scene = scene().policy(|policy| policy.non_retryable = Some(Arc::new(["ValueError".into()])));
    let scene = scene.running().sees(failed("ValueError"));
    check(scene.clone(), expect!["Failed (NonRetryableError), attempts 1; then forget; warn NonRetryableError"]);
    check_message(
        scene.clone(),
        expect!["not retried, as retryPolicy.nonRetryable or the task itself asks: ValueError: no luck"],
    );
    check(
        scene.sees(failed("KeyError")),
        expect!["Retrying (RetryScheduled), attempts 1; then forget; look again at 2026-01-01T00:00:00Z"],
    );
}

#[test]
fn a_policy_may_name_an_error_with_its_module() {
    let failed = |module: &str| {
        let failure = Failure { module: Some(module.into()), ..error("AuthenticationError").into() };
        Task::Ended(ended(Ending::Failed(failure)))
    };
    let names = Some(Arc::new(["openai.AuthenticationError".into()]) as Arc<[Arc<str>]>);
    let scene = scene().policy(|policy| policy.non_retryable.clone_from(&names)).running();
    check(
        scene.clone().sees(failed("openai")),
        expect!["Failed (NonRetryableError), attempts 1; then forget; warn NonRetryableError"],
    );
    check(
        scene.sees(failed("imap")),
        expect!["Retrying (RetryScheduled), attempts 1; then forget; look again at 2026-01-01T00:00:00Z"],
    );
}

#[test]
fn a_command_that_says_that_another_run_would_fail_too_is_not_run_again() {
    let failure = Failure { is_permanent: true, ..error("CommandFailed").into() };
    let scene = scene().running().sees(Task::Ended(ended(Ending::Failed(failure))));
    check(scene.clone(), expect!["Failed (NonRetryableError), attempts 1; then forget; warn NonRetryableError"]);
    check_message(
        scene,
        expect!["not retried, as retryPolicy.nonRetryable or the task itself asks: CommandFailed: no luck"],
    );
}

#[test]
fn a_run_whose_result_the_worker_could_not_encode_is_not_paid_for_again() {
    let raised = |module: &str| {
        let failure = Failure { module: Some(module.into()), ..error("EncodeError").into() };
        scene().running().sees(Task::Ended(ended(Ending::Failed(failure))))
    };
    check(
        raised("kombu.exceptions"),
        expect!["Failed (ResultNotEncodable), attempts 1; then forget; warn ResultNotEncodable"],
    );
    check_message(
        raised("kombu.exceptions"),
        expect![
            "the run ended, and its worker could not encode what it returned, so that it is not run again; return what the worker's result_serializer can encode, as text, numbers, lists and dicts: EncodeError: no luck"
        ],
    );
    check(
        raised("codec"),
        expect!["Retrying (RetryScheduled), attempts 1; then forget; look again at 2026-01-01T00:00:00Z"],
    );
}

#[test]
fn a_retry_waits_for_its_time_across_restarts() {
    check(
        scene().retrying(1).at(59_999),
        expect!["Retrying (RetryScheduled), attempts 1; look again at 2026-01-01T00:01:00Z"],
    );
    check(
        scene().retrying(1).at(60_000),
        expect![
            "enqueue attempt 2#0 on crew_jobs at priority 5; Retrying (RetryScheduled), attempts 1; look again at 2026-01-01T00:01:00.3Z"
        ],
    );
    check(
        scene().retrying(1).sees(Task::Unread).at(1_000),
        expect!["Retrying (RetryScheduled), attempts 1; look again at 2026-01-01T00:01:00Z"],
    );
}

#[test]
fn a_payload_that_was_changed_is_not_run_by_a_later_attempt() {
    let scene = scene().retrying(1).changed();
    assert!(scene.clone().at(2_000).plan().status.remarks().spec_changed.is_some());
    check(
        scene.clone().at(59_999),
        expect!["Retrying (RetryScheduled), attempts 1; look again at 2026-01-01T00:01:00Z"],
    );
    check(scene.clone().at(60_000), expect!["Failed (SpecChanged), attempts 1; then forget; warn SpecChanged"]);
    check_message(
        scene.at(60_000),
        expect!["the payload was changed after the first attempt; create a new job to run it"],
    );
}

#[test]
fn a_payload_that_was_changed_is_not_published_again_after_a_loss_either() {
    let dead = Task::Held(runs(1_000, Liveness::Dead));
    check(
        scene().running().changed().sees(dead).at(9_000),
        expect!["Failed (SpecChanged), attempts 1; then forget; warn SpecChanged"],
    );
    check(
        scene().queued().changed().sees(Task::Absent(emptied())).at(9_000),
        expect!["Failed (SpecChanged), attempts 0; then forget; warn SpecChanged"],
    );
    check(
        scene().queued().changed().sees(Task::Withdrawn { generation: 0 }).at(9_000),
        expect!["Failed (SpecChanged), attempts 0; then forget; warn SpecChanged"],
    );
}

#[test]
fn a_running_attempt_goes_on_although_the_payload_was_changed() {
    let scene = scene().running().changed().sees(Task::Held(runs(1_000, Liveness::Alive))).at(9_000);
    check(scene.clone(), expect!["Running (Running), attempts 1; look again at 2026-01-01T01:01:01Z"]);
    assert!(scene.plan().status.remarks().spec_changed.is_some());
}

#[test]
fn the_history_keeps_the_last_five_attempts() {
    let mut scene = scene().policy(|policy| policy.max_retries = Some(9));
    for _ in 0..7 {
        scene = scene.sees(failed("ValueError")).recorded();
    }
    let numbers: Vec<u32> = scene.job.status.history.iter().map(|past| past.number).collect();
    assert_eq!((scene.job.status.attempts, numbers), (7, vec![3, 4, 5, 6, 7]));
}
