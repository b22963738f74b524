//! The namespaces that the operator looks into: those it was told at its start, and those with a label.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

/// The namespaces that are looked into now.
pub struct Namespaces {
    /// Those that were named at the start.
    named: BTreeSet<Arc<str>>,
    /// Label selector of further ones.
    pub selector: Option<String>,
    /// All of them.
    pub now: watch::Sender<BTreeSet<Arc<str>>>,
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

    /// These have the label now.
    pub fn set(&self, labelled: &BTreeSet<Arc<str>>) {
        let all: BTreeSet<_> = self.named.union(labelled).cloned().collect();
        self.now.send_if_modified(|now| {
            let is_news = *now != all;
            *now = all;
            is_news
        });
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
