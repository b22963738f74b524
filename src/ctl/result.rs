//! `result`

use std::io::{self, IsTerminal as _};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DynamicObject;
use serde_json::Value;

use super::args::Named;
use super::cluster::Cluster;
use super::error::Error;
use super::{broker, show, view};
use crate::api::JobResult;
use crate::core::id::TaskId;
use crate::core::status::Output;
use crate::runtime::telemetry::chain;

/// Prints what a job returned; of one that has returned nothing, why.
pub async fn result(cluster: &Cluster, what: Named) -> Result<u8, Error> {
    let name = &what.name;
    let job = cluster.job(name).await?;
    let Some(result) = job.data.pointer("/status/result") else {
        show::say(&format!("{name} has no result: it is {}", view::line(&job)));
        return Ok(view::end(&job).map_or(1, view::End::status).max(1));
    };
    let text = match (result.get("value"), result["text"].as_str(), result["configMapName"].as_str()) {
        (Some(value), ..) => value.to_string(),
        (None, Some(text), _) => text.to_owned(),
        (None, None, Some(map)) => in_config_map(cluster, map).await?,
        (None, None, None) => on_redis(cluster, &job, result).await?,
    };
    show::print(&printed(&text, io::stdout().is_terminal()))?;
    Ok(0)
}

async fn in_config_map(cluster: &Cluster, name: &str) -> Result<String, Error> {
    let act = || format!("reading the ConfigMap {name}");
    let map = cluster.others::<ConfigMap>().get(name).await.map_err(Error::call(act()))?;
    let text = map.data.and_then(|mut data| data.remove(JobResult::CONFIG_MAP_KEY));
    text.ok_or_else(|| Error::NotPossible(format!("the ConfigMap {name} has no {}", JobResult::CONFIG_MAP_KEY)))
}

/// The text that only the pool's Redis has. Without the right to read the pool's Secret, or a way to Redis, it is said where it is.
async fn on_redis(cluster: &Cluster, job: &DynamicObject, result: &Value) -> Result<String, Error> {
    let text = |field: &str| result[field].as_str().unwrap_or("?");
    let size = result["sizeBytes"].as_i64().unwrap_or_default();
    let pool = view::text(job, "/spec/poolRef/name");
    let told = |why: String| {
        Error::NotPossible(format!(
            "the result of {size} bytes is only on the Redis of the pool {pool}, until {}, in {}; it cannot be read there: {why}",
            text("redisExpiresAt"),
            text("redisKey"),
        ))
    };
    let named = TaskId::parse(view::text(job, "/status/taskID")).zip(measured(result));
    let (task, output) = named.ok_or_else(|| told("this program does not understand the job".to_owned()))?;
    let found = cluster.pools().get(pool).await.map_err(|error| told(chain(&error)))?;
    let store = broker::of_pool(cluster, &found).await.map_err(|error| told(chain(&error)))?;
    let read = store.result_text(task, &output).await.map_err(|error| told(chain(&error)))?;
    read.ok_or_else(|| told("it is gone, or another one is there".to_owned()))
}

/// What the status says of a result, by which it is known again.
fn measured(result: &Value) -> Option<Output> {
    let digits = result["sha256"].as_str().filter(|digits| digits.len() == 64 && digits.is_ascii())?;
    let mut sha256 = [0; 32];
    for (byte, at) in sha256.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(Output { bytes: result["sizeBytes"].as_u64()?, sha256, text: None })
}

/// The JSON text as it is printed. On a terminal it is indented, and a text is written without its quotes.
fn printed(text: &str, is_terminal: bool) -> String {
    let value = if is_terminal { serde_json::from_str::<Value>(text).ok() } else { None };
    match value {
        None => format!("{text}\n"),
        Some(value) => match value.as_str() {
            // Nothing in it moves the cursor.
            Some(text) => {
                text.chars().filter(|it| matches!(it, '\n' | '\t') || !it.is_control()).chain(['\n']).collect()
            }
            None => format!("{value:#}\n"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_known_again_by_its_size_and_digest() {
        let described = |digits: &str| serde_json::json!({ "sizeBytes": 5, "sha256": digits });
        let output = measured(&described(&"0f".repeat(32))).unwrap();
        assert_eq!((output.bytes, output.sha256), (5, [15; 32]));
        for digits in ["", "0f", &"é".repeat(32), &"xy".repeat(32)] {
            assert_eq!(measured(&described(digits)), None, "{digits}");
        }
    }

    #[test]
    fn a_pipe_gets_the_text_as_it_is_and_a_terminal_what_people_read() {
        assert_eq!(printed(r#"{"a":  1}"#, false), "{\"a\":  1}\n");
        assert_eq!(printed(r#"{"a":  1}"#, true), "{\n  \"a\": 1\n}\n");
        assert_eq!(printed("\"two\\nlines\\u001b[2J\"", true), "two\nlines[2J\n");
        assert_eq!(printed("NaN", true), "NaN\n");
    }
}
