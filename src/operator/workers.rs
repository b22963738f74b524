//! Pods and Deployments of workers: who holds a task, who is dead, what may be scaled.

mod deployments;
mod pods;
mod trouble;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};

use super::context::Context;
use super::lease::age;
use crate::core::evidence::Sighting;
use crate::core::job::ObjectKey;
use crate::core::observed::Liveness;
use crate::core::start::Trouble;
use crate::core::status::Holder;
use crate::runtime::clock;
use crate::runtime::metrics::{WriteOutcome, Written};

pub use deployments::{DeploymentView, watch_deployments};
use pods::PodView;
pub use pods::watch_pods;

/// The `ReplicaSet` controller removes Pods of the lowest cost first; a Pod without one costs 0.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Cost of a Pod that holds a task.
const BUSY_COST: &str = "1";

/// How far the watch on Pods may be behind.
const WATCH_DELAY: Duration = Duration::from_secs(15);

/// What the operator says it owns of a Deployment.
pub const FIELD_MANAGER: &str = "crewjob-operator";

/// Pods and Deployments in the pools' namespaces.
#[derive(Default)]
pub struct Workers(RwLock<Known>);

/// What is known of them.
#[derive(Default)]
pub struct Known {
    pods: HashMap<ObjectKey, PodView>,
    deployments: HashMap<ObjectKey, DeploymentView>,
    /// Namespaces whose Pods have been listed: only there does absence mean anything.
    listed: Vec<Arc<str>>,
    /// The same of their Deployments.
    deployments_listed: HashSet<Arc<str>>,
}

/// A Pod in which a worker runs.
pub struct WorkerPod {
    /// Name of the Pod.
    pub name: Arc<str>,
    /// When the worker's container started.
    pub started_at: Timestamp,
    /// Since when it is told to go: from then on it takes no message.
    pub leaving_since: Option<Timestamp>,
    /// Whether it is ready.
    pub is_ready: bool,
    /// Whether its Node does not answer.
    pub is_unreachable: bool,
    is_marked_busy: bool,
}

#[cfg(test)]
impl WorkerPod {
    /// One that has not answered.
    pub fn silent(name: &str, started_at: Timestamp, leaving_since: Option<Timestamp>) -> Self {
        Self {
            name: name.into(),
            started_at,
            leaving_since,
            is_ready: false,
            is_unreachable: false,
            is_marked_busy: false,
        }
    }
}

impl Workers {
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The worker behind a Celery node name: `crew@pod-name` is the Pod of that name.
    pub fn holder(&self, namespace: &Arc<str>, node: &Arc<str>) -> Holder {
        let key = ObjectKey::new(namespace.clone(), host_of(node));
        let container = self.read().pods.get(&key).filter(|pod| pod.is_running()).and_then(|pod| pod.container.clone());
        Holder { node: node.clone(), container }
    }

    /// Who was seen, and what Kubernetes says of him now.
    pub fn judge(&self, namespace: &Arc<str>, seen: &Sighting) -> (Holder, Liveness) {
        let Some(known) = seen.word.holder.clone() else {
            return (Holder { node: "".into(), container: None }, Liveness::Alive);
        };
        // A Pod may have been unknown when its worker first spoke.
        let holder = if known.container.is_none() { self.holder(namespace, &known.node) } else { known };
        let liveness = if holder.container.is_none() && self.is_gone(namespace, &holder.node, seen.word.said_at) {
            Liveness::Dead
        } else {
            self.liveness(namespace, &holder, seen.word.said_at_its_node())
        };
        (holder, liveness)
    }

    /// Whether a worker was named like a Pod of one of the Deployments, and there is no such Pod. It may be another
    /// cluster's that shares the Redis: before its death counts it is asked.
    fn is_gone(&self, namespace: &Arc<str>, node: &str, seen_at: Timestamp) -> bool {
        let pod = host_of(node);
        let known = self.read();
        let is_of = |deployment: &ObjectKey| {
            let suffix = pod.strip_prefix(&*deployment.name).and_then(|rest| rest.strip_prefix('-'));
            deployment.namespace == *namespace && suffix.is_some_and(|suffix| suffix.split('-').count() == 2)
        };
        // The watch may be a moment behind a Pod that has just begun to speak.
        age(seen_at, clock::now()) > WATCH_DELAY
            && known.listed.contains(namespace)
            && !known.pods.contains_key(&ObjectKey::new(namespace.clone(), pod))
            && known.deployments.keys().any(is_of)
    }

    fn liveness(&self, namespace: &Arc<str>, holder: &Holder, seen_at: Timestamp) -> Liveness {
        let Some(container) = &holder.container else { return Liveness::Alive };
        let known = self.read();
        if !known.listed.contains(namespace) {
            return Liveness::Alive;
        }
        let is_dead = |pod: &PodView| {
            pod.uid != container.pod_uid || pod.over || pod.last_run.is_some_and(|run| run.is_over_since(seen_at))
        };
        match known.pods.get(&ObjectKey::new(namespace.clone(), container.pod.clone())) {
            None => Liveness::Dead,
            Some(pod) if is_dead(pod) => Liveness::Dead,
            Some(pod) if pod.unreachable => Liveness::Unreachable,
            Some(_) => Liveness::Alive,
        }
    }

    /// When the Pod of that name must be gone, if it was told to go.
    pub fn due_at(&self, pod: &ObjectKey) -> Option<Timestamp> {
        self.read().pods.get(pod).and_then(|pod| pod.due_at)
    }

    /// The Deployment of that name.
    pub fn deployment(&self, key: &ObjectKey) -> Option<DeploymentView> {
        self.read().deployments.get(key).cloned()
    }

    /// The Deployment's Pods in which a worker runs.
    pub fn pods_of(&self, deployment: &ObjectKey) -> Vec<WorkerPod> {
        let known = self.read();
        let Some(selector) = known.deployments.get(deployment).map(|view| &view.selector) else {
            return Vec::new();
        };
        let matching = known.pods.iter().filter(|(key, pod)| {
            key.namespace == deployment.namespace
                && !pod.over
                && selector.iter().all(|(label, value)| pod.labels.get(label) == Some(value))
        });
        let running = matching.filter_map(|(key, pod)| {
            let started_at = pod.last_run.filter(|_| pod.is_running())?.started_at;
            Some(WorkerPod {
                name: key.name.clone(),
                started_at,
                leaving_since: pod.leaving_since,
                is_ready: pod.ready,
                is_unreachable: pod.unreachable,
                is_marked_busy: pod.marked_busy,
            })
        });
        running.collect()
    }

    /// The Deployment's Pods that something keeps from working.
    pub fn in_trouble(&self, deployment: &ObjectKey) -> Vec<(Arc<str>, Arc<Trouble>)> {
        let known = self.read();
        let Some(selector) = known.deployments.get(deployment).map(|view| &view.selector) else {
            return Vec::new();
        };
        let matching = known.pods.iter().filter(|(key, pod)| {
            key.namespace == deployment.namespace
                && selector.iter().all(|(label, value)| pod.labels.get(label) == Some(value))
        });
        matching.filter_map(|(key, pod)| Some((key.name.clone(), pod.trouble.clone()?))).collect()
    }

    /// The Deployment's Pods whose deletion cost does not say what they do, and whether they are busy.
    fn mismarked(&self, deployment: &ObjectKey, busy: &HashSet<Arc<str>>) -> Vec<(Arc<str>, bool)> {
        let staying = self.pods_of(deployment).into_iter().filter(|pod| pod.leaving_since.is_none());
        let marked = staying.map(|pod| {
            let is_busy = busy.contains(&pod.name);
            (pod.name, is_busy, pod.is_marked_busy)
        });
        marked
            .filter(|(_, is_busy, is_marked)| is_busy != is_marked)
            .map(|(name, is_busy, _)| (name, is_busy))
            .collect()
    }

    /// Nothing of a namespace is known any more.
    pub fn forget_namespace(&self, namespace: &str) {
        self.write(|known| {
            known.pods.retain(|key, _| &*key.namespace != namespace);
            known.deployments.retain(|key, _| &*key.namespace != namespace);
            known.listed.retain(|listed| &**listed != namespace);
            known.deployments_listed.remove(namespace);
        });
    }

    /// Whether the Deployments of a namespace have been listed.
    pub fn has_listed_deployments(&self, namespace: &str) -> bool {
        self.read().deployments_listed.contains(namespace)
    }

    /// Whether the Pods of a namespace have been listed.
    pub fn is_listed(&self, namespace: &str) -> bool {
        self.read().listed.iter().any(|listed| &**listed == namespace)
    }
}

/// Marks busy Pods before some of a Deployment's Pods go, so that idle ones go first. Only a preference: whoever goes
/// finishes its job within the grace period.
pub async fn mark_busy(ctx: &Context, deployment: &ObjectKey, busy: &HashSet<Arc<str>>) {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &deployment.namespace);
    for (pod, is_busy) in ctx.workers.mismarked(deployment, busy) {
        let cost = is_busy.then_some(BUSY_COST);
        let patch = serde_json::json!({ "metadata": { "annotations": { DELETION_COST: cost } } });
        let marked = api.patch_metadata(&pod, &PatchParams::default(), &Patch::Merge(&patch)).await;
        ctx.metrics.wrote(Written::Pod, if marked.is_ok() { WriteOutcome::Done } else { WriteOutcome::Failed });
        if let Err(error) = marked {
            tracing::warn!(%pod, %error, "the deletion cost of a worker could not be written");
        }
    }
}

fn key_of<K: Resource>(object: &K) -> Option<ObjectKey> {
    Some(ObjectKey::new(object.namespace()?, object.name_any()))
}

/// The Pod of a node `crew@pod-name`.
pub fn host_of(node: &str) -> &str {
    node.rsplit_once('@').map_or(node, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;

    use super::*;

    fn seen(node: &str, seconds_ago: i64) -> Sighting {
        let said_at = clock::now() - jiff::SignedDuration::from_secs(seconds_ago);
        let holder = Some(Holder { node: node.into(), container: None });
        let word = crate::core::evidence::Word {
            holder,
            said_at,
            behind: 0,
            started_at: None,
            celery_retries: 0,
            progress: None,
        };
        Sighting { generation: 0, word }
    }

    #[test]
    fn a_worker_named_like_a_pod_that_is_not_there_is_dead_and_one_from_elsewhere_is_not() {
        let workers = Workers::default();
        let team: Arc<str> = "team".into();
        let liveness = |node: &str, seconds_ago| workers.judge(&team, &seen(node, seconds_ago)).1;
        assert_eq!(liveness("crew@worker-7d4b9-x2x7q", 60), Liveness::Alive, "the Pods have not been listed");
        workers.write(|known| {
            known.listed.push(team.clone());
            let view = DeploymentView::of(&Deployment::default());
            known.deployments.insert(ObjectKey::new("team", "worker"), view);
        });
        assert_eq!(liveness("crew@worker-7d4b9-x2x7q", 60), Liveness::Dead);
        assert_eq!(liveness("crew@worker-7d4b9-x2x7q", 5), Liveness::Alive, "the watch may be behind");
        for elsewhere in ["crew@laptop", "celery@worker", "crew@worker-1", "crew@other-7d4b9-x2x7q"] {
            assert_eq!(liveness(elsewhere, 60), Liveness::Alive, "{elsewhere}");
        }
    }
}
