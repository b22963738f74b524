//! The namespaces that the operator looks into: those it was told at its start, and those with a label.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::context::Context;
use super::watches::Scope;
use super::workers;

/// The namespaces that are looked into now.
pub struct Namespaces {
    /// Those that were named at the start.
    named: BTreeSet<Arc<str>>,
    /// Label selector of further ones.
    selector: Option<String>,
    now: watch::Sender<BTreeSet<Arc<str>>>,
}

impl Namespaces {
    /// These, and those that `selector` selects.
    pub fn new(named: impl IntoIterator<Item = Arc<str>>, selector: Option<String>) -> Self {
        let named: BTreeSet<Arc<str>> = named.into_iter().collect();
        Self { now: watch::Sender::new(named.clone()), named, selector }
    }

    /// Whether this one is looked into.
    pub fn contains(&self, namespace: &str) -> bool {
        self.now.borrow().contains(namespace)
    }

    /// Waits until this one is looked into, or until it is not.
    pub async fn changed(&self, namespace: &str, is_granted: bool) {
        // The sender is ours: it is not gone.
        let _ = self.now.subscribe().wait_for(|now| now.contains(namespace) == is_granted).await;
    }

    /// What lets the operator look into one more namespace, as commands for people.
    pub fn how_to_add(&self, namespace: &str) -> String {
        let named = self.named.iter().map(|it| &**it).chain([namespace]).collect::<Vec<_>>().join(",");
        let helm = format!("helm upgrade … --reset-then-reuse-values --set poolNamespaces='{{{named}}}'");
        match self.selector.as_deref().filter(|selector| !selector.contains([',', '(', '!'])) {
            Some(label) => format!("label it: kubectl label namespace {namespace} {}", label.replace("==", "=")),
            None => format!("add it to the chart's value poolNamespaces: {helm}"),
        }
    }

    fn set(&self, labelled: &BTreeSet<Arc<str>>) {
        let all: BTreeSet<_> = self.named.union(labelled).cloned().collect();
        self.now.send_if_modified(|now| {
            let is_news = *now != all;
            *now = all;
            is_news
        });
    }
}

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
            () = workers::watch_pods(ctx.clone(), namespace.clone()) => return,
            () = workers::watch_deployments(ctx.clone(), namespace.clone()) => return,
            () = ctx.namespaces.changed(&namespace, false) => {}
        }
        tracing::info!(%namespace, "the namespace is not looked into any more");
        ctx.workers.forget_namespace(&namespace);
    }
}

/// Follows the namespaces with the label; never ends.
async fn follow_labels(ctx: &Context) {
    let Some(selector) = &ctx.namespaces.selector else { return std::future::pending().await };
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(ctx.client.clone());
    let config = watcher::Config::default().labels(selector);
    let mut events = ctx.watches.follow("namespaces", Scope::All, api, config);
    let (mut labelled, mut listing) = (BTreeSet::new(), BTreeSet::new());
    let name = |namespace: &PartialObjectMeta<Namespace>| -> Arc<str> { namespace.name_any().into() };
    // One that is being deleted is left at its end, with its Pods.
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(namespace)) => {
                listing.insert(name(&namespace));
                continue;
            }
            Ok(Event::InitDone) => labelled = std::mem::take(&mut listing),
            Ok(Event::Apply(namespace)) => {
                labelled.insert(name(&namespace));
            }
            Ok(Event::Delete(namespace)) => {
                labelled.remove(&name(&namespace));
            }
            Err(error) => {
                tracing::warn!(
                    %error, selector,
                    "watching namespaces by label failed; trying again. The operator needs the verbs list and watch on namespaces"
                );
                continue;
            }
        }
        ctx.namespaces.set(&labelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn namespaces_that_were_named_stay_whatever_their_labels_are() {
        let namespaces = Namespaces::new(names(&["system"]), Some("crewjob.dev/pools=true".to_owned()));
        namespaces.set(&names(&["system", "team"]));
        assert!(namespaces.contains("system") && namespaces.contains("team"));
        namespaces.set(&names(&[]));
        assert!(namespaces.contains("system") && !namespaces.contains("team"));
    }

    #[test]
    fn a_namespace_that_is_not_looked_into_is_told_the_command_that_adds_it() {
        let named = Namespaces::new(names(&["a"]), None);
        assert!(named.how_to_add("b").contains("--set poolNamespaces='{a,b}'"));
        let labelled = Namespaces::new(names(&["a"]), Some("crewjob.dev/pools=true".to_owned()));
        assert_eq!(labelled.how_to_add("b"), "label it: kubectl label namespace b crewjob.dev/pools=true");
        let by_set = Namespaces::new(names(&["a"]), Some("team in (red, blue)".to_owned()));
        assert!(by_set.how_to_add("b").contains("poolNamespaces"), "no single label says it");
    }
}
