//! Taking back what workers have left in flight that have died, without waiting for the visibility timeout.
//!
//! A worker says every two seconds that it lives. One that has not done so for as long as a lease lasts is watched for as
//! long as it takes a worker that was cut off to connect again, while Redis answers this worker; only then it counts as dead.
//! A worker with this worker's node name is its predecessor, in a container that was started again, and is not waited for.
//! The copies wait for leases as all messages do that were put back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::context::{LEASE, RENEW, Worker};
use crate::store::Error;
use crate::store::channel::Silent;

/// How long a silent worker is watched before it counts as dead: two of the longest pauses between attempts to connect.
const WATCHED: Duration = Duration::from_secs(10);
/// How long a new worker looks every two seconds: until all that have died before it have been watched.
const AT_FIRST: Duration = Duration::from_secs(20);
/// How often it looks later on.
const LATER: Duration = Duration::from_secs(100);

/// Silent workers, and since when each is watched.
type Watched = BTreeMap<Silent, Instant>;

/// Looks for workers that have died until it is aborted.
pub async fn keep(worker: Arc<Worker>) {
    let (began, mut watched) = (Instant::now(), Watched::new());
    loop {
        if let Err(error) = look(&worker, &mut watched).await {
            tracing::warn!(%error, "looking for messages of workers that have died failed; retrying");
            // While Redis does not answer, no worker can say that it lives.
            watched.clear();
        }
        let is_busy = !watched.is_empty() || began.elapsed() < AT_FIRST;
        sleep(if is_busy { RENEW } else { LATER }).await;
    }
}

async fn look(worker: &Worker, watched: &mut Watched) -> Result<(), Error> {
    let silent = worker.channel.silent_workers(LEASE).await?;
    let others = silent.into_iter().filter(|silent| silent.worker != worker.id);
    for dead in dead(watched, others, worker.node(), Instant::now()) {
        let queues = worker.queues.borrow().clone();
        let swept = worker.channel.inherit(&dead, &queues).await?;
        watched.remove(&dead);
        if swept.restored > 0 {
            tracing::warn!(
                worker = dead.worker,
                restored = swept.restored,
                "put back the messages of a worker that has died"
            );
        }
        if let Some(error) = swept.refusal {
            tracing::error!(
                worker = dead.worker,
                failed = swept.failed,
                %error,
                "Redis refuses to put back messages of a worker that has died; they are tried again at the next round"
            );
        }
    }
    Ok(())
}

/// Which silent workers have died. The others are watched; one that has said that it lives is watched no more.
fn dead(watched: &mut Watched, silent: impl Iterator<Item = Silent>, node: &str, now: Instant) -> Vec<Silent> {
    let silent: Vec<Silent> = silent.collect();
    watched.retain(|known, _| silent.contains(known));
    for worker in silent {
        watched.entry(worker).or_insert(now);
    }
    let is_dead = |(silent, since): &(&Silent, &Instant)| {
        now.duration_since(**since) >= WATCHED || node_of(&silent.worker) == Some(node)
    };
    watched.iter().filter(is_dead).map(|(silent, _)| silent.clone()).collect()
}

/// The node name in a worker's name: `<node>/<process>/<uuid>`.
fn node_of(worker: &str) -> Option<&str> {
    worker.rsplitn(3, '/').nth(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(worker: &str, beat: &str) -> Silent {
        Silent { worker: worker.to_owned(), beat: beat.to_owned() }
    }

    #[test]
    fn a_silent_worker_counts_as_dead_after_it_was_watched_for_long_and_has_not_spoken() {
        let (mut watched, start) = (Watched::new(), Instant::now());
        let mut look = |second, workers: &[&Silent]| {
            let workers: Vec<Silent> = workers.iter().map(|&silent| silent.clone()).collect();
            dead(&mut watched, workers.into_iter(), "me@h", start + Duration::from_secs(second))
        };
        let (gone, cut_off) = (silent("gone@h/1/u", "100"), silent("cut-off@h/1/v", "100"));
        assert_eq!(look(0, &[&gone, &cut_off]), []);
        assert_eq!(look(6, &[&gone]), [], "the other one speaks again");
        let again = silent("cut-off@h/1/v", "106");
        assert_eq!(look(9, &[&gone, &again]), []);
        assert_eq!(look(10, &[&gone, &again]), std::slice::from_ref(&gone));
        assert_eq!(look(18, &[&again]), [], "it has been silent anew since second 9");
        assert_eq!(look(19, &[&again]), std::slice::from_ref(&again));
    }

    #[test]
    fn the_predecessor_under_the_same_node_name_is_dead_as_soon_as_it_is_silent() {
        let (mut watched, now) = (Watched::new(), Instant::now());
        let (before, other) = (silent("a/b@h/1/u", "100"), silent("b@h/1/v", "100"));
        assert_eq!(dead(&mut watched, [before.clone(), other].into_iter(), "a/b@h", now), [before]);
        assert_eq!(node_of("plain"), None);
    }
}
