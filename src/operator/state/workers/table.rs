//! The Pods that are known, by their Deployment: a pool asks for its own every two seconds, and a cluster has many.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::pods::PodView;
use crate::core::id::ObjectKey;

/// Pods by namespace and name.
#[derive(Default)]
pub struct Pods {
    all: HashMap<ObjectKey, PodView>,
    /// The names of the Pods of each Deployment.
    by_deployment: HashMap<ObjectKey, BTreeSet<Arc<str>>>,
    /// Those whose objects are gone, and whose containers may run on for a moment.
    vanished: HashSet<ObjectKey>,
}

impl Pods {
    pub fn get(&self, key: &ObjectKey) -> Option<(&ObjectKey, &PodView)> {
        self.all.get_key_value(key)
    }

    /// The Pods that a Deployment of that name controls, in the order of their names.
    pub fn of<'a>(&'a self, deployment: &ObjectKey) -> impl Iterator<Item = (&'a ObjectKey, &'a PodView)> {
        let namespace = deployment.namespace.clone();
        let names = self.by_deployment.get(deployment).into_iter().flatten();
        names.filter_map(move |name| self.get(&ObjectKey { namespace: namespace.clone(), name: name.clone() }))
    }

    /// The Pods of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &ObjectKey> {
        self.all.keys().filter(move |key| &*key.namespace == namespace)
    }

    /// Those whose objects are gone.
    pub fn vanished(&self) -> impl Iterator<Item = (&ObjectKey, &PodView)> {
        self.vanished.iter().filter_map(|key| self.get(key))
    }

    /// What was known of it before.
    pub fn insert(&mut self, key: ObjectKey, pod: PodView) -> Option<PodView> {
        let before = self.remove(&key);
        if let Some(deployment) = pod.deployment_in(&key.namespace) {
            self.by_deployment.entry(deployment).or_default().insert(key.name.clone());
        }
        if pod.has_vanished() {
            self.vanished.insert(key.clone());
        }
        self.all.insert(key, pod);
        before
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Option<PodView> {
        let pod = self.all.remove(key)?;
        self.vanished.remove(key);
        if let Some(deployment) = pod.deployment_in(&key.namespace)
            && let Some(names) = self.by_deployment.get_mut(&deployment)
        {
            names.remove(&key.name);
            if names.is_empty() {
                self.by_deployment.remove(&deployment);
            }
        }
        Some(pod)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn pod(replica_set: &str, hash: &str) -> PodView {
        let owner = serde_json::json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replica_set, "uid": "rs", "controller": true,
        });
        let metadata = serde_json::json!({ "labels": { "pod-template-hash": hash }, "ownerReferences": [owner] });
        PodView::of(&serde_json::from_value(serde_json::json!({ "metadata": metadata })).unwrap())
    }

    fn names(pods: &Pods, deployment: &str) -> Vec<String> {
        pods.of(&ObjectKey::new("team", deployment)).map(|(key, _)| key.name.to_string()).collect()
    }

    #[test]
    fn pods_are_found_by_the_deployment_that_controls_them_however_similar_another_name_is() {
        let mut pods = Pods::default();
        for (name, replica_set) in [("b", "crew-5f6d"), ("a", "crew-5f6d"), ("c", "crew-canary-5f6d"), ("d", "crew")] {
            pods.insert(ObjectKey::new("team", name), pod(replica_set, "5f6d"));
        }
        pods.insert(ObjectKey::new("others", "e"), pod("crew-5f6d", "5f6d"));
        assert_eq!(names(&pods, "crew"), ["a", "b"]);
        assert_eq!(names(&pods, "crew-canary"), ["c"]);
        assert!(names(&pods, "cre").is_empty() && names(&pods, "").is_empty());
    }

    #[test]
    fn what_is_indexed_of_a_pod_follows_its_changes_and_is_gone_with_it() {
        let (mut pods, key) = (Pods::default(), ObjectKey::new("team", "a"));
        pods.insert(key.clone(), pod("crew-5f6d", "5f6d"));
        let mut moved = pod("other-5f6d", "5f6d");
        moved.vanish(jiff::Timestamp::UNIX_EPOCH, Instant::now());
        assert!(pods.insert(key.clone(), moved).is_some());
        assert_eq!((names(&pods, "crew").len(), names(&pods, "other").len(), pods.vanished().count()), (0, 1, 1));
        pods.remove(&key);
        assert_eq!((pods.all.len(), pods.by_deployment.len(), pods.vanished.len()), (0, 0, 0));
    }
}
