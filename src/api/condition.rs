//! The conditions of both resources: their types, and the closed list of their reasons.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::head;

/// How much of a message is kept.
pub(super) const MESSAGE_BYTES: usize = 384;

/// Which aspect of a CrewJob or CrewWorkerPool a condition is about.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionType {
    /// CrewJob: the job succeeded, as in a Kubernetes Job. `kubectl wait --for=condition=Complete` waits for it.
    Complete,
    /// CrewJob: the job failed for good or was cancelled, as in a Kubernetes Job.
    Failed,
    /// CrewJob: the job is not finished; Flux, and whatever uses kstatus, waits while it is true. Argo CD needs the
    /// health check in `docs/gitops.md` for that.
    Reconciling,
    /// CrewJob: true together with `Failed`; tells Flux that waiting is of no use, and Argo CD with the same health check.
    Stalled,
    /// CrewJob: inputs or arguments were changed after the first attempt was enqueued, so no further one is.
    SpecChanged,
    /// CrewJob: a running attempt cannot be cancelled, because its worker does not take orders.
    CancelUnsupported,
    /// CrewJob: a result arrived after the job had reached another end.
    LateResult,
    /// CrewWorkerPool: jobs can be enqueued. A pool with no workers and no load is ready. `CrewSchedule`: jobs are made at its times.
    Ready,
    /// CrewWorkerPool: Redis answers and accepts the credentials.
    BrokerReachable,
    /// CrewWorkerPool: Redis drops keys when it is full (`maxmemory-policy` is not `noeviction`, and `maxmemory` is not 0), so
    /// queues or results may vanish. The message says which, and how to forbid it.
    BrokerEvictsKeys,
    /// CrewWorkerPool: another pool consumes the same queue on the same Redis, so the workers of each run the jobs of both.
    QueuesShared,
    /// CrewWorkerPool: a setting that an older version allowed is replaced by the nearest one that works.
    SettingsAdjusted,
    /// CrewWorkerPool: the workers have a Secret of their own and use the operator's all the same.
    CredentialsShared,
    /// CrewWorkerPool: a worker's configuration endangers jobs; the message says which setting of which worker and how to
    /// mend it, the worst first. Where each result would be lost or unreadable, the pool's jobs wait with the same reason
    /// until it is mended. While it is false, its message may have a hint.
    WorkersMisconfigured,
    /// CrewWorkerPool: the clock of a worker, or of Redis, differs from the operator's by more than 30 seconds. Times are
    /// corrected by it; the message names the worst and how many there are.
    WorkerClocksSkewed,
    /// CrewWorkerPool: it cannot be told which container of a Pod runs the worker, or a worker's name does not lead to a
    /// Pod, so the end of such a worker is not noticed. The message says what to set.
    WorkersUnattributed,
    /// CrewWorkerPool: the Pods' grace period is shorter than the longest task, so workers are not taken away.
    GracePeriodTooShort,
    /// CrewWorkerPool: another field manager owns the Deployment's replicas, so the operator leaves them alone. The message
    /// names it, and the command that hands them back.
    ReplicasContested,
    /// CrewWorkerPool: workers do not start; the message says why, for which Pod, and how to mend it. Jobs that wait for
    /// them say the same.
    WorkersNotStarting,
    /// CrewWorkerPool: messages wait, workers have room for them, and no worker takes any. No worker is killed for that.
    WorkersStalled,
}

/// Why a condition is what it is. The list is closed and stable: programs may rely on it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The CrewWorkerPool that `spec.poolRef` names does not exist. The message lists those that do.
    PoolNotFound,
    /// The operator has not looked at the pool yet.
    Connecting,
    /// `spec.queue` is none of the pool's queues.
    QueueNotInPool,
    /// `spec.task` is none of the pool's allowed tasks.
    TaskNotAllowed,
    /// The Secret with the Redis URL does not exist.
    SecretNotFound,
    /// The Secret lacks the label `crewjob.dev/redis: "true"`, without which the operator does not read it.
    SecretNotLabelled,
    /// The Secret lacks `REDIS_URL`, or its content is not a usable URL or certificate.
    SecretInvalid,
    /// Redis does not answer.
    BrokerUnreachable,
    /// The server of the pool's Secret answers and cannot be used: it is older than Redis 6.2, or a Redis Cluster. The message
    /// says which.
    BrokerUnsupported,
    /// Redis refuses the user or the password.
    BrokerAuthenticationFailed,
    /// Redis refuses to work as needed: it is read-only, out of memory, or forbids a command. The message names what was to
    /// be done and what mends it; the operator keeps trying.
    BrokerRefused,
    /// The key on Redis that keeps former leaders from writing was not written by this operator, so nothing can be
    /// enqueued there. The message names the key and the command that clears it.
    FenceNotOurs,
    /// The operator has no rights in the pool's namespace. The message says how to grant them.
    NamespaceNotGranted,
    /// The spec is one that cannot be run, for a reason that the API server cannot check: inputs too large or too deep,
    /// or contradicting timeouts. The message names the field.
    InvalidSpec,
    /// `spec.suspend` of a job or a schedule is true.
    Suspended,
    /// Another job with the same `spec.runOnce` has not ended; the message names it. This one ends as that one does.
    RunOnceHeld,
    /// The ConfigMap that remembers `spec.runOnce` is refused by the API server, or its name belongs to something else. The
    /// message names it; the operator keeps trying, and the job is not run, or its end not recorded, before that.
    RunOnceRefused,
    /// The job was not run, because a job with the same `spec.runOnce` has; it ends as that one did. The message names it.
    AlreadyRan,
    /// Another job with the same `spec.dedup.key` stands for it: this one waits for its end, and ends as that one does. The
    /// message names it.
    Attached,
    /// Another job with the same `spec.dedup.key` is cancelled, and this one runs when that one has ended. The message names
    /// it.
    Replacing,
    /// The job was not run, because another one with the same `spec.dedup.key` was created within its window. The message
    /// names it.
    Duplicate,
    /// A limit of the pool is reached (`spec.limits` of the CrewWorkerPool). The message says which, the job's place among
    /// those that wait with the same keys, and when it is expected to be released.
    LimitReached,
    /// The limits of the pool allow the job, and it is put on its queue next.
    Released,
    /// The job waits on its queue for a worker.
    Enqueued,
    /// A worker runs the job.
    Running,
    /// A run failed; the next attempt waits for its backoff.
    RetryScheduled,
    /// The task returned a result.
    Succeeded,
    /// The job was to be cancelled, but its result was there first.
    FinishedBeforeCancel,
    /// The last run that the retry policy allows failed.
    RetriesExhausted,
    /// The run failed with an exception that the retry policy calls not worth a repetition, or the command of a native worker
    /// said that another run would fail, too.
    NonRetryableError,
    /// The worker that held the job died. The same attempt is on its queue again, or the job failed because more workers
    /// died than the retry policy allows.
    WorkerLost,
    /// The job's message vanished from Redis. The same attempt is on its queue again, or the job failed because it
    /// vanished more often than can be an accident.
    MessageLost,
    /// The run ended without leaving a result.
    NoResult,
    /// The run ended, and its Celery worker could not encode what it returned (`kombu.exceptions.EncodeError`). It is not run
    /// again, because the work was done and would end like this again.
    ResultNotEncodable,
    /// The result expired before the operator could read it.
    ResultExpired,
    /// The result is there but cannot be read as the outcome of a Celery task.
    ResultUnreadable,
    /// The job took longer than `spec.timeouts.total`.
    DeadlineExceeded,
    /// No worker took the job within `spec.timeouts.queue`.
    QueueTimeout,
    /// The job was cancelled.
    Cancelled,
    /// The task was revoked by other means than `spec.cancel` of the job, for instance with `celery control revoke`.
    Revoked,
    /// Inputs or arguments are not those that the first attempt was enqueued with.
    SpecChanged,
    /// The worker does not take orders, or sharing its Pod with other tasks forbids ending it.
    WorkerDeaf,
    /// A result arrived after the job had reached another end.
    LateResult,
    /// The API server refuses the ConfigMap that the result belongs in: a quota, a policy, a missing permission. The result
    /// is kept on Redis until it is stored.
    ResultRefused,
    /// A ConfigMap of the name that the result needs exists and belongs to something else. The result is kept on Redis
    /// until it is stored.
    ConfigMapTaken,
    /// The API server refuses details of the job's status, which are left out.
    StatusRefused,
    /// The API server refuses the deletion of the Pod of a worker that does not stop a cancelled job.
    PodDeletionRefused,
    /// A time, a line or a time zone of a schedule cannot be used. The message names the field.
    ScheduleInvalid,
    /// As many jobs of a schedule failed in a row as `spec.pauseAfterFailures` says. It goes on when its spec is changed, or
    /// when a job that was asked for with `crewjob.dev/run-now` succeeds.
    SchedulePaused,
    /// A schedule has no further time, because `spec.end` is past.
    ScheduleEnded,
    /// The API server refuses a job of a schedule: a quota, a policy, or a template that is no longer valid. The message says
    /// which; the operator keeps trying for as long as `spec.catchUp.window` allows.
    JobNotCreated,
    /// All is as it should be.
    AsExpected,
    /// Not known yet.
    Unknown,
    /// The Deployment that `spec.deploymentRef` names does not exist.
    DeploymentNotFound,
    /// A worker stores no results, or stores them elsewhere than in the Redis that the pool's Secret names. Jobs wait, unless
    /// it is only likely: servers that have different names may be one.
    ResultBackendDiffers,
    /// A worker stores results under keys with another prefix (`result_backend_transport_options`) than the pool's. Jobs wait.
    ResultKeysDiffer,
    /// A worker's `result_serializer` is not `json`. Jobs wait where it is one of Celery's others.
    ResultSerializerNotJson,
    /// A worker compresses results (`result_compression`) in a way that is not read: neither gzip, bzip2 nor zstd. Jobs wait.
    ResultCompressionUnknown,
    /// A worker stores no results of a task (`task_ignore_result`, or `ignore_result` of the task). Jobs with that task wait.
    ResultsIgnored,
    /// A worker's `unacked_key` is not that of the pool, so the operator does not see which messages it has.
    UnackedKeyDiffers,
    /// A worker's `priority_steps` or `sep` are not those of the pool, so it may never look where a job waits.
    PrioritiesDiffer,
    /// A worker takes more tasks than it runs (`worker_prefetch_multiplier` is not 1).
    PrefetchTooHigh,
    /// A worker stores a `ConnectionError` for a run that ends while Redis is away (`result_backend_always_retry` is off), so
    /// the run is repeated.
    ResultsNotRetried,
    /// A worker acknowledges tasks before it has run them (`task_acks_late` is off), so a dead worker's task is lost.
    AcknowledgesEarly,
    /// A worker's `visibility_timeout` is not that of the pool.
    VisibilityTimeoutDiffers,
    /// The clock of a worker or of Redis differs from the operator's.
    ClockSkewed,
    /// A worker runs another number of tasks at once than `spec.concurrency` says.
    ConcurrencyDiffers,
    /// A shell is the main process of a worker's container and keeps SIGTERM to itself: the worker takes tasks until its
    /// grace period ends it by force.
    ShellTakesSignals,
    /// The Pods have several containers, and nothing says which of them runs the worker; or the one that is named is not
    /// there.
    ContainerUnclear,
    /// Workers have names that lead to no Pod of the Deployment.
    NodeNameUnclear,
    /// `terminationGracePeriodSeconds` is shorter than the hard time limit plus a minute.
    GracePeriodTooShort,
    /// A `HorizontalPodAutoscaler` or another field manager sets the Deployment's replicas too.
    ReplicasContested,
    /// For half a minute no worker took a message although one had room: the workers hang, consume other queues, or run
    /// fewer tasks at once than `spec.concurrency` says.
    NothingTaken,
    /// Redis may drop any key when it is full: queues with their messages, messages in flight, results.
    AllKeysEvictable,
    /// Redis may drop keys that expire when it is full: results, and the leases of workers.
    ExpiringKeysEvictable,
    /// Another pool uses the same server, database, key prefix and queue. The message names it.
    QueueShared,
    /// `spec.celery.resultExpires` is smaller than 10m.
    ResultExpiresTooShort,
    /// `spec.redis.workerSecretName` is set, and the Deployment's Pods use `spec.redis.secretName`.
    WorkersUseOperatorSecret,
    /// `spec.maxReplicas` is 0, so no worker is started.
    NoReplicasAllowed,
    /// No worker answers, and the pool has no Deployment to scale.
    NoWorkerAnswers,
    /// An image of the worker Pods cannot be pulled.
    ImageNotPulled,
    /// A container of the worker Pods cannot be created: it names a Secret, ConfigMap or volume that is not there.
    ContainerNotCreated,
    /// A container of the worker Pods ends again and again, soon after it has started.
    CrashLoop,
    /// The worker Pods are refused by a quota, a policy or an admission webhook.
    PodsNotCreated,
    /// No node can take a worker Pod.
    PodsUnschedulable,
    /// The worker Pods do not become ready within the Deployment's `progressDeadlineSeconds`.
    PodsNotReady,
}

impl Reason {
    /// The reason of this name.
    pub fn named(name: &str) -> Option<Self> {
        serde_json::from_value(name.into()).ok()
    }
}

// Unit variants: the derived `Debug` is the name.
impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a condition says, before it is told apart from what it said until now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The aspect of the state.
    pub type_: ConditionType,
    /// Whether it holds; none where that is not known.
    pub holds: Option<bool>,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people: what is wrong and what to do about it.
    pub message: String,
}

/// Replaces the condition of the verdict's type, or adds it. The time of transition is kept unless the status changed;
/// a long message loses its end.
pub fn set_condition(conditions: &mut Vec<Condition>, verdict: Verdict, generation: Option<i64>, now: Time) {
    let type_ = verdict.type_.to_string();
    let status = match verdict.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let mut message = verdict.message;
    message.truncate(head(&message, MESSAGE_BYTES).len());
    let known = conditions.iter().position(|condition| condition.type_ == type_);
    let since = known.map(|i| &conditions[i]).filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
    let condition = Condition {
        type_,
        status: status.to_owned(),
        reason: verdict.reason.to_string(),
        message,
        observed_generation: generation,
        last_transition_time: since.unwrap_or(now),
    };
    match known {
        Some(i) => conditions[i] = condition,
        None => conditions.push(condition),
    }
}

/// The condition of a type, where there is one.
pub fn find_condition(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_.to_string())
}

/// Whether a condition of this type holds.
pub fn holds(conditions: &[Condition], type_: ConditionType) -> bool {
    find_condition(conditions, type_).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    fn failed(holds: bool, reason: Reason) -> Verdict {
        Verdict { type_: ConditionType::Failed, holds: Some(holds), reason, message: String::new() }
    }

    #[test]
    fn the_time_of_transition_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set_condition(&mut conditions, failed(false, Reason::Enqueued), Some(1), at(1));
        set_condition(&mut conditions, failed(false, Reason::Running), Some(1), at(2));
        assert_eq!((conditions[0].reason.as_str(), &conditions[0].last_transition_time), ("Running", &at(1)));

        set_condition(&mut conditions, failed(true, Reason::WorkerLost), Some(2), at(3));
        assert_eq!(conditions.len(), 1);
        assert_eq!((conditions[0].observed_generation, &conditions[0].last_transition_time), (Some(2), &at(3)));
        assert!(holds(&conditions, ConditionType::Failed) && !holds(&conditions, ConditionType::Complete));
    }

    #[test]
    fn names_are_those_of_the_variants() {
        assert_eq!(ConditionType::LateResult.to_string(), "LateResult");
        assert_eq!(Reason::BrokerAuthenticationFailed.to_string(), "BrokerAuthenticationFailed");
    }
}
