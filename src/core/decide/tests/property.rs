//! Whatever the job and whatever is seen, in any order: the linter finds nothing.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::core::id::TaskId;
use crate::core::observed::Besides;
use crate::core::once::Ran;
use crate::core::policy::OnUnknown;
use crate::core::status::{Output, PoolProblem, PoolProblemKind, Progress, StoredResult};

#[expect(clippy::struct_excessive_bools, reason = "each is declared or seen on its own")]
/// One turn of a job's life: what is declared and seen from now on, and how much later that is.
#[derive(Debug, Clone)]
struct Turn {
    task: Task,
    others: Others,
    pool: Pool,
    later: u32,
    enqueued_ago: Option<u32>,
    stale: bool,
    cancel: bool,
    suspend: bool,
    changed: bool,
    invalid: bool,
}

fn generation() -> impl Strategy<Value = u32> {
    0..3_u32
}

fn holding() -> impl Strategy<Value = Holding> {
    prop_oneof![
        Just(Holding::Unattributed),
        Just(Holding::NoWorker),
        (
            prop_oneof![Just(Liveness::Alive), Just(Liveness::Dead), Just(Liveness::Unreachable)],
            prop_oneof![Just("a"), Just("b")]
        )
            .prop_map(|(liveness, pod)| Holding::By(worker(pod), liveness)),
    ]
}

fn held() -> impl Strategy<Value = Held> {
    let progress = (option::of(0..=100_u8), 0..100_000_i64).prop_map(|(percent, millis)| Progress {
        percent,
        message: None,
        at: super::at(millis),
    });
    (generation(), option::of(0..100_000_i64), holding(), 0..3_u32, option::of(progress), any::<bool>()).prop_map(
        |(generation, started, by, celery_retries, progress, has_stored_failure)| Held {
            generation,
            started_at: started.map(super::at),
            by,
            celery_retries,
            progress,
            has_stored_failure,
            account: None,
        },
    )
}

fn ended() -> impl Strategy<Value = Ended> {
    let text = || (0..400_usize).prop_map(|bytes| "é".repeat(bytes));
    let results =
        [1, StoredResult::INLINE + 1, StoredResult::CONFIG_MAP + 1].map(|bytes| Output::of(&"x".repeat(bytes)));
    let how = prop_oneof![
        prop::sample::select(results.to_vec()).prop_map(Ending::Succeeded),
        (text(), text())
            .prop_map(|(kind, message)| Ending::Failed(TaskError::new(&kind, &message, Some(&message)).into())),
        Just(Ending::Failed(error("Fatal").into())),
        Just(Ending::Failed(Failure { is_permanent: true, ..error("ValueError").into() })),
        Just(Ending::ChildLost(error("WorkerLostError"))),
        Just(Ending::Revoked),
        text().prop_map(|why| Ending::Unreadable(why.into())),
    ];
    (option::of(generation()), how, any::<bool>(), 0..3_u32, option::of(0..100_000_i64)).prop_map(
        |(marker, how, known, celery_retries, started)| Ended {
            marker,
            how,
            worker: known.then(|| worker("a")),
            celery_retries,
            started_at: started.map(super::at),
            finished_at: None,
            account: None,
        },
    )
}

fn task() -> impl Strategy<Value = Task> {
    let search = (option::of(generation()), 0..4_u32, any::<bool>(), option::of(held()), 0..4_u32, any::<bool>())
        .prop_map(|(marker, audits, denied, seen, denials_by_holder, may_have_expired_unread)| Search {
            marker,
            audits,
            denied,
            seen,
            denials_by_holder,
            may_have_expired_unread,
        });
    prop_oneof![
        1 => Just(Task::Unread),
        3 => search.prop_map(Task::Absent),
        1 =>         generation().prop_map(|generation| Task::Queued { generation }),
        1 => generation().prop_map(|generation| Task::GoesOn { generation }),
        1 =>         generation().prop_map(|generation| Task::Withdrawn { generation }),
        3 => held().prop_map(Task::Held),
        2 => ended().prop_map(Task::Ended),
    ]
}

fn others() -> impl Strategy<Value = Others> {
    (rarely(), any::<bool>(), rarely(), rarely()).prop_map(|(is_copy, is_named, waits, is_in_flight)| Others {
        is_copy,
        tag: (is_copy && is_named).then_some(Uuid::from_u128(1)),
        besides: Besides { waits, is_in_flight },
    })
}

fn any_pool() -> impl Strategy<Value = Pool> {
    let problem = |kind| Pool::Unusable(PoolProblem { kind, detail: "mend it".into() });
    prop_oneof![
        8 => Just(Pool::Ready(Arc::new(pool()))),
        1 => Just(Pool::Ready(Arc::new(PoolFacts { queues: vec!["other".into()], ..pool() }))),
        1 => Just(futile(&[])),
        1 => Just(Pool::Missing { existing: vec!["gpu".into()] }),
        1 => Just(problem(PoolProblemKind::BrokerUnreachable)),
        1 => Just(problem(PoolProblemKind::Connecting)),
    ]
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.1)
}

fn turn() -> impl Strategy<Value = Turn> {
    let task = (task(), others());
    (task, any_pool(), 0..4_000_000_u32, option::of(0..2_000_u32), (rarely(), rarely(), rarely(), rarely(), rarely()))
        .prop_map(|((task, others), pool, later, enqueued_ago, (stale, cancel, suspend, changed, invalid))| Turn {
            task,
            others,
            pool,
            later,
            enqueued_ago,
            stale,
            cancel,
            suspend,
            changed,
            invalid,
        })
}

fn policy() -> impl Strategy<Value = Overrides> {
    let on_unknown = prop_oneof![Just(OnUnknown::Fail), Just(OnUnknown::Retry)];
    (option::of(0..5_u32), option::of(0..3_u32), option::of(on_unknown), option::of(0..60_u64), any::<bool>()).prop_map(
        |(max_retries, max_worker_losses, on_unknown, ttl, strict)| Overrides {
            max_retries,
            max_worker_losses,
            on_unknown,
            ttl: ttl.map(Duration::from_secs),
            non_retryable: strict.then(|| Arc::new(["Fatal".into()]) as Arc<[Arc<str>]>),
            ..Overrides::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_life_of_any_job_breaks_a_rule(policy in policy(), turns in vec(turn(), 1..12)) {
        let mut scene = scene().policy(|own| *own = policy);
        scene.job.spec.run_once = (turns.len() % 2 == 0).then(|| "k".into());
        scene.job.spec.dedup = (turns.len() % 3 == 0).then(|| Box::new(super::dedup::declared(turns.len())));
        let mut millis = 0;
        for Turn { task, others, pool, later, enqueued_ago, stale, cancel, suspend, changed, invalid } in turns {
            millis += i64::from(later);
            scene = scene.at(millis).sees(task).pool(pool).with(|job| {
                job.spec.cancel |= cancel;
                job.spec.suspend = suspend;
                job.spec.hash = SpecHash([u8::from(changed); 16]);
                job.spec.invalid = invalid.then(|| "too deep".into());
            });
            scene.seen.others = others;
            scene.seen.claim = match later % 8 {
                0 => Claim::Unread,
                1 => Claim::Held { by: "other".into(), read_at: super::at(millis - 29_000) },
                2 => Claim::Held { by: "other".into(), read_at: super::at(millis - 30_000) },
                3 => Claim::Ran(Ran { job: "other".into(), uid: Uuid::from_u128(1), succeeded: stale, at: super::at(0) }),
                _ => Claim::Ours,
            };
            scene.seen.twins = match later % 9 {
                0 => Verdict::Unread,
                1 => Verdict::Undecided { by: "other".into(), read_at: super::at(millis - 500) },
                2..=5 => Verdict::Of { twin: Box::new(super::dedup::twin(later % 2 == 0)), read_at: super::at(millis) },
                _ => Verdict::Alone,
            };
            scene.seen.permit = match later % 5 {
                0 => Permit::Unasked,
                4 if stale => Permit::Unknown,
                1 => Permit::Waits(Box::new(super::limits::wait(later % 7 + 1))),
                2 => Permit::Granted { at: scene.job.status.released_at.as_deref().copied().unwrap_or(scene.now) },
                3 => Permit::Granted { at: scene.now },
                _ => Permit::Free,
            };
            scene.seen.published.at = enqueued_ago.map(|ago| super::at(millis - i64::from(ago)));
            if stale {
                scene.seen.of = TaskId::derive(scene.job.uid, 99);
            }
            // A crash before the status is written leaves it as it was: half of the plans are never recorded.
            let plan = decide(&scene.job, &scene.seen, scene.now);
            prop_assert_eq!(lint(&scene.job, &scene.seen, scene.now, &plan), [], "{}", plan);
            if later % 2 == 0 {
                scene.job.status = plan.status;
            }
        }
    }
}
