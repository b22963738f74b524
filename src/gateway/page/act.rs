//! One action on many jobs, each with the caller's rights.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{self, Answer};
use super::super::caller::Caller;
use super::super::context::Gateway;
use super::super::upstream::Failure;
use super::Desk;
use super::jobs::{decoded, scope};
use crate::core::gateway::id::{is_name, is_namespace};
use crate::core::gateway::problem::{Kind, Problem};
use crate::core::listing::{Action, Filter, MOST, Row, Scope};
use crate::ctl::manifest;

/// Jobs that are changed at once, for one request.
const AT_ONCE: usize = 8;
/// The type of a change.
const MERGE: &str = "application/merge-patch+json";

/// What is asked for: an action, and either jobs by name or a filter with the number that was confirmed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Asked {
    action: String,
    priority: Option<i64>,
    jobs: Option<Vec<Name>>,
    /// As in the query string of the list.
    filter: Option<String>,
    /// How many jobs may be changed at most: as many as were confirmed.
    expected: Option<usize>,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    namespace: String,
    name: String,
}

/// Does it, or says how many jobs it would be done with.
pub async fn act(gateway: &Gateway, desk: &Desk, caller: &Caller, body: &[u8]) -> Result<Answer, Problem> {
    let asked: Asked = serde_json::from_slice(body)
        .map_err(|error| Problem::new(Kind::InvalidBody, format!("it is not what is read here: {error}")))?;
    let flaw = |(field, detail): (&str, String)| Problem::of_field(field, detail);
    let action = Action::read(&asked.action, asked.priority).map_err(flaw)?;
    let (jobs, skipped) = match (asked.jobs, asked.filter) {
        (Some(jobs), None) => named(gateway, desk, caller, action, jobs).await?,
        (None, Some(filter)) => filtered(gateway, desk, caller, action, &filter).await?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(Problem::new(Kind::InvalidBody, "it has either jobs or a filter"));
        }
    };
    if jobs.len() > MOST {
        let detail =
            format!("these are {} jobs, and at most {MOST} are changed at once: narrow the filter", jobs.len());
        return Err(Problem::new(Kind::InvalidBody, detail).with("count", jobs.len().to_string()));
    }
    if asked.dry_run {
        return Ok(answer::json(StatusCode::OK, &json!({ "count": jobs.len(), "skipped": skipped })));
    }
    match asked.expected {
        None => return Err(Problem::of_field("/expected", "it is missing: the number of jobs that was confirmed")),
        Some(expected) if jobs.len() > expected => {
            let detail = format!("{} jobs match now, and {expected} were confirmed; nothing was changed", jobs.len());
            return Err(Problem::new(Kind::Conflict, detail).with("count", jobs.len().to_string()));
        }
        Some(_) => {}
    }
    let mut results = Vec::with_capacity(jobs.len());
    for some in jobs.chunks(AT_ONCE * 8) {
        let acting: Vec<_> = some.iter().map(|job| result(gateway, caller, action, job)).collect();
        results.extend(stream::iter(acting).buffered(AT_ONCE).collect::<Vec<Value>>().await);
    }
    Ok(answer::json(StatusCode::OK, &json!({ "results": results })))
}

/// Those of the jobs that the action is for, and how many it is not for. What is not known of a job is for the API server to say.
async fn named(
    gateway: &Gateway,
    desk: &Desk,
    caller: &Caller,
    action: Action,
    jobs: Vec<Name>,
) -> Result<(Vec<Name>, usize), Problem> {
    if let Some(at) = jobs.iter().position(|job| !is_namespace(&job.namespace) || !is_name(&job.name)) {
        return Err(Problem::of_field(format!("/jobs/{at}"), "it has no namespace and name as Kubernetes has them"));
    }
    let scope = scope(gateway, desk, caller, &Filter::default()).await?;
    let all = jobs.len();
    let fits = |job: &Name| {
        desk.board.look(|table| table.get(&job.namespace, &job.name, &scope)).is_none_or(|row| action.fits(&row))
    };
    let jobs: Vec<Name> = jobs.into_iter().filter(fits).collect();
    let skipped = all - jobs.len();
    Ok((jobs, skipped))
}

async fn filtered(
    gateway: &Gateway,
    desk: &Desk,
    caller: &Caller,
    action: Action,
    text: &str,
) -> Result<(Vec<Name>, usize), Problem> {
    let mut filter = Filter::default();
    for (word, value) in decoded(text) {
        let is_known = filter.add(&word, &value).map_err(|detail| Problem::of_field("/filter", detail))?;
        if !is_known {
            return Err(Problem::of_field("/filter", format!("there is no {word}")));
        }
    }
    let scope: Scope = scope(gateway, desk, caller, &filter).await?;
    let meant: Vec<Arc<Row>> = desk.board.look(|table| table.meant(&filter, &scope));
    let all = meant.len();
    let fitting = meant.into_iter().filter(|row| action.fits(row));
    let jobs: Vec<Name> =
        fitting.map(|row| Name { namespace: (*row.namespace).into(), name: (*row.name).into() }).collect();
    let skipped = all - jobs.len();
    Ok((jobs, skipped))
}

/// What came of it for one job: `{namespace, name, done, made?, message?}`.
async fn result(gateway: &Gateway, caller: &Caller, action: Action, job: &Name) -> Value {
    let mut result = json!({ "namespace": job.namespace, "name": job.name });
    match done(gateway, caller, action, job).await {
        Ok(made) => {
            result["done"] = true.into();
            if let Some(made) = made {
                result["made"] = made.into();
            }
        }
        Err(failure) => {
            result["done"] = false.into();
            result["message"] = failure.problem("job").detail.into();
        }
    }
    result
}

/// Does it. The name of the job that was made, if one was.
async fn done(gateway: &Gateway, caller: &Caller, action: Action, job: &Name) -> Result<Option<String>, Failure> {
    let all = format!("/apis/crewjob.dev/v1alpha1/namespaces/{}/crewjobs", job.namespace);
    let one = format!("{all}/{}", job.name);
    let upstream = &gateway.upstream;
    let spec = match action {
        Action::Cancel => json!({ "cancel": true }),
        Action::Suspend => json!({ "suspend": true }),
        Action::Resume => json!({ "suspend": false }),
        Action::Priority(priority) => json!({ "priority": priority }),
        Action::Retry => {
            let origin = upstream.json(caller, Method::GET, &one, "application/json", None).await?;
            let again = manifest::again(&job.name, &origin);
            let made = upstream.json(caller, Method::POST, &all, "application/json", Some(&again)).await?;
            return Ok(made["metadata"]["name"].as_str().map(str::to_owned));
        }
    };
    upstream.json(caller, Method::PATCH, &one, MERGE, Some(&json!({ "spec": spec }))).await.map(|_| None)
}
