//! The watch on unfinished CrewJobs.
//!
//! An object that leaves the selector arrives as deleted, with its old content: when we wrote its end that is no news,
//! otherwise it is read live.

use std::collections::HashSet;
use std::sync::Arc;

use kube::runtime::watcher;
use kube::{Api, ResourceExt};

use super::follow::{Index, follow, follow_into};
use crate::api::{CrewJob, Guard, UNFINISHED};
use crate::core::id::ObjectKey;
use crate::operator::context::Context;
use crate::operator::job::arrive::arrive;
use crate::operator::state::jobs::Entry;
use crate::operator::state::watches::Scope;

/// Follows the unfinished jobs, for ever. `ctx.jobs.listed` is cancelled when all are known.
pub async fn watch_jobs(ctx: Arc<Context>) {
    let api: Api<Guard<CrewJob>> = Api::all(ctx.client.clone());
    let config = watcher::Config::default().fields(UNFINISHED);
    let events = follow(&ctx.watches, "crewjobs", Scope::All, api, config);
    follow_into(events, &mut Unfinished(ctx)).await;
}

struct Unfinished(Arc<Context>);

impl Index<Guard<CrewJob>> for Unfinished {
    type List = HashSet<ObjectKey>;

    fn list(&mut self, object: Guard<CrewJob>, list: &mut HashSet<ObjectKey>) {
        let first = !self.0.jobs.listed.is_cancelled();
        list.extend(apply(&self.0, object, first));
    }

    fn reset(&mut self, list: HashSet<ObjectKey>) {
        let Self(ctx) = self;
        let missing = ctx.jobs.lock().missing_from(&list);
        for turn in missing {
            ctx.lookups.ask(turn);
        }
        ctx.jobs.listed.cancel();
        tracing::info!(jobs = ctx.jobs.lock().live(), "unfinished jobs listed");
    }

    fn apply(&mut self, object: Guard<CrewJob>) {
        apply(&self.0, object, false);
    }

    fn delete(&mut self, object: Guard<CrewJob>) {
        let Self(ctx) = self;
        let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
        let left = ctx.jobs.lock().get(&key).filter(|entry| !entry.closing).map(Entry::turn_of);
        if let Some(turn) = left {
            ctx.lookups.ask(turn);
        }
    }

    fn failed(&mut self, error: &watcher::Error) {
        tracing::warn!(%error, "watching jobs failed; trying again");
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
