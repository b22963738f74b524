//! Jobs whose spec is changed after their end: `observedGeneration` and the time of deletion follow.
//!
//! Nothing is kept of a finished job, and the API server does not show `observedGeneration` in metadata. But it selects
//! by it: among the jobs that have observed generation 1, those of a higher generation are behind. So one watch on
//! metadata follows each of the first generations, and only jobs that are behind are read, also after a restart.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::follow;
use crate::api::{CrewJob, FINISHED};
use crate::core::id::ObjectKey;
use crate::operator::context::Context;
use crate::operator::job::write::patch_status;
use crate::operator::state::watches::Scope;
use crate::runtime::backoff::{Backoff, Bounds};
use crate::runtime::clock;
use crate::runtime::metrics::{WriteOutcome, Written};

/// Observed generations with a watch of their own.
const COMPARED: [i64; 2] = [1, 2];
/// Jobs that are read and written side by side; while there are so many, no further ones are taken from the watches.
const AT_ONCE: usize = 4;
/// Longest pause after the first failure of a job, and after any.
const AGAIN: Bounds = (Duration::from_millis(250), Duration::from_secs(8));

/// The finished jobs of one watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Observed {
    /// Those whose `observedGeneration` is this one.
    Just(i64),
    /// All others.
    Later,
}

impl Observed {
    fn selector(self) -> String {
        let observed = match self {
            Self::Just(generation) => format!("status.observedGeneration={generation}"),
            Self::Later => COMPARED.map(|generation| format!("status.observedGeneration!={generation}")).join(","),
        };
        format!("{FINISHED},{observed}")
    }

    /// Whether a job of this generation is behind, or may be.
    fn may_be_behind(self, generation: i64) -> bool {
        match self {
            Self::Just(observed) => generation > observed,
            Self::Later => COMPARED.iter().all(|observed| generation > observed + 1),
        }
    }
}

/// Follows the finished jobs, for ever. Their pools must be known first: a pool may have a time to live for its jobs.
pub async fn run(ctx: Arc<Context>) {
    ctx.pools.listed.cancelled().await;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let watch = |observed| watch(&ctx, observed, &room);
    let [first, second] = COMPARED.map(Observed::Just);
    tokio::join!(watch(first), watch(second), watch(Observed::Later));
}

async fn watch(ctx: &Arc<Context>, observed: Observed, room: &Arc<Semaphore>) {
    let api: Api<PartialObjectMeta<CrewJob>> = Api::all(ctx.client.clone());
    let config = watcher::Config::default().fields(&observed.selector());
    let mut events = follow::follow(&ctx.watches, "finished crewjobs", Scope::Part, api, config);
    let mut behind = JoinSet::new();
    loop {
        let event = tokio::select! {
            Some(_) = behind.join_next() => continue,
            event = events.next() => event,
        };
        match event {
            Some(Ok(Event::Apply(job) | Event::InitApply(job))) => {
                if !observed.may_be_behind(job.metadata.generation.unwrap_or(0)) {
                    continue;
                }
                let key = ObjectKey::new(job.namespace().unwrap_or_default(), job.name_any());
                let Ok(room) = room.clone().acquire_owned().await else { return };
                behind.spawn(until_followed(ctx.clone(), key, room));
            }
            Some(Ok(Event::Init | Event::InitDone | Event::Delete(_))) => {}
            Some(Err(error)) => tracing::warn!(%error, "watching finished jobs failed; trying again"),
            None => return,
        }
    }
}

/// Lets the status of a finished job follow its spec, as often as it takes.
async fn until_followed(ctx: Arc<Context>, key: ObjectKey, _room: OwnedSemaphorePermit) {
    let mut backoff = Backoff::new(AGAIN);
    loop {
        let Err(error) = follow(&ctx, &key).await else { return };
        if is_refused(&error) {
            return tracing::warn!(
                job = %key, %error, "the status of a finished job cannot follow its spec; tried again when the job changes"
            );
        }
        let pause = backoff.pause();
        if !is_conflict(&error) {
            tracing::warn!(
                job = %key, %error, again_in = ?pause, "the status of a finished job could not follow its spec; trying again"
            );
        }
        tokio::time::sleep(pause).await;
    }
}

/// Lets the status of a finished job follow its spec. Whether it did so already.
pub async fn follow(ctx: &Context, key: &ObjectKey) -> kube::Result<bool> {
    let _call = ctx.call().await;
    let api: Api<CrewJob> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let Some(live) = api.get_opt(&key.name).await? else { return Ok(true) };
    let pool_ttl = ctx.pools.default_ttl(&key.namespace, &live.spec.pool_ref.name.as_str().into());
    let Some(patch) = live.follow_spec(pool_ttl) else { return Ok(true) };
    match patch_status(&ctx.client, key, &patch).await {
        Ok(_) => {
            ctx.metrics.wrote(Written::JobStatus, WriteOutcome::Done);
            if let Some(hour) = patch["status"]["expiryBucket"].as_str() {
                ctx.hours.note(hour.to_owned(), clock::now());
            }
            tracing::info!(job = %key, patch = %patch["status"], "the spec of a finished job was changed; its status follows");
            Ok(false)
        }
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(true),
        Err(error) => {
            let outcome = if is_conflict(&error) { WriteOutcome::Conflict } else { WriteOutcome::Failed };
            ctx.metrics.wrote(Written::JobStatus, outcome);
            Err(error)
        }
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Whether trying again is of no use.
fn is_refused(error: &kube::Error) -> bool {
    let refuses = |code: u16| matches!(code, 400 | 413 | 422);
    matches!(error, kube::Error::SerdeError(_)) || matches!(error, kube::Error::Api(status) if refuses(status.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_job_is_read_only_if_its_observed_generation_is_behind() {
        let watched = |observed: i64| match observed {
            1 | 2 => Observed::Just(observed),
            _ => Observed::Later,
        };
        for observed in 1..=2 {
            for generation in observed..9 {
                assert_eq!(
                    watched(observed).may_be_behind(generation),
                    generation > observed,
                    "{observed} {generation}"
                );
            }
        }
        for observed in 3..9 {
            for generation in observed..9 {
                let may_be = watched(observed).may_be_behind(generation);
                assert!(may_be || generation == observed, "{generation} is behind {observed}");
            }
        }
        assert!(!Observed::Later.may_be_behind(3), "a job that was changed twice and observed costs no read");
    }

    #[test]
    fn every_finished_job_is_in_one_watch() {
        for generation in COMPARED {
            let just = Observed::Just(generation).selector();
            assert!(just.starts_with(FINISHED) && just.ends_with(&format!(",status.observedGeneration={generation}")));
            assert!(Observed::Later.selector().contains(&format!(",status.observedGeneration!={generation}")));
        }
    }
}
