//! Limits of a pool: how many of its jobs are in flight and how many begin in a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Duration, schema};
use crate::core::limits::{self, By, Rate};

/// A label as Kubernetes takes it.
const LABEL: &str = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";

/// One limit on the jobs of a pool. It holds for each of its keys on its own.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct Limit {
    /// The name of the limit, which jobs that wait for it say. 1 to 63 lower-case letters, digits and `-`, each name once.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub name: String,

    /// What makes the key of a job: jobs with the same key count together. Default: all jobs of the pool have one key.
    #[serde(default)]
    pub key: LimitKey,

    /// How many jobs with the same key may be in flight: released, waiting on Redis or running. A job that waits for its
    /// backoff, or that is suspended, is not. 1 to 100000. Default: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_in_flight: Option<i32>,

    /// How many jobs with the same key may be released in a while, repetitions after a failure included. Default: any
    /// number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<LimitRate>,

    /// Slows a key down while its tasks are told that they make too many requests: it is halved by such a failure, waits for
    /// the time that the error names (`Retry-After: 20`), and grows again with each job that ends otherwise. Needs
    /// `maxInFlight`. Default: never slowed down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_down: Option<SlowDown>,

    /// How much a key gets where several wait for a limit that they share, in proportion to the others: one of weight 2
    /// has twice as many jobs released as one of weight 1. Of several limits the first one by a label counts. 1 to 1000.
    /// Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: Option<i32>,

    /// The weights of keys that have another one, by the value of the label. At most 64. Each 1 to 1000. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "weights")]
    pub weights: BTreeMap<String, i32>,
}

/// What makes the key of a job under a limit.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = label_by_label()))]
pub struct LimitKey {
    /// `Label`: the value of a label of the job; jobs without it have the empty key, and count together. `Namespace`: the
    /// namespace of the job. `All`: all jobs have one key. Default `All`.
    #[serde(default)]
    pub by: LimitBy,

    /// The name of the label, with `by: Label`. A label as Kubernetes takes it, of at most 253 characters. Of the labels of
    /// a job the first 32 in the order of their names count, up to 2 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = LABEL))]
    pub label: Option<String>,
}

/// What makes the key of a job under a limit.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitBy {
    /// The value of a label.
    Label,
    /// Its namespace.
    Namespace,
    /// Nothing: all have one key.
    #[default]
    All,
}

/// What tells that a task makes too many requests. An error whose message says "too many requests" always does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SlowDown {
    /// Types of exceptions, without their modules. At most 32. Default `[RateLimitError, TooManyRequests,
    /// TooManyRequestsError, ResourceExhausted, ThrottlingException]`.
    #[serde(default = "default_errors")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub errors: Vec<String>,

    /// Exit statuses of commands. At most 16, each 1 to 255. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(range(min = 1, max = 255)))]
    pub exit_statuses: Vec<i32>,
}

/// So many in any span of a length.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LimitRate {
    /// How many jobs. 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub count: i32,

    /// In any span of this length. A duration such as `1m`, 1s to 1h.
    #[schemars(extend("x-kubernetes-validations" = schema::between("1s", "1h")))]
    pub per: Duration,
}

impl Limit {
    /// The same, in the words of the decision core.
    pub fn to_core(&self) -> limits::Limit {
        let count = |n: i32| u32::try_from(n).unwrap_or(0).max(1);
        let weights = self.weights.iter().map(|(key, weight)| (Arc::from(key.as_str()), count(*weight)));
        limits::Limit {
            name: self.name.as_str().into(),
            by: match self.key.by {
                LimitBy::Label => By::Label(self.key.label.as_deref().unwrap_or_default().into()),
                LimitBy::Namespace => By::Namespace,
                LimitBy::All => By::All,
            },
            max_in_flight: self.max_in_flight.map(count),
            rate: self.rate.as_ref().map(|rate| Rate { count: count(rate.count), per: rate.per.to_std() }),
            slow_down: self.slow_down.as_ref().map(|it| limits::SlowDown {
                errors: it.errors.iter().map(|name| Arc::from(name.as_str())).collect(),
                exit_statuses: it.exit_statuses.clone(),
            }),
            weight: self.weight.map_or(1, count),
            weights: weights.collect(),
        }
    }
}

fn default_errors() -> Vec<String> {
    ["RateLimitError", "TooManyRequests", "TooManyRequestsError", "ResourceExhausted", "ThrottlingException"]
        .map(str::to_owned)
        .into()
}

fn rules() -> Value {
    json!([
        {
            "rule": "!has(self.slowDown) || has(self.maxInFlight)",
            "message": "slowDown needs maxInFlight",
            "fieldPath": ".slowDown",
        },
        {
            "rule": "has(self.maxInFlight) || has(self.rate) || has(self.weight) || has(self.weights)",
            "message": "must have maxInFlight, rate, weight or weights",
        },
        {
            "rule": "!has(self.weights) || has(self.key) && has(self.key.by) && self.key.by == 'Label'",
            "message": "weights needs a key by Label",
            "fieldPath": ".weights",
        },
    ])
}

fn label_by_label() -> Value {
    json!([{
        "rule": "has(self.label) == (has(self.by) && self.by == 'Label')",
        "message": "label must be set exactly where by is Label",
        "fieldPath": ".label",
    }])
}

fn weights(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "integer", "minimum": 1, "maximum": 1000 },
    })
}
