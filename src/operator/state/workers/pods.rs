//! Pods of workers: which container runs in them, since when, and whether they are about to go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec};
use kube::ResourceExt;
use tokio::time::Instant;

use super::containers::{DEFAULT_CONTAINER, Unclear, shell_of, worker_among};
use super::fleet::{BUSY_COST, DELETION_COST, Fleet, WorkerPod};
use super::selector::Selector;
use super::trouble;
use crate::core::evidence::LastRun;
use crate::core::id::ObjectKey;
use crate::core::start::Trouble;
use crate::core::status::Container;

/// A Pod, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    pub(super) uid: Arc<str>,
    labels: BTreeMap<String, String>,
    /// The `ReplicaSet` that controls it.
    replica_set: Option<Arc<str>>,
    /// What its annotation names.
    default_container: Option<Arc<str>>,
    /// Those of `spec.containers`, in that order.
    containers: Vec<ContainerView>,
    /// Whether its Node does not answer.
    pub(super) unreachable: bool,
    pub(super) leaving_since: Option<Timestamp>,
    /// When it must be gone, if it was told to go.
    pub(super) due_at: Option<Timestamp>,
    pub(super) over: bool,
    /// Whether its deletion cost says that it is busy.
    pub(super) marked_busy: bool,
    /// What keeps it from working.
    pub(super) trouble: Option<Arc<Trouble>>,
    /// When its object was found gone while its container ran.
    pub(super) vanished_at: Option<Instant>,
}

/// A container of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    pub(super) name: Arc<str>,
    /// The shell that is its main process.
    pub(super) shell: Option<Arc<str>>,
    ready: bool,
    /// Its run, or the last one, when it has started.
    run: Option<Run>,
}

impl PodView {
    /// What matters of a Pod.
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let statuses = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let phase = status.and_then(|status| status.phase.as_deref());
        let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        let replica_set =
            controller.filter(|owner| owner.kind == "ReplicaSet" && owner.api_version.starts_with("apps/"));
        let container = |spec: &PodSpec, container: &k8s_openapi::api::core::v1::Container| {
            let status = statuses.iter().find(|status| status.name == container.name);
            ContainerView {
                name: container.name.as_str().into(),
                shell: shell_of(spec, container),
                ready: status.is_some_and(|status| status.ready),
                run: status.and_then(Run::of),
            }
        };
        let spec = pod.spec.as_ref();
        Self {
            uid: pod.uid().unwrap_or_default().into(),
            labels: pod.labels().clone(),
            replica_set: replica_set.map(|owner| owner.name.as_str().into()),
            default_container: pod.annotations().get(DEFAULT_CONTAINER).map(|name| name.as_str().into()),
            containers: spec
                .map(|spec| spec.containers.iter().map(|it| container(spec, it)).collect())
                .unwrap_or_default(),
            unreachable: is_unreachable(pod),
            leaving_since: leaving_since(pod),
            due_at: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            over: matches!(phase, Some("Succeeded" | "Failed")),
            marked_busy: pod.annotations().get(DELETION_COST).is_some_and(|cost| cost == BUSY_COST),
            trouble: trouble::of(pod),
            vanished_at: None,
        }
    }

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

    /// Its object is gone.
    pub(super) fn vanish(&mut self, at: Timestamp, now: Instant) {
        self.leaving_since = self.leaving_since.or(Some(at));
        self.vanished_at = self.vanished_at.or(Some(now));
    }

    pub(super) fn has_vanished(&self) -> bool {
        self.vanished_at.is_some()
    }

    /// The container that runs the worker; `named` by the pool, or found otherwise.
    pub(super) fn worker(&self, named: Option<&Arc<str>>) -> Result<&ContainerView, Unclear> {
        worker_among(&self.containers, |container| &container.name, named, self.default_container.as_ref())
    }

    /// The worker's container as a holder of tasks, while it runs.
    pub(super) fn holder(&self, pod: &Arc<str>, named: Option<&Arc<str>>) -> Option<Container> {
        let run = self.worker(named).ok()?.run.as_ref().filter(|run| run.times.finished_at.is_none())?;
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
            is_ready: is_ready && self.vanished_at.is_none(),
            is_unreachable: self.unreachable,
            is_marked_busy: self.marked_busy,
        })
    }

    /// Whether any of its containers runs, as far as is known.
    pub(super) fn is_running(&self) -> bool {
        self.containers.iter().any(|container| container.run.as_ref().and_then(Run::running_since).is_some())
    }
}

/// The label by which the Pods of one `ReplicaSet` of a Deployment differ from those of the others.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Whether the Node of a Pod does not answer. The node controller then takes `Ready` from its Pods; the kubelet alone
/// says `ContainersReady`, and what it said last stays. Readiness gates may take `Ready` away too.
fn is_unreachable(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is = |type_: &str, status: &str| conditions.iter().any(|found| found.type_ == type_ && found.status == status);
    let has_gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref()).is_some_and(|it| !it.is_empty());
    is("Ready", "False") && is("ContainersReady", "True") && !has_gates
}

/// When a Pod was told to go: its deletion is due after its grace period.
fn leaving_since(pod: &Pod) -> Option<Timestamp> {
    let due = pod.metadata.deletion_timestamp.as_ref()?.0;
    let grace = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    due.checked_sub(Duration::from_secs(grace.unwrap_or(0))).ok()
}

/// The current run of a container, or the last one when it waits to be started again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    id: Option<Arc<str>>,
    times: LastRun,
}

impl Run {
    fn of(status: &ContainerStatus) -> Option<Self> {
        let state = status.state.as_ref();
        if let Some(running) = state.and_then(|state| state.running.as_ref()) {
            let started_at = running.started_at.as_ref()?.0;
            let id = status.container_id.as_deref().map(Arc::from);
            return Some(Self { id, times: LastRun { started_at, finished_at: None } });
        }
        let last = status.last_state.as_ref();
        let over =
            state.and_then(|state| state.terminated.as_ref()).or(last.and_then(|last| last.terminated.as_ref()))?;
        let finished_at = over.finished_at.as_ref().map(|time| time.0);
        // Of a container that was lost in a reboot of its Node the kubelet knows no times.
        let started_at = over.started_at.as_ref().map(|time| time.0).or(finished_at)?;
        let id = over.container_id.as_deref().or(status.container_id.as_deref()).map(Arc::from);
        Some(Self { id, times: LastRun { started_at, finished_at: finished_at.or(Some(started_at)) } })
    }

    fn running_since(&self) -> Option<Timestamp> {
        Some(self.times.started_at).filter(|_| self.times.finished_at.is_none())
    }
}

#[cfg(test)]
mod tests;
