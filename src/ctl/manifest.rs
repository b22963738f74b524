//! From what was typed to the object of a job.

use kube::Resource as _;
use serde_json::{Map, Value, json};

use super::args::Run;
use super::error::Error;
use crate::api::{self, CrewJob};
use crate::core::stem::stem;

/// The annotation of a job that was made from another one.
pub const ORIGIN: &str = "crewjob.dev/origin";

/// The job that `run` creates. `origin` is the job that its spec begins with, `file` are inputs from a file.
pub fn manifest(run: &Run, origin: Option<&Value>, file: &Map<String, Value>) -> Result<Value, Error> {
    let mut spec = origin.map(copied).unwrap_or_default();
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            spec.insert(field.to_owned(), value);
        }
    };
    set("topic", run.topic.clone().map(Value::from));
    set("poolRef", run.pool.as_ref().map(|name| json!({ "name": name })));
    set("queue", run.queue.clone().map(Value::from));
    set("priority", run.priority.map(Value::from));
    set("task", run.task.clone().map(Value::from));
    set("ttlAfterFinished", run.ttl.map(|ttl| json!(api::Duration::from(ttl))));
    set("bypassCache", run.bypass_cache.then_some(true.into()));
    set("suspend", run.suspend.then_some(true.into()));
    set("runOnce", run.key.clone().map(Value::from));
    if let Some(count) = run.max_retries {
        merge(&mut spec, "retryPolicy", Map::from_iter([("maxRetries".to_owned(), count.into())]));
    }
    let mut inputs = file.clone();
    for input in &run.inputs {
        let (key, value) = input.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            Error::Usage(format!("--input {input:?} has no key: write KEY=VALUE, such as --input depth=3"))
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        inputs.insert(key.to_owned(), value);
    }
    if !inputs.is_empty() {
        merge(&mut spec, "inputs", inputs);
    }
    let topic = spec.get("topic").and_then(Value::as_str).unwrap_or_default();
    let named = match (&run.name, &run.from) {
        (Some(name), _) => json!({ "name": name }),
        (None, Some(from)) => json!({ "generateName": stem(from) }),
        (None, None) => json!({ "generateName": stem(topic) }),
    };
    Ok(object(named, run.from.as_deref(), &spec))
}

/// The job that runs another one once more.
pub fn again(name: &str, job: &Value) -> Value {
    object(json!({ "generateName": stem(name) }), Some(name), &copied(job))
}

fn object(mut metadata: Value, origin: Option<&str>, spec: &Map<String, Value>) -> Value {
    if let Some(origin) = origin {
        metadata["annotations"] = json!({ ORIGIN: origin });
    }
    json!({
        "apiVersion": CrewJob::api_version(&()), "kind": CrewJob::kind(&()), "metadata": metadata, "spec": spec,
    })
}

/// The spec of a job, as another one begins: neither cancelled nor suspended, and without the key under which the first one
/// has run.
fn copied(job: &Value) -> Map<String, Value> {
    let mut spec = job["spec"].as_object().cloned().unwrap_or_default();
    spec.remove("cancel");
    spec.remove("suspend");
    spec.remove("runOnce");
    spec.remove("resumeFrom");
    spec
}

/// Adds members to an object within the spec.
fn merge(spec: &mut Map<String, Value>, name: &str, members: Map<String, Value>) {
    let mut object = spec.remove(name).and_then(|value| value.as_object().cloned()).unwrap_or_default();
    object.extend(members);
    spec.insert(name.to_owned(), object.into());
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn typed(line: &str) -> Run {
        Line::parse_from(std::iter::once("run").chain(line.split_whitespace())).run
    }

    fn made(line: &str, origin: Option<&Value>) -> Value {
        manifest(&typed(line), origin, &Map::new()).unwrap()
    }

    #[test]
    fn only_what_was_typed_is_in_the_spec() {
        assert_eq!(
            made("--topic Tides!", None),
            json!({
                "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob",
                "metadata": { "generateName": "tides-" }, "spec": { "topic": "Tides!" },
            })
        );
        let all = made(
            "--topic t --name n --pool p --queue q --priority 9 --task x.y --max-retries 0 --ttl 24h --bypass-cache --suspend \
             --run-once k",
            None,
        );
        assert_eq!(all["metadata"], json!({ "name": "n" }));
        assert_eq!(
            all["spec"],
            json!({
                "topic": "t", "poolRef": { "name": "p" }, "queue": "q", "priority": 9, "task": "x.y",
                "retryPolicy": { "maxRetries": 0 }, "ttlAfterFinished": "24h", "bypassCache": true, "suspend": true, "runOnce": "k",
            })
        );
    }

    #[test]
    fn an_input_is_json_where_it_can_be_and_wins_over_the_file() {
        let file = json!({ "depth": 1, "style": "dry" });
        let run = typed("--topic t --input depth=3 --input reader=me --input a=b=c --input list=[1,2]");
        let made = manifest(&run, None, file.as_object().unwrap()).unwrap();
        assert_eq!(
            made["spec"]["inputs"],
            json!({ "depth": 3, "style": "dry", "reader": "me", "a": "b=c", "list": [1, 2] })
        );
        let error = manifest(&typed("--topic t --input depth"), None, &Map::new()).unwrap_err().to_string();
        assert!(error.contains("KEY=VALUE"), "{error}");
    }

    #[test]
    fn a_job_from_another_one_has_its_spec_without_what_stopped_that_one_or_would_keep_this_one_from_running() {
        let origin = json!({
            "spec": { "topic": "t", "cancel": true, "suspend": true, "runOnce": "tea", "future": 1, "inputs": { "a": 1, "b": 2 } },
            "status": { "phase": "Failed" },
        });
        let made = made("--from tea --input b=3", Some(&origin));
        assert_eq!(made["metadata"], json!({ "generateName": "tea-", "annotations": { ORIGIN: "tea" } }));
        assert_eq!(made["spec"], json!({ "topic": "t", "future": 1, "inputs": { "a": 1, "b": 3 } }));
        let again = again("tea", &origin);
        assert_eq!((&again["metadata"], &again["status"]), (&made["metadata"], &Value::Null));
    }
}
