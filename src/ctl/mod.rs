//! `kubectl crewjob`: what people do with jobs, with the rights of their own kubeconfig.
//!
//! Objects are read as they are, not as this version knows them, so that an older or newer operator does not break it.

mod archived;
pub mod args;
mod broker;
mod change;
pub mod cluster;
mod complete;
mod cost;
mod doctor;
pub mod error;
mod events;
pub mod explain;
mod import;
mod list;
pub mod logs;
pub mod manifest;
mod position;
mod report;
mod result;
mod retry;
mod run;
mod schedule;
mod selector;
mod show;
mod top;
mod version;
pub mod view;
mod wait;

use std::io;
use std::process::ExitCode;

use args::{Ctl, Verb};
use cluster::Cluster;
use error::Error;

/// Does what was typed. The exit status is 0 when it was done, and the job's own where one is waited for: 1 failed, 3
/// cancelled, 4 not finished in time; 2 when it was not understood.
pub async fn run(ctl: Ctl) -> ExitCode {
    match act(ctl).await {
        Ok(status) => ExitCode::from(status),
        // A reader that has seen enough, such as `head`.
        Err(Error::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            show::failed(&error);
            ExitCode::from(error.status())
        }
    }
}

async fn act(ctl: Ctl) -> Result<u8, Error> {
    let cluster = || Cluster::connect(&ctl.connection);
    match ctl.verb {
        Verb::Run(what) => run::run(&cluster().await?, *what).await,
        Verb::Wait(what) => wait::wait(&cluster().await?, what).await,
        Verb::List(what) => list::list(&ctl.connection, *what).await.map(|()| 0),
        Verb::Get(what) => list::get(&cluster().await?, what).await.map(|()| 0),
        Verb::Result(what) => result::result(&cluster().await?, what).await,
        Verb::Explain(what) => explain::explain(&cluster().await?, what).await.map(|()| 0),
        Verb::Logs(what) => logs::logs(&cluster().await?, what).await.map(|()| 0),
        Verb::Events(what) => events::events(&cluster().await?, what).await.map(|()| 0),
        Verb::Cancel(what) => change::change(&cluster().await?, what, &change::CANCEL).await,
        Verb::Suspend(what) => change::change(&cluster().await?, what, &change::SUSPEND).await,
        Verb::Resume(what) => change::change(&cluster().await?, what, &change::RESUME).await,
        Verb::Priority { priority, jobs } => change::change(&cluster().await?, jobs, &change::priority(priority)).await,
        Verb::Retry(what) => retry::retry(&cluster().await?, what).await.map(|()| 0),
        Verb::Schedule(what) => schedule::schedule(&cluster().await?, what).await.map(|()| 0),
        Verb::Cost(what) => cost::cost(&cluster().await?, what).await.map(|()| 0),
        Verb::Top(what) => top::top(&cluster().await?, what).await.map(|()| 0),
        Verb::Doctor(what) => doctor::doctor(&cluster().await?, what).await,
        Verb::Report(what) => Box::pin(report::report(&cluster().await?, what)).await.map(|()| 0),
        Verb::Import(what) => import::import(cluster, what).await.map(|()| 0),
        Verb::Version(what) if what.client => version::version(None, &what).await,
        Verb::Version(what) => version::version(Some(&cluster().await?), &what).await,
        Verb::Completion => show::print(complete::HELPER).map(|()| 0),
        Verb::Complete { words } => complete::complete(&words).await.map(|()| 0),
    }
}
