//! `cancel`, `suspend`, `resume` and `priority`: one field of the spec, of one job or of many.

use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::args::Selected;
use super::cluster::Cluster;
use super::error::Error;
use super::{show, view};

/// A change of one field of the spec.
pub struct Change {
    /// What it does, as it is asked for.
    act: &'static str,
    /// What was done.
    done: &'static str,
    field: &'static str,
    value: Value,
}

/// Asks for the end of a job.
pub const CANCEL: Change =
    Change { act: "cancel", done: "is to be cancelled", field: "cancel", value: Value::Bool(true) };
/// Holds a job back.
pub const SUSPEND: Change = Change { act: "suspend", done: "suspended", field: "suspend", value: Value::Bool(true) };
/// Lets a job go on.
pub const RESUME: Change = Change { act: "resume", done: "resumed", field: "suspend", value: Value::Bool(false) };

/// Changes how urgent a job is.
pub fn priority(priority: i32) -> Change {
    Change { act: "change the priority of", done: "has another priority", field: "priority", value: priority.into() }
}

/// Makes the change in each of the jobs, and says whether any failed. One that fails does not keep the others from theirs.
pub async fn change(cluster: &Cluster, jobs: Selected, change: &Change) -> Result<u8, Error> {
    let names = selected(cluster, jobs, change.act).await?;
    let patch = Patch::Merge(json!({ "spec": { change.field: change.value } }));
    let mut status = 0;
    for name in names {
        let error = match cluster.jobs().patch(&name, &PatchParams::default(), &patch).await {
            Ok(job) if view::end(&job).is_some() => {
                show::say(&format!("{name} is {} already: nothing changes", view::phase(&job)));
                continue;
            }
            Ok(job) => {
                show::print(&format!("{} {}\n", view::name(&job), change.done))?;
                continue;
            }
            Err(kube::Error::Api(refused)) if refused.code == 404 => cluster.missing(&name),
            Err(source) => Error::call(format!("changing the CrewJob {name}"))(source),
        };
        show::failed(&error);
        status = error.status();
    }
    Ok(status)
}

/// The names of the jobs that are meant. Those that were not named have not finished.
async fn selected(cluster: &Cluster, jobs: Selected, act: &str) -> Result<Vec<String>, Error> {
    let filter = &jobs.filter;
    if !jobs.names.is_empty() {
        if filter.is_set() {
            return Err(Error::Usage("either name jobs or select them by options, not both".to_owned()));
        }
        return Ok(jobs.names);
    }
    if !jobs.all && !filter.is_set() {
        return Err(Error::Usage("no job is named: give names, a selection such as -l team=a, or --all".to_owned()));
    }
    let mut names = Vec::new();
    let add = |job: kube::api::DynamicObject| {
        if view::end(&job).is_none() {
            names.push(job.name_any());
        }
    };
    cluster.each(&cluster.jobs(), filter, add).await?;
    if names.is_empty() {
        show::say(&format!("there is no such job to {act} in the namespace {}", cluster.namespace));
    }
    let is_confirmed = show::confirmed(act, names.len(), jobs.yes)?;
    Ok(if is_confirmed { names } else { Vec::new() })
}
