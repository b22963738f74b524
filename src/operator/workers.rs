//! Pods and Deployments of workers: who holds a task, who is dead, what may be scaled.

mod containers;
mod deployments;
mod pods;
mod selector;
mod table;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};

use super::context::Context;
use crate::core::evidence::Sighting;
use crate::core::job::ObjectKey;
use crate::core::observed::Liveness;
use crate::core::start::Trouble;
use crate::core::status::{Container, Holder};
use crate::runtime::metrics::{WriteOutcome, Written};

pub use containers::Unclear;
pub use deployments::{DeploymentView, watch_deployments};
use pods::PodView;
pub use pods::watch_pods;
use table::Pods;

/// The `ReplicaSet` controller removes Pods of the lowest cost first; a Pod without one costs 0.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Cost of a Pod that holds a task.
const BUSY_COST: &str = "1";

/// What the operator says it owns of a Deployment.
pub const FIELD_MANAGER: &str = "crewjob-operator";

/// Pods and Deployments in the pools' namespaces.
#[derive(Default)]
pub struct Workers(RwLock<Known>);

/// Where the workers of a pool run: the Deployment that it names, and which container of its Pods is the worker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// The Deployment.
    pub deployment: ObjectKey,
    /// What the pool names; `None` leaves it to the Pods.
    pub container: Option<Arc<str>>,
}

/// What is known of them.
#[derive(Default)]
pub struct Known {
    pods: Pods,
    deployments: HashMap<ObjectKey, DeploymentView>,
    /// Namespaces whose Pods have been listed: only there does absence mean anything.
    listed: Vec<Arc<str>>,
    /// The same of their Deployments.
    deployments_listed: HashSet<Arc<str>>,
}

/// How long a Pod stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// It is none of the pool's.
    Foreign,
    /// It was not told to go.
    Stays,
    /// It was told to be gone by then.
    Until(Timestamp),
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

    /// The worker behind a Celery node name: `crew@pod-name` is the Pod of that name, if it is one of the pool's. A name
    /// comes from Redis, so it never leads to any other Pod.
    pub fn holder(&self, fleet: Option<&Fleet>, node: &Arc<str>) -> Holder {
        let container = fleet.and_then(|fleet| {
            let known = self.read();
            let (key, pod) = known.pod_of(fleet, host_of(node))?;
            pod.holder(&key.name, fleet.container.as_ref())
        });
        Holder { node: node.clone(), container }
    }

    /// The holder that was seen, and what Kubernetes says of it now. A worker is dead only where its Pod is known: one that was never
    /// seen as a Pod of the pool, and is not recorded as one, may run on another host, whatever it is called.
    pub fn judge(&self, fleet: Option<&Fleet>, namespace: &Arc<str>, seen: &Sighting) -> (Holder, Liveness) {
        let Some(known) = seen.word.holder.clone() else {
            return (Holder { node: "".into(), container: None }, Liveness::Alive);
        };
        // A Pod may have been unknown when its worker first spoke. Its container may have been another one then.
        let is_recorded = known.container.is_some();
        let holder = if is_recorded { known } else { self.holder(fleet, &known.node) };
        let container = holder.container.as_ref();
        let seen_at = seen.word.said_at_its_node();
        let liveness = container.map(|container| self.liveness(fleet, namespace, container, seen_at, is_recorded));
        (holder, liveness.unwrap_or(Liveness::Alive))
    }

    fn liveness(
        &self,
        fleet: Option<&Fleet>,
        namespace: &Arc<str>,
        seen: &Container,
        seen_at: Timestamp,
        is_recorded: bool,
    ) -> Liveness {
        let known = self.read();
        if !known.listed.contains(namespace) {
            return Liveness::Alive;
        }
        let is_dead =
            |pod: &PodView| pod.uid != seen.pod_uid || pod.over || pod.is_over(seen, fleet, seen_at, is_recorded);
        match known.pods.get(&ObjectKey::new(namespace.clone(), seen.pod.clone())) {
            None => Liveness::Dead,
            Some((_, pod)) if is_dead(pod) => Liveness::Dead,
            Some((_, pod)) if pod.unreachable => Liveness::Unreachable,
            Some(_) => Liveness::Alive,
        }
    }

    /// Whether this is a container of one of the pool's Pods, and when that must be gone if it was told to go.
    pub fn stay(&self, fleet: &Fleet, container: &Container) -> Stay {
        let known = self.read();
        match known.pod_of(fleet, &container.pod).filter(|(_, pod)| pod.uid == container.pod_uid) {
            None => Stay::Foreign,
            Some((_, pod)) => pod.due_at.map_or(Stay::Stays, Stay::Until),
        }
    }

    /// The Deployment of that name.
    pub fn deployment(&self, key: &ObjectKey) -> Option<DeploymentView> {
        self.read().deployments.get(key).cloned()
    }

    /// The pool's Pods in which a worker runs.
    pub fn pods_of(&self, fleet: &Fleet) -> Vec<WorkerPod> {
        let known = self.read();
        let pods = known.pods_in(fleet).filter(|(_, pod)| !pod.over);
        pods.filter_map(|(key, pod)| pod.as_worker(&key.name, fleet.container.as_ref())).collect()
    }

    /// The pool's Pods that something keeps from working.
    pub fn in_trouble(&self, fleet: &Fleet) -> Vec<(Arc<str>, Arc<Trouble>)> {
        let known = self.read();
        known.pods_in(fleet).filter_map(|(key, pod)| Some((key.name.clone(), pod.trouble.clone()?))).collect()
    }

    /// A Pod of the pool that stays, and whose worker's container cannot be told from the others: its name, and why.
    /// Where there is no Pod, the template of the Deployment counts.
    pub fn unclear(&self, fleet: &Fleet) -> Option<(Option<Arc<str>>, Unclear)> {
        let known = self.read();
        let mut pods = known.pods_in(fleet).filter(|(_, pod)| !pod.over && pod.leaving_since.is_none()).peekable();
        if pods.peek().is_none() {
            let template = &known.deployments.get(&fleet.deployment)?.template;
            return template.worker(fleet.container.as_ref()).err().map(|unclear| (None, unclear));
        }
        // The first by name, so that the condition stays as it is.
        pods.find_map(|(key, pod)| Some((Some(key.name.clone()), pod.worker(fleet.container.as_ref()).err()?)))
    }

    /// Whether this is a Pod of the pool.
    pub fn is_pod_of(&self, fleet: &Fleet, name: &str) -> bool {
        self.read().pod_of(fleet, name).is_some()
    }

    /// Whether this node name leads to a Pod of the pool.
    pub fn is_pod(&self, fleet: Option<&Fleet>, node: &str) -> bool {
        fleet.is_some_and(|fleet| self.is_pod_of(fleet, host_of(node)))
    }

    /// The shell that is the main process of a worker's container, where the manifest of its Pod says so, and the
    /// container.
    pub fn shell_of(&self, fleet: Option<&Fleet>, node: &str) -> Option<(Arc<str>, Arc<str>)> {
        let (known, fleet) = (self.read(), fleet?);
        let (_, pod) = known.pod_of(fleet, host_of(node))?;
        let worker = pod.worker(fleet.container.as_ref()).ok()?;
        Some((worker.shell.clone()?, worker.name.clone()))
    }

    /// The pool's Pods whose deletion cost does not say what they do, and whether they are busy.
    fn mismarked(&self, fleet: &Fleet, busy: &HashSet<Arc<str>>) -> Vec<(Arc<str>, bool)> {
        let staying = self.pods_of(fleet).into_iter().filter(|pod| pod.leaving_since.is_none());
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
            let pods: Vec<_> = known.pods.in_namespace(namespace).cloned().collect();
            for key in pods {
                known.pods.remove(&key);
            }
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

/// Marks busy Pods before some of a pool's Pods go, so that idle ones go first. Only a preference: a Pod
/// that goes finishes its job within the grace period.
pub async fn mark_busy(ctx: &Context, fleet: &Fleet, busy: &HashSet<Arc<str>>) {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &fleet.deployment.namespace);
    for (pod, is_busy) in ctx.workers.mismarked(fleet, busy) {
        let cost = is_busy.then_some(BUSY_COST);
        let patch = serde_json::json!({ "metadata": { "annotations": { DELETION_COST: cost } } });
        let marked = api.patch_metadata(&pod, &PatchParams::default(), &Patch::Merge(&patch)).await;
        ctx.metrics.wrote(Written::Pod, if marked.is_ok() { WriteOutcome::Done } else { WriteOutcome::Failed });
        if let Err(error) = marked {
            tracing::warn!(%pod, %error, "the deletion cost of a worker could not be written");
        }
    }
}

impl Known {
    /// The Pod of that name, if it is one of the pool's.
    fn pod_of(&self, fleet: &Fleet, name: &str) -> Option<(&ObjectKey, &PodView)> {
        let (key, pod) = self.pods.get(&ObjectKey::new(fleet.deployment.namespace.clone(), name))?;
        self.owns(fleet, key, pod).then_some((key, pod))
    }

    /// The pool's Pods.
    fn pods_in<'a>(&'a self, fleet: &'a Fleet) -> impl Iterator<Item = (&'a ObjectKey, &'a PodView)> {
        self.pods.of(&fleet.deployment).filter(|(key, pod)| self.owns(fleet, key, pod))
    }

    fn owns(&self, fleet: &Fleet, key: &ObjectKey, pod: &PodView) -> bool {
        let deployment = self.deployments.get(&fleet.deployment);
        let is_of = |view: &DeploymentView| pod.is_of(&fleet.deployment.name, &view.selector);
        key.namespace == fleet.deployment.namespace && deployment.is_some_and(is_of)
    }
}

fn key_of<K: Resource>(object: &K) -> Option<ObjectKey> {
    Some(ObjectKey::new(object.namespace()?, object.name_any()))
}

/// The Pod of a node `crew@pod-name`.
pub fn host_of(node: &str) -> &str {
    node.rsplit_once('@').map_or(node, |(_, host)| host)
}
