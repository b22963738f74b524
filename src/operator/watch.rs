//! The watch on unfinished CrewJobs.
//!
//! An object that leaves the selector arrives as deleted, with its old content: when we wrote its end that is no news,
//! otherwise it is read live.

use std::collections::HashSet;
use std::sync::Arc;

use crate::api::Guard;
use futures::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use uuid::Uuid;

use super::context::Context;
use super::jobs::{Applied, Entry};
use super::watches::Scope;
use crate::api::{CrewJob, UNFINISHED};
use crate::core::job::ObjectKey;

/// Follows the unfinished jobs, for ever. `ctx.jobs.listed` is cancelled when all are known.
pub async fn watch_jobs(ctx: Arc<Context>) {
    let api: Api<Guard<CrewJob>> = Api::all(ctx.client.clone());
    let config = watcher::Config::default().fields(UNFINISHED);
    let mut events = ctx.watches.follow("crewjobs", Scope::All, api, config);
    let mut listing: HashSet<ObjectKey> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(object)) => {
                let first = !ctx.jobs.listed.is_cancelled();
                listing.extend(apply(&ctx, object, first));
            }
            Ok(Event::Apply(object)) => {
                apply(&ctx, object, false);
            }
            Ok(Event::InitDone) => {
                let missing = ctx.jobs.lock().missing_from(&std::mem::take(&mut listing));
                for turn in missing {
                    ctx.lookups.ask(turn);
                }
                ctx.jobs.listed.cancel();
                tracing::info!(jobs = ctx.jobs.lock().len(), "unfinished jobs listed");
            }
            Ok(Event::Delete(object)) => {
                let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
                let left = ctx.jobs.lock().get(&key).filter(|entry| !entry.closing).map(Entry::turn_of);
                if let Some(turn) = left {
                    ctx.lookups.ask(turn);
                }
            }
            Err(error) => tracing::warn!(%error, "watching jobs failed; trying again"),
        }
    }
}

fn apply(ctx: &Arc<Context>, object: Guard<CrewJob>, listing: bool) -> Option<ObjectKey> {
    let key = ObjectKey::new(object.namespace()?, object.name_any());
    match object.0 {
        Ok(job) => ctx.apply(job, listing),
        Err(error) => tracing::error!(job = %key, %error, "a CrewJob of another schema is left alone"),
    }
    Some(key)
}

impl Context {
    /// Takes a live object.
    pub fn jobs_apply(&self, object: CrewJob) {
        self.apply(object, false);
    }

    fn apply(&self, object: CrewJob, listing: bool) {
        let version: Arc<str> = object.metadata.resource_version.as_deref().unwrap_or_default().into();
        let job = match object.to_job() {
            Ok(job) => job,
            Err(error) => return tracing::error!(%error, "an incomplete CrewJob is left alone"),
        };
        if job.status.phase.is_terminal() {
            let over = self.jobs.lock().remove(&job.key);
            if let Some(entry) = over {
                self.pools.forget(&entry.job, entry.job.attempt_in_hand().task);
            }
            return;
        }
        let key = job.key.clone();
        let (namespace, pool) = (key.namespace.clone(), job.spec.pool.clone());
        let (applied, live) = {
            let mut table = self.jobs.lock();
            (table.apply(job, version, object, listing), table.len())
        };
        self.metrics.jobs_live.set(i64::try_from(live).unwrap_or(i64::MAX));
        match applied {
            Applied::Stale => return,
            Applied::Changed => {}
            Applied::Replaced(old) => self.abandon(*old),
        }
        if self.jobs.lock().get(&key).is_some_and(|entry| entry.evidence.is_unread()) {
            self.pools.read_levels(&namespace, &pool);
        }
        self.jobs.look_at(&key);
    }
}

/// The job does not exist any more.
pub fn gone(ctx: &Context, key: &ObjectKey, uid: Uuid) {
    let removed = {
        let mut table = ctx.jobs.lock();
        if table.get(key).is_some_and(|entry| entry.job.uid == uid) { table.remove(key) } else { None }
    };
    if let Some(entry) = removed {
        ctx.abandon(*entry);
    }
    ctx.jobs.queue.forget(key);
}
