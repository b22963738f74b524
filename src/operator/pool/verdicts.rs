//! The conditions of a pool, one function each: from what was seen to a verdict.

use super::view::View;
use crate::api::{ConditionType, CrewWorkerPoolSpec, LEAST_RESULT_EXPIRES, Reason, TAKE_REPLICAS, Verdict};
use crate::core::claims::clocks::Skew;
use crate::core::eviction::{Eviction, Keys};
use crate::core::id::ObjectKey;
use crate::core::scale::GRACE_MARGIN;
use crate::core::status::PoolProblem;

/// What a pool that Redis lets in looks like.
pub struct Seen<'a> {
    /// Namespace and name.
    pub key: &'a ObjectKey,
    /// What was declared.
    pub spec: &'a CrewWorkerPoolSpec,
    /// Its workers.
    pub view: &'a View,
    /// The worst of their clocks, where one differs too much.
    pub skew: Option<Skew>,
}

/// All that is to be said of a pool that works.
pub fn of(seen: &Seen<'_>) -> Vec<Verdict> {
    let mut all =
        vec![fine(ConditionType::BrokerReachable, true), evicts(seen), clocks(seen), adjusted(seen), shared(seen)];
    all.push(credentials(seen));
    if !seen.view.unlisted {
        all.extend([ready(seen), not_started(seen)]);
    }
    if seen.view.known.is_some() {
        all.extend([grace_period(seen), contested(seen), stalled(seen)]);
    }
    all
}

/// All that is to be said of a pool that does not work: the rest is not known, and stays as it was.
pub fn of_problem(problem: &PoolProblem) -> Vec<Verdict> {
    let reason = Reason::named(problem.kind.reason()).unwrap_or(Reason::Unknown);
    let verdict = |type_| verdict(type_, false, reason, problem.detail.to_string());
    vec![verdict(ConditionType::BrokerReachable), verdict(ConditionType::Ready)]
}

fn verdict(type_: ConditionType, holds: bool, reason: Reason, message: String) -> Verdict {
    Verdict { type_, holds: Some(holds), reason, message }
}

fn fine(type_: ConditionType, holds: bool) -> Verdict {
    verdict(type_, holds, Reason::AsExpected, String::new())
}

/// The Deployment as people name it.
fn deployment<'a>(seen: &Seen<'a>) -> &'a str {
    seen.spec.deployment_ref.as_ref().map_or("", |named| named.name.as_str())
}

fn ready(seen: &Seen<'_>) -> Verdict {
    if seen.view.deployment.is_none() || seen.view.known.is_some() {
        return fine(ConditionType::Ready, true);
    }
    let message = format!(
        "Deployment {:?} does not exist; jobs wait until it does or other workers serve the queues",
        deployment(seen)
    );
    verdict(ConditionType::Ready, false, Reason::DeploymentNotFound, message)
}

fn clocks(seen: &Seen<'_>) -> Verdict {
    let Some(Skew { node, behind, nodes }) = &seen.skew else {
        return fine(ConditionType::WorkerClocksSkewed, false);
    };
    let way = if *behind < 0 { "ahead of" } else { "behind" };
    let others = if *nodes > 1 { format!(" ({nodes} clocks differ by more than 30 s)") } else { String::new() };
    let message = format!(
        "the clock of {node} is {} s {way} the operator's{others}; times are corrected by that; synchronize the clocks of \
         the Nodes, for instance with chrony",
        behind.unsigned_abs()
    );
    verdict(ConditionType::WorkerClocksSkewed, true, Reason::ClockSkewed, message)
}

fn evicts(seen: &Seen<'_>) -> Verdict {
    let (server, Eviction { policy, maxmemory, keys }) = match (&seen.view.eviction, &seen.view.results_eviction) {
        (Some(broker), _) => ("Redis", broker),
        (None, Some(results)) => ("the Redis of RESULT_BACKEND_URL", results),
        (None, None) => return fine(ConditionType::BrokerEvictsKeys, false),
    };
    let (reason, what) = match (keys, &seen.view.eviction) {
        (Keys::All, Some(_)) => (Reason::AllKeysEvictable, "queues, messages in flight and results"),
        (Keys::Expiring, Some(_)) => (Reason::ExpiringKeysEvictable, "results and the leases of workers"),
        (Keys::All, None) => (Reason::AllKeysEvictable, "results"),
        (Keys::Expiring, None) => (Reason::ExpiringKeysEvictable, "results"),
    };
    let message = format!(
        "{server} drops {what} when it has {maxmemory} bytes, since its maxmemory-policy is {policy}, so jobs may be lost or run \
         again; as its administrator: CONFIG SET maxmemory-policy noeviction, and the same in its configuration"
    );
    verdict(ConditionType::BrokerEvictsKeys, true, reason, message)
}

fn shared(seen: &Seen<'_>) -> Verdict {
    let Some((other, queue)) = &seen.view.shared else {
        return fine(ConditionType::QueuesShared, false);
    };
    let message = format!(
        "pool {other} consumes queue {queue:?} of the same Redis, so the workers of each run the jobs of both and both are \
         scaled for all of them; give one of them another spec.celery.globalKeyPrefix, database or queue"
    );
    verdict(ConditionType::QueuesShared, true, Reason::QueueShared, message)
}

fn credentials(seen: &Seen<'_>) -> Verdict {
    let own = seen.spec.redis.worker_secret_name.as_ref();
    let operators = &seen.spec.redis.secret_name;
    let uses = |it: &crate::core::index::pods::DeploymentView| it.secrets.iter().any(|used| **used == **operators);
    let Some(own) = own.filter(|own| *own != operators && seen.view.known.as_ref().is_some_and(uses)) else {
        return fine(ConditionType::CredentialsShared, false);
    };
    let message = format!(
        "the Pods of Deployment {:?} use Secret {operators:?}, which is the operator's; let them use {own:?} \
         (spec.redis.workerSecretName)",
        deployment(seen)
    );
    verdict(ConditionType::CredentialsShared, true, Reason::WorkersUseOperatorSecret, message)
}

fn adjusted(seen: &Seen<'_>) -> Verdict {
    let declared = seen.spec.celery.result_expires.to_std();
    if declared >= LEAST_RESULT_EXPIRES {
        return fine(ConditionType::SettingsAdjusted, false);
    }
    let message = format!(
        "spec.celery.resultExpires is {} s and counts as {} s, since losses cannot be told from expired results within less; \
         set it, and result_expires of the workers, to 10m or more",
        declared.as_secs(),
        LEAST_RESULT_EXPIRES.as_secs()
    );
    verdict(ConditionType::SettingsAdjusted, true, Reason::ResultExpiresTooShort, message)
}

fn not_started(seen: &Seen<'_>) -> Verdict {
    match &seen.view.blocked {
        Some(blocked) => {
            let reason = Reason::named(blocked.kind.reason()).unwrap_or(Reason::Unknown);
            verdict(ConditionType::WorkersNotStarting, true, reason, blocked.detail.to_string())
        }
        None => fine(ConditionType::WorkersNotStarting, false),
    }
}

fn grace_period(seen: &Seen<'_>) -> Verdict {
    let needed = seen.view.hard_limit.saturating_add(GRACE_MARGIN);
    let has = seen.view.known.as_ref().map_or(needed, |known| known.grace_period);
    if has >= needed {
        return fine(ConditionType::GracePeriodTooShort, false);
    }
    let message = format!(
        "terminationGracePeriodSeconds of Deployment {:?} is {}, at least {} (hard time limit plus a minute) is needed; \
         workers are not scaled down until then, not even for a lower spec.maxReplicas",
        deployment(seen),
        has.as_secs(),
        needed.as_secs()
    );
    verdict(ConditionType::GracePeriodTooShort, true, Reason::GracePeriodTooShort, message)
}

fn contested(seen: &Seen<'_>) -> Verdict {
    let known = seen.view.known.as_ref();
    let Some((by, replicas)) = known.and_then(|known| Some((known.owner.as_ref()?, known.replicas))) else {
        return fine(ConditionType::ReplicasContested, false);
    };
    let message = format!(
        "spec.replicas of Deployment {:?} is {replicas} and belongs to {by}, so the operator does not scale it; to have it \
         scaled again: kubectl annotate crewworkerpool {} -n {} {TAKE_REPLICAS}=\"$(date +%s)\" --overwrite",
        deployment(seen),
        seen.key.name,
        seen.key.namespace,
    );
    verdict(ConditionType::ReplicasContested, true, Reason::ReplicasContested, message)
}

fn stalled(seen: &Seen<'_>) -> Verdict {
    let Some(since) = seen.view.stalled_since else {
        return fine(ConditionType::WorkersStalled, false);
    };
    let queues: Vec<&str> = seen.spec.queues.iter().map(|queue| queue.name.as_str()).collect();
    let message = format!(
        "since {since:.0} messages wait and no worker has taken one, although not all are busy; their log may tell whether \
         they hang, consume other queues than {} or run fewer tasks at once than {} (spec.concurrency)",
        queues.join(","),
        seen.spec.concurrency,
    );
    verdict(ConditionType::WorkersStalled, true, Reason::NothingTaken, message)
}

#[cfg(test)]
mod tests {
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
    fn a_deployment_is_not_said_to_be_missing_before_deployments_have_been_listed() {
        let (named, key) =
            (Some(DeploymentRef { name: "worker".into(), container: None }), ObjectKey::new("team", "default"));
        let spec = CrewWorkerPoolSpec { deployment_ref: named, ..CrewWorkerPoolSpec::with_secret("redis") };
        let about_workers = |unlisted| {
            let view = View { known: None, unlisted, ..view() };
            let all = of(&Seen { key: &key, spec: &spec, view: &view, skew: None });
            all.into_iter().map(|it| it.reason).any(|reason| reason == Reason::DeploymentNotFound)
        };
        assert!(about_workers(false) && !about_workers(true));
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
    fn every_kind_of_blockage_and_of_problem_is_a_reason_of_the_closed_list() {
        for kind in BlockedKind::ALL {
            assert!(Reason::named(kind.reason()).is_some(), "{kind:?}");
        }
        for problem in [PoolProblemKind::BrokerRefused, PoolProblemKind::Connecting] {
            assert!(Reason::named(problem.reason()).is_some(), "{problem:?}");
        }
    }
}
