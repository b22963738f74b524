//! Which Pod holds a task, which worker is dead, what may be scaled.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::containers::Unclear;
use super::deployments::DeploymentView;
use super::fleet::{Fleet, Stay, WorkerPod, host_of};
use super::pods::PodView;
use super::table::Pods;
use crate::core::evidence::Sighting;
use crate::core::id::ObjectKey;
use crate::core::observed::Liveness;
use crate::core::start::Trouble;
use crate::core::status::{Container, Holder};

/// How long a container may run on after its Pod is gone: the kubelet gives it two seconds to stop when the Pod was
/// deleted by force, and may hear of that later than we do.
const AFTERLIFE: Duration = Duration::from_secs(4);

/// Pods and Deployments in the pools' namespaces.
#[derive(Default)]
pub struct Workers(RwLock<Known>);

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

impl Workers {
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// All Pods of a namespace were listed.
    pub fn list_pods(&self, namespace: &Arc<str>, listed: HashMap<ObjectKey, PodView>) {
        self.write(|known| known.list(namespace, listed, Instant::now()));
    }

    /// A Pod is like this now. Whether that is news.
    pub fn apply_pod(&self, key: ObjectKey, pod: &PodView) -> bool {
        let mut is_news = true;
        self.write(|known| is_news = known.pods.insert(key, pod.clone()).as_ref() != Some(pod));
        is_news
    }

    /// The object of a Pod is gone, and was like this at last.
    pub fn delete_pod(&self, key: &ObjectKey, last: PodView) {
        self.write(|known| {
            known.pods.insert(key.clone(), last);
            known.vanish(key, Instant::now());
        });
    }

    /// Forgets the Pods of a namespace that are gone for good, and says which; notes when the next one will be.
    pub fn bury(&self, namespace: &Arc<str>, next: &mut Option<Instant>) -> Vec<ObjectKey> {
        let now = Instant::now();
        let mut buried = Vec::new();
        self.write(|known| {
            (buried, *next) = known.bury(namespace, now);
        });
        buried
    }

    /// All Deployments of a namespace were listed.
    pub fn list_deployments(&self, namespace: &Arc<str>, listed: HashMap<ObjectKey, DeploymentView>) {
        self.write(|known| known.list_deployments(namespace, listed));
    }

    /// A Deployment is like this now.
    pub fn apply_deployment(&self, key: ObjectKey, deployment: DeploymentView) {
        self.write(|known| {
            known.deployments.insert(key, deployment);
        });
    }

    /// The object of a Deployment is gone.
    pub fn delete_deployment(&self, key: &ObjectKey) {
        self.write(|known| {
            known.deployments.remove(key);
        });
    }

    /// The worker behind a Celery node name: `crew@pod-name` is the Pod of that name, if it is one of the pool's. A
    /// name comes from Redis, so it never leads to any other Pod.
    pub fn holder(&self, fleet: Option<&Fleet>, node: &Arc<str>) -> Holder {
        let container = fleet.and_then(|fleet| {
            let known = self.read();
            let (key, pod) = known.pod_of(fleet, host_of(node))?;
            pod.holder(&key.name, fleet.container.as_ref())
        });
        Holder { node: node.clone(), container }
    }

    /// The holder that was seen, and what Kubernetes says of it now. A worker is dead only where its Pod is known: one
    /// that was never seen as a Pod of the pool, and is not recorded as one, may run on another host, whatever it is
    /// called.
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
    pub fn mismarked(&self, fleet: &Fleet, busy: &HashSet<Arc<str>>) -> Vec<(Arc<str>, bool)> {
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

impl Known {
    /// All Pods of a namespace were listed.
    fn list(&mut self, namespace: &Arc<str>, listed: HashMap<ObjectKey, PodView>, now: Instant) {
        let gone: Vec<_> = self.pods.in_namespace(namespace).filter(|key| !listed.contains_key(key)).cloned().collect();
        for key in gone {
            self.vanish(&key, now);
        }
        for (key, pod) in listed {
            self.pods.insert(key, pod);
        }
        if !self.listed.contains(namespace) {
            self.listed.push(namespace.clone());
        }
    }

    /// A Pod's object is gone. One that was not seen to stop is given the time to.
    fn vanish(&mut self, key: &ObjectKey, now: Instant) {
        if let Some(mut pod) = self.pods.remove(key)
            && pod.is_running()
            && !pod.over
        {
            pod.vanish(crate::runtime::clock::now(), now);
            self.pods.insert(key.clone(), pod);
        }
    }

    /// Forgets the Pods of a namespace that are gone for good; returns them, and when the next one will be.
    fn bury(&mut self, namespace: &Arc<str>, now: Instant) -> (Vec<ObjectKey>, Option<Instant>) {
        let vanished = self.pods.vanished().filter(|(key, _)| key.namespace == *namespace);
        let due = vanished.filter_map(|(key, pod)| Some((key.clone(), pod.vanished_at? + AFTERLIFE)));
        let (buried, waiting): (Vec<_>, Vec<_>) = due.partition(|(_, due)| *due <= now);
        let buried: Vec<_> = buried.into_iter().map(|(key, _)| key).collect();
        for key in &buried {
            self.pods.remove(key);
        }
        (buried, waiting.into_iter().map(|(_, due)| due).min())
    }

    /// All Deployments of a namespace were listed.
    fn list_deployments(&mut self, namespace: &Arc<str>, listed: HashMap<ObjectKey, DeploymentView>) {
        self.deployments.retain(|key, _| key.namespace != *namespace || listed.contains_key(key));
        self.deployments.extend(listed);
        self.deployments_listed.insert(namespace.clone());
    }

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

#[cfg(test)]
mod tests;
