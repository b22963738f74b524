//! The namespaces that the operator looks into: those it was told at its start, and those with a label.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;

use super::deployments::watch_deployments;
use super::follow::{Index, follow, follow_into};
use super::pods::watch_pods;
use crate::operator::context::Context;
use crate::operator::state::watches::Scope;

/// Looks into the namespaces there are, for ever: starts with what is added, and stops with what is taken away.
pub async fn run(ctx: Arc<Context>) {
    tokio::select! { () = follow_labels(&ctx) => {}, () = look(&ctx) => {} }
}

async fn look(ctx: &Arc<Context>) {
    let mut now = ctx.namespaces.now.subscribe();
    let (mut tasks, mut known): (JoinSet<()>, BTreeSet<Arc<str>>) = (JoinSet::new(), BTreeSet::new());
    loop {
        let added: Vec<_> = now.borrow_and_update().difference(&known).cloned().collect();
        for namespace in added {
            known.insert(namespace.clone());
            tasks.spawn(look_into(ctx.clone(), namespace));
        }
        tokio::select! {
            changed = now.changed() => if changed.is_err() { return },
            Some(ended) = tasks.join_next() => return tracing::error!(?ended, "looking into a namespace ended"),
        }
    }
}

/// Looks into one namespace whenever it is to be looked into, for ever.
async fn look_into(ctx: Arc<Context>, namespace: Arc<str>) {
    loop {
        ctx.namespaces.changed(&namespace, true).await;
        tracing::info!(%namespace, "Pods and Deployments of the namespace are watched");
        tokio::select! {
            () = watch_pods(ctx.clone(), namespace.clone()) => return,
            () = watch_deployments(ctx.clone(), namespace.clone()) => return,
            () = ctx.namespaces.changed(&namespace, false) => {}
        }
        tracing::info!(%namespace, "the namespace is not looked into any more");
        ctx.workers.write(|pods| pods.forget_namespace(&namespace));
    }
}

/// Follows the namespaces with the label; never ends.
async fn follow_labels(ctx: &Context) {
    let Some(selector) = &ctx.namespaces.selector else { return std::future::pending().await };
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(ctx.client.clone());
    let config = watcher::Config::default().labels(selector);
    let events = follow(&ctx.watches, "namespaces", Scope::All, api, config);
    follow_into(events, &mut Labelled { ctx, selector, names: BTreeSet::new() }).await;
}

/// One that is being deleted is left at its end, with its Pods.
struct Labelled<'a> {
    ctx: &'a Context,
    selector: &'a str,
    names: BTreeSet<Arc<str>>,
}

impl Index<PartialObjectMeta<Namespace>> for Labelled<'_> {
    type List = BTreeSet<Arc<str>>;

    fn list(&mut self, namespace: PartialObjectMeta<Namespace>, list: &mut Self::List) {
        list.insert(namespace.name_any().into());
    }

    fn reset(&mut self, list: Self::List) {
        self.names = list;
        self.ctx.namespaces.set(&self.names);
    }

    fn apply(&mut self, namespace: PartialObjectMeta<Namespace>) {
        self.names.insert(namespace.name_any().into());
        self.ctx.namespaces.set(&self.names);
    }

    fn delete(&mut self, namespace: PartialObjectMeta<Namespace>) {
        self.names.remove(&*namespace.name_any());
        self.ctx.namespaces.set(&self.names);
    }

    fn failed(&mut self, error: &watcher::Error) {
        tracing::warn!(
            %error, selector = self.selector,
            "watching namespaces by label failed; trying again. The operator needs the verbs list and watch on namespaces"
        );
    }
}
