//! Pods as Kubernetes has them, turned into what matters of them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec};
use kube::ResourceExt;

use super::shell::shell_of;
use super::trouble;
use crate::core::evidence::LastRun;
use crate::core::index::pods::{ContainerView, DEFAULT_CONTAINER, PodView, Run};

/// The `ReplicaSet` controller removes Pods of the lowest cost first; a Pod without one costs 0.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Cost of a Pod that holds a task.
pub const BUSY_COST: &str = "1";

impl From<&Pod> for PodView {
    fn from(pod: &Pod) -> Self {
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
                run: status.and_then(run_of),
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
            deleted_at: None,
        }
    }
}

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
fn run_of(status: &ContainerStatus) -> Option<Run> {
    let state = status.state.as_ref();
    if let Some(running) = state.and_then(|state| state.running.as_ref()) {
        let started_at = running.started_at.as_ref()?.0;
        let id = status.container_id.as_deref().map(Arc::from);
        return Some(Run { id, times: LastRun { started_at, finished_at: None } });
    }
    let last = status.last_state.as_ref();
    let over = state.and_then(|state| state.terminated.as_ref()).or(last.and_then(|last| last.terminated.as_ref()))?;
    let finished_at = over.finished_at.as_ref().map(|time| time.0);
    // Of a container that was lost in a reboot of its Node the kubelet knows no times.
    let started_at = over.started_at.as_ref().map(|time| time.0).or(finished_at)?;
    let id = over.container_id.as_deref().or(status.container_id.as_deref()).map(Arc::from);
    Some(Run { id, times: LastRun { started_at, finished_at: finished_at.or(Some(started_at)) } })
}

#[cfg(test)]
mod tests;
