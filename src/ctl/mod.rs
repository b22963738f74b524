//! `kubectl crewjob`: what people do with jobs, with the rights of their own kubeconfig.
//!
//! Objects are read as they are, not as this version knows them, so that an older or newer operator does not break it.

pub mod args;
mod change;
mod cluster;
mod error;
mod events;
mod list;
mod manifest;
mod result;
mod retry;
mod run;
mod show;
mod view;
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
    let cluster = Cluster::connect(&ctl.connection).await?;
    match ctl.verb {
        Verb::Run(what) => run::run(&cluster, *what).await,
        Verb::Wait(what) => wait::wait(&cluster, what).await,
        Verb::List(what) => list::list(&cluster, what).await.map(|()| 0),
        Verb::Get(what) => list::get(&cluster, what).await.map(|()| 0),
        Verb::Result(what) => result::result(&cluster, what).await,
        Verb::Events(what) => events::events(&cluster, what).await.map(|()| 0),
        Verb::Cancel(what) => change::change(&cluster, what, &change::CANCEL).await,
        Verb::Suspend(what) => change::change(&cluster, what, &change::SUSPEND).await,
        Verb::Resume(what) => change::change(&cluster, what, &change::RESUME).await,
        Verb::Priority { priority, jobs } => change::change(&cluster, jobs, &change::priority(priority)).await,
        Verb::Retry(what) => retry::retry(&cluster, what).await.map(|()| 0),
    }
}
