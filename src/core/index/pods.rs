//! The Pods and Deployments of workers, as far as they matter to a decision: which Pod holds a task, which worker is dead,
//! what may be scaled. Silence is not death: a worker is dead where Kubernetes says so of its Pod.

mod by_deployment;
mod container;
mod deployment;
#[cfg(test)]
pub(super) mod fixtures;
mod fleet;
mod gone;
mod pod;
mod selector;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::evidence::Sighting;
use super::super::id::ObjectKey;
use super::super::observed::Liveness;
use super::super::start::Trouble;
use super::super::status::{Container, Holder, host_of};
use by_deployment::ByDeployment;
pub use container::{DEFAULT_CONTAINER, Unclear};
pub use deployment::{DeploymentView, Template};
pub use fleet::{Fleet, Stay, WorkerPod};
use gone::Gone;
pub use pod::{ContainerView, PodView, Run};
pub use selector::{Requirement, Selector, Wants};

/// How long a container may run on after its Pod is deleted: the kubelet gives it two seconds to stop when the Pod was
/// deleted by force, and may hear of that later than the operator does.
const FORCE_DELETE_GRACE: Duration = Duration::from_secs(4);

/// What is known of Pods and Deployments in the pools' namespaces.
#[derive(Debug, Clone, Default)]
pub struct Pods {
    known: ByDeployment,
    gone: Gone,
    deployments: HashMap<ObjectKey, DeploymentView>,
    /// Namespaces whose Pods have been listed: only there does absence mean anything.
    listed: HashSet<Arc<str>>,
    /// The same of their Deployments.
    deployments_listed: HashSet<Arc<str>>,
}

/// What the watches say.
impl Pods {
    /// All Pods of a namespace were listed.
    pub fn list(&mut self, namespace: &Arc<str>, listed: HashMap<ObjectKey, PodView>, now: Timestamp) {
        let gone: Vec<_> =
            self.known.in_namespace(namespace).filter(|key| !listed.contains_key(key)).cloned().collect();
        for key in gone {
            self.mark_deleted(&key, now);
        }
        for (key, pod) in listed {
            self.known.insert(key, pod);
        }
        self.listed.insert(namespace.clone());
    }

    /// A Pod is like this now. Whether that is news.
    pub fn apply(&mut self, key: ObjectKey, pod: PodView) -> bool {
        let is_news = self.known.get(&key).is_none_or(|(_, known)| *known != pod);
        if is_news {
            self.known.insert(key, pod);
        }
        is_news
    }

    /// The object of a Pod is deleted, and was like this at last.
    pub fn delete(&mut self, key: &ObjectKey, last: PodView, now: Timestamp) {
        self.known.insert(key.clone(), last);
        self.mark_deleted(key, now);
    }

    /// A Pod that was not seen to stop is given the time to.
    fn mark_deleted(&mut self, key: &ObjectKey, now: Timestamp) {
        let Some(mut pod) = self.known.remove(key) else { return };
        if pod.is_running() && !pod.over {
            pod.mark_deleted(now);
            self.known.insert(key.clone(), pod);
        } else {
            self.gone.note(key.clone(), pod, now);
        }
    }

    /// Forgets the deleted Pods of a namespace whose containers must have stopped by now; returns them, and when the next
    /// one will be due.
    pub fn drop_expired(&mut self, namespace: &Arc<str>, now: Timestamp) -> (Vec<ObjectKey>, Option<Timestamp>) {
        let (mut expired, mut next) = (Vec::new(), None::<Timestamp>);
        for (key, deleted_at) in self.known.deleted_in(namespace) {
            // A clock that was set back does not keep it for longer than another grace period.
            let counts_from = deleted_at.min(now);
            let due = counts_from.checked_add(FORCE_DELETE_GRACE).unwrap_or(now);
            let Some(mut pod) = self.known.remove(&key) else { continue };
            if due <= now {
                self.gone.note(key.clone(), pod, now);
                expired.push(key);
                continue;
            }
            pod.deleted_at = Some(counts_from);
            self.known.insert(key, pod);
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        (expired, next)
    }

    /// All Deployments of a namespace were listed.
    pub fn list_deployments(&mut self, namespace: &Arc<str>, listed: HashMap<ObjectKey, DeploymentView>) {
        self.deployments.retain(|key, _| key.namespace != *namespace || listed.contains_key(key));
        self.deployments.extend(listed);
        self.deployments_listed.insert(namespace.clone());
    }

    /// A Deployment is like this now.
    pub fn apply_deployment(&mut self, key: ObjectKey, deployment: DeploymentView) {
        self.deployments.insert(key, deployment);
    }

    /// The object of a Deployment is deleted.
    pub fn delete_deployment(&mut self, key: &ObjectKey) {
        self.deployments.remove(key);
    }

    /// Nothing of a namespace is known any more.
    pub fn forget_namespace(&mut self, namespace: &str) {
        let pods: Vec<_> = self.known.in_namespace(namespace).cloned().collect();
        for key in pods {
            self.known.remove(&key);
        }
        self.gone.forget_namespace(namespace);
        self.deployments.retain(|key, _| &*key.namespace != namespace);
        self.listed.remove(namespace);
        self.deployments_listed.remove(namespace);
    }
}

/// Which worker it is, and whether it lives.
impl Pods {
    /// The worker behind a Celery node name: `crew@pod-name` is the Pod of that name, if it is, or lately was, one of the
    /// pool's. A name comes from Redis, so it never leads to any other Pod.
    pub fn holder(&self, fleet: Option<&Fleet>, node: &Arc<str>) -> Holder {
        let container = fleet.and_then(|fleet| match self.pod_of(fleet, host_of(node)) {
            Some((key, pod)) => pod.holder(&key.name, fleet.container.as_ref()),
            None => self.container_gone(fleet, host_of(node)),
        });
        Holder { node: node.clone(), container }
    }

    /// The container of a Pod of the pool that is gone, where there is no other Pod of that name.
    fn container_gone(&self, fleet: &Fleet, name: &str) -> Option<Container> {
        let key = ObjectKey::new(fleet.deployment.namespace.clone(), name);
        let (key, pod) = self.gone.get(&key).filter(|_| self.known.get(&key).is_none())?;
        pod.last_container(&key.name, fleet.container.as_ref()).filter(|_| self.owns(fleet, key, pod))
    }

    /// The holder that was seen, and what Kubernetes says of it now. A worker is dead only where its Pod is known: one
    /// that was never seen as a Pod of the pool, and is not recorded as one, may run on another host, whatever it is
    /// called.
    pub fn judge(&self, fleet: Option<&Fleet>, namespace: &Arc<str>, seen: &Sighting) -> (Holder, Liveness) {
        let Some(known) = seen.report.holder.clone() else {
            return (Holder { node: "".into(), container: None }, Liveness::Alive);
        };
        // A Pod may have been unknown when its worker first spoke. Its container may have been another one then.
        let is_recorded = known.container.is_some();
        let holder = if is_recorded { known } else { self.holder(fleet, &known.node) };
        let container = holder.container.as_ref();
        let seen_at = seen.report.said_at_its_node();
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
        if !self.listed.contains(namespace) {
            return Liveness::Alive;
        }
        let is_dead =
            |pod: &PodView| pod.uid != seen.pod_uid || pod.over || pod.is_over(seen, fleet, seen_at, is_recorded);
        match self.known.get(&ObjectKey::new(namespace.clone(), seen.pod.clone())) {
            None => Liveness::Dead,
            Some((_, pod)) if is_dead(pod) => Liveness::Dead,
            Some((_, pod)) if pod.unreachable => Liveness::Unreachable,
            Some(_) => Liveness::Alive,
        }
    }

    /// Whether this is a container of one of the pool's Pods, and when that must be gone if it was told to go.
    pub fn stay(&self, fleet: &Fleet, container: &Container) -> Stay {
        match self.pod_of(fleet, &container.pod).filter(|(_, pod)| pod.uid == container.pod_uid) {
            None => Stay::Foreign,
            Some((_, pod)) => pod.due_at.map_or(Stay::Stays, Stay::Until),
        }
    }

    /// Whether this is a Pod of the pool.
    pub fn is_pod_of(&self, fleet: &Fleet, name: &str) -> bool {
        self.pod_of(fleet, name).is_some()
    }

    /// Whether this node name leads to a Pod of the pool.
    pub fn is_pod(&self, fleet: Option<&Fleet>, node: &str) -> bool {
        fleet.is_some_and(|fleet| self.is_pod_of(fleet, host_of(node)))
    }

    /// The shell that is the main process of a worker's container, where the manifest of its Pod says so, and the
    /// container.
    pub fn shell_of(&self, fleet: Option<&Fleet>, node: &str) -> Option<(Arc<str>, Arc<str>)> {
        let fleet = fleet?;
        let (_, pod) = self.pod_of(fleet, host_of(node))?;
        let worker = pod.worker(fleet.container.as_ref()).ok()?;
        Some((worker.shell.clone()?, worker.name.clone()))
    }

    /// The Pod of that name, if it is one of the pool's.
    fn pod_of(&self, fleet: &Fleet, name: &str) -> Option<(&ObjectKey, &PodView)> {
        let (key, pod) = self.known.get(&ObjectKey::new(fleet.deployment.namespace.clone(), name))?;
        self.owns(fleet, key, pod).then_some((key, pod))
    }

    fn owns(&self, fleet: &Fleet, key: &ObjectKey, pod: &PodView) -> bool {
        let deployment = self.deployments.get(&fleet.deployment);
        let is_of = |view: &DeploymentView| pod.is_of(&fleet.deployment.name, &view.selector);
        key.namespace == fleet.deployment.namespace && deployment.is_some_and(is_of)
    }
}

/// What the workers of a pool are like.
impl Pods {
    /// The Deployment of that name.
    pub fn deployment(&self, key: &ObjectKey) -> Option<&DeploymentView> {
        self.deployments.get(key)
    }

    /// Whether both the Deployments and the Pods of a namespace have been listed. Before that, one that is not known may
    /// be there, and what it would say is to stay as it was.
    pub fn has_listed(&self, namespace: &str) -> bool {
        self.deployments_listed.contains(namespace) && self.listed.contains(namespace)
    }

    /// Whether it is known which Pods there are of a pool: those of its namespace were listed, and its Deployment exists.
    pub fn knows(&self, fleet: &Fleet) -> bool {
        self.listed.contains(&fleet.deployment.namespace) && self.deployments.contains_key(&fleet.deployment)
    }

    /// The pool's Pods in which a worker runs.
    pub fn workers_of(&self, fleet: &Fleet) -> Vec<WorkerPod> {
        let pods = self.pods_in(fleet).filter(|(_, pod)| !pod.over);
        pods.filter_map(|(key, pod)| pod.as_worker(&key.name, fleet.container.as_ref())).collect()
    }

    /// The pool's Pods that something keeps from working.
    pub fn in_trouble(&self, fleet: &Fleet) -> Vec<(Arc<str>, Arc<Trouble>)> {
        self.pods_in(fleet).filter_map(|(key, pod)| Some((key.name.clone(), pod.trouble.clone()?))).collect()
    }

    /// A Pod of the pool that stays, and whose worker's container cannot be told from the others: its name, and why.
    /// Where there is no Pod, the template of the Deployment counts.
    pub fn unclear(&self, fleet: &Fleet) -> Option<(Option<Arc<str>>, Unclear)> {
        let mut pods = self.pods_in(fleet).filter(|(_, pod)| !pod.over && pod.leaving_since.is_none()).peekable();
        if pods.peek().is_none() {
            let template = &self.deployments.get(&fleet.deployment)?.template;
            return template.worker(fleet.container.as_ref()).err().map(|unclear| (None, unclear));
        }
        // The first by name, so that the condition stays as it is.
        pods.find_map(|(key, pod)| Some((Some(key.name.clone()), pod.worker(fleet.container.as_ref()).err()?)))
    }

    /// The pool's Pods whose deletion cost does not say what they do, and whether they are busy.
    pub fn mismarked(&self, fleet: &Fleet, busy: &HashSet<Arc<str>>) -> Vec<(Arc<str>, bool)> {
        let staying = self.workers_of(fleet).into_iter().filter(|pod| pod.leaving_since.is_none());
        let marked = staying.map(|pod| {
            let is_busy = busy.contains(&pod.name);
            (pod.name, is_busy, pod.is_marked_busy)
        });
        marked
            .filter(|(_, is_busy, is_marked)| is_busy != is_marked)
            .map(|(name, is_busy, _)| (name, is_busy))
            .collect()
    }

    /// The pool's Pods.
    fn pods_in<'a>(&'a self, fleet: &'a Fleet) -> impl Iterator<Item = (&'a ObjectKey, &'a PodView)> {
        self.known.of(&fleet.deployment).filter(|(key, pod)| self.owns(fleet, key, pod))
    }
}
