//! What a task returned, as the status holds it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    free_form::{self, MAX_DEPTH},
    schema,
};
use crate::wire;

/// What the task returned, and where it is kept: here up to 4 KiB, above that in a ConfigMap, and above 1008 KiB, or in a pool
/// with `largeResults: Redis`, only on Redis.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JobResult {
    /// The result itself, where it is at most 4 KiB and Kubernetes can hold it exactly.
    #[serde(default, deserialize_with = "free_form::value", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub value: Option<Value>,

    /// The result as the JSON text that the worker stored, where it is at most 4 KiB but Kubernetes could not hold it
    /// exactly: null, `NaN`, an integer beyond 64 bits, an object with a null in it, or more than 32 levels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub text: Option<String>,

    /// The ConfigMap in the same namespace that has the JSON text under the key `result.json`; deleted with the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub config_map_name: Option<String>,

    /// The key that has the result on the pool's Redis, where neither the status nor a ConfigMap has it. Its value is Celery's
    /// result document, a JSON object; the member `result` is the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub redis_key: Option<String>,

    /// Until when Redis keeps that key at least; then the result is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub redis_expires_at: Option<Time>,

    /// The size of the JSON text in bytes.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub size_bytes: i64,

    /// The SHA-256 of the JSON text, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub sha256: String,
}

impl JobResult {
    /// The key of the result in its ConfigMap.
    pub const CONFIG_MAP_KEY: &str = "result.json";

    /// A result held by the status itself: as a value where Kubernetes can hold it exactly, else as text.
    #[must_use]
    pub fn inline(self, json: &str) -> Self {
        match held_exactly(json) {
            Some(value) => Self { value: Some(value), ..self },
            None => Self { text: Some(json.to_owned()), ..self },
        }
    }

    /// A result held by a ConfigMap.
    #[must_use]
    pub fn in_config_map(self, name: String) -> Self {
        Self { config_map_name: Some(name), ..self }
    }

    /// A result that only Redis holds.
    #[must_use]
    pub fn on_redis(self, key: String, expires_at: Option<Time>) -> Self {
        Self { redis_key: Some(key), redis_expires_at: expires_at, ..self }
    }

    /// A result of this size with this digest, wherever it is held.
    pub fn described(bytes: u64, sha256: [u8; 32]) -> Self {
        let digits = sha256.into_iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        Self {
            size_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            sha256: digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect(),
            ..Self::default()
        }
    }
}

/// The value of a JSON text, unless it would come back from the API server as another one.
///
/// A merge patch takes `null` for a removal, and Kubernetes reads an integer beyond 64 bits as a float. `NaN` and its
/// like, which Python writes, are not JSON at all. And many readers of JSON refuse to nest deeply.
fn held_exactly(json: &str) -> Option<Value> {
    let exact = wire::Value::parse(json.as_bytes())
        .is_ok_and(|value| value.has_exact_json_numbers() && value.depth() <= MAX_DEPTH);
    serde_json::from_str(json).ok().filter(|value| exact && !is_null_or_has_null_members(value))
}

/// Nulls in an array are no trouble: a merge patch takes it as a whole.
fn is_null_or_has_null_members(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.values().any(is_null_or_has_null_members),
        Value::Array(items) => items.iter().any(|item| !item.is_null() && is_null_or_has_null_members(item)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn described(json: &str) -> JobResult {
        JobResult::described(json.len() as u64, Sha256::digest(json).into())
    }

    fn inline(json: &str) -> JobResult {
        described(json).inline(json)
    }

    #[test]
    fn json_that_kubernetes_can_hold_is_a_value() {
        for json in [
            "1",
            "-9223372036854775808",
            "2.5",
            "1e22",
            "true",
            r#""a \"quoted\" 99999999999999999999""#,
            "[null, [null]]",
            r#"{"a": {"b": [1, {}]}, "99999999999999999999": "\\"}"#,
        ] {
            let result = inline(json);
            assert_eq!(result.value, Some(serde_json::from_str(json).unwrap()), "{json}");
            assert_eq!(result.text, None, "{json}");
        }
    }

    #[test]
    fn json_that_kubernetes_would_change_is_kept_as_text() {
        for json in [
            "null",
            "NaN",
            "[-Infinity]",
            "9223372036854775808",
            "[1180591620717411303424]",
            "0.10000000000000000001",
            r#"{"a": null}"#,
            r#"[{"a": {"b": null}}]"#,
            r#""\ud800""#,
            "not json",
            "",
        ] {
            let result = inline(json);
            assert_eq!(result.text.as_deref(), Some(json));
            assert_eq!(result.value, None, "{json}");
        }
    }

    #[test]
    fn deep_json_is_kept_as_text() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(inline(&nested(32)).value.is_some());
        assert!(inline(&nested(33)).text.is_some());
        assert!(inline(&nested(2_000)).text.is_some());
    }

    #[test]
    fn wherever_it_is_kept_its_size_and_hash_are_said() {
        let sha256 = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
        for result in
            [inline("1"), described("1").in_config_map("a".to_owned()), described("1").on_redis("k".to_owned(), None)]
        {
            assert_eq!((result.size_bytes, result.sha256.as_str()), (1, sha256));
        }
    }
}
