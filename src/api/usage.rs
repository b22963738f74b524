//! What runs have consumed, and the state of a job, in its status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{schema, text::head};
use crate::core::usage;

const PROBLEM_BYTES: usize = 256;

/// What was consumed, as the program has reported it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Consumption {
    /// Tokens that were sent, those from a cache included.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub input_tokens: i64,

    /// Of these, tokens that the provider had cached.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub cached_tokens: i64,

    /// Tokens that came back.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub output_tokens: i64,

    /// Requests.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub requests: i64,

    /// What it cost in US dollars, as far as that is known: a decimal number, such as `0.0123`.
    #[serde(default, rename = "costUSD", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub cost_usd: Option<String>,
}

/// What was consumed of one model.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelUsage {
    /// Its name, in at most 64 bytes.
    #[schemars(length(max = 64))]
    pub model: String,

    /// What was consumed of it.
    #[serde(flatten)]
    pub consumption: Consumption,
}

/// What all runs of a job have consumed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// What was consumed of all models together.
    #[serde(flatten)]
    pub total: Consumption,

    /// What was consumed of each. At most 8; what was consumed of more is counted as `(others)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub models: Vec<ModelUsage>,
}

/// The count of the run in hand, which is part of `usage`. It goes on, or is replaced by another one that begins with 0.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct UsageCount {
    /// Tells it from other counts.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub id: String,

    /// What was counted of each model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub models: Vec<ModelUsage>,
}

/// The state of a job: the folder that each attempt finds as the last one left it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JobState {
    /// When the last snapshot was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub saved_at: Option<Time>,

    /// The size of its archive.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub size_bytes: i64,

    /// Whether the current or last run began with what an earlier one had left.
    #[serde(default, skip_serializing_if = "is_false")]
    pub resumed: bool,

    /// Why the state could not be read or saved, in at most 256 bytes. The run went on without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub problem: Option<String>,
}

impl JobState {
    /// A state within its bounds.
    pub fn new(saved_at: Option<Time>, bytes: u64, resumed: bool, problem: Option<&str>) -> Self {
        let problem = problem.map(|problem| head(problem, PROBLEM_BYTES).to_owned());
        Self { saved_at, size_bytes: number(bytes), resumed, problem }
    }
}

impl From<&usage::Consumed> for Consumption {
    fn from(consumed: &usage::Consumed) -> Self {
        Self {
            input_tokens: number(consumed.input),
            cached_tokens: number(consumed.cached),
            output_tokens: number(consumed.output),
            requests: number(consumed.requests),
            cost_usd: consumed.cost.map(|cost| cost.to_string()),
        }
    }
}

impl From<&Consumption> for usage::Consumed {
    fn from(consumption: &Consumption) -> Self {
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Self {
            input: count(consumption.input_tokens),
            cached: count(consumption.cached_tokens),
            output: count(consumption.output_tokens),
            requests: count(consumption.requests),
            cost: consumption.cost_usd.as_deref().and_then(|cost| cost.parse().ok()),
        }
    }
}

/// The consumption of each model.
pub fn models(usage: &usage::Usage) -> Vec<ModelUsage> {
    usage.models().map(|(model, it)| ModelUsage { model: model.to_owned(), consumption: it.into() }).collect()
}

/// The same, as the decision core has it.
pub fn to_core(models: &[ModelUsage]) -> usage::Usage {
    let mut usage = usage::Usage::default();
    for ModelUsage { model, consumption } in models {
        usage.count(model, &consumption.into());
    }
    usage
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(is: &bool) -> bool {
    !*is
}
