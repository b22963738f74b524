//! What follows from a result document.

use expect_test::expect;

use super::*;
use crate::core::status::{AttemptOutcome, End, Kept, StoredResult};

#[test]
fn a_small_result_is_kept_in_the_status() {
    let scene = scene().running().sees(succeeded(r#"{"status": "completed"}"#)).at(60_000);
    check(scene.clone(), expect!["Succeeded (Succeeded), attempts 1; then forget"]);
    assert_eq!(scene.plan().status.result.unwrap().kept, Kept::Inline);
}

#[test]
fn a_result_over_4_kib_goes_to_a_config_map_before_it_is_recorded() {
    let text = |bytes: usize| succeeded(&"x".repeat(bytes));
    check(
        scene().running().sees(text(StoredResult::INLINE)),
        expect!["Succeeded (Succeeded), attempts 1; then forget"],
    );
    check(
        scene().running().sees(text(StoredResult::INLINE + 1)),
        expect!["store 4097 bytes in a ConfigMap; Succeeded (Succeeded), attempts 1; then forget"],
    );
    check(
        scene().running().sees(text(StoredResult::CONFIG_MAP)),
        expect!["store 1032192 bytes in a ConfigMap; Succeeded (Succeeded), attempts 1; then forget"],
    );
}

#[test]
fn a_result_that_kubernetes_cannot_hold_stays_in_redis_and_says_until_when() {
    let scene = scene().running().sees(succeeded(&"x".repeat(StoredResult::CONFIG_MAP + 1))).at(0);
    check(
        scene.clone(),
        expect!["keep the result in Redis for 604800 s; Succeeded (Succeeded), attempts 1; then forget"],
    );
    let key = format!("app_celery-task-meta-{}", scene.job.attempt_in_hand().task).into();
    let until = at(7 * 24 * 3_600_000);
    assert_eq!(scene.plan().status.result.unwrap().kept, Kept::Redis { key, until });
}

#[test]
fn a_pool_that_keeps_large_results_on_redis_makes_no_config_map_and_keeps_none_longer_than_others() {
    for (bytes, keeps) in [
        (StoredResult::INLINE, None),
        (StoredResult::INLINE + 1, Some("keep the result in Redis for 3600 s; ")),
        (StoredResult::CONFIG_MAP, Some("keep the result in Redis for 3600 s; ")),
        (StoredResult::CONFIG_MAP + 1, Some("keep the result in Redis for 3600 s; ")),
    ] {
        let on_redis = PoolFacts { large_results: LargeResults::Redis, ..pool() };
        let scene = scene().running().sees(succeeded(&"x".repeat(bytes))).pool(Pool::Ready(Arc::new(on_redis))).at(0);
        let plan = scene.plan();
        let expected = format!("{}Succeeded (Succeeded), attempts 1; then forget", keeps.unwrap_or_default());
        assert_eq!(plan.to_string(), expected, "{bytes} bytes");
        let key = format!("app_celery-task-meta-{}", scene.job.attempt_in_hand().task).into();
        let kept = keeps.map_or(Kept::Inline, |_| Kept::Redis { key, until: at(3_600_000) });
        let result = plan.status.result.unwrap();
        assert_eq!((result.kept, result.output.bytes), (kept, bytes as u64));
    }
}

#[test]
fn a_result_that_only_redis_has_is_said_with_its_key_and_how_long() {
    let text = |bytes| scene().running().sees(succeeded(&"x".repeat(bytes))).at(0);
    check_message(text(StoredResult::CONFIG_MAP), expect!["the task returned a result"]);
    let scene = text(StoredResult::CONFIG_MAP + 1);
    let key = format!("app_celery-task-meta-{}", scene.job.attempt_in_hand().task);
    let says = |so: &str| {
        format!(
            "the task returned a result{so}; its 1032193 bytes are on Redis only, in {key} until 2026-01-08T00:00:00Z"
        )
    };
    assert_eq!(scene.plan().status.message(), says(""));
    assert_eq!(scene.cancel().plan().status.message(), says(" before it could be cancelled"));
}

#[test]
fn the_run_is_in_the_history_with_its_worker_and_times() {
    let status = scene().running().sees(succeeded("1")).at(60_000).plan().status;
    let past = &status.history[0];
    assert_eq!((past.number, past.outcome, past.worker.as_deref()), (1, AttemptOutcome::Succeeded, Some("crew@a")));
    assert_eq!((past.started_at, past.finished_at), (Some(at(1_000)), at(60_000)));
}

#[test]
fn a_job_that_was_never_seen_on_its_way_is_recorded_whole() {
    let status = scene().enqueued(10).sees(succeeded("1")).at(90).plan().status;
    assert_eq!(status.attempts, 1);
    assert_eq!(status.queued_at, Some(at(10)));
    assert_eq!(status.attempt.map(|attempt| (attempt.number, attempt.generation)), Some((1, 0)));
}

#[test]
fn an_unreadable_result_fails_the_job_and_its_task_is_not_run_again() {
    let how = Ending::Unreadable("status \"MAYBE\" is not one of Celery's".into());
    let scene = scene().running().sees(Task::Ended(ended(how))).at(60_000);
    check(scene.clone(), expect!["Failed (NoResult), attempts 1; then forget; warn NoResult"]);
    check_message(
        scene,
        expect![[r#"the worker gave no usable result: ResultUnreadable: status "MAYBE" is not one of Celery's"#]],
    );
}

#[test]
fn a_task_that_another_client_revoked_fails_its_job() {
    check(
        scene().running().sees(Task::Ended(ended(Ending::Revoked))).at(60_000),
        expect!["Failed (Revoked), attempts 1; then forget; warn Revoked"],
    );
}

#[test]
fn a_finished_job_expires_only_if_it_asks_to() {
    let scene = scene().running().sees(succeeded("1")).at(1_000);
    let expires_at = |scene: &Scene| scene.plan().status.end.unwrap().expires_at;
    assert_eq!(expires_at(&scene), None);
    let with_ttl = scene.policy(|policy| policy.ttl = Some(Duration::from_mins(1)));
    assert_eq!(expires_at(&with_ttl), Some(at(61_000)));
}

#[test]
fn every_kind_of_end_expires() {
    let with_ttl = || scene().policy(|policy| policy.ttl = Some(Duration::from_mins(1)));
    let ends = [
        with_ttl().cancel(),
        with_ttl().with(|job| job.spec.invalid = Some("too deep".into())),
        with_ttl().queued().cancel().sees(Task::Withdrawn { generation: 0 }),
        with_ttl().running().sees(Task::Ended(ended(Ending::Revoked))),
    ];
    for end in ends {
        assert_eq!(end.plan().status.end.unwrap().expires_at, Some(at(60_000)));
    }
}

#[test]
fn a_finished_job_keeps_its_phase_and_is_forgotten_again() {
    let over = scene().running().sees(succeeded("1")).at(9_000).recorded().cancel();
    check(over.clone().sees(failed("ValueError")), expect!["Succeeded (Succeeded), attempts 1; then forget"]);
    assert_eq!(over.plan().status.finished_at(), Some(at(9_000)));
    check(over.sees(Task::Unread), expect!["Succeeded (Succeeded), attempts 1; then forget"]);
}

#[test]
fn a_copy_of_a_finished_job_that_is_still_queued_is_taken_off() {
    let over = scene().running().sees(succeeded("1")).at(9_000).recorded();
    check(over.sees(queued()), expect!["withdraw attempt 1#0; Succeeded (Succeeded), attempts 1; then forget"]);
}

#[test]
fn a_result_that_comes_after_the_end_is_noted_and_changes_nothing_else() {
    let over = scene().running().cancel().sees(Task::Ended(ended(Ending::Revoked))).at(9_000).recorded();
    let late = over.clone().sees(succeeded("1")).plan().status;
    let end = End { late_result: Some(at(9_000)), ..*over.job.status.end.as_deref().unwrap() };
    assert_eq!(late, Status { end: Some(Box::new(end)), ..over.job.status.clone() });
    // What else follows a changed spec is written together with its generation.
    let changed = over.clone().with(|job| job.spec.generation += 1).sees(succeeded("1")).plan().status;
    assert_eq!(changed, late);
}
