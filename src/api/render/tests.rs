use std::sync::Arc;

use proptest::{option, prelude::*};
use uuid::Uuid;

use super::*;
use crate::api::{CrewJob, Reason};
use crate::core::account::Count;
use crate::core::id::SpecHash;
use crate::core::limits::{Reached, Wait};
use crate::core::once::Ran;
use crate::core::setup::{FaultKind, Futile};
use crate::core::status::{
    Attempt, Container, End, Hold, JobAccount, PoolProblem, PoolProblemKind, Spent, TaskError, Unstopped,
};
use crate::core::usage::Usd;

const UID: Uuid = Uuid::from_u128(0x0f8f_ad5b_d9cb_469f_a165_7086_7728_950e);

/// A job as the operator knows it from the API server.
fn known(status: &Value) -> Job {
    let object = json!({
        "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob",
        "metadata": {
            "name": "intro", "namespace": "default", "uid": UID.to_string(), "generation": 2,
            "creationTimestamp": "2026-11-22T15:00:00Z",
        },
        "spec": { "topic": "bees" },
        "status": status,
    });
    serde_json::from_value::<CrewJob>(object).unwrap().to_job().unwrap()
}

fn new_job() -> Job {
    known(&json!({ "phase": "Pending", "attempts": 0 }))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn a_status_that_says_the_same_is_not_written() {
    let job = new_job();
    assert_eq!(status_patch(&job, &job.status.clone(), "7"), None);
}

#[test]
fn a_status_patch_has_the_version_and_only_changed_fields() {
    let job = known(&json!({ "phase": "Running", "attempts": 1, "progress": { "percent": 10, "message": "a" } }));
    let progress = Progress { percent: Some(20), message: Some("a".into()), at: at(0) };
    let status = Status { progress: Some(Box::new(progress)), ..job.status.clone() };
    let expected = json!({ "metadata": { "resourceVersion": "7" }, "status": { "progress": { "percent": 20 } } });
    assert_eq!(status_patch(&job, &status, "7"), Some(expected));

    let patch = status_patch(&job, &Status { progress: None, ..job.status.clone() }, "7").unwrap();
    assert_eq!(patch["status"], json!({ "progress": null }));
}

#[test]
fn the_trace_of_a_job_that_is_traced_is_its_uid_without_dashes() {
    let job = new_job();
    let traced = Status { is_traced: true, ..job.status.clone() };
    let patch = status_patch(&job, &traced, "7").unwrap();
    assert_eq!(patch["status"], json!({ "traceID": "0f8fad5bd9cb469fa16570867728950e" }));
}

#[test]
fn the_end_is_told_as_kubernetes_tells_it() {
    for (phase, why, expected) in [
        (Phase::Succeeded, Why::Succeeded, "Reconciling=False Complete=True"),
        (Phase::Failed, Why::GaveUp(GaveUp::RetriesExhausted), "Reconciling=False Failed=True Stalled=True"),
        (Phase::Cancelled, Why::Cancelled, "Reconciling=False Failed=True"),
        (Phase::Queued, Why::Enqueued, "Reconciling=True"),
    ] {
        let job = new_job();
        let status = Status { phase, why, end: Some(Box::new(End::new(at(9)))), ..Status::default() };
        let told: Vec<_> =
            render(&job, &status).conditions.iter().map(|c| format!("{}={}", c.type_, c.status)).collect();
        assert_eq!(told.join(" "), expected);
    }
}

#[test]
fn a_long_list_of_pools_is_cut() {
    let existing = (0..1_000).map(|i| format!("pool-{i}").into()).collect();
    let why = Why::OnHold(Hold::PoolNotFound { pool: "gpu".into(), existing });
    let conditions = render(&new_job(), &Status { why, ..Status::default() }).conditions;
    assert!(
        conditions[0].message.starts_with("CrewWorkerPool \"gpu\" does not exist in this namespace; there are: pool-0")
    );
    assert!(conditions[0].message.len() <= 384);
}

#[test]
fn a_retry_is_not_shown_as_due_before_it_is() {
    let retry_at = Timestamp::from_millisecond(1_500).unwrap();
    let shown = render(&new_job(), &Status { retry_at: Some(Box::new(retry_at)), ..Status::default() });
    assert_eq!(shown.next_retry_at, Some(Time(at(2))));
}

#[test]
fn an_expiry_is_found_by_its_hour() {
    assert_eq!(expiry_bucket("2026-11-22T15:59:59.9Z".parse().unwrap()), "2026-11-22T15");
}

#[test]
fn the_config_map_of_a_result_has_a_name_that_kubernetes_takes() {
    let task = TaskId::derive(UID, 1);
    for job in ["intro", &"a".repeat(253), &format!("{}.{}", "a".repeat(229), "b".repeat(20))] {
        let name = result_config_map_name(job, task);
        assert!(name.len() <= 253 && !name.contains(".-") && name.contains("-result-"), "{name}");
    }
}

#[test]
fn every_reason_is_documented() {
    let on_hold = [
        Hold::PoolNotFound { pool: "a".into(), existing: vec![] },
        Hold::QueueNotInPool { queue: "a".into(), queues: vec![] },
        Hold::TaskNotAllowed { task: "a".into(), allowed: vec![] },
        Hold::Suspended,
        Hold::KeyHeld { key: "k".into(), by: "b".into() },
        Hold::Attached { key: "k".into(), to: "a".into() },
        Hold::Replacing { key: "k".into(), job: "a".into() },
        Hold::LimitReached(Box::new(Wait {
            pool: "a".into(),
            limit: "b".into(),
            key: None,
            reached: Reached::Turn,
            position: 1,
            expected_at: None,
        })),
    ];
    let problems = [
        PoolProblemKind::Connecting,
        PoolProblemKind::NamespaceNotGranted,
        PoolProblemKind::SecretNotFound,
        PoolProblemKind::SecretNotLabelled,
        PoolProblemKind::SecretInvalid,
        PoolProblemKind::BrokerUnreachable,
        PoolProblemKind::BrokerUnsupported,
        PoolProblemKind::BrokerAuthenticationFailed,
        PoolProblemKind::BrokerRefused,
    ]
    .map(|kind| Hold::PoolNotReady { pool: "a".into(), problem: PoolProblem { kind, detail: "".into() } });
    let given_up = [
        GaveUp::InvalidSpec,
        GaveUp::RetriesExhausted,
        GaveUp::NonRetryableError,
        GaveUp::WorkerLost,
        GaveUp::MessageLost,
        GaveUp::NoResult,
        GaveUp::ResultNotEncodable,
        GaveUp::ResultExpired,
        GaveUp::DeadlineExceeded,
        GaveUp::QueueTimeout,
        GaveUp::SpecChanged,
        GaveUp::Revoked,
    ];
    let others = [
        Why::Released,
        Why::Attached { key: "k".into(), to: "a".into() },
        Why::Duplicate { key: "k".into(), of: "a".into() },
        Why::Enqueued,
        Why::Started,
        Why::RetryScheduled,
        Why::WorkerLost,
        Why::MessageLost,
        Why::Succeeded,
        Why::FinishedBeforeCancel,
        Why::Cancelled,
        Why::AlreadyRan {
            key: "k".into(),
            ran: Box::new(Ran { job: "a".into(), uid: UID, succeeded: true, at: at(0) }),
        },
    ];
    let futile = FaultKind::ALL.map(|kind| Hold::Futile {
        pool: "a".into(),
        futile: Arc::new(Futile { kind, detail: "".into(), tasks: Vec::new() }),
    });
    let on_hold = on_hold.into_iter().chain(problems).chain(futile).map(Why::OnHold);
    for why in on_hold.chain(given_up.map(Why::GaveUp)).chain(others) {
        assert!(Reason::named(why.reason()).is_some(), "{} is not in the list of reasons", why.reason());
    }
}

#[test]
fn of_the_labels_of_a_job_the_first_by_name_are_kept_as_far_as_there_is_room() {
    let kept = |labels: &[(String, String)]| {
        let labels: Map<String, Value> = labels.iter().map(|(label, value)| (label.clone(), json!(value))).collect();
        let metadata = json!({
            "name": "intro", "namespace": "default", "uid": UID.to_string(), "labels": labels,
            "creationTimestamp": "2026-11-22T15:00:00Z",
        });
        let object = json!({ "metadata": metadata, "spec": { "topic": "bees" } });
        serde_json::from_value::<CrewJob>(object).unwrap().to_job().unwrap()
    };
    let many: Vec<_> = (0..1000).map(|n| (format!("label-{n:03}"), "a".to_owned())).collect();
    let job = kept(&many);
    assert_eq!((job.labels.len(), job.label("label-031").map(|value| &**value)), (32, Some("a")));
    assert_eq!(job.label("label-032"), None);
    let long: Vec<_> = (0..32).map(|n| (format!("{n:0253}"), "b".repeat(63))).collect();
    assert_eq!(kept(&long).labels.len(), 6);
    assert!(kept(&[]).labels.is_empty());
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    (0_i64..4_000_000_000_000).prop_map(|millis| Timestamp::from_millisecond(millis).unwrap())
}

fn any_text() -> impl Strategy<Value = Arc<str>> {
    any::<String>().prop_map(Arc::from)
}

prop_compose! {
    fn any_error()(kind in "[A-Za-z.]{1,200}", message in any::<String>(), traceback in option::of(any::<String>())) -> Box<TaskError> {
        Box::new(TaskError::new(&kind, &message, traceback.as_deref()))
    }
}

prop_compose! {
    fn any_holder()(
        node in any_text(),
        container in option::of((any_text(), any_text(), any_text(), any_time())),
    ) -> Box<Holder> {
        let container = container.map(|(pod, pod_uid, id, started_at)| Container { pod, pod_uid, id, started_at });
        Box::new(Holder { node, container })
    }
}

prop_compose! {
    fn any_past()(
        number in 1_u32..9,
        outcome in prop::sample::select(vec![
            AttemptOutcome::Succeeded, AttemptOutcome::Failed, AttemptOutcome::WorkerLost, AttemptOutcome::MessageLost,
            AttemptOutcome::Revoked, AttemptOutcome::Unknown,
        ]),
        worker in option::of(any_text()),
        enqueued_at in option::of(any_time()),
        started_at in option::of(any_time()),
        finished_at in any_time(),
        error in option::of(any_error()),
    ) -> PastAttempt {
        let task = TaskId::derive(UID, number);
        PastAttempt { number, task, outcome, worker, enqueued_at, started_at, finished_at, error: error.map(|e| *e), account: None }
    }
}

prop_compose! {
    fn any_usage()(counts in prop::collection::vec(("[a-c]", 0_u64..9, 0_u64..3, option::of(1_u64..9)), 0..4)) -> Usage {
        let mut usage = Usage::default();
        for (model, input, requests, cost) in counts {
            let cost = cost.map(Usd::billionths);
            usage.count(&model, &Consumed { input: input + 1, requests, cost, ..Consumed::default() });
        }
        usage
    }
}

prop_compose! {
    /// What runs have said of themselves, as far as a status tells.
    fn any_account()(
        before in any_usage(),
        last in any_usage(),
        (saved_at, is_resumed, problem) in (any_time(), any::<bool>(), option::of(any_text())),
    ) -> JobAccount {
        let id = if last.is_empty() { "" } else { "count" }.into();
        let last = Count { id, usage: last };
        let state = SavedState { saved_at: Some(saved_at), bytes: 7, is_resumed, problem };
        JobAccount { spent: Spent { before, last, at: Timestamp::UNIX_EPOCH }, state: Some(state) }
    }
}

prop_compose! {
    /// Any status of a job that is not over.
    fn any_status()(
        phase in prop::sample::select(vec![Phase::Pending, Phase::Queued, Phase::Running, Phase::Retrying]),
        why in prop::sample::select(vec![Why::Unseen, Why::Enqueued, Why::Started, Why::RetryScheduled, Why::WorkerLost]),
        attempts in 0_u32..9,
        attempt in option::of((0_u32..3, any_time(), option::of(any_time()))),
        (worker_losses, message_losses, observed_generation) in (0_u32..9, 0_u32..9, 0_i64..9),
        history in prop::collection::vec(any_past(), 0..=5),
        (retry_at, spec_changed, cancel_unsupported) in
            (option::of(any_time()), option::of(any_time()), option::of(any_time())),
        worker in option::of(any_holder()),
        error in option::of(any_error()),
        progress in option::of((option::of(0_u8..=100), option::of(any_text()))),
        (queue, is_traced, released_at) in (option::of(any_text()), any::<bool>(), option::of(any_time())),
        hash in option::of(any::<[u8; 16]>()),
        account in option::of(any_account()).prop_map(|account| account.map(Box::new)),
    ) -> Status {
        let attempt = attempt.filter(|_| phase != Phase::Retrying).map(|(generation, enqueued_at, started_at)| Attempt {
            number: attempts.max(1), generation, enqueued_at, started_at,
        });
        Status {
            phase, why, attempt, attempts, worker_losses, message_losses, observed_generation, history, worker, error, queue, is_traced,
            retry_at: retry_at.map(Box::new),
            released_at: released_at.map(Box::new),
            progress: progress.map(|(percent, message)| Box::new(Progress { percent, message, at: at(0) })),
            spec_hash: hash.map(SpecHash),
            account,
            ..Status::default()
        }
        .remarked(|it| {
            it.spec_changed = spec_changed;
            it.cancel_unsupported = cancel_unsupported.map(|at| (at, Unstopped::PoolDeleted));
        })
    }
}

proptest! {
    #[test]
    fn an_operator_that_starts_anew_renders_the_same_status_as_the_last_one(status in any_status()) {
        let shown = render(&new_job(), &status);
        let restarted = known(&serde_json::to_value(&shown).unwrap());
        prop_assert_eq!(render(&restarted, &restarted.status), shown);
    }

    #[test]
    fn a_merge_patch_leads_from_one_status_to_the_other(old in any_status(), new in any_status()) {
        let [old, new] = [old, new].map(|status| serde_json::to_value(render(&new_job(), &status)).unwrap());
        let mut merged = old.clone();
        merge(&mut merged, difference(&old, &new).unwrap_or_else(|| json!({})));
        prop_assert_eq!(merged, new);
    }
}

/// A merge patch as RFC 7386 has it.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}
