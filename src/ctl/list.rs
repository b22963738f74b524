//! `list` and `get`.

use kube::api::DynamicObject;

use super::archived;
use super::args::{Connection, Get, List, Output};
use super::cluster::Cluster;
use super::error::Error;
use super::explain;
use super::position::Positions;
use super::show::{self, job_row, jobs_table};
use super::view;
use crate::runtime::clock;

/// Phases of jobs that may have a place: on a queue, or for a limit of their pool.
const MAY_WAIT: [&str; 3] = ["Queued", "Pending", "Retrying"];

/// Where jobs are listed.
enum Source {
    /// The API server.
    Cluster(Cluster),
    /// The archive: jobs of this namespace, or of all.
    Archive(Option<String>),
}

impl Source {
    /// An archive is read without a cluster where it is said which namespaces are meant.
    async fn of(connection: &Connection, what: &List) -> Result<Self, Error> {
        match (&what.archived, &connection.namespace) {
            (None, _) => Ok(Self::Cluster(Cluster::connect(connection).await?)),
            (Some(_), _) if what.all_namespaces => Ok(Self::Archive(None)),
            (Some(_), Some(namespace)) => Ok(Self::Archive(Some(namespace.clone()))),
            (Some(_), None) => Ok(Self::Archive(Some(Cluster::connect(connection).await?.namespace))),
        }
    }

    async fn each(&self, what: &List, each: impl FnMut(DynamicObject)) -> Result<(), Error> {
        match self {
            Self::Archive(namespace) => archived::each(what, namespace.as_deref(), each).await,
            Self::Cluster(cluster) if what.all_namespaces => {
                cluster.each(&cluster.all_jobs(), &what.filter, each).await
            }
            Self::Cluster(cluster) => cluster.each(&cluster.jobs(), &what.filter, each).await,
        }
    }

    /// Where jobs wait, for a wide table; it takes lists of its own.
    async fn positions(&self, what: &List) -> Option<Positions> {
        let shows_queued =
            what.filter.phase.is_empty() || what.filter.phase.iter().any(|phase| MAY_WAIT.contains(&phase.as_str()));
        what.output?;
        match self {
            Self::Cluster(cluster) if shows_queued => Some(explain::positions(cluster, what.all_namespaces).await),
            Self::Cluster(_) | Self::Archive(_) => Some(Positions::default()),
        }
    }

    fn nothing(&self, what: &List) -> String {
        let such = if what.filter.is_set() { "such CrewJobs" } else { "CrewJobs" };
        let (place, namespace) = match self {
            Self::Cluster(cluster) => ("", Some(&cluster.namespace).filter(|_| !what.all_namespaces)),
            Self::Archive(namespace) => (" in the archive", namespace.as_ref()),
        };
        match namespace {
            Some(namespace) if place.is_empty() => format!("there are no {such} in the namespace {namespace}"),
            Some(namespace) => format!("there are no {such} of the namespace {namespace}{place}"),
            None => format!("there are no {such}{place}"),
        }
    }
}

/// Lists the jobs that fit.
pub async fn list(connection: &Connection, what: List) -> Result<(), Error> {
    let source = Source::of(connection, &what).await?;
    let now = clock::now();
    match what.output {
        None | Some(Output::Wide) => {
            let is_wide = what.output.is_some();
            let mut table = jobs_table(what.all_namespaces, is_wide);
            let positions = source.positions(&what).await;
            let add = |job: DynamicObject| table.row(job_row(&job, what.all_namespaces, positions.as_ref(), now));
            source.each(&what, add).await?;
            if table.is_empty() {
                show::say(&source.nothing(&what));
                return Ok(());
            }
            show::print(&table.text(!what.no_headers))
        }
        Some(Output::Name) => {
            let mut names = String::new();
            source.each(&what, |job| names.extend([&view::name(&job), "\n"])).await?;
            show::print(&names)
        }
        Some(output) => {
            let mut found = Vec::new();
            source.each(&what, |job| found.push(job)).await?;
            show::list(&found, output)
        }
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
            let waits = found.iter().any(|job| MAY_WAIT.contains(&view::phase(job)));
            let positions = match what.output {
                Some(_) if waits => Some(explain::positions(cluster, false).await),
                Some(_) => Some(Positions::default()),
                None => None,
            };
            for job in &found {
                table.row(job_row(job, false, positions.as_ref(), clock::now()));
            }
            show::print(&table.text(true))
        }
        Some(output) => show::objects(&found, output),
    }
}
