//! What models cost, by which the operator counts what jobs cost whose programs report tokens only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::usage;

/// A decimal number of US dollars.
const USD: &str = r"^[0-9]{1,9}(\.[0-9]{1,9})?$";

/// What one model costs. Prices are US dollars for a million tokens, as decimal numbers such as `0.15`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ModelPrice {
    /// The name of the model, as programs report it.
    #[schemars(length(min = 1, max = 64))]
    pub model: String,

    /// For tokens that are sent.
    #[schemars(regex(pattern = USD), length(max = 19))]
    pub input_per_million: String,

    /// For those of them that the provider had cached. Default: the same as for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = USD), length(max = 19))]
    pub cached_per_million: Option<String>,

    /// For tokens that come back.
    #[schemars(regex(pattern = USD), length(max = 19))]
    pub output_per_million: String,
}

impl ModelPrice {
    /// The same, as the decision core has it; nothing of what the API server would not have stored.
    pub fn to_core(&self) -> Option<usage::Price> {
        let input = self.input_per_million.parse().ok()?;
        Some(usage::Price {
            model: self.model.as_str().into(),
            input,
            cached: self.cached_per_million.as_ref().and_then(|price| price.parse().ok()).unwrap_or(input),
            output: self.output_per_million.parse().ok()?,
        })
    }
}
