//! What keeps a job from running, by the decision of the operator itself.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::api::{ConditionType, CrewJob, CrewWorkerPool, Phase, find_condition};
use crate::core::dedup::{ATTACHED, REPLACING};
use crate::core::job::Job;
use crate::core::limits::{LIMIT_REACHED, Permit};
use crate::core::observed::{Observed, Others, PodDeletion, Pool, PoolFacts, Published, Search, Task};
use crate::core::once::Claim;
use crate::core::plan::Plan;
use crate::core::status::{PoolProblem, PoolProblemKind, Why};
use crate::core::{decide, status, twins};

/// An operator that works has acted on a new or changed job within this time.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// What was read of the job's pool.
#[derive(Debug, Clone)]
pub enum Read {
    /// It is there.
    Found(Box<CrewWorkerPool>),
    /// There is none of that name, but these.
    Missing(Vec<String>),
}

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// One word for it: that of the job's condition, or one of `NotSeen`, `AtMaxReplicas`, `WorkersStarting`, `WorkersStalled`,
    /// `Backoff`, `EnqueueDue`.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Whether something has to be done before it goes on.
    pub is_blocked: bool,
    /// What to do, or what it waits for.
    pub remedy: String,
    /// Whether its message waits in a queue, so that it has a place there.
    pub waits: bool,
}

impl Verdict {
    fn new(reason: &str, message: impl Into<String>, is_blocked: bool, remedy: impl Into<String>) -> Self {
        let (message, remedy) = (message.into(), remedy.into());
        Self { reason: reason.to_owned(), message, is_blocked, remedy, waits: false }
    }
}

/// Decides as the operator does on what the API server says, and looks further where the operator has nothing to do.
pub fn verdict(object: &CrewJob, pool: &Read, claim: Claim, now: Timestamp) -> Verdict {
    let Ok(job) = object.to_job() else {
        return Verdict::new(
            "Unreadable",
            "this program does not understand the job",
            true,
            "use the program of the operator's version",
        );
    };
    if job.status.phase.is_terminal() {
        let phase = format!("{:?}", job.status.phase);
        let reason = if job.status.why == Why::Unseen { &phase } else { job.status.why.reason() };
        return Verdict::new(reason, job.status.message(), false, "nothing: it is over");
    }
    if let Some(verdict) = not_seen(object, now) {
        return verdict;
    }
    if object.status.as_ref().is_some_and(|status| status.phase == Phase::Running) {
        return running(&job);
    }
    let plan = plan(&job, pool, claim, now);
    let (why, message) = (&plan.status.why, plan.status.message());
    match why {
        Why::OnHold(_) | Why::Blocked { .. } => {
            let waits = matches!(why, Why::Blocked { .. });
            Verdict { waits, ..Verdict::new(why.reason(), message, true, remedy(why.reason(), object)) }
        }
        Why::RetryScheduled => {
            let at = plan.status.retry_at.as_deref().map(ToString::to_string).unwrap_or_default();
            Verdict::new("Backoff", message, false, format!("nothing: the next attempt begins at {at}"))
        }
        Why::Unseen
        | Why::Released
        | Why::Attached { .. }
        | Why::Duplicate { .. }
        | Why::Enqueued
        | Why::Started
        | Why::WorkerLost
        | Why::MessageLost
        | Why::Succeeded
        | Why::FinishedBeforeCancel
        | Why::GaveUp(_)
        | Why::Cancelled
        | Why::AlreadyRan { .. }
        | Why::Recorded { .. } => {
            if matches!(why, Why::AlreadyRan { .. }) {
                return Verdict::new(why.reason(), message, false, "nothing: the operator records its end");
            }
            let reason = why.reason();
            if matches!(reason, LIMIT_REACHED | ATTACHED | REPLACING) {
                return Verdict::new(reason, message, true, remedy(reason, object));
            }
            if plan.status.phase == status::Phase::Queued {
                return queued(why, message, pool);
            }
            let (message, remedy) = ("nothing keeps it from its queue", "nothing: the operator enqueues it");
            Verdict::new("EnqueueDue", message, false, remedy)
        }
    }
}

/// No operator has acted on what is there, although one would have by now.
fn not_seen(object: &CrewJob, now: Timestamp) -> Option<Verdict> {
    let seen = object.status.as_ref().and_then(|status| status.observed_generation).unwrap_or_default();
    let is_new = seen == 0;
    let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0)?;
    let age = Duration::try_from(now.duration_since(created)).unwrap_or_default();
    (is_new && age > SEEN_WITHIN).then(|| {
        Verdict::new(
            "NotSeen",
            "no operator has acted on the job since it was created",
            true,
            "see whether an operator runs and leads, and watches this namespace: kubectl crewjob version, and the log of the \
             operator",
        )
    })
}

fn running(job: &Job) -> Verdict {
    match job.status.remarks().cancel_unsupported {
        Some((_, why)) => Verdict::new(
            why.reason(),
            why.message(),
            true,
            "wait for the end of the run, or delete the Pod of its worker",
        ),
        None if job.spec.cancel => {
            Verdict::new("Cancelling", "its worker was asked to stop it", false, "nothing: the worker stops it")
        }
        None => {
            Verdict::new("Running", job.status.message(), false, "nothing: see its log with: kubectl crewjob logs -f")
        }
    }
}

/// What the operator would do. What is on Redis is taken to be as the status says it.
fn plan(job: &Job, pool: &Read, claim: Claim, now: Timestamp) -> Plan {
    let generation = job.status.attempt.as_ref().map(|attempt| attempt.generation);
    let task = match (job.status.phase, generation) {
        (status::Phase::Queued, Some(generation)) => Task::Queued { generation },
        (_, Some(generation)) => Task::Withdrawn { generation },
        (_, None) => Task::Absent(Search::default()),
    };
    let published = Published {
        at: job.status.attempt.as_ref().map(|attempt| attempt.enqueued_at),
        spec: job.status.spec_hash,
        priority: generation.map(|_| job.spec.priority),
    };
    let seen = Observed {
        pool: observed(pool),
        of: job.attempt_in_hand().task,
        published,
        stop_asked_at: None,
        stop_repeated_at: None,
        pod_deletion: PodDeletion::default(),
        task,
        others: Others::default(),
        claim,
        // Which jobs have a permit only the operator knows.
        permit: if pool_has_limits(pool) { Permit::Unknown } else { Permit::Free },
        twins: twins::Verdict::Alone,
    };
    decide::decide(job, &seen, now)
}

fn pool_has_limits(pool: &Read) -> bool {
    matches!(pool, Read::Found(pool) if !pool.spec.limits.is_empty())
}

fn observed(pool: &Read) -> Pool {
    let pool = match pool {
        Read::Missing(existing) => {
            return Pool::Missing { existing: existing.iter().map(|name| name.as_str().into()).collect() };
        }
        Read::Found(pool) => pool,
    };
    let status = pool.status.clone().unwrap_or_default();
    let broker = find_condition(&status.conditions, ConditionType::BrokerReachable);
    if let Some(condition) = broker.filter(|condition| condition.status != "True")
        && let Some(kind) = PoolProblemKind::named(&condition.reason)
    {
        return Pool::Unusable(PoolProblem { kind, detail: condition.message.as_str().into() });
    }
    let (blocked, futile) = (status.blocked(), status.futile().map(Into::into));
    Pool::Ready(PoolFacts { blocked, futile, ..pool.spec.to_facts(&pool.name_any()) }.into())
}

/// Why its message waits.
fn queued(why: &Why, message: String, pool: &Read) -> Verdict {
    let Read::Found(pool) = pool else {
        return Verdict::new(why.reason(), message, false, "");
    };
    let name = pool.name_any();
    let status = pool.status.clone().unwrap_or_default();
    // The job may have recorded it already, which is no news to `decide`.
    if let Some(blocked) = status.blocked() {
        let (reason, message) = (blocked.kind.reason(), format!("CrewWorkerPool {name:?}: {}", blocked.detail));
        let remedy = format!("see: kubectl describe crewworkerpool {name}");
        return Verdict { waits: true, ..Verdict::new(reason, message, true, remedy) };
    }
    if let Some(stalled) = find_condition(&status.conditions, ConditionType::WorkersStalled)
        && stalled.status == "True"
    {
        let remedy = format!("look at the workers: kubectl describe crewworkerpool {name}");
        return Verdict { waits: true, ..Verdict::new("WorkersStalled", stalled.message.as_str(), true, remedy) };
    }
    let replicas = status.replicas.unwrap_or_default();
    let verdict = if pool.spec.deployment_ref.is_some() && replicas.ready == 0 {
        let message = format!("{} workers of the pool {name} are to start, and none is ready", replicas.desired);
        Verdict::new(
            "WorkersStarting",
            message,
            false,
            format!("nothing, unless it lasts: kubectl describe crewworkerpool {name}"),
        )
    } else if replicas.ready > 0 && replicas.busy >= replicas.ready && replicas.desired >= pool.spec.max_replicas {
        let message = format!("all {} workers of the pool {name} are busy, and it may have no more", replicas.ready);
        let remedy = format!("wait, or raise spec.maxReplicas of the pool {name}");
        Verdict::new("AtMaxReplicas", message, false, remedy)
    } else {
        Verdict::new(why.reason(), message, false, "nothing: a worker takes it when it is its turn")
    };
    Verdict { waits: true, ..verdict }
}

/// What to do where the sentence about it does not say so.
fn remedy(reason: &str, job: &CrewJob) -> String {
    let (name, pool) = (job.name_any(), &job.spec.pool_ref.name);
    match reason {
        "Suspended" => format!("kubectl crewjob resume {name}"),
        "RunOnceHeld" => {
            "nothing: wait for that job, or cancel it; to run both, give one of them another key".to_owned()
        }
        ATTACHED | REPLACING => "nothing: wait for the end of that job, or cancel it".to_owned(),
        LIMIT_REACHED => format!("wait for its turn, or raise the limit in spec.limits of the CrewWorkerPool {pool}"),
        "PoolNotFound" => format!("create the CrewWorkerPool {pool}, or name another one in spec.poolRef"),
        "QueueNotInPool" => format!("add the queue to spec.queues of the CrewWorkerPool {pool}, or choose another one"),
        "TaskNotAllowed" => format!("add the task to spec.allowedTasks of the CrewWorkerPool {pool}"),
        _ => format!("see: kubectl describe crewworkerpool {pool}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::id::TaskId;
    use crate::core::once::Ran;

    const UID: &str = "0f4c9a52-9a71-4b3e-8a52-0242ac120002";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn job(spec: &Value, status: &Value) -> CrewJob {
        let mut all = json!({ "topic": "Tea" });
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let metadata = json!({
            "name": "tea", "namespace": "team", "uid": UID, "generation": 1,
            "creationTimestamp": at(0).to_string(),
        });
        serde_json::from_value(json!({ "metadata": metadata, "spec": all, "status": status })).unwrap()
    }

    fn pool(spec: &Value, status: &Value) -> Read {
        let mut all =
            json!({ "redis": { "secretName": "redis" }, "deploymentRef": { "name": "worker" }, "maxReplicas": 2 });
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let pool = json!({ "metadata": { "name": "default", "namespace": "team" }, "spec": all, "status": status });
        Read::Found(Box::new(serde_json::from_value(pool).unwrap()))
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Value {
        json!({
            "type": type_, "status": status, "reason": reason, "message": "as it was said",
            "lastTransitionTime": at(0).to_string(),
        })
    }

    fn queued() -> Value {
        json!({
            "phase": "Queued", "observedGeneration": 1, "attempts": 0, "taskID": TaskId::derive(UID.parse().unwrap(), 1).to_string(), "queuedAt": at(1).to_string(), "queue": "crew_jobs",
            "firstQueuedAt": at(1).to_string(), "conditions": [condition("Reconciling", "True", "Enqueued")],
        })
    }

    fn seen() -> Value {
        json!({ "phase": "Pending", "observedGeneration": 1 })
    }

    fn replicas(desired: u32, ready: u32, busy: u32) -> Value {
        json!({ "replicas": { "desired": desired, "ready": ready, "busy": busy } })
    }

    /// The reason, and whether anything has to be done.
    fn of(job: &CrewJob, pool: &Read) -> (String, bool) {
        let verdict = verdict(job, pool, Claim::Ours, at(60));
        assert!(!verdict.message.is_empty() && !verdict.remedy.is_empty(), "{verdict:?}");
        (verdict.reason, verdict.is_blocked)
    }

    #[test]
    fn each_situation_has_one_reason() {
        let none = json!({});
        let broken = |reason: &str| json!({ "conditions": [condition("BrokerReachable", "False", reason)] });
        let stuck = |reason: &str| json!({ "conditions": [condition("WorkersNotStarting", "True", reason)] });
        let stalled = json!({ "conditions": [condition("WorkersStalled", "True", "NoWorkerTakes")] });
        let fine = pool(&none, &replicas(1, 1, 0));
        let missing = Read::Missing(vec!["other".into()]);
        let retrying =
            json!({ "phase": "Retrying", "observedGeneration": 1, "attempts": 1, "nextRetryAt": at(90).to_string() });
        let due =
            json!({ "phase": "Retrying", "observedGeneration": 1, "attempts": 1, "nextRetryAt": at(50).to_string() });
        let running =
            json!({ "phase": "Running", "observedGeneration": 1, "attempts": 1, "startedAt": at(5).to_string() });
        let over =
            json!({ "phase": "Succeeded", "observedGeneration": 1, "attempts": 1, "finishedAt": at(5).to_string() });
        let elsewhere = json!({ "queue": "elsewhere" });
        let task = json!({ "task": "unknown.task" });
        let suspended = json!({ "suspend": true });
        let cancelled = json!({ "cancel": true });
        let situations = vec![
            ("no pool", job(&none, &seen()), missing, "PoolNotFound", true),
            ("no operator", job(&none, &json!(null)), fine.clone(), "NotSeen", true),
            ("suspended", job(&suspended, &seen()), fine.clone(), "Suspended", true),
            ("a queue of no worker", job(&elsewhere, &seen()), fine.clone(), "QueueNotInPool", true),
            ("a task of no worker", job(&task, &seen()), fine.clone(), "TaskNotAllowed", true),
            ("Redis down", job(&none, &seen()), pool(&none, &broken("BrokerUnreachable")), "BrokerUnreachable", true),
            ("no Secret", job(&none, &seen()), pool(&none, &broken("SecretNotFound")), "SecretNotFound", true),
            (
                "a wrong password",
                job(&none, &seen()),
                pool(&none, &broken("BrokerAuthenticationFailed")),
                "BrokerAuthenticationFailed",
                true,
            ),
            ("nothing", job(&none, &seen()), fine.clone(), "EnqueueDue", false),
            ("backoff", job(&none, &retrying), fine.clone(), "Backoff", false),
            ("backoff that is over", job(&none, &due), fine.clone(), "EnqueueDue", false),
            ("no image", job(&none, &queued()), pool(&none, &stuck("ImageNotPulled")), "ImageNotPulled", true),
            ("no node", job(&none, &queued()), pool(&none, &stuck("PodsUnschedulable")), "PodsUnschedulable", true),
            (
                "no replicas allowed",
                job(&none, &queued()),
                pool(&none, &stuck("NoReplicasAllowed")),
                "NoReplicasAllowed",
                true,
            ),
            ("workers that take nothing", job(&none, &queued()), pool(&none, &stalled), "WorkersStalled", true),
            ("workers that start", job(&none, &queued()), pool(&none, &replicas(1, 0, 0)), "WorkersStarting", false),
            ("every worker busy", job(&none, &queued()), pool(&none, &replicas(2, 2, 2)), "AtMaxReplicas", false),
            ("its turn", job(&none, &queued()), fine.clone(), "Enqueued", false),
            ("running", job(&none, &running), fine.clone(), "Running", false),
            ("being cancelled", job(&cancelled, &running), fine.clone(), "Cancelling", false),
            ("over", job(&none, &over), fine, "Succeeded", false),
        ];
        for (situation, job, pool, reason, is_blocked) in situations {
            assert_eq!(of(&job, &pool), (reason.to_owned(), is_blocked), "{situation}");
        }
    }

    #[test]
    fn a_job_whose_key_another_one_has_waits_for_that_and_one_whose_key_has_run_ends_by_itself() {
        let (keyed, pool) = (job(&json!({ "runOnce": "k" }), &seen()), pool(&json!({}), &replicas(1, 1, 0)));
        let held = Claim::Held { by: "other".into(), read_at: at(59) };
        let ran = Claim::Ran(Ran { job: "other".into(), uid: UID.parse().unwrap(), succeeded: true, at: at(0) });
        for (claim, reason, is_blocked) in [(held, "RunOnceHeld", true), (ran, "AlreadyRan", false)] {
            let verdict = verdict(&keyed, &pool, claim, at(60));
            assert_eq!((&*verdict.reason, verdict.is_blocked), (reason, is_blocked));
            assert!(verdict.message.contains("other") && !verdict.remedy.is_empty(), "{verdict:?}");
        }
    }

    #[test]
    fn a_job_is_not_called_unseen_before_an_operator_had_the_time() {
        let new = job(&json!({}), &Value::Null);
        assert_eq!(verdict(&new, &pool(&json!({}), &replicas(1, 1, 0)), Claim::Ours, at(5)).reason, "EnqueueDue");
    }
}
