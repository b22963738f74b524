//! What a user asks for: the spec of a `CrewJob`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{CrewJobStatus, Dedup, Duration, free_form, schema};

/// The Celery task that runs a crew, unless a job names another one.
pub const DEFAULT_TASK: &str = "backend.tasks.run_crew_task";
/// The pool a job belongs to, unless it names another one.
pub const DEFAULT_POOL: &str = "default";
/// The priority of a job that does not say.
pub const DEFAULT_PRIORITY: i32 = 5;

/// The column with the hour in which the time of a finished job is over.
pub const EXPIRES: &str = "Expires";

/// What to run, how urgently, and what to do when it fails.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "crewjob.dev",
    version = "v1alpha1",
    kind = "CrewJob",
    plural = "crewjobs",
    shortname = "crewj",
    category = "crew",
    namespaced,
    status = "CrewJobStatus",
    derive = "PartialEq",
    doc = "One run of an AI crew as a background job: the operator puts it on Redis as a Celery task, sees to it that a \
           worker runs it, and reports task ID, attempts, worker and result in its status.",
    selectable = ".status.phase",
    selectable = ".status.expiryBucket",
    selectable = ".status.observedGeneration",
    selectable = ".status.releaseMinute",
    selectable = ".status.dedupUid",
    selectable = ".spec.dedup.key",
    selectable = ".spec.poolRef.name",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where the job is in its life"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Reconciling\")].reason", description = "Why it is where it is: what it waits for, what holds it up, or how it ended"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority", description = "10 is the most urgent"),
    printcolumn(name = "Attempts", type_ = "integer", json_path = ".status.attempts", description = "Runs begun so far"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.poolRef.name", priority = 1),
    printcolumn(name = "Worker", type_ = "string", json_path = ".status.worker.name", description = "Celery node that holds the task", priority = 1),
    printcolumn(name = "Task ID", type_ = "string", json_path = ".status.taskID", description = "Celery ID of the current attempt", priority = 1),
    printcolumn(name = "Cost", type_ = "string", json_path = ".status.usage.costUSD", description = "What all runs cost in US dollars, as far as they report it", priority = 1),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiryBucket", description = "The hour (UTC) after which the finished job is deleted", priority = 1),
    printcolumn(name = "Topic", type_ = "string", json_path = ".spec.topic", priority = 1),
    validation = Rule::new(PHASE_IS_FINAL).message("status.phase is final once it is Succeeded, Failed or Cancelled"),
    validation = Rule::new(ATTEMPTS_NEVER_DECREASE).message("status.attempts never decreases"),
    validation = Rule::new(result_is_set_once()).message("status.result is set once")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct CrewJobSpec {
    /// The subject the crew works on; the task finds it as `inputs.topic`. 1 to 4096 characters. Cannot be changed.
    #[schemars(length(min = 1, max = 4096))]
    pub topic: String,

    /// Further inputs of the crew: any JSON object of at most 64 KiB, nested at most 32 levels deep. The topic is added
    /// under `topic` and wins over a value of that name here. Default: an empty object. Not to be changed: once the job
    /// was enqueued, a change is reported in condition `SpecChanged` and nothing further is run.
    ///
    /// Inputs that are larger or deeper make the job `Failed` with reason `InvalidSpec`. So does an object with exactly the
    /// two keys `__type__` and `__value__`, at any depth, because Celery workers would decode it into something else.
    #[serde(default, deserialize_with = "free_form::object", skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::any_object", extend("maxProperties" = 256))]
    pub inputs: Map<String, Value>,

    /// How urgent the job is, from 0 to 10: 10 is the most urgent, 0 the least. Default 5. May be changed; a job that no
    /// worker has taken yet moves at once.
    ///
    /// Celery on Redis counts the other way round, and Redis has only four bands: 8 to 10, 5 to 7, 2 to 4, 0 to 1. Where the
    /// pool sets other steps (`celery.prioritySteps`), the eleven priorities are spread evenly over its bands, with five for
    /// instance 8 to 10, 6 and 7, 4 and 5, 2 and 3, 0 and 1. Jobs of one band are equals and are served in the order of their
    /// arrival. The message carries `10 - priority`, or the nearest number of its band.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 0, max = 10))]
    pub priority: i32,

    /// The CrewWorkerPool whose workers run the job. Cannot be changed.
    #[serde(default)]
    pub pool_ref: PoolRef,

    /// The Celery queue; one of the pool's queues. Default: the pool's first queue. 1 to 128 letters, digits and
    /// `. _ : -`. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = schema::KEY), length(max = 128))]
    pub queue: Option<String>,

    /// The name of the Celery task; one of the pool's `allowedTasks`, and none of Celery's own (`celery.`). Default
    /// `backend.tasks.run_crew_task`. 1 to 128 letters, digits and `. _ : -`. Cannot be changed.
    ///
    /// Unless `args` or `kwargs` say otherwise, it is called with the arguments `[job_id]` and the keyword arguments
    /// `inputs` and `bypass_cache`, where `job_id` is the name of this object.
    #[serde(default = "default_task")]
    #[schemars(regex(pattern = schema::KEY), length(max = 128), extend("x-kubernetes-validations" = not_celerys_own()))]
    pub task: String,

    /// Positional arguments sent as they are, instead of `[job_id]`. Any JSON array of at most 64 items and 64 KiB.
    /// Default: none. Not to be changed, like `inputs`.
    #[serde(default, deserialize_with = "free_form::array", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_array", extend("maxItems" = 64))]
    pub args: Option<Vec<Value>>,

    /// Keyword arguments sent as they are, instead of `inputs` and `bypass_cache`. Any JSON object of at most 256 keys
    /// and 64 KiB. Default: none. Not to be changed, like `inputs`.
    #[serde(default, deserialize_with = "free_form::object", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object", extend("maxProperties" = 256))]
    pub kwargs: Option<Map<String, Value>>,

    /// Whether the task is to run the crew even where it has a cached result for these inputs. Default false. Cannot be
    /// changed.
    #[serde(default)]
    pub bypass_cache: bool,

    /// What to do when a run fails. Fields left out are those of the pool's `jobDefaults.retryPolicy`, and of the
    /// defaults given there. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,

    /// How long things may take. Fields left out are those of the pool's `jobDefaults.timeouts`, and of the defaults
    /// given there. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,

    /// Holds the job back: while true, no attempt is enqueued, and one that no worker has taken yet is taken off the
    /// queue. A running attempt is left alone. Default false. May be changed.
    #[serde(default)]
    pub suspend: bool,

    /// Asks for the end of the job: a queued attempt is taken off the queue, a running one is revoked, and the phase
    /// becomes `Cancelled`. A result that arrives first wins. Default false. May be changed; once the phase is
    /// `Cancelled`, setting it back does nothing.
    #[serde(default)]
    pub cancel: bool,

    /// A key under which the job runs once: of all CrewJobs of the namespace with the same key one runs, and the others end
    /// as it did, `Succeeded` or `Failed`, with reason `AlreadyRan` and without a run. While it has not ended the others
    /// wait with reason `RunOnceHeld`; if it is cancelled or deleted before its end, the next one runs. 1 to 253 letters,
    /// digits and `. _ : / -`. Default: none, each object is run. Cannot be changed.
    ///
    /// That a key has run is remembered in a ConfigMap of the namespace, also when the job itself is gone, for as long as the
    /// pool's `runOnceRetention` says. So a job that lives in Git is not run and paid for again when `ttlAfterFinished`, or a
    /// person, has deleted it and the next sync creates it. To run it again, give it another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9._:/-]+$"), length(min = 1, max = 253))]
    pub run_once: Option<String>,

    /// A key that makes submitting the job idempotent: of the CrewJobs of the pool with the same key that are created within
    /// `window` of each other the first one runs, and `onConflict` says what becomes of the others. Default: none, each object
    /// is run. Cannot be changed. `docs/dedup.md` says how this differs from `runOnce`; a job has one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<Dedup>,

    /// Begins with the state that another job has left, one that failed or was cancelled: it must be in the same namespace
    /// and served by the same pool, and its state not be older than workers keep it (24 hours by default). Where there is
    /// none, the job begins without, and `status.state.problem` says why. Default: none. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_from: Option<ResumeFrom>,

    /// How long the object is kept after it finished; then it is deleted, with its result. A duration such as `24h` (a
    /// week is `168h`), at most 8784h. Default: that of the pool's `jobDefaults`, and without one it is kept for good.
    /// May be changed, also after the end: it counts from `status.finishedAt`.
    ///
    /// Careful with a job that lives in Git: deleted here, it is created, run and paid for again by the next sync, unless it
    /// has a `runOnce` key. So is a finished job that is restored from a backup, unless it is restored with `suspend: true`: see `docs/backups.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("0s", "8784h")))]
    pub ttl_after_finished: Option<Duration>,
}

// The rules on the status stand at the root: on the field they would be skipped when the field, or the status, is removed.

/// A finished job stays as it ended.
const PHASE_IS_FINAL: &str = "!has(oldSelf.status) || !has(oldSelf.status.phase) \
    || !(oldSelf.status.phase in ['Succeeded','Failed','Cancelled']) \
    || (has(self.status) && has(self.status.phase) && self.status.phase == oldSelf.status.phase)";

/// What was run was paid for.
const ATTEMPTS_NEVER_DECREASE: &str = "!has(oldSelf.status) || !has(oldSelf.status.attempts) \
    || (has(self.status) && has(self.status.attempts) && self.status.attempts >= oldSelf.status.attempts)";

/// The value is free-form, which no rule can compare: its hash stands for it.
fn result_is_set_once() -> String {
    let same = ["configMapName", "redisKey", "sizeBytes", "sha256"]
        .map(|field| schema::unchanged("self.status.result", "oldSelf.status.result", field));
    format!(
        "!has(oldSelf.status) || !has(oldSelf.status.result) \
         || (has(self.status) && has(self.status.result) && {})",
        same.map(|rule| format!("({rule})")).join(" && ")
    )
}

/// `inputs`, `args` and `kwargs` are free-form, which no rule can compare: the operator pins them by a hash instead.
const IMMUTABLE: &[&str] =
    &["topic", "poolRef", "queue", "task", "bypassCache", "retryPolicy", "timeouts", "runOnce", "dedup", "resumeFrom"];

/// What cannot be changed, and what does not go together.
fn rules() -> Value {
    let mut rules = schema::immutable(IMMUTABLE);
    if let Value::Array(rules) = &mut rules {
        rules.push(json!({
            "rule": "!has(self.runOnce) || !has(self.dedup)",
            "message": "a job has either runOnce or dedup",
            "fieldPath": ".dedup",
        }));
    }
    rules
}

impl CrewJobSpec {
    /// A job on `topic` with every default.
    pub fn with_topic(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            inputs: Map::new(),
            priority: DEFAULT_PRIORITY,
            pool_ref: PoolRef::default(),
            queue: None,
            task: DEFAULT_TASK.to_owned(),
            args: None,
            kwargs: None,
            bypass_cache: false,
            retry_policy: None,
            timeouts: None,
            suspend: false,
            cancel: false,
            run_once: None,
            dedup: None,
            resume_from: None,
            ttl_after_finished: None,
        }
    }
}

/// Names the CrewJob with whose state another one begins.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ResumeFrom {
    /// The name of a CrewJob in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Names the CrewWorkerPool of a job, in the job's namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolRef {
    /// The name of a CrewWorkerPool in the same namespace. Default `default`.
    #[serde(default = "default_pool")]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl Default for PoolRef {
    fn default() -> Self {
        Self { name: default_pool() }
    }
}

/// What to do when a run fails, its worker dies, or its outcome cannot be known.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// How often a failed run is repeated, in Celery's meaning: 3 means at most four runs. A command of a native worker is
    /// repeated only if its exit status or its answer allows it. 0 to 100. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_retries: Option<i32>,

    /// How long to wait before a repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,

    /// Exception types that are not worth a repetition, as Python names them: `ValueError`, or with its module
    /// `openai.AuthenticationError`. At most 32. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.]{0,127}$"), length(max = 128)))]
    pub non_retryable: Option<Vec<String>>,

    /// How often a run is repeated because its worker died, apart from `maxRetries`; then the job is
    /// `Failed` with reason `WorkerLost`. 0 to 100. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_worker_losses: Option<i32>,

    /// What to do when a run may have ended but its outcome can no longer be known. `Fail` says so and stops, so that
    /// nothing is paid for twice; `Retry` runs it again. Default `Fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<OnUnknown>,

    /// Whether an attempt begins with the state that the last one left: the files in `CREWJOB_STATE_DIR`. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<bool>,
}

/// Exponential backoff with full jitter: before repetition number n, a random time between 0 and
/// `min(max, initial * factor^(n-1))`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// The longest wait before the first repetition. A duration such as `1s`, at most 24h. Default `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("0s", "24h")))]
    pub initial: Option<Duration>,

    /// By how much the wait grows with each repetition. 1 to 10. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: Option<i32>,

    /// The longest wait of all. A duration such as `10m`, at most 24h. Default `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("0s", "24h")))]
    pub max: Option<Duration>,
}

/// What to do when an outcome can no longer be known.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(description = "")]
pub enum OnUnknown {
    /// Say so and stop: nothing is paid for twice.
    #[default]
    Fail,
    /// Run it again.
    Retry,
}

/// How long a job's parts may take. Durations are written like `50m`, `1h30m` or `500ms`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::shorter("soft", "hard")))]
pub struct Timeouts {
    /// After this time a running task gets Celery's `SoftTimeLimitExceeded`, so that it can clean up. Shorter than
    /// `hard`. 1s to 168h. Default `50m`, or five sixths of `hard` where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("1s", "168h")))]
    pub soft: Option<Duration>,

    /// After this time the worker ends a running task by force. The grace period of the worker Pods must be at least a
    /// minute longer. 1s to 168h. Default `60m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("1s", "168h")))]
    pub hard: Option<Duration>,

    /// How long an attempt may wait for a worker; then the job is `Failed` with reason `QueueTimeout`. 1s to 8784h.
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("1s", "8784h")))]
    pub queue: Option<Duration>,

    /// How long the job may take from when it is first enqueued to its end, all attempts and the waits between them
    /// included; then a running attempt is cancelled and the job is `Failed` with reason `DeadlineExceeded`. 1s to 8784h.
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("1s", "8784h")))]
    pub total: Option<Duration>,
}

fn not_celerys_own() -> Value {
    serde_json::json!([{
        "rule": "!self.startsWith('celery.')",
        "message": "must not be one of Celery's own tasks (celery.*)",
    }])
}

const fn default_priority() -> i32 {
    DEFAULT_PRIORITY
}

fn default_task() -> String {
    DEFAULT_TASK.to_owned()
}

fn default_pool() -> String {
    DEFAULT_POOL.to_owned()
}
