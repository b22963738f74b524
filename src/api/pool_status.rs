//! What the operator reports of a pool: the status of a `CrewWorkerPool`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConditionType, find_condition, schema};
use crate::core::setup::Futile;
use crate::core::start::{Blocked, BlockedKind};

/// The load of a pool and the state of its workers. Written by the operator.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {}))]
pub struct CrewWorkerPoolStatus {
    /// The `metadata.generation` that this status was derived from; 0 while no operator has looked at the pool.
    // Without a number that is behind, kstatus takes a pool that no operator has seen for one that works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 0))]
    pub observed_generation: Option<i64>,

    /// Messages that wait for a worker, in all queues; those of other producers count too.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub depth: i64,

    /// Messages that a worker holds.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub in_flight: i64,

    /// When the job that waits longest was put on its queue; none when no job waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub oldest_queued_at: Option<Time>,

    /// The load of each queue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub queues: Vec<QueueStatus>,

    /// How many workers there are and are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,

    /// The Redis that is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisStatus>,

    /// The value of the annotation `crewjob.dev/take-replicas` for which the replicas of the Deployment were last taken back
    /// from another field manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub replicas_taken_for: Option<String>,

    /// The `run_id` of the Redis that was last seen; another one means that Redis was restarted or replaced, and every
    /// job is checked against it.
    #[serde(default, rename = "redisRunID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub redis_run_id: Option<String>,

    /// When every unfinished job was last compared with Redis and what was found was acted on. An operator that finds it
    /// longer ago than results are kept (`spec.celery.resultExpires`) cannot know what has ended since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub audited_at: Option<Time>,

    /// The state in aspects: `Ready`, `BrokerReachable`, `BrokerEvictsKeys`, `QueuesShared`, `SettingsAdjusted`,
    /// `CredentialsShared`, `WorkersMisconfigured`, `WorkersUnattributed`, `WorkerClocksSkewed`, `GracePeriodTooShort`, `ReplicasContested`, `WorkersNotStarting`,
    /// `WorkersStalled`. A pool with no workers and no load is ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl CrewWorkerPoolStatus {
    /// What keeps all workers from starting.
    pub fn blocked(&self) -> Option<Blocked> {
        let condition = find_condition(&self.conditions, ConditionType::WorkersNotStarting)?;
        let is_of_all = condition.status == "True" && self.replicas.as_ref().is_none_or(|replicas| replicas.ready == 0);
        let kind = BlockedKind::named(&condition.reason).filter(|_| is_of_all)?;
        Some(Blocked { kind, detail: condition.message.as_str().into() })
    }

    /// Why runs would be in vain.
    pub fn futile(&self) -> Option<Futile> {
        let condition = find_condition(&self.conditions, ConditionType::WorkersMisconfigured)?;
        Futile::recorded(&condition.reason, &condition.message).filter(|_| condition.status == "True")
    }
}

/// The Redis of a pool, without its credentials.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RedisStatus {
    /// The Secret that the URL comes from.
    #[schemars(length(max = 253))]
    pub secret_name: String,

    /// `metadata.resourceVersion` of the Secret whose content is in use. A Secret that has changed is in use within a minute.
    #[schemars(length(max = 64))]
    pub secret_version: String,

    /// Scheme, host, port and database: `redis://redis.team.svc:6379/0`.
    #[schemars(length(max = 320))]
    pub address: String,
}

/// The load of one queue.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// The name of the queue.
    #[schemars(length(max = 128))]
    pub name: String,

    /// Messages that wait in this queue.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub depth: i64,

    /// Messages of this queue that a worker holds.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub in_flight: i64,

    /// Messages that wait in each band of priorities, the most urgent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub bands: Vec<BandStatus>,
}

/// The load of one band of priorities.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BandStatus {
    /// Where the band begins, in Celery's counting: 0 is the most urgent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9))]
    pub step: i32,

    /// Messages that wait in this band.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub depth: i64,
}

/// How many workers there are and are to be.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Replicas {
    /// Workers that the load asks for.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub desired: i32,

    /// Workers that are ready.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready: i32,

    /// Workers that run a task.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub busy: i32,
}
