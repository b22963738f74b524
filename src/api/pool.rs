//! A pool of workers and the Redis they share: `CrewWorkerPool`.

use std::sync::Arc;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{CrewWorkerPoolStatus, Duration, Limit, ModelPrice, RetryPolicy, Timeouts, schema};
use crate::core::limits::Limits;
use crate::core::observed::{self, PoolFacts};
use crate::wire::ResultKeys;

/// The label that a Secret must have for the operator to read it.
pub const REDIS_SECRET_LABEL: &str = "crewjob.dev/redis";

/// The annotation of a pool that makes the operator take the Deployment's replicas back from another field manager, once
/// for each value that it is given.
pub const TAKE_REPLICAS: &str = "crewjob.dev/take-replicas";

/// What a smaller `resultExpires` counts as: no job would ever be watched closely enough for it.
pub const LEAST_RESULT_EXPIRES: std::time::Duration = std::time::Duration::from_mins(10);

/// Where the workers are, what they may run, and how many of them there are to be.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[expect(clippy::duplicated_attributes, reason = "columns may have the same type and priority")]
#[kube(
    group = "crewjob.dev",
    version = "v1alpha1",
    kind = "CrewWorkerPool",
    plural = "crewworkerpools",
    shortname = "crewpool",
    category = "crew",
    namespaced,
    status = "CrewWorkerPoolStatus",
    derive = "PartialEq",
    doc = "The Celery workers of one Redis: which queues and tasks they serve, the Deployment that the operator scales \
           with the load, and the defaults of the jobs that run there. Whoever may edit a pool decides what may run.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether jobs can be enqueued"
    ),
    printcolumn(
        name = "Depth",
        type_ = "integer",
        json_path = ".status.depth",
        description = "Messages that wait for a worker"
    ),
    printcolumn(
        name = "In flight",
        type_ = "integer",
        json_path = ".status.inFlight",
        description = "Messages that a worker holds"
    ),
    printcolumn(
        name = "Replicas",
        type_ = "integer",
        json_path = ".status.replicas.ready",
        description = "Workers that are ready"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".status.replicas.desired",
        description = "Workers that the load asks for",
        priority = 1
    ),
    printcolumn(
        name = "Busy",
        type_ = "integer",
        json_path = ".status.replicas.busy",
        description = "Workers that run a task",
        priority = 1
    ),
    printcolumn(name = "Deployment", type_ = "string", json_path = ".spec.deploymentRef.name", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.maxReplicas >= self.minReplicas",
    "message": "maxReplicas must be at least minReplicas",
    "fieldPath": ".maxReplicas",
}]))]
pub struct CrewWorkerPoolSpec {
    /// The Redis that the operator and the workers share.
    pub redis: Redis,

    /// What both sides must agree on; the same as in the workers' Celery configuration.
    #[serde(default)]
    pub celery: Celery,

    /// The queues that the workers consume; a job without a queue goes to the first. 1 to 16, each name once. Default:
    /// `crew_jobs` with the routing key `crew.jobs`, and `default`.
    #[serde(default = "default_queues")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub queues: Vec<Queue>,

    /// The Celery tasks that jobs of this pool may name. At most 64 names of 1 to 128 letters, digits and `. _ : -`;
    /// Celery's own tasks (`celery.`) are always refused. Default: the four tasks of the reference application,
    /// `backend.tasks.run_crew_task`, `backend.tasks.health_check`, `backend.tasks.cleanup_old_results` and
    /// `backend.celery_app.error_handler`.
    #[serde(default = "default_tasks")]
    #[schemars(
        length(max = 64),
        inner(regex(pattern = schema::KEY), length(max = 128)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = none_of_celerys_own())
    )]
    pub allowed_tasks: Vec<String>,

    /// The Deployment that the workers run in. It is yours: the operator only scales it. Default: none, and then nothing
    /// is scaled and the workers are started by other means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_ref: Option<DeploymentRef>,

    /// How many tasks one worker Pod runs at once, as in `celery worker --concurrency`. 1 to 1000. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: i32,

    /// The fewest workers. 0 to 10000. Default 0: no load, no workers.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub min_replicas: i32,

    /// The most workers; at least `minReplicas`. 0 to 10000. Default 10.
    #[serde(default = "default_max_replicas")]
    #[schemars(range(min = 0, max = 10_000))]
    pub max_replicas: i32,

    /// How many tasks, queued or running, there are to be for each worker: the pool has
    /// `ceil(tasks / targetPerWorker)` workers within its bounds. 1 to 1000. Default: `concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_per_worker: Option<i32>,

    /// How long the load must be lower before workers are taken away. A duration such as `1m`, at most 24h. Default
    /// `1m`. More workers are added at once.
    #[serde(default = "default_scale_down_delay")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("0s", "24h")))]
    pub scale_down_delay: Duration,

    /// What to do about a task whose worker's node no longer answers. `Wait` until the node is back or gone, because the
    /// task may well be running on; `Restart` runs it again elsewhere, perhaps twice. Default `Wait`.
    #[serde(default)]
    pub on_worker_unreachable: OnWorkerUnreachable,

    /// Where a result is kept that is too large for the status of its job, over 4 KiB. `ConfigMap`: in a ConfigMap of the job,
    /// up to 1008 KiB; a larger one stays on Redis for `redis.resultRetention`. `Redis`: nothing is copied to the API server;
    /// the result stays on Redis for `celery.resultExpires` after the job has ended, whatever its size, and then it is gone.
    /// `status.result` of the job has the key, when it expires, size and digest. Applies to jobs that end from now on. Default
    /// `ConfigMap`.
    #[serde(default)]
    pub large_results: LargeResults,

    /// How long it is remembered that a job with a `runOnce` key has run, from its end on, also when the job itself is gone. A
    /// duration, 1h to 87840h. A longer or shorter one applies to jobs that end from now on. Default `720h`, 30 days.
    #[serde(default = "default_run_once_retention")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("1h", "87840h")))]
    pub run_once_retention: Duration,

    /// How many jobs of the pool may be in flight and how many may be released in a while, for all or for each key. What is
    /// over a limit waits as `Pending` with reason `LimitReached`; nothing is dropped. At most 8, each name once. Default:
    /// none. `docs/limits.md` says how they work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub limits: Vec<Limit>,

    /// After how long a job that waits for a limit counts as one priority more urgent, up to 10, so that urgent ones never
    /// keep it waiting for good. A duration, 1m to 8784h. Default `1h`.
    #[serde(default = "default_aging_after")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("1m", "8784h")))]
    pub aging_after: Duration,

    /// What models cost, for jobs whose programs report tokens and no cost: `status.usage.costUSD` is counted from these. A cost
    /// that a program reports goes before. At most 64, each model once. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["model"])
    )]
    pub prices: Vec<ModelPrice>,

    /// What applies to the jobs of this pool that do not say it themselves.
    #[serde(default, skip_serializing_if = "JobDefaults::is_empty")]
    pub job_defaults: JobDefaults,
}

impl CrewWorkerPoolSpec {
    /// A pool on the Redis of a Secret, with every default.
    pub fn with_secret(secret_name: impl Into<String>) -> Self {
        Self {
            redis: Redis {
                secret_name: secret_name.into(),
                worker_secret_name: None,
                result_retention: default_result_retention(),
            },
            celery: Celery::default(),
            queues: default_queues(),
            allowed_tasks: default_tasks(),
            deployment_ref: None,
            concurrency: one(),
            min_replicas: 0,
            max_replicas: default_max_replicas(),
            target_per_worker: None,
            scale_down_delay: default_scale_down_delay(),
            on_worker_unreachable: OnWorkerUnreachable::default(),
            large_results: LargeResults::default(),
            run_once_retention: default_run_once_retention(),
            limits: Vec::new(),
            aging_after: default_aging_after(),
            prices: Vec::new(),
            job_defaults: JobDefaults::default(),
        }
    }

    /// What it says about its jobs, in the words of the decision core.
    pub fn to_facts(&self, name: &str) -> PoolFacts {
        PoolFacts {
            queues: self.queues.iter().map(|queue| queue.name.as_str().into()).collect(),
            allowed_tasks: self.allowed_tasks.iter().map(|task| task.as_str().into()).collect(),
            defaults: self.job_defaults.to_core(),
            result_expires: self.celery.result_expires.to_std().max(LEAST_RESULT_EXPIRES),
            result_prefix: ResultKeys::new(self.celery.result_key_prefix()).result("").into(),
            keep_large_results: self.redis.result_retention.to_std(),
            large_results: self.large_results.to_core(),
            remember_runs: self.run_once_retention.to_std(),
            limits: self.limits(name),
            prices: self.prices.iter().filter_map(ModelPrice::to_core).collect(),
            blocked: None,
            futile: None,
        }
    }

    fn limits(&self, name: &str) -> Option<Arc<Limits>> {
        let all: Vec<_> = self.limits.iter().map(Limit::to_core).collect();
        let limits = Limits { pool: name.into(), all, aging: self.aging_after.to_std() };
        (!limits.all.is_empty()).then(|| Arc::new(limits))
    }

    /// The tasks there are to be for each worker.
    pub fn target_per_worker(&self) -> i32 {
        self.target_per_worker.unwrap_or(self.concurrency).max(1)
    }
}

/// The Redis of a pool.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// A Secret in the same namespace with the label `crewjob.dev/redis: "true"`. Its key `REDIS_URL` has the URL
    /// (`redis://`, with TLS `rediss://`, or `sentinel://`; user and password within it); `RESULT_BACKEND_URL` has that of the results
    /// where it is another one; `REDIS_CA` has the certificates to trust, in PEM. `docs/redis.md` has the other keys.
    ///
    /// There is no field for a URL: its host and its password always come from the same hands.
    ///
    /// The Secret is read again every 20 seconds. A pool that is given another Redis in this way takes the messages that
    /// wait off the old one, publishes them on the new one, and follows what runs on the old one to its end.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,

    /// The Secret with the same keys that the workers use, in the same namespace, so that they need not have the operator's
    /// rights on Redis. The operator does not read it and it needs no label; `docs/redis.md` has the rights that each side
    /// needs. When it is set and the Deployment's Pods use `secretName` all the same, the condition `CredentialsShared` says
    /// so. Default: none, both sides use `secretName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub worker_secret_name: Option<String>,

    /// How long Redis keeps a result that is too large for Kubernetes (over 1008 KiB). A duration, 1h to 8784h. Has no effect
    /// with `largeResults: Redis`. Default `168h`, a week.
    #[serde(default = "default_result_retention")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("1h", "8784h")))]
    pub result_retention: Duration,
}

/// What the operator and the workers must agree on. The defaults are those of the reference configuration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Celery {
    /// `priority_steps` of the broker transport: where the bands of priorities begin, in Celery's counting (0 is served
    /// first). The eleven priorities of jobs are spread evenly over these bands. 1 to 10 ascending numbers from 0 to 9, the
    /// first being 0. Default `[0, 3, 6, 9]`.
    #[schemars(
        length(min = 1, max = 10),
        inner(range(min = 0, max = 9)),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = ascending_from_zero())
    )]
    pub priority_steps: Vec<i32>,

    /// `sep` of the broker transport: what stands between the name of a queue and its priority. 1 to 16 letters, digits,
    /// `. _ : -` or the bytes 06 and 16. Default: the two bytes 06 16.
    #[schemars(regex(pattern = r"^[\x06\x16A-Za-z0-9._:-]{1,16}$"), length(max = 16))]
    pub separator: String,

    /// `global_keyprefix` of the broker transport: put before every key, and before those of results unless
    /// `resultKeyPrefix` says otherwise. 1 to 128 letters, digits and `. _ : -`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = schema::KEY), length(max = 128))]
    pub global_key_prefix: Option<String>,

    /// `global_keyprefix` of the result backend, where it is another one than that of the broker transport; empty for
    /// none. As in Celery 5.5 and newer an underscore follows it unless it ends in one of `: _ - .`; Celery 5.3 and 5.4
    /// always write one, so for a prefix `app:` of theirs this is `app:_`. At most 128 letters, digits and `. _ : -`.
    /// Default: `globalKeyPrefix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = schema::KEY_OR_NONE), length(max = 128))]
    pub result_key_prefix: Option<String>,

    /// `visibility_timeout` of the broker transport: after this time Redis clients hand a task that was not acknowledged
    /// to another worker. At least 10m, at most 8784h. Default `1h`. The operator keeps running tasks from being handed
    /// on, however long they run.
    #[schemars(extend("x-kubernetes-validations" = schema::between("10m", "8784h")))]
    pub visibility_timeout: Duration,

    /// `unacked_key` of the broker transport: the hash of the tasks that workers hold. `unacked_index_key` and
    /// `unacked_mutex_key` are to be the same name with `_index` and `_mutex`. 1 to 128 letters, digits and `. _ : -`.
    /// Default `unacked`.
    #[schemars(regex(pattern = schema::KEY), length(max = 128))]
    pub unacked_key: String,

    /// `result_expires`: how long Redis keeps a result, and so how long the operator may be away without missing one.
    /// 10m to 8784h: every minute all results are looked for, and a lost message is told from an expired result only where
    /// results are kept for longer than that takes. A smaller value of an older pool counts as 10m, and the condition
    /// `SettingsAdjusted` says so. Default `1h`.
    #[schemars(extend("x-kubernetes-validations" = schema::between("10m", "8784h")))]
    pub result_expires: Duration,
}

impl Celery {
    /// `global_keyprefix` of the result backend.
    pub fn result_key_prefix(&self) -> &str {
        self.result_key_prefix.as_deref().or(self.global_key_prefix.as_deref()).unwrap_or("")
    }
}

impl Default for Celery {
    fn default() -> Self {
        Self {
            priority_steps: vec![0, 3, 6, 9],
            separator: "\u{6}\u{16}".to_owned(),
            global_key_prefix: None,
            result_key_prefix: None,
            visibility_timeout: Duration::from_hours(1),
            unacked_key: "unacked".to_owned(),
            result_expires: Duration::from_hours(1),
        }
    }
}

/// One Celery queue.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// The name of the queue. 1 to 128 letters, digits and `. _ : -`.
    #[schemars(regex(pattern = schema::KEY), length(max = 128))]
    pub name: String,

    /// The routing key that leads to the queue. 1 to 128 letters, digits and `. _ : -`. Default: the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = schema::KEY), length(max = 128))]
    pub routing_key: Option<String>,
}

impl Queue {
    /// The routing key that leads to the queue.
    pub fn routing_key(&self) -> &str {
        self.routing_key.as_deref().unwrap_or(&self.name)
    }
}

/// Names the Deployment of the workers, in the pool's namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DeploymentRef {
    /// The name of a Deployment in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The container of the Deployment's Pods that runs the worker: when it ends, its tasks are run again elsewhere. 1 to
    /// 63 lower-case letters, digits and `-`, the name of one of `spec.containers`. Default: the one that the Pod's
    /// annotation `kubectl.kubernetes.io/default-container` names, else the only one. Where there are several and none is
    /// named, the condition `WorkersUnattributed` says so, and only the end of a whole Pod is noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub container: Option<String>,
}

/// What to do about a task whose worker's node no longer answers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnWorkerUnreachable {
    /// Wait until the node is back or gone.
    #[default]
    Wait,
    /// Run the task again elsewhere.
    Restart,
}

/// Where a result is kept that is too large for the status of its job.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LargeResults {
    /// In a ConfigMap of the job, as far as it fits.
    #[default]
    ConfigMap,
    /// On Redis, until it expires there.
    Redis,
}

impl LargeResults {
    /// The same, in the words of the decision core.
    pub fn to_core(self) -> observed::LargeResults {
        match self {
            Self::ConfigMap => observed::LargeResults::ConfigMap,
            Self::Redis => observed::LargeResults::Redis,
        }
    }
}

/// What applies to the jobs of a pool that do not say it themselves.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct JobDefaults {
    /// How long a job is kept after it finished; then it is deleted, with its result. A duration such as `24h` (a week
    /// is `168h`), at most 8784h. Default: none, jobs are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("0s", "8784h")))]
    pub ttl_after_finished: Option<Duration>,

    /// What to do when a run fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,

    /// How long things may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

impl JobDefaults {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn none_of_celerys_own() -> Value {
    json!([{
        "rule": "self.all(task, !task.startsWith('celery.'))",
        "message": "must not name Celery's own tasks (celery.*)",
    }])
}

fn ascending_from_zero() -> Value {
    json!([{
        "rule": "self[0] == 0 && self.isSorted() && self.all(a, self.exists_one(b, a == b))",
        "message": "must be ascending numbers, the first being 0",
    }])
}

fn default_queues() -> Vec<Queue> {
    vec![
        Queue { name: "crew_jobs".to_owned(), routing_key: Some("crew.jobs".to_owned()) },
        Queue { name: "default".to_owned(), routing_key: None },
    ]
}

fn default_tasks() -> Vec<String> {
    [
        super::DEFAULT_TASK,
        "backend.tasks.health_check",
        "backend.tasks.cleanup_old_results",
        "backend.celery_app.error_handler",
    ]
    .map(str::to_owned)
    .to_vec()
}

const fn one() -> i32 {
    1
}

const fn default_max_replicas() -> i32 {
    10
}

const fn default_scale_down_delay() -> Duration {
    Duration::from_mins(1)
}

const fn default_aging_after() -> Duration {
    Duration::from_hours(1)
}

const fn default_run_once_retention() -> Duration {
    Duration::from_hours(720)
}

const fn default_result_retention() -> Duration {
    Duration::from_hours(168)
}
