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

use super::follow::follow;
use crate::api::{CrewJob, UNFINISHED};
use crate::core::id::ObjectKey;
use crate::operator::context::Context;
use crate::operator::job::arrive::arrive;
use crate::operator::state::jobs::Entry;
use crate::operator::state::watches::Scope;

/// Follows the unfinished jobs, for ever. `ctx.jobs.listed` is cancelled when all are known.
pub async fn watch_jobs(ctx: Arc<Context>) {
    let api: Api<Guard<CrewJob>> = Api::all(ctx.client.clone());
    let config = watcher::Config::default().fields(UNFINISHED);
    let mut events = follow(&ctx.watches, "crewjobs", Scope::All, api, config);
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
                tracing::info!(jobs = ctx.jobs.lock().live(), "unfinished jobs listed");
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
        Ok(job) => arrive(ctx, job, listing),
        Err(error) => tracing::error!(job = %key, %error, "a CrewJob of another schema is left alone"),
    }
    Some(key)
}
