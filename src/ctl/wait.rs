//! `wait`, and what follows a job to its end.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, watch_object};
use tokio::time::{Instant, sleep, timeout_at};

use super::args::Wait;
use super::cluster::Cluster;
use super::error::Error;
use super::show;
use super::view::{self, End};

/// The pause before a watch that failed is begun again; and how often in a row it may fail.
const PAUSE: Duration = Duration::from_secs(1);
const FAILURES: u32 = 30;

/// Longer than any job takes.
const ALWAYS: Duration = Duration::from_hours(24 * 365);

/// Waits for each of them. All have the same time.
pub async fn wait(cluster: &Cluster, what: Wait) -> Result<u8, Error> {
    for name in &what.names {
        cluster.job(name).await?;
    }
    let deadline = deadline(what.timeout);
    let mut status = 0;
    for name in &what.names {
        let end = until_end(cluster, name, deadline, what.follow).await?;
        if status == 0 {
            status = end.status();
        }
    }
    Ok(status)
}

/// When waiting ends that began now.
pub fn deadline(timeout: Option<Duration>) -> Instant {
    Instant::now() + timeout.unwrap_or(ALWAYS)
}

/// Waits for the end of a job, and says how it was.
pub async fn until_end(cluster: &Cluster, name: &str, deadline: Instant, follow: bool) -> Result<End, Error> {
    if let Ok(ended) = timeout_at(deadline, followed(cluster, name, follow)).await {
        return ended;
    }
    let job = cluster.job(name).await?;
    show::say(&format!("{name} has not finished in time and goes on; it is {}", view::line(&job)));
    Ok(End::TimedOut)
}

async fn followed(cluster: &Cluster, name: &str, follow: bool) -> Result<End, Error> {
    let mut said = String::new();
    let job = until(cluster, name, |job| {
        let (line, end) = (view::line(job), view::end(job));
        if line != said && (follow || end.is_some()) {
            show::say(&format!("{name} is {line}"));
            said = line;
        }
        end.is_some()
    })
    .await?;
    Ok(view::end(&job).unwrap_or(End::TimedOut))
}

/// Follows a job until this is true of it. A watch that breaks is begun again.
pub async fn until(
    cluster: &Cluster,
    name: &str,
    mut is_met: impl FnMut(&DynamicObject) -> bool,
) -> Result<DynamicObject, Error> {
    let mut changes = pin!(watch_object(cluster.jobs(), name));
    let (mut failures, mut is_seen) = (0, false);
    loop {
        match changes.next().await {
            Some(Ok(Some(job))) => {
                (failures, is_seen) = (0, true);
                if is_met(&job) {
                    return Ok(job);
                }
            }
            Some(Ok(None)) if !is_seen => return Err(cluster.missing(name)),
            Some(Ok(None)) => {
                return Err(Error::NotPossible(format!("the CrewJob {name} was deleted before it had finished")));
            }
            Some(Err(error)) if failures < FAILURES && !is_refused(&error) => {
                failures += 1;
                sleep(PAUSE).await;
            }
            Some(Err(source)) => {
                return Err(Error::Watch { what: format!("the CrewJob {name}"), source: Box::new(source) });
            }
            None => return Err(Error::NotPossible(format!("the watch on the CrewJob {name} has ended"))),
        }
    }
}

/// Whether the API server does not allow it: trying again is of no use.
fn is_refused(error: &watcher::Error) -> bool {
    let is_refusal = |code: u16| matches!(code, 401 | 403);
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => {
            matches!(source, kube::Error::Api(status) if is_refusal(status.code))
        }
        watcher::Error::WatchError(status) => is_refusal(status.code),
        watcher::Error::NoResourceVersion => false,
    }
}
