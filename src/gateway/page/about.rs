//! What is said of one job, and of the caller.

use http::{Method, StatusCode};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::super::answer::{self, Answer};
use super::super::caller::Caller;
use super::super::context::Gateway;
use super::Desk;
use super::access::{LIST, rights};
use super::jobs::decoded;
use super::rows;
use crate::api::CrewJob;
use crate::core::gateway::id::{JobId, is_namespace};
use crate::core::gateway::problem::{Kind, Problem};
use crate::core::listing::{Filter, Scope};
use crate::ctl::cluster::Cluster;
use crate::ctl::{self, explain, logs};

/// Lines of a log that are shown.
const LINES: usize = 500;

/// Which user the caller is, as the API server has it.
pub async fn session(gateway: &Gateway, caller: &Caller) -> Result<Answer, Problem> {
    let user = match &caller.user {
        Some(user) => Some(user.clone()),
        None if caller.authorization.is_some() => {
            let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
            let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
            let answer = gateway.upstream.json(caller, Method::POST, path, "application/json", Some(&review)).await;
            let answer = answer.map_err(|failure| failure.problem("review"))?;
            answer["status"]["userInfo"]["username"].as_str().map(str::to_owned)
        }
        None => None,
    };
    let has_token = caller.authorization.is_some();
    Ok(answer::json(StatusCode::OK, &json!({ "user": user, "token": has_token, "version": env!("CARGO_PKG_VERSION") })))
}

/// What the caller may do in a namespace.
pub async fn may(gateway: &Gateway, desk: &Desk, caller: &Caller, asked: Option<&str>) -> Result<Answer, Problem> {
    let namespace = decoded(asked.unwrap_or_default()).into_iter().find(|(word, _)| word == "namespace");
    let namespace = namespace.map(|(_, value)| value).filter(|value| is_namespace(value));
    let namespace = namespace.ok_or_else(|| Problem::new(Kind::BadPath, "namespace is missing, or none"))?;
    Ok(answer::json(StatusCode::OK, &rights(&desk.access, &gateway.upstream, caller, &namespace).await?))
}

async fn job(gateway: &Gateway, caller: &Caller, id: &JobId) -> Result<DynamicObject, Problem> {
    let path = format!("/apis/crewjob.dev/v1alpha1/namespaces/{}/crewjobs/{}", id.namespace, id.name);
    let answer = gateway.upstream.json(caller, Method::GET, &path, "application/json", None).await;
    let object = answer.map_err(|failure| failure.problem("job"))?;
    serde_json::from_value(object).map_err(|_| Problem::new(Kind::ApiServerFailed, "its answer is no object"))
}

fn cluster(gateway: &Gateway, caller: &Caller, id: &JobId) -> Cluster {
    Cluster::with(gateway.upstream.client(caller), &id.namespace)
}

/// Why a job is where it is. Of the other jobs of its pool the table knows what its place in the queue follows from.
pub async fn explained(gateway: &Gateway, desk: &Desk, caller: &Caller, id: &JobId) -> Result<Answer, Problem> {
    let object = job(gateway, caller, id).await?;
    let pool = ctl::view::text(&object, "/spec/poolRef/name").to_owned();
    let may_list = desk.access.may(&gateway.upstream, caller, LIST, Some(&id.namespace)).await?.is_allowed;
    let scope = Scope::Only([id.namespace.as_str().into()].into());
    let filter = Filter { namespaces: vec![id.namespace.clone()], pools: vec![pool], ..Filter::default() };
    let others = if may_list { desk.board.look(|table| table.meant(&filter, &scope)) } else { Vec::new() };
    let others: Vec<CrewJob> = others.iter().map(|row| rows::outline(row)).collect();
    let value =
        explain::value(&cluster(gateway, caller, id), &object, &others).await.map_err(|error| problem(&error))?;
    Ok(answer::json(StatusCode::OK, &value))
}

/// The end of what a worker wrote while it ran an attempt of a job.
pub async fn log(gateway: &Gateway, caller: &Caller, id: &JobId, asked: Option<&str>) -> Result<Answer, Problem> {
    let asked = decoded(asked.unwrap_or_default());
    let attempt = asked.iter().find(|(word, _)| word == "attempt").map(|(_, value)| value.parse::<u32>());
    let attempt = attempt.transpose().map_err(|_| Problem::new(Kind::BadPath, "attempt is a number"))?;
    let object = job(gateway, caller, id).await?;
    let end =
        logs::end(&cluster(gateway, caller, id), &object, attempt, LINES).await.map_err(|error| problem(&error))?;
    let lines = end.lines.iter().map(|(at, text)| json!({ "at": at.map(|at| at.to_string()), "text": text }));
    let value =
        json!({ "pod": end.pod, "attempt": end.attempt, "truncated": end.is_cut, "lines": lines.collect::<Value>() });
    Ok(answer::json(StatusCode::OK, &value))
}

fn problem(error: &ctl::error::Error) -> Problem {
    let said = crate::runtime::telemetry::chain(error);
    match error.code() {
        Some(401) => {
            Problem::new(Kind::Unauthenticated, "the API server does not accept the token: it may have expired")
        }
        Some(403) => Problem::new(Kind::Forbidden, said),
        Some(_) => Problem::new(Kind::ApiServerFailed, said),
        None => Problem::new(Kind::NoSuchJob, said),
    }
}
