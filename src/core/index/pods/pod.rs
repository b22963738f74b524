//! A Pod of workers, as far as it matters: which container runs in it, since when, and whether it is about to go.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::super::evidence::LastRun;
use super::super::super::id::ObjectKey;
use super::super::super::start::Trouble;
use super::super::super::status::Container;
use super::container::{Unclear, worker_among};
use super::fleet::{Fleet, WorkerPod};
use super::selector::Selector;

/// The label by which the Pods of one `ReplicaSet` of a Deployment differ from those of the others.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// A Pod, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodView {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// The `ReplicaSet` that controls it.
    pub replica_set: Option<Arc<str>>,
    /// The container that its annotation names.
    pub default_container: Option<Arc<str>>,
    /// Those of `spec.containers`, in that order.
    pub containers: Vec<ContainerView>,
    /// Whether its Node does not answer.
    pub unreachable: bool,
    /// Since when it is told to go.
    pub leaving_since: Option<Timestamp>,
    /// When it must be gone, if it was told to go.
    pub due_at: Option<Timestamp>,
    /// Whether it has ended: its phase is `Succeeded` or `Failed`.
    pub over: bool,
    /// Whether its deletion cost says that it is busy.
    pub marked_busy: bool,
    /// What keeps it from working.
    pub trouble: Option<Arc<Trouble>>,
    /// When its object was found deleted while its container ran; no watch tells that.
    pub deleted_at: Option<Timestamp>,
}

/// A container of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// Its name.
    pub name: Arc<str>,
    /// The shell that is its main process.
    pub shell: Option<Arc<str>>,
    /// Whether it is ready.
    pub ready: bool,
    /// Its run, or the last one, when it has started.
    pub run: Option<Run>,
}

/// The current run of a container, or the last one when it waits to be started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The ID that the container runtime gave it.
    pub id: Option<Arc<str>>,
    /// When it started and ended.
    pub times: LastRun,
}

impl PodView {
    /// Whether it is a Pod of a Deployment: the selector matches, and one of the Deployment's `ReplicaSets` controls it.
    ///
    /// A `ReplicaSet` of a Deployment is named after it and after the hash that its Pods are labelled with; a name and a
    /// hash that fit each other belong to no other Deployment, however similar its name is.
    pub(super) fn is_of(&self, deployment: &str, selector: &Selector) -> bool {
        self.deployment() == Some(deployment) && selector.matches(&self.labels)
    }

    fn deployment(&self) -> Option<&str> {
        let hash = self.labels.get(POD_TEMPLATE_HASH).filter(|hash| !hash.is_empty())?;
        self.replica_set.as_deref()?.strip_suffix(hash.as_str())?.strip_suffix('-')
    }

    /// The Deployment that controls it, if its namespace is this one.
    pub(super) fn deployment_in(&self, namespace: &Arc<str>) -> Option<ObjectKey> {
        Some(ObjectKey::new(namespace.clone(), self.deployment()?))
    }

    /// Its object is deleted.
    pub(super) fn mark_deleted(&mut self, now: Timestamp) {
        self.leaving_since = self.leaving_since.or(Some(now));
        self.deleted_at = self.deleted_at.or(Some(now));
    }

    /// The container that runs the worker; `named` by the pool, or found otherwise.
    pub(super) fn worker(&self, named: Option<&Arc<str>>) -> Result<&ContainerView, Unclear> {
        worker_among(&self.containers, |container| &container.name, named, self.default_container.as_ref())
    }

    /// The worker's container as a holder of tasks, while it runs.
    pub(super) fn holder(&self, pod: &Arc<str>, named: Option<&Arc<str>>) -> Option<Container> {
        self.worker(named).ok()?.run.as_ref().filter(|run| run.times.finished_at.is_none())?;
        self.last_container(pod, named)
    }

    /// The same, although it may have ended.
    pub(super) fn last_container(&self, pod: &Arc<str>, named: Option<&Arc<str>>) -> Option<Container> {
        let run = self.worker(named).ok()?.run.as_ref()?;
        let id = run.id.clone()?;
        Some(Container { pod: pod.clone(), pod_uid: self.uid.clone(), id, started_at: run.times.started_at })
    }

    /// Whether the container that was seen as a holder then is surely over. Where it was not recorded then, `seen` is the
    /// one that runs now.
    pub(super) fn is_over(
        &self,
        seen: &Container,
        fleet: Option<&Fleet>,
        seen_at: Timestamp,
        is_recorded: bool,
    ) -> bool {
        let is_it = |run: &Run| is_recorded && run.id.as_ref() == Some(&seen.id);
        self.run_of(seen, fleet).is_some_and(|run| run.times.is_over_since(seen_at, is_it(run)))
    }

    /// The run of the container that was seen as a holder, or of the one that runs in its place; `None` where nothing is
    /// known of it, and then nothing follows.
    fn run_of(&self, seen: &Container, fleet: Option<&Fleet>) -> Option<&Run> {
        let is_it =
            |container: &&ContainerView| container.run.as_ref().is_some_and(|run| run.id.as_ref() == Some(&seen.id));
        let by_id = self.containers.iter().find(is_it);
        let Some(fleet) = fleet else { return by_id?.run.as_ref() };
        let worker = self.worker(fleet.container.as_ref()).ok()?;
        // Another container was taken for the worker when it was recorded.
        let is_another = by_id.is_some_and(|by_id| by_id.name != worker.name);
        worker.run.as_ref().filter(|_| !is_another)
    }

    /// The Pod as a place where a worker runs, while one does. Where the worker's container cannot be told from the
    /// others, it may have run since the first of them did.
    pub(super) fn as_worker(&self, name: &Arc<str>, named: Option<&Arc<str>>) -> Option<WorkerPod> {
        let running = |container: &ContainerView| container.run.as_ref().and_then(Run::running_since);
        let (started_at, is_ready) = if let Ok(worker) = self.worker(named) {
            (running(worker)?, worker.ready)
        } else {
            let first = self.containers.iter().filter_map(running).min()?;
            (first, self.containers.iter().all(|container| container.ready))
        };
        Some(WorkerPod {
            name: name.clone(),
            started_at,
            leaving_since: self.leaving_since,
            is_ready: is_ready && self.deleted_at.is_none(),
            is_unreachable: self.unreachable,
            is_marked_busy: self.marked_busy,
        })
    }

    /// Whether any of its containers runs, as far as is known.
    pub(super) fn is_running(&self) -> bool {
        self.containers.iter().any(|container| container.run.as_ref().and_then(Run::running_since).is_some())
    }
}

impl Run {
    fn running_since(&self) -> Option<Timestamp> {
        Some(self.times.started_at).filter(|_| self.times.finished_at.is_none())
    }
}
