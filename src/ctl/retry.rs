//! `retry`: failed jobs once more, as new ones.

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::json;

use super::args::Retry;
use super::cluster::Cluster;
use super::error::Error;
use super::manifest::again;
use super::view::{self, End};
use super::{run, show};

/// Creates a new job for each of them.
pub async fn retry(cluster: &Cluster, what: Retry) -> Result<(), Error> {
    let jobs = selected(cluster, &what).await?;
    if !show::confirmed("run again", jobs.len(), what.yes || !what.names.is_empty())? {
        return Ok(());
    }
    for job in jobs {
        let name = job.name_any();
        let mut next = again(&name, &json!(job));
        if what.resume {
            next["spec"]["resumeFrom"] = json!({ "name": name });
        }
        let made = run::create(cluster, next, false).await?;
        show::print(&format!("{} created from {name}\n", view::name(&made)))?;
    }
    Ok(())
}

async fn selected(cluster: &Cluster, what: &Retry) -> Result<Vec<DynamicObject>, Error> {
    let mut jobs = Vec::new();
    for name in &what.names {
        let job = cluster.job(name).await?;
        if !matches!(view::end(&job), Some(End::Failed | End::Cancelled)) {
            let phase = view::phase(&job);
            return Err(Error::NotPossible(format!(
                "{name} is {phase}, and only what failed or was cancelled is run again; for the same once more: kubectl \
                 crewjob run --from {name}"
            )));
        }
        jobs.push(job);
    }
    if jobs.is_empty() {
        if !what.failed {
            return Err(Error::Usage("no job is named: give names, or --failed".to_owned()));
        }
        let add = |job: DynamicObject| {
            if view::end(&job) == Some(End::Failed) {
                jobs.push(job);
            }
        };
        cluster.each(&cluster.jobs(), &what.filter, add).await?;
        if jobs.is_empty() {
            show::say(&format!("there is no such failed job in the namespace {}", cluster.namespace));
        }
    }
    Ok(jobs)
}
