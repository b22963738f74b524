//! Reads of single jobs that a decision depends on: each is repeated until the API server answers, a few at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use tokio::task::JoinSet;

use super::context::Context;
use super::jobs::Lane;
use super::queue::WorkQueue;
use super::watch::gone;
use crate::api::CrewJob;
use crate::core::index::Limits;
use crate::core::job::ObjectKey;
use crate::runtime::clock;

/// Jobs that are read side by side, of one pool and of all: after a list many may be missing at once.
const LIMITS: Limits = Limits { all: 16, lane: 8 };
/// Shortest and longest wait until a read that failed is repeated.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// The jobs to read.
pub struct Lookups {
    queue: WorkQueue<Lane, ObjectKey>,
    /// Failures in a row.
    failures: Mutex<HashMap<ObjectKey, u32>>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self { queue: WorkQueue::new(LIMITS), failures: Mutex::default() }
    }
}

impl Lookups {
    /// Reads this job as soon as its pool has its turn.
    pub fn ask(&self, (lane, key): (Lane, ObjectKey)) {
        self.queue.now(lane, key);
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<ObjectKey, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The read of this job was answered.
    fn answered(&self, key: &ObjectKey) {
        self.failures().remove(key);
    }

    /// The read of this job failed: it is repeated, later from failure to failure. Says how long it waits.
    fn failed(&self, (lane, key): (Lane, ObjectKey), now: Timestamp) -> Duration {
        let wait = {
            let mut failures = self.failures();
            let failures = failures.entry(key.clone()).or_default();
            *failures += 1;
            AGAIN.0.saturating_mul(1 << (*failures - 1).min(8)).min(AGAIN.1)
        };
        self.queue.at(lane, key, now.checked_add(wait).unwrap_or(Timestamp::MAX));
        wait
    }
}

/// Reads jobs, for ever.
pub async fn run(ctx: Arc<Context>) {
    let mut reads = JoinSet::new();
    loop {
        let key = tokio::select! {
            key = ctx.lookups.queue.next() => key,
            () = ctx.lookups.queue.run_timers() => continue,
            Some(_) = reads.join_next() => continue,
        };
        let ctx = ctx.clone();
        reads.spawn(async move {
            read(&ctx, &key).await;
            ctx.lookups.queue.done(key);
        });
    }
}

async fn read(ctx: &Context, key: &ObjectKey) {
    let Some((uid, turn)) = ctx.jobs.lock().get(key).map(|entry| (entry.job.uid, entry.turn_of())) else {
        return ctx.lookups.answered(key);
    };
    let api: Api<CrewJob> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let call = ctx.call().await;
    let live = api.get_opt(&key.name).await;
    drop(call);
    match live {
        Ok(live) => {
            ctx.lookups.answered(key);
            match live {
                Some(live) => ctx.jobs_apply(live),
                None => gone(ctx, key, uid),
            }
        }
        Err(error) => {
            let retry_in = ctx.lookups.failed(turn, clock::now());
            tracing::warn!(job = %key, %error, ?retry_in, "reading a job that left the watch failed; reading it again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> (Lane, ObjectKey) {
        (Arc::new(ObjectKey::new("team", "pool")), ObjectKey::new("team", "job"))
    }

    #[tokio::test]
    async fn a_job_whose_read_failed_is_read_again() {
        let lookups = Lookups::default();
        lookups.ask(turn());
        let key = lookups.queue.next().await;
        lookups.failed(turn(), clock::now());
        lookups.queue.done(key);
        let again =
            tokio::select! { key = lookups.queue.next() => key, () = lookups.queue.run_timers() => unreachable!() };
        assert_eq!(again, turn().1);
    }

    #[test]
    fn reads_that_fail_again_and_again_are_repeated_later_from_time_to_time_and_soon_after_an_answer() {
        let (lookups, now) = (Lookups::default(), clock::now());
        let waits: Vec<u128> = (0..8).map(|_| lookups.failed(turn(), now).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
        lookups.answered(&turn().1);
        assert_eq!(lookups.failed(turn(), now), AGAIN.0);
    }
}
