//! The resources: `CrewJob`, one run of a crew, `CrewWorkerPool`, the workers that run it, and `CrewSchedule`, jobs at times.
//!
//! What the API server refuses is said here, in the schema and its rules, and tested against a real one in
//! `tests/it/apiserver.rs`. The doc comments of fields are what `kubectl explain` prints.

mod condition;
mod convert;
mod dedup;
mod duration;
mod finished;
mod free_form;
mod guard;
mod job;
mod job_result;
mod job_status;
mod limits;
mod payload;
mod pool;
mod pool_status;
mod prices;
mod render;
mod run_once;
mod schedule;
mod schedule_status;
mod schema;
mod text;
mod twin;
mod usage;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// A time as objects have it.
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use condition::{ConditionType, Reason, Verdict, find_condition, holds, set_condition};
pub use convert::Incomplete;
pub use dedup::{Dedup, OnConflict};
pub use duration::{Duration, ParseDurationError};
pub use guard::Guard;
pub use job::{
    Backoff, CrewJob, CrewJobSpec, DEFAULT_POOL, DEFAULT_PRIORITY, DEFAULT_TASK, EXPIRES, OnUnknown, PoolRef,
    ResumeFrom, RetryPolicy, Timeouts,
};
pub use job_result::JobResult;
pub use job_status::{
    ATTEMPT_HISTORY_LIMIT, Attempt, CrewJobStatus, FINISHED, JobError, Outcome, Phase, Progress, UNFINISHED, Worker,
};
pub use limits::{Limit, LimitBy, LimitKey, LimitRate};
pub use pool::{
    Celery, CrewWorkerPool, CrewWorkerPoolSpec, DeploymentRef, JobDefaults, LEAST_RESULT_EXPIRES, LargeResults,
    OnWorkerUnreachable, Queue, REDIS_SECRET_LABEL, Redis, TAKE_REPLICAS,
};
pub use pool_status::{BandStatus, CrewWorkerPoolStatus, QueueStatus, RedisStatus, Replicas};
pub use prices::ModelPrice;
pub use render::{expiry_bucket, merge_patch, release_minute, result_config_map_name, status_patch};
pub use run_once::{RUN_ONCE_EXPIRES, RUN_ONCE_LABEL, RunOnceEnd, RunOnceRecord};
pub use schedule::{
    CatchUp, CatchUpPolicy, CrewSchedule, CrewScheduleSpec, History, JobTemplate, Overlap, PLANNED_AT, RUN_NOW,
    SCHEDULE_LABEL, TemplateMetadata,
};
pub use schedule_status::{CrewScheduleStatus, Rests, SkipReason, SkippedTimes};
pub use usage::{Consumption, JobState, ModelUsage, Usage, UsageCount};

/// The definitions of all resources, as they are installed.
pub fn crds() -> [CustomResourceDefinition; 3] {
    let schedule = schema::changeable(CrewSchedule::crd());
    [CrewJob::crd(), CrewWorkerPool::crd(), schedule].map(schema::polish)
}

/// Whether the API server serves a definition.
pub fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}
