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
        if seen.view.known.is_some() {
            all.extend([grace_period(seen), contested(seen), stalled(seen)]);
        }
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
mod tests;
