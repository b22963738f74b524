//! Why a job waits before it is ever published, in words that say what to mend.

use expect_test::expect;

use super::*;
use crate::core::start::{Blocked, BlockedKind};
use crate::core::status::{PoolProblem, PoolProblemKind};

fn unusable(kind: PoolProblemKind) -> Pool {
    Pool::Unusable(PoolProblem {
        kind,
        detail: "Redis at redis:6379 refused the password; mend Secret \"redis\"".into(),
    })
}

fn missing(existing: &[&str]) -> Pool {
    Pool::Missing { existing: existing.iter().map(|name| Arc::from(*name)).collect() }
}

#[test]
fn a_missing_pool_names_the_pools_there_are() {
    let scene = scene().pool(missing(&["gpu", "small"]));
    check(scene.clone(), expect!["Pending (PoolNotFound), attempts 0; warn PoolNotFound; wait for a hint"]);
    check_message(
        scene,
        expect![[r#"CrewWorkerPool "default" does not exist in this namespace; there are: gpu, small"#]],
    );
    check_message(
        super::scene().pool(missing(&[])),
        expect![[
            r#"CrewWorkerPool "default" does not exist and this namespace has no pool; create one, or name it in spec.poolRef.name of a new job"#
        ]],
    );
}

#[test]
fn a_queue_that_is_not_the_pools_names_the_pools_queues() {
    let scene = scene().with(|job| job.spec.queue = Some("fast".into()));
    check(scene.clone(), expect!["Pending (QueueNotInPool), attempts 0; warn QueueNotInPool; wait for a hint"]);
    check_message(scene, expect![[r#"spec.queue "fast" is not one of the pool's queues: crew_jobs, default"#]]);
}

#[test]
fn a_task_that_the_pool_does_not_allow_names_those_it_does() {
    let scene = scene().with(|job| job.spec.task = "os.system".into());
    check(scene.clone(), expect!["Pending (TaskNotAllowed), attempts 0; warn TaskNotAllowed; wait for a hint"]);
    check_message(
        scene,
        expect![[
            r#"spec.task "os.system" is not one of the pool's allowedTasks: backend.tasks.run_crew_task, backend.tasks.health_check"#
        ]],
    );
}

#[test]
fn celerys_own_tasks_are_refused_even_if_the_pool_lists_them() {
    let pool = PoolFacts { allowed_tasks: vec!["celery.chord_unlock".into()], ..pool() };
    let scene = scene().pool(Pool::Ready(Arc::new(pool))).with(|job| job.spec.task = "celery.chord_unlock".into());
    check(scene, expect!["Pending (TaskNotAllowed), attempts 0; warn TaskNotAllowed; wait for a hint"]);
}

#[test]
fn a_pool_that_cannot_be_used_says_why() {
    let scene = scene().pool(unusable(PoolProblemKind::BrokerAuthenticationFailed));
    check(
        scene.clone(),
        expect!["Pending (BrokerAuthenticationFailed), attempts 0; warn BrokerAuthenticationFailed; wait for a hint"],
    );
    check_message(
        scene,
        expect![[r#"CrewWorkerPool "default": Redis at redis:6379 refused the password; mend Secret "redis""#]],
    );
}

#[test]
fn an_operator_that_only_just_started_says_nothing_yet() {
    check(
        scene().pool(unusable(PoolProblemKind::Connecting)),
        expect!["Pending (Pending), attempts 0; wait for a hint"],
    );
}

#[test]
fn a_hold_is_warned_of_once_and_left_as_soon_as_it_is_mended() {
    let scene = scene().pool(missing(&[])).recorded();
    assert_eq!(scene.plan().status, scene.job.status, "nothing more to write");
    check(
        scene.pool(Pool::Ready(Arc::new(pool()))),
        expect![
            "enqueue attempt 1#0 on crew_jobs at priority 5; Pending (PoolNotFound), attempts 0; look again at 2026-01-01T00:00:00.3Z"
        ],
    );
}

#[test]
fn a_suspended_job_is_not_published() {
    check(scene().suspend(), expect!["Pending (Suspended), attempts 0; wait for a hint"]);
}

#[test]
fn while_redis_is_down_nothing_is_decided_about_a_job_that_was_published() {
    let down = unusable(PoolProblemKind::BrokerUnreachable);
    check(
        scene().queued().cancel().pool(down.clone()).at(9_000_000),
        expect!["Queued (Enqueued), attempts 0; wait for a hint"],
    );
    check(
        scene().running().suspend().pool(missing(&[])),
        expect!["Running (PoolNotFound), attempts 1; wait for a hint"],
    );
    check(
        scene().retrying(1).pool(down.clone()).at(9_000_000),
        expect!["Retrying (RetryScheduled), attempts 1; wait for a hint"],
    );
    check(
        scene().cancel().pool(down),
        expect!["Pending (BrokerUnreachable), attempts 0; warn BrokerUnreachable; wait for a hint"],
    );
}

#[test]
fn a_job_that_was_never_published_is_cancelled_without_its_pool() {
    check(scene().cancel().pool(missing(&[])), expect!["Cancelled (Cancelled), attempts 0; then forget"]);
}

#[test]
fn inputs_that_no_worker_could_take_fail_at_once_with_the_reason() {
    let invalid =
        |job: &mut Job| job.spec.invalid = Some("spec.inputs is 70000 bytes; at most 65536 are allowed".into());
    check(scene().with(invalid), expect!["Failed (InvalidSpec), attempts 0; then forget; warn InvalidSpec"]);
    check_message(scene().with(invalid), expect!["InvalidSpec: spec.inputs is 70000 bytes; at most 65536 are allowed"]);
    // What is on a worker already ran with the inputs that it was published with.
    check(
        scene().with(invalid).enqueued(0).sees(Task::Held(runs(100, Liveness::Alive))).at(200),
        expect!["Pending (Pending), attempts 0; look again at 2026-01-01T00:00:01.1Z"],
    );
    check(
        scene().with(invalid).pool(missing(&["gpu"])),
        expect!["Failed (InvalidSpec), attempts 0; then forget; warn InvalidSpec"],
    );
}

#[test]
fn the_jobs_queue_and_priority_go_into_the_message() {
    let scene = scene().with(|job| {
        job.spec.queue = Some("default".into());
        job.spec.priority = Priority::clamped(8);
    });
    check(
        scene,
        expect![
            "enqueue attempt 1#0 on default at priority 8; Pending (Pending), attempts 0; look again at 2026-01-01T00:00:00.3Z"
        ],
    );
}

#[test]
fn jobs_of_a_deleted_pool_say_so_keep_their_phase_and_go_on_when_it_returns() {
    for scene in [scene().queued(), scene().running(), scene().retrying(1)] {
        let deleted = scene.clone().pool(missing(&["gpu"])).at(9_000);
        let (was, is) = (scene.job.status.phase, deleted.plan().status);
        assert_eq!((is.phase, is.why.reason()), (was, "PoolNotFound"));
        let deleted = deleted.recorded();
        assert_eq!(deleted.plan().status, deleted.job.status, "it is said once");
    }
    let deleted = scene().queued().pool(missing(&[])).at(9_000);
    check_message(
        deleted.clone(),
        expect![[
            r#"CrewWorkerPool "default" does not exist any more, so the job is not followed; create it again on the same Redis and the job goes on. spec.cancel ends the job at once; its message or run is stopped when the pool is back"#
        ]],
    );
    let back = deleted.recorded().pool(Pool::Ready(Arc::new(pool()))).sees(queued());
    check(back.clone(), expect!["Queued (Enqueued), attempts 0; wait for a hint"]);
    // An operator that has started meanwhile has read the reason only.
    let read = back.with(|job| {
        job.status.why = Why::Recorded { reason: "PoolNotFound".into(), message: "CrewWorkerPool …".into() };
    });
    check(read, expect!["Queued (Enqueued), attempts 0; wait for a hint"]);
}

#[test]
fn a_job_of_a_deleted_pool_can_be_cancelled_and_says_what_was_not_stopped() {
    let unstopped =
        |scene: Scene| scene.cancel().pool(missing(&[])).at(9_000).plan().status.remarks().cancel_unsupported;
    check(
        scene().running().cancel().pool(missing(&[])).at(9_000),
        expect!["Cancelled (Cancelled), attempts 1; then clear"],
    );
    assert_eq!(unstopped(scene().running()), Some((at(9_000), Unstopped::PoolDeleted)));
    assert_eq!(unstopped(scene().queued()), Some((at(9_000), Unstopped::PoolDeleted)));
    assert_eq!(unstopped(scene().retrying(1)), None, "nothing of it is on Redis");
}

#[test]
fn a_job_whose_run_would_be_in_vain_waits_with_the_setting_that_mends_it() {
    let waits = || scene().pool(futile(&[]));
    check(
        waits(),
        expect!["Pending (ResultSerializerNotJson), attempts 0; warn ResultSerializerNotJson; wait for a hint"],
    );
    check_message(
        waits(),
        expect![[
            r#"CrewWorkerPool "default": crew@a: its result_serializer is "pickle", which is not read; set it to "json""#
        ]],
    );
    check(
        scene().retrying(1).sees(never_sent()).at(90_000).pool(futile(&[])),
        expect!["Retrying (ResultSerializerNotJson), attempts 1; warn ResultSerializerNotJson; wait for a hint"],
    );
    check(
        scene().pool(futile(&["another.task"])),
        expect![
            "enqueue attempt 1#0 on crew_jobs at priority 5; Pending (Pending), attempts 0; look again at 2026-01-01T00:00:00.3Z"
        ],
    );
    let run = Task::Held(runs(1_000, Liveness::Alive));
    check(
        scene().running().sees(run).at(20_000).pool(futile(&[])),
        expect!["Running (Running), attempts 1; look again at 2026-01-01T01:01:01Z"],
    );
}

#[test]
fn a_message_that_would_be_run_in_vain_is_taken_back_and_published_again_when_the_workers_are_mended() {
    check(
        scene().queued().sees(queued()).at(20_000).pool(futile(&[])),
        expect!["withdraw attempt 1#0; Queued (Enqueued), attempts 0; look again at 2026-01-01T00:00:20.3Z"],
    );
    let taken_back = scene().queued().sees(Task::Withdrawn { generation: 0 }).at(20_000).pool(futile(&[]));
    check(
        taken_back.clone(),
        expect!["Pending (ResultSerializerNotJson), attempts 0; warn ResultSerializerNotJson; wait for a hint"],
    );
    check(
        taken_back.recorded().pool(Pool::Ready(Arc::new(pool()))),
        expect![
            "requeue in place of #0 nowhere: attempt 1#1 on crew_jobs at priority 5; Queued (Enqueued), attempts 0; wait for a hint"
        ],
    );
}

fn blocked(kind: BlockedKind) -> Pool {
    let blocked = Blocked { kind, detail: "Pod \"worker-1\": no luck".into() };
    Pool::Ready(Arc::new(PoolFacts { blocked: Some(blocked), ..pool() }))
}

#[test]
fn a_job_that_waits_for_workers_that_do_not_start_repeats_the_pools_reason_and_names_the_pool() {
    for kind in BlockedKind::ALL {
        let waits = scene().queued().sees(queued()).at(20_000).pool(blocked(kind));
        let status = waits.plan().status;
        assert_eq!((status.phase, status.why.reason()), (Phase::Queued, kind.reason()));
        for text in ["CrewWorkerPool \"default\"", "no luck"] {
            assert!(status.message().contains(text), "{}", status.message());
        }
    }
    check(
        scene().enqueued(0).sees(queued()).at(300).pool(blocked(BlockedKind::CrashLoop)),
        expect!["Queued (CrashLoop), attempts 0; wait for a hint"],
    );
}

/// The status is written when it changes: (what keeps the workers from starting, how often it was written until then).
#[test]
fn why_workers_do_not_start_is_written_once_for_each_change_of_the_reason() {
    let image = || blocked(BlockedKind::ImageNotPulled);
    let works = || Pool::Ready(Arc::new(pool()));
    let mut other_words = image();
    if let Pool::Ready(facts) = &mut other_words {
        Arc::get_mut(facts).unwrap().blocked.as_mut().unwrap().detail = "other words".into();
    }
    let (mut scene, mut written) = (scene().queued().sees(queued()).at(20_000), 0);
    for (pool, writes) in [
        (works(), 0),
        (image(), 1),
        (image(), 1),
        (other_words, 1),
        (blocked(BlockedKind::CrashLoop), 2),
        (works(), 3),
        (works(), 3),
    ] {
        let before = scene.job.status.clone();
        scene = scene.pool(pool).recorded();
        written += usize::from(scene.job.status != before);
        assert_eq!(written, writes, "{:?}", scene.job.status.why);
    }
    assert_eq!(scene.job.status.why, Why::Enqueued);
}

#[test]
fn a_job_that_runs_or_waits_for_its_backoff_says_nothing_of_workers_that_do_not_start() {
    let run = Task::Held(runs(1_000, Liveness::Alive));
    check(
        scene().running().sees(run).at(20_000).pool(blocked(BlockedKind::CrashLoop)),
        expect!["Running (Running), attempts 1; look again at 2026-01-01T01:01:01Z"],
    );
    check(
        scene().retrying(1).sees(never_sent()).at(20_000).pool(blocked(BlockedKind::CrashLoop)),
        expect!["Retrying (RetryScheduled), attempts 1; look again at 2026-01-01T00:01:00Z"],
    );
}

#[test]
fn a_reason_that_an_earlier_operator_recorded_is_not_written_again() {
    let recorded = |reason: &str| {
        scene().queued().sees(queued()).at(20_000).with(|job| {
            job.status.why = Why::Recorded { reason: reason.into(), message: "of before".into() };
        })
    };
    let same = recorded("CrashLoop").pool(blocked(BlockedKind::CrashLoop));
    assert_eq!(same.plan().status, same.job.status);
    check(recorded("CrashLoop"), expect!["Queued (Enqueued), attempts 0; wait for a hint"]);
}
