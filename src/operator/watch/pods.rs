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
use crate::operator::context::Context;
use crate::operator::state::watches::Scope;
use crate::operator::state::workers::{PodView, key_of};

/// Follows the Pods of a namespace, for ever.
pub async fn watch_pods(ctx: Arc<Context>, namespace: Arc<str>) {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let what = format!("pods in {namespace}");
    let mut events = follow(&ctx.watches, &what, Scope::Part, api, watcher::Config::default());
    let mut listing: HashMap<ObjectKey, PodView> = HashMap::new();
    let mut next_burial = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = sleep_until(next_burial.unwrap_or_else(Instant::now)), if next_burial.is_some() => {
                let buried = ctx.workers.bury(&namespace, &mut next_burial);
                look_at_seen_with(&ctx, &namespace, &buried);
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
                listing.extend(key_of(&pod).map(|key| (key, PodView::of(&pod))));
                changed = false;
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listing);
                ctx.workers.list_pods(&namespace, listed);
            }
            Ok(Event::Apply(pod)) => {
                let Some(key) = key_of(&pod) else { continue };
                let view = PodView::of(&pod);
                changed_pod = Some(key.clone());
                changed = ctx.workers.apply_pod(key, &view);
            }
            Ok(Event::Delete(pod)) => {
                let Some(key) = key_of(&pod) else { continue };
                // How it stopped is often told only now.
                let view = PodView::of(&pod);
                changed_pod = Some(key.clone());
                ctx.workers.delete_pod(&key, view);
            }
            Err(error) => {
                tracing::warn!(%error, %namespace, "watching pods failed; trying again");
                changed = false;
            }
        }
        if changed {
            let mut touched = ctx.workers.bury(&namespace, &mut next_burial);
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

/// Pods changed: their tasks may have lost their holder.
fn look_at_seen_with(ctx: &Context, namespace: &Arc<str>, pods: &[ObjectKey]) {
    for pod in pods {
        ctx.jobs.look_at_seen_with(pod);
    }
    ctx.pools.refresh_workers(namespace);
}
