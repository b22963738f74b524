//! `list` and `get`.

use kube::api::DynamicObject;

use super::args::{Get, List, Output};
use super::cluster::Cluster;
use super::error::Error;
use super::show::{self, job_row, jobs_table};
use super::view;
use crate::runtime::clock;

/// Lists the jobs that fit.
pub async fn list(cluster: &Cluster, what: List) -> Result<(), Error> {
    let jobs = if what.all_namespaces { cluster.all_jobs() } else { cluster.jobs() };
    let now = clock::now();
    match what.output {
        None | Some(Output::Wide) => {
            let is_wide = what.output.is_some();
            let mut table = jobs_table(what.all_namespaces, is_wide);
            let add = |job: DynamicObject| table.row(job_row(&job, what.all_namespaces, is_wide, now));
            cluster.each(&jobs, &what.filter, add).await?;
            if table.is_empty() {
                show::say(&nothing(cluster, &what));
                return Ok(());
            }
            show::print(&table.text(!what.no_headers))
        }
        Some(Output::Name) => {
            let mut names = String::new();
            cluster.each(&jobs, &what.filter, |job| names.extend([&view::name(&job), "\n"])).await?;
            show::print(&names)
        }
        Some(output) => {
            let mut found = Vec::new();
            cluster.each(&jobs, &what.filter, |job| found.push(job)).await?;
            show::list(&found, output)
        }
    }
}

fn nothing(cluster: &Cluster, what: &List) -> String {
    let such = if what.filter.is_set() { "such CrewJobs" } else { "CrewJobs" };
    if what.all_namespaces {
        format!("there are no {such}")
    } else {
        format!("there are no {such} in the namespace {}", cluster.namespace)
    }
}

/// Shows jobs by their names.
pub async fn get(cluster: &Cluster, what: Get) -> Result<(), Error> {
    let mut found = Vec::new();
    for name in &what.names {
        found.push(cluster.job(name).await?);
    }
    match what.output {
        None | Some(Output::Wide) => {
            let is_wide = what.output.is_some();
            let mut table = jobs_table(false, is_wide);
            for job in &found {
                table.row(job_row(job, false, is_wide, clock::now()));
            }
            show::print(&table.text(true))
        }
        Some(output) => show::objects(&found, output),
    }
}
