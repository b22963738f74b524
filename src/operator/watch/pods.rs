//! The watch on the Pods of a namespace.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use tokio::time::{Instant, sleep_until};

use super::follow::follow;
use crate::core::id::ObjectKey;
use crate::core::index::pods::PodView;
use crate::operator::context::Context;
use crate::operator::state::watches::Scope;
use crate::operator::state::workers::key_of;
use crate::runtime::clock;

/// Follows the Pods of a namespace, for ever.
pub async fn watch_pods(ctx: Arc<Context>, namespace: Arc<str>) {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let what = format!("pods in {namespace}");
    let mut events = follow(&ctx.watches, &what, Scope::Part, api, watcher::Config::default());
    let mut listing: HashMap<ObjectKey, PodView> = HashMap::new();
    let mut next_expiry = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = sleep_until(next_expiry.unwrap_or_else(Instant::now)), if next_expiry.is_some() => {
                let expired = drop_expired(&ctx, &namespace, &mut next_expiry);
                look_at_seen_with(&ctx, &namespace, &expired);
                continue;
            }
        };
        let Some(event) = event else { return };
        // The Pod that changed, where it is not all of them.
        let mut changed_pod = None;
        let mut changed = true;
        match event {
            Ok(Event::Init) => {
                listing.clear();
                changed = false;
            }
            Ok(Event::InitApply(pod)) => {
                listing.extend(key_of(&pod).map(|key| (key, PodView::from(&pod))));
                changed = false;
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listing);
                ctx.workers.write(|pods| pods.list(&namespace, listed, clock::now()));
            }
            Ok(Event::Apply(pod)) => {
                let Some(key) = key_of(&pod) else { continue };
                let view = PodView::from(&pod);
                changed_pod = Some(key.clone());
                changed = ctx.workers.write(|pods| pods.apply(key, view));
            }
            Ok(Event::Delete(pod)) => {
                let Some(key) = key_of(&pod) else { continue };
                // How it stopped is often told only now.
                let view = PodView::from(&pod);
                changed_pod = Some(key.clone());
                ctx.workers.write(|pods| pods.delete(&key, view, clock::now()));
            }
            Err(error) => {
                tracing::warn!(%error, %namespace, "watching pods failed; trying again");
                changed = false;
            }
        }
        if changed {
            let mut touched = drop_expired(&ctx, &namespace, &mut next_expiry);
            if let Some(pod) = changed_pod {
                touched.push(pod);
                look_at_seen_with(&ctx, &namespace, &touched);
            } else {
                ctx.jobs.look_at_seen_in(&namespace);
                ctx.pools.refresh_workers(&namespace);
            }
        }
    }
}

/// Forgets the deleted Pods whose containers must have stopped; returns them, and notes when the next one will be due.
fn drop_expired(ctx: &Context, namespace: &Arc<str>, next_expiry: &mut Option<Instant>) -> Vec<ObjectKey> {
    let now = clock::now();
    let (expired, due) = ctx.workers.write(|pods| pods.drop_expired(namespace, now));
    *next_expiry = due.map(|due| Instant::now() + clock::until(due, now));
    expired
}

/// Pods changed: their tasks may have lost their holder.
fn look_at_seen_with(ctx: &Context, namespace: &Arc<str>, pods: &[ObjectKey]) {
    for pod in pods {
        ctx.jobs.look_at_seen_with(pod);
    }
    ctx.pools.refresh_workers(namespace);
}
