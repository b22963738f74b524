//! `GET /api/status/ID`, `GET /api/result/ID`, `POST /api/cancel/ID`

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::answer::{self, Answer};
use super::caller::Caller;
use super::context::Gateway;
use super::view::{self, Job, text};
use crate::api::JobResult;
use crate::core::gateway::id::JobId;
use crate::core::gateway::key::hexadecimal;
use crate::core::gateway::problem::{Kind, Problem};
use crate::core::gateway::route::{GROUP, VERSION};

/// The path of a job at the API server.
pub fn path(id: &JobId) -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{}/crewjobs/{}", id.namespace, id.name)
}

/// Reads a job.
pub async fn read(gateway: &Gateway, caller: &Caller, id: &JobId) -> Result<Value, Problem> {
    let read = gateway.upstream.json(caller, Method::GET, &path(id), "application/json", None).await;
    read.map_err(|failure| failure.problem(&format!("job {id}")))
}

/// How a job is.
pub async fn status(gateway: &Gateway, caller: &Caller, id: &JobId) -> Result<Answer, Problem> {
    let job = read(gateway, caller, id).await?;
    Ok(answer::json(StatusCode::OK, &Job::of(&job, &gateway.prefix)))
}

/// Asks for the end of a job. One that is over stays as it is.
pub async fn cancel(gateway: &Gateway, caller: &Caller, id: &JobId) -> Result<Answer, Problem> {
    let (path, change) = (format!("{}?fieldManager=crewjob-gateway", path(id)), json!({ "spec": { "cancel": true } }));
    let kind = "application/merge-patch+json";
    let changed = gateway.upstream.json(caller, Method::PATCH, &path, kind, Some(&change)).await;
    let job = changed.map_err(|failure| failure.problem(&format!("job {id}")))?;
    let status = if view::is_over(&job) { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(answer::json(status, &Job::of(&job, &gateway.prefix)))
}

/// What a job has returned, as it is.
pub async fn result(gateway: &Gateway, caller: &Caller, id: &JobId) -> Result<Answer, Problem> {
    let job = read(gateway, caller, id).await?;
    match kept(&job)? {
        Kept::Here(text) => Ok(returned(text)),
        Kept::InConfigMap(name) => in_config_map(gateway, caller, id, &job, name).await.map(returned),
    }
}

/// Where a result is that the gateway can read.
#[derive(Debug, PartialEq, Eq)]
enum Kept<'a> {
    Here(String),
    InConfigMap(&'a str),
}

fn kept(job: &Value) -> Result<Kept<'_>, Problem> {
    let about = |kind, detail: String| {
        Problem::new(kind, detail).with("phase", view::phase(job)).with("reason", view::why(job, "reason"))
    };
    if !view::is_over(job) {
        let detail = format!("it is {}; follow its events, or ask again", view::phase(job));
        return Err(about(Kind::NotFinished, detail).again_after(std::time::Duration::from_secs(2)));
    }
    let Some(result) = job.pointer("/status/result") else {
        let why = view::why(job, "message");
        let detail = if why.is_empty() { "it has returned nothing" } else { why };
        let mut problem = about(Kind::NoResult, detail.to_owned());
        for (name, at) in [("errorType", "/status/error/type"), ("errorMessage", "/status/error/message")] {
            let said = text(job, at);
            if !said.is_empty() {
                problem = problem.with(name, said);
            }
        }
        return Err(problem);
    };
    match (result.get("value"), result["text"].as_str(), result["configMapName"].as_str()) {
        (Some(value), ..) => Ok(Kept::Here(value.to_string())),
        (None, Some(text), _) => Ok(Kept::Here(text.to_owned())),
        (None, None, Some(name)) => Ok(Kept::InConfigMap(name)),
        (None, None, None) => {
            let detail = "it is too large for Kubernetes, or its pool keeps results on Redis: read the key there, or use \
                          kubectl crewjob result";
            let problem = about(Kind::ResultOnRedis, detail.to_owned());
            Err(problem.with("redisKey", text(result, "/redisKey")).with("expiresAt", text(result, "/redisExpiresAt")))
        }
    }
}

/// Reads the ConfigMap of a job. It must be the job's own: a status could name any of the namespace.
async fn in_config_map(
    gateway: &Gateway,
    caller: &Caller,
    id: &JobId,
    job: &Value,
    name: &str,
) -> Result<String, Problem> {
    let what = format!("ConfigMap {name} with the result of {id}");
    if !crate::core::gateway::id::is_name(name) {
        return Err(Problem::new(Kind::NoResult, format!("there is no {what}")));
    }
    let path = format!("/api/v1/namespaces/{}/configmaps/{name}", id.namespace);
    let read = gateway.upstream.json(caller, Method::GET, &path, "application/json", None).await;
    let map = read.map_err(|failure| {
        let problem = failure.problem(&what);
        let kind = if problem.kind == Kind::NoSuchJob { Kind::NoResult } else { problem.kind };
        Problem { kind, ..problem }
    })?;
    own(job, &map).ok_or_else(|| Problem::new(Kind::NoResult, format!("the {what} is not as the job has left it")))
}

/// The result in a ConfigMap, where the job owns it and it is as the status says.
fn own(job: &Value, map: &Value) -> Option<String> {
    let owners = map.pointer("/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner["uid"] == job["metadata"]["uid"])?;
    let text = map.get("data")?.get(JobResult::CONFIG_MAP_KEY)?.as_str()?;
    let digest = hexadecimal(&Sha256::digest(text));
    (digest == view::text(job, "/status/result/sha256")).then(|| text.to_owned())
}

/// A result as the worker has stored it. What Python writes and JSON has not, such as NaN, is text.
fn returned(text: String) -> Answer {
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
    let kind = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
    answer::text(StatusCode::OK, kind, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(phase: &str, result: &Value) -> Value {
        let conditions = json!([{ "type": "Reconciling", "reason": "RetriesExhausted", "message": "all runs failed" }]);
        let mut job = json!({ "metadata": { "uid": "u" }, "status": { "phase": phase, "conditions": conditions } });
        if !result.is_null() {
            job["status"]["result"] = result.clone();
        }
        job
    }

    #[test]
    fn a_result_is_given_from_where_it_is_and_otherwise_it_is_said_why_not() {
        let value = job("Succeeded", &json!({ "value": { "a": [1, null] } }));
        assert_eq!(kept(&value).unwrap(), Kept::Here(r#"{"a":[1,null]}"#.to_owned()));
        assert_eq!(kept(&job("Succeeded", &json!({ "text": "NaN" }))).unwrap(), Kept::Here("NaN".to_owned()));
        assert_eq!(kept(&job("Succeeded", &json!({ "configMapName": "m" }))).unwrap(), Kept::InConfigMap("m"));
        for (phase, result, kind) in [
            ("Running", Value::Null, Kind::NotFinished),
            ("Failed", Value::Null, Kind::NoResult),
            ("Cancelled", Value::Null, Kind::NoResult),
            ("Succeeded", json!({ "redisKey": "k" }), Kind::ResultOnRedis),
        ] {
            let job = job(phase, &result);
            let problem = kept(&job).unwrap_err();
            assert_eq!(problem.kind, kind, "{phase}");
            assert!(problem.about.contains(&("phase", phase.to_owned())), "{problem:?}");
            assert!(problem.about.contains(&("reason", "RetriesExhausted".to_owned())), "{problem:?}");
        }
    }

    #[test]
    fn a_config_map_counts_only_if_the_job_owns_it_and_it_is_whole() {
        let (text, digest) = ("[1]", hexadecimal(&Sha256::digest("[1]")));
        let map = |owner: &str, text: &str| json!({ "metadata": { "ownerReferences": [{ "uid": owner }] }, "data": { "result.json": text } });
        let job = job("Succeeded", &json!({ "configMapName": "m", "sha256": digest }));
        assert_eq!(own(&job, &map("u", text)).as_deref(), Some(text));
        assert_eq!(own(&job, &map("v", text)), None, "another job's, or no job's");
        assert_eq!(own(&job, &map("u", "[2]")), None);
        assert_eq!(own(&job, &json!({ "data": { "result.json": text } })), None);
    }

    #[test]
    fn what_is_no_json_is_answered_as_text() {
        assert_eq!(returned("{\"a\": 1}".into()).headers()["content-type"], "application/json");
        assert_eq!(returned("NaN".into()).headers()["content-type"], "text/plain; charset=utf-8");
    }
}
