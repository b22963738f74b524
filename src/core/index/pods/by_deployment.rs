//! The Pods that are known, by their Deployment: a pool asks for its own every two seconds, and a cluster has many.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::super::super::id::ObjectKey;
use super::pod::PodView;

/// Pods by namespace and name.
#[derive(Debug, Clone, Default)]
pub(super) struct ByDeployment {
    all: HashMap<ObjectKey, PodView>,
    /// The names of the Pods of each Deployment.
    names: HashMap<ObjectKey, BTreeSet<Arc<str>>>,
    /// Those whose objects are deleted, and whose containers may run on for a moment.
    deleted: HashSet<ObjectKey>,
}

impl ByDeployment {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<(&ObjectKey, &PodView)> {
        self.all.get_key_value(key)
    }

    /// The Pods that a Deployment of that name controls, in the order of their names.
    pub(super) fn of<'a>(&'a self, deployment: &ObjectKey) -> impl Iterator<Item = (&'a ObjectKey, &'a PodView)> {
        let namespace = deployment.namespace.clone();
        let names = self.names.get(deployment).into_iter().flatten();
        names.filter_map(move |name| self.get(&ObjectKey { namespace: namespace.clone(), name: name.clone() }))
    }

    /// The Pods of a namespace.
    pub(super) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &ObjectKey> {
        self.all.keys().filter(move |key| &*key.namespace == namespace)
    }

    /// Those of a namespace whose objects are deleted, and when that was found.
    pub(super) fn deleted_in(&self, namespace: &str) -> Vec<(ObjectKey, Timestamp)> {
        let deleted = self.deleted.iter().filter(|key| &*key.namespace == namespace);
        deleted.filter_map(|key| Some((key.clone(), self.all.get(key)?.deleted_at?))).collect()
    }

    pub(super) fn insert(&mut self, key: ObjectKey, pod: PodView) {
        self.remove(&key);
        if let Some(deployment) = pod.deployment_in(&key.namespace) {
            self.names.entry(deployment).or_default().insert(key.name.clone());
        }
        if pod.deleted_at.is_some() {
            self.deleted.insert(key.clone());
        }
        self.all.insert(key, pod);
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) -> Option<PodView> {
        let pod = self.all.remove(key)?;
        self.deleted.remove(key);
        if let Some(deployment) = pod.deployment_in(&key.namespace)
            && let Some(names) = self.names.get_mut(&deployment)
        {
            names.remove(&key.name);
            if names.is_empty() {
                self.names.remove(&deployment);
            }
        }
        Some(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(replica_set: &str, hash: &str) -> PodView {
        let labels = [("pod-template-hash".to_owned(), hash.to_owned())].into();
        PodView { replica_set: Some(replica_set.into()), labels, ..PodView::default() }
    }

    fn names(pods: &ByDeployment, deployment: &str) -> Vec<String> {
        pods.of(&ObjectKey::new("team", deployment)).map(|(key, _)| key.name.to_string()).collect()
    }

    #[test]
    fn pods_are_found_by_the_deployment_that_controls_them_however_similar_another_name_is() {
        let mut pods = ByDeployment::default();
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
        let (mut pods, key) = (ByDeployment::default(), ObjectKey::new("team", "a"));
        pods.insert(key.clone(), pod("crew-5f6d", "5f6d"));
        let mut moved = pod("other-5f6d", "5f6d");
        moved.mark_deleted(Timestamp::UNIX_EPOCH);
        pods.insert(key.clone(), moved);
        assert_eq!((names(&pods, "crew").len(), names(&pods, "other").len(), pods.deleted.len()), (0, 1, 1));
        pods.remove(&key);
        assert_eq!((pods.all.len(), pods.names.len(), pods.deleted.len()), (0, 0, 0));
    }
}
