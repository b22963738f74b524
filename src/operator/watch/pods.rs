//! The watch on the Pods of a namespace.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::follow::{Index, follow, follow_into};
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
    let events = follow(&ctx.watches, &what, Scope::Part, api, watcher::Config::default());
    let expiry = watch::Sender::new(None);
    let mut index = Pods { ctx: &ctx, namespace: &namespace, expiry: &expiry };
    let pods = index;
    tokio::select! {
        () = follow_into(events, &mut index) => {},
        () = expire(pods) => {},
    }
}

#[derive(Clone, Copy)]
struct Pods<'a> {
    ctx: &'a Context,
    namespace: &'a Arc<str>,
    /// When the next deleted Pod is to be forgotten.
    expiry: &'a watch::Sender<Option<Instant>>,
}

impl Index<Pod> for Pods<'_> {
    type List = HashMap<ObjectKey, PodView>;

    fn list(&mut self, pod: Pod, list: &mut Self::List) {
        list.extend(key_of(&pod).map(|key| (key, PodView::from(&pod))));
    }

    fn reset(&mut self, list: Self::List) {
        self.ctx.workers.write(|pods| pods.list(self.namespace, list, clock::now()));
        self.drop_expired();
        self.ctx.jobs.look_at_seen_in(self.namespace);
        self.ctx.pools.refresh_workers(self.namespace);
    }

    fn apply(&mut self, pod: Pod) {
        let Some(key) = key_of(&pod) else { return };
        let view = PodView::from(&pod);
        if self.ctx.workers.write(|pods| pods.apply(key.clone(), view)) {
            self.changed(key);
        }
    }

    fn delete(&mut self, pod: Pod) {
        let Some(key) = key_of(&pod) else { return };
        // How it stopped is often told only now.
        let view = PodView::from(&pod);
        self.ctx.workers.write(|pods| pods.delete(&key, view, clock::now()));
        self.changed(key);
    }

    fn failed(&mut self, error: &watcher::Error) {
        tracing::warn!(%error, namespace = %self.namespace, "watching pods failed; trying again");
    }
}

impl Pods<'_> {
    fn changed(&self, pod: ObjectKey) {
        let mut touched = self.drop_expired();
        touched.push(pod);
        self.look_at_seen_with(&touched);
    }

    /// Forgets the deleted Pods whose containers must have stopped; returns them, and notes when the next one will be due.
    fn drop_expired(&self) -> Vec<ObjectKey> {
        let now = clock::now();
        let (expired, due) = self.ctx.workers.write(|pods| pods.drop_expired(self.namespace, now));
        self.expiry.send_replace(due.map(|due| Instant::now() + clock::until(due, now)));
        expired
    }

    /// Pods changed: their tasks may have lost their holder.
    fn look_at_seen_with(&self, pods: &[ObjectKey]) {
        for pod in pods {
            self.ctx.jobs.look_at_seen_with(pod);
        }
        self.ctx.pools.refresh_workers(self.namespace);
    }
}

/// Forgets deleted Pods when it is time, for ever.
async fn expire(pods: Pods<'_>) {
    let mut expiry = pods.expiry.subscribe();
    loop {
        let next = *expiry.borrow_and_update();
        tokio::select! {
            _ = expiry.changed() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let expired = pods.drop_expired();
                pods.look_at_seen_with(&expired);
            }
        }
    }
}
