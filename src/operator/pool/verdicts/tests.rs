use std::time::Duration;

use super::*;
use crate::api::DeploymentRef;
use crate::core::index::pods::DeploymentView;
use crate::core::start::{Blocked, BlockedKind};
use crate::core::status::PoolProblemKind;

fn view() -> View {
    let known = DeploymentView { replicas: 5, grace_period: Duration::from_mins(61), ..DeploymentView::default() };
    View {
        deployment: Some(ObjectKey::new("team", "worker")),
        known: Some(known),
        hard_limit: Duration::from_hours(1),
        ..View::default()
    }
}

/// The conditions that hold, with what they say.
fn said(view: &View) -> Vec<(ConditionType, Reason, String)> {
    let named = Some(DeploymentRef { name: "worker".into(), container: None });
    let spec = CrewWorkerPoolSpec { deployment_ref: named, ..CrewWorkerPoolSpec::with_secret("redis") };
    let key = ObjectKey::new("team", "default");
    let all = of(&Seen { key: &key, spec: &spec, view, skew: None });
    all.into_iter().filter(|it| it.holds == Some(true)).map(|it| (it.type_, it.reason, it.message)).collect()
}

#[track_caller]
fn holds(view: &View, type_: ConditionType, reason: Reason, says: &[&str]) {
    let all = said(view);
    let found = all.iter().find(|(found, ..)| *found == type_).expect("the condition does not hold");
    assert_eq!(found.1, reason);
    for part in says {
        assert!(found.2.contains(part), "{part:?} is not in {:?}", found.2);
    }
}

#[test]
fn a_pool_that_works_is_ready_and_reachable_and_nothing_else() {
    let all: Vec<_> = said(&view()).into_iter().map(|(type_, ..)| type_).collect();
    assert_eq!(all, [ConditionType::BrokerReachable, ConditionType::Ready]);
}

#[test]
fn nothing_is_said_of_workers_before_deployments_and_pods_have_been_listed() {
    let (named, key) =
        (Some(DeploymentRef { name: "worker".into(), container: None }), ObjectKey::new("team", "default"));
    let spec = CrewWorkerPoolSpec { deployment_ref: named, ..CrewWorkerPoolSpec::with_secret("redis") };
    let about_workers = |unlisted| {
        let view = View { known: None, unlisted, ..view() };
        let all = of(&Seen { key: &key, spec: &spec, view: &view, skew: None });
        all.into_iter().map(|it| it.reason).any(|reason| reason == Reason::DeploymentNotFound)
    };
    assert!(about_workers(false) && !about_workers(true));
    let types = |unlisted| {
        let all = of(&Seen { key: &key, spec: &spec, view: &View { unlisted, ..view() }, skew: None });
        all.into_iter().map(|it| it.type_).collect::<Vec<_>>()
    };
    let (before, after) = (types(true), types(false));
    for type_ in [
        ConditionType::Ready,
        ConditionType::WorkersNotStarting,
        ConditionType::GracePeriodTooShort,
        ConditionType::ReplicasContested,
    ] {
        assert!(after.contains(&type_) && !before.contains(&type_), "{type_:?}");
    }
}

#[test]
fn contested_replicas_name_their_owner_and_the_one_command_that_undoes_it() {
    let mut view = view();
    if let Some(known) = &mut view.known {
        known.owner = Some("kubectl scale".into());
    }
    let command =
        "kubectl annotate crewworkerpool default -n team crewjob.dev/take-replicas=\"$(date +%s)\" --overwrite";
    let says = ["kubectl scale", "is 5", command];
    holds(&view, ConditionType::ReplicasContested, Reason::ReplicasContested, &says);
}

#[test]
fn a_grace_period_that_is_too_short_says_that_a_lower_bound_waits_for_it() {
    let long = View { hard_limit: Duration::from_hours(2), ..view() };
    let says = ["7260", "spec.maxReplicas"];
    holds(&long, ConditionType::GracePeriodTooShort, Reason::GracePeriodTooShort, &says);
}

#[test]
fn workers_that_do_not_start_say_why() {
    let blocked = Blocked { kind: BlockedKind::ImageNotPulled, detail: "image".into() };
    let view = View { blocked: Some(blocked), ..view() };
    holds(&view, ConditionType::WorkersNotStarting, Reason::ImageNotPulled, &["image"]);
}

#[test]
fn a_deployment_that_is_not_there_makes_a_pool_not_ready() {
    let view = View { known: None, ..view() };
    assert!(said(&view).iter().all(|(type_, ..)| *type_ != ConditionType::Ready));
}

#[test]
fn results_that_expire_too_soon_for_losses_to_be_told_are_said() {
    let mut spec = CrewWorkerPoolSpec::with_secret("redis");
    spec.celery.result_expires = crate::api::Duration::from_mins(1);
    let (key, view) = (ObjectKey::new("team", "default"), view());
    let verdict = adjusted(&Seen { key: &key, spec: &spec, view: &view, skew: None });
    assert_eq!((verdict.holds, verdict.reason), (Some(true), Reason::ResultExpiresTooShort));
    assert!(verdict.message.contains("10m"), "{}", verdict.message);
}

#[test]
fn a_redis_that_evicts_keys_is_said_with_its_policy_and_what_to_set() {
    let evicts = |policy| crate::core::eviction::judge(104_857_600, policy);
    let says = ["allkeys-lru", "104857600", "queues", "CONFIG SET maxmemory-policy noeviction"];
    let view = View { eviction: evicts("allkeys-lru"), results_eviction: evicts("volatile-lru"), ..view() };
    holds(&view, ConditionType::BrokerEvictsKeys, Reason::AllKeysEvictable, &says);
    let view = View { eviction: evicts("volatile-ttl"), ..view };
    holds(&view, ConditionType::BrokerEvictsKeys, Reason::ExpiringKeysEvictable, &["volatile-ttl", "results"]);
    let says = ["RESULT_BACKEND_URL", "volatile-lru", "drops results when"];
    let view = View { eviction: evicts("noeviction"), ..view };
    holds(&view, ConditionType::BrokerEvictsKeys, Reason::ExpiringKeysEvictable, &says);
}

#[test]
fn a_queue_that_another_pool_consumes_too_is_said_with_that_pool() {
    let shared = Some((ObjectKey::new("other", "default"), "crew_jobs".to_owned()));
    let says = ["other/default", "crew_jobs", "globalKeyPrefix"];
    holds(&View { shared, ..view() }, ConditionType::QueuesShared, Reason::QueueShared, &says);
}

#[test]
fn workers_that_use_the_operators_secret_although_they_have_their_own_are_said() {
    let mut spec = CrewWorkerPoolSpec::with_secret("operators");
    spec.redis.worker_secret_name = Some("workers".to_owned());
    let (key, mut view) = (ObjectKey::new("team", "default"), view());
    let check = |view: &View| credentials(&Seen { key: &key, spec: &spec, view, skew: None }).holds;
    assert_eq!(check(&view), Some(false));
    if let Some(known) = &mut view.known {
        known.secrets = vec!["operators".into()];
    }
    assert_eq!(check(&view), Some(true));
}

#[test]
fn a_clock_that_differs_too_much_is_said_with_its_worker_and_the_way_it_differs() {
    let (key, spec, view) = (ObjectKey::new("team", "default"), CrewWorkerPoolSpec::with_secret("redis"), view());
    let said = |behind, nodes| {
        let skew = Some(Skew { node: "crew@w".into(), behind, nodes });
        let verdict = clocks(&Seen { key: &key, spec: &spec, view: &view, skew });
        assert_eq!((verdict.holds, verdict.reason), (Some(true), Reason::ClockSkewed));
        verdict.message
    };
    let behind = said(120, 1);
    assert!(behind.contains("clock of crew@w is 120 s behind the operator's;"), "{behind}");
    let ahead = said(-90, 3);
    assert!(ahead.contains("is 90 s ahead of the operator's (3 clocks differ by more than 30 s)"), "{ahead}");
}

#[test]
fn workers_that_take_nothing_are_said_with_since_when_and_what_they_should_consume() {
    let view = View { stalled_since: Some("2026-01-01T00:00:00Z".parse().unwrap()), ..view() };
    let spec = CrewWorkerPoolSpec::with_secret("redis");
    let says = ["since 2026-01-01T00:00:00Z", &spec.queues[0].name, "spec.concurrency"];
    holds(&view, ConditionType::WorkersStalled, Reason::NothingTaken, &says);
}

#[test]
fn a_pool_whose_redis_cannot_be_used_is_neither_reachable_nor_ready_and_nothing_else_is_said() {
    let problem = PoolProblem { kind: PoolProblemKind::BrokerRefused, detail: "wrong password".into() };
    let said = of_problem(&problem);
    let reasons: Vec<_> = said.iter().map(|it| (it.type_, it.holds, it.reason)).collect();
    let reason = Reason::named(PoolProblemKind::BrokerRefused.reason()).unwrap();
    let expected = [ConditionType::BrokerReachable, ConditionType::Ready].map(|type_| (type_, Some(false), reason));
    assert_eq!(reasons, expected);
    assert!(said.iter().all(|it| it.message == "wrong password"));
}

#[test]
fn nothing_is_said_of_scaling_while_the_deployment_is_not_known() {
    let types = |view: &View| {
        let (key, spec) = (ObjectKey::new("team", "default"), CrewWorkerPoolSpec::with_secret("redis"));
        let all = of(&Seen { key: &key, spec: &spec, view, skew: None });
        all.into_iter().map(|it| it.type_).collect::<Vec<_>>()
    };
    let about_deployment =
        [ConditionType::GracePeriodTooShort, ConditionType::ReplicasContested, ConditionType::WorkersStalled];
    let known = types(&view());
    assert!(about_deployment.iter().all(|type_| known.contains(type_)));
    let unknown = types(&View { known: None, ..view() });
    assert!(about_deployment.iter().all(|type_| !unknown.contains(type_)));
}

#[test]
fn every_kind_of_blockage_and_of_problem_is_a_reason_of_the_closed_list() {
    for kind in BlockedKind::ALL {
        assert!(Reason::named(kind.reason()).is_some(), "{kind:?}");
    }
    for problem in [PoolProblemKind::BrokerRefused, PoolProblemKind::Connecting] {
        assert!(Reason::named(problem.reason()).is_some(), "{problem:?}");
    }
}
