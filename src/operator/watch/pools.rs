//! The watch on pools.

use std::sync::Arc;

use kube::runtime::watcher;
use kube::{Api, ResourceExt};

use super::follow::{Index, follow, follow_into};
use crate::api::{CrewWorkerPool, Guard};
use crate::core::id::ObjectKey;
use crate::operator::context::Context;
use crate::operator::pool;
use crate::operator::state::pool::{Handle, take_replicas};
use crate::operator::state::watches::Scope;

/// Follows the pools, for ever, and keeps one server running for each.
pub async fn watch_pools(ctx: Arc<Context>) {
    let api: Api<Guard<CrewWorkerPool>> = Api::all(ctx.client.clone());
    let events = follow(&ctx.watches, "crewworkerpools", Scope::All, api, watcher::Config::default());
    follow_into(events, &mut Served { ctx }).await;
}

struct Served {
    ctx: Arc<Context>,
}

impl Index<Guard<CrewWorkerPool>> for Served {
    type List = Vec<ObjectKey>;

    fn list(&mut self, pool: Guard<CrewWorkerPool>, list: &mut Vec<ObjectKey>) {
        list.extend(apply(&self.ctx, pool));
    }

    fn reset(&mut self, list: Vec<ObjectKey>) {
        let gone: Vec<ObjectKey> = self.ctx.pools.read().keys().filter(|key| !list.contains(key)).cloned().collect();
        for key in gone {
            remove(&self.ctx, &key);
        }
        self.ctx.pools.listed.cancel();
    }

    fn apply(&mut self, pool: Guard<CrewWorkerPool>) {
        apply(&self.ctx, pool);
    }

    fn delete(&mut self, pool: Guard<CrewWorkerPool>) {
        remove(&self.ctx, &ObjectKey::new(pool.namespace().unwrap_or_default(), pool.name_any()));
    }

    fn failed(&mut self, error: &watcher::Error) {
        tracing::warn!(%error, "watching pools failed; trying again");
    }
}

fn apply(ctx: &Arc<Context>, pool: Guard<CrewWorkerPool>) -> Option<ObjectKey> {
    let key = ObjectKey::new(pool.namespace()?, pool.name_any());
    let pool = match pool.0 {
        Ok(pool) => pool,
        Err(error) => {
            tracing::error!(pool = %key, %error, "a CrewWorkerPool of another schema is left alone");
            return Some(key);
        }
    };
    let known = ctx.pools.read().get(&key).cloned();
    let same = |known: &Arc<Handle>| Some(&known.uid) == pool.uid().as_ref() && known.spec == pool.spec;
    if let Some(known) = known.as_ref().filter(|known| same(known)) {
        if known.ask_to_take_replicas(take_replicas(&pool)) {
            known.load.notify_one();
        }
        return Some(key);
    }
    let mut pool = pool;
    if let Some(reported) =
        known.as_ref().filter(|known| Some(&known.uid) == pool.uid().as_ref()).and_then(|it| it.last_reported())
    {
        pool.status = Some(reported);
    }
    let handle = Arc::new(Handle::new(key.clone(), &pool));
    if let Some(known) = known {
        handle.set_former(known.former());
        handle.leaves(known.store());
        handle.nodes.remember_elsewhere(&known.nodes);
    }
    ctx.jobs.lock().limit(&key, handle.facts.limits.as_ref());
    if let Some(old) = ctx.pools.write().insert(key.clone(), handle.clone()) {
        old.stop.cancel();
    }
    tokio::spawn(pool::serve(ctx.clone(), handle, pool.status.unwrap_or_default()));
    ctx.look_at_jobs(&key);
    Some(key)
}

fn remove(ctx: &Context, key: &ObjectKey) {
    if let Some(old) = ctx.pools.write().remove(key) {
        old.stop.cancel();
    }
    ctx.jobs.lock().limit(key, None);
    ctx.look_at_jobs(key);
}
