//! Pods of workers: which container runs in them, since when, and whether they are about to go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use tokio::time::{Instant, sleep_until};

use super::super::context::Context;
use super::super::watches::Scope;
use super::{BUSY_COST, DELETION_COST, Known, Workers, key_of, trouble};
use crate::core::evidence::LastRun;
use crate::core::job::ObjectKey;
use crate::core::start::Trouble;
use crate::core::status::Container;
use crate::runtime::clock;

/// A Pod, as far as it matters.
#[expect(clippy::struct_excessive_bools, reason = "Kubernetes tells each of them apart from the others")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    pub(super) uid: Arc<str>,
    pub(super) labels: BTreeMap<String, String>,
    /// The container that runs the worker or ran it last, when it has started.
    pub(super) container: Option<Container>,
    /// Its start, and its end.
    pub(super) last_run: Option<LastRun>,
    pub(super) ready: bool,
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
    vanished_at: Option<Instant>,
}

impl PodView {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let statuses = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let worker = statuses.iter().find(|status| status.name == "worker").or(statuses.first());
        let phase = status.and_then(|status| status.phase.as_deref());
        let run = worker.and_then(Run::of);
        Self {
            uid: pod.uid().unwrap_or_default().into(),
            labels: pod.labels().clone(),
            container: run.as_ref().and_then(|run| run.container(pod)),
            last_run: run.map(|run| run.times),
            ready: worker.is_some_and(|worker| worker.ready),
            unreachable: is_unreachable(pod),
            leaving_since: leaving_since(pod),
            due_at: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            over: matches!(phase, Some("Succeeded" | "Failed")),
            marked_busy: pod.annotations().get(DELETION_COST).is_some_and(|cost| cost == BUSY_COST),
            trouble: trouble::of(pod),
            vanished_at: None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.last_run.is_some_and(|run| run.finished_at.is_none())
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

/// How long a container may run on after its Pod is gone: the kubelet gives it two seconds to stop when the Pod was
/// deleted by force, and may hear of that later than we do.
const AFTERLIFE: Duration = Duration::from_secs(4);

impl Known {
    /// All Pods of a namespace were listed.
    fn list(&mut self, namespace: &Arc<str>, listed: HashMap<ObjectKey, PodView>, now: Instant) {
        let is_of = |key: &ObjectKey| key.namespace == *namespace;
        let gone: Vec<_> = self.pods.keys().filter(|key| is_of(key) && !listed.contains_key(key)).cloned().collect();
        for key in gone {
            self.vanish(&key, now);
        }
        self.pods.extend(listed);
        if !self.listed.contains(namespace) {
            self.listed.push(namespace.clone());
        }
    }

    /// A Pod's object is gone. Whoever was not seen to stop is given the time to.
    fn vanish(&mut self, key: &ObjectKey, now: Instant) {
        match self.pods.get_mut(key) {
            Some(pod) if pod.is_running() && !pod.over => {
                pod.ready = false;
                pod.leaving_since = pod.leaving_since.or(Some(clock::now()));
                pod.vanished_at = pod.vanished_at.or(Some(now));
            }
            Some(_) | None => {
                self.pods.remove(key);
            }
        }
    }

    /// The Pods of a namespace that are gone for good by now.
    fn buried(&self, namespace: &Arc<str>, now: Instant) -> Vec<ObjectKey> {
        let is_due = |pod: &PodView| pod.vanished_at.is_some_and(|at| at + AFTERLIFE <= now);
        let due = self.pods.iter().filter(|(key, pod)| key.namespace == *namespace && is_due(pod));
        due.map(|(key, _)| key.clone()).collect()
    }

    /// Forgets the Pods of a namespace that are gone for good; returns when the next one will be.
    fn bury(&mut self, namespace: &Arc<str>, now: Instant) -> Option<Instant> {
        let due = |pod: &PodView| pod.vanished_at.map(|at| at + AFTERLIFE);
        self.pods.retain(|key, pod| key.namespace != *namespace || due(pod).is_none_or(|due| due > now));
        self.pods.iter().filter(|(key, _)| key.namespace == *namespace).filter_map(|(_, pod)| due(pod)).min()
    }
}

impl Workers {
    /// Forgets the Pods of a namespace that are gone for good, and says which; notes when the next one will be.
    fn bury(&self, namespace: &Arc<str>, next: &mut Option<Instant>) -> Vec<ObjectKey> {
        let now = Instant::now();
        let mut buried = Vec::new();
        self.write(|known| {
            buried = known.buried(namespace, now);
            *next = known.bury(namespace, now);
        });
        buried
    }
}

/// Follows the Pods of a namespace, for ever.
pub async fn watch_pods(ctx: Arc<Context>, namespace: Arc<str>) {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let what = format!("pods in {namespace}");
    let mut events = ctx.watches.follow(&what, Scope::Namespace, api, watcher::Config::default());
    let mut listing: HashMap<ObjectKey, PodView> = HashMap::new();
    let mut next_burial = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = sleep_until(next_burial.unwrap_or_else(Instant::now)), if next_burial.is_some() => {
                let buried = ctx.workers.bury(&namespace, &mut next_burial);
                look_at_seen_with(&ctx, &namespace, &buried);
                continue;
            }
        };
        let Some(event) = event else { return };
        // The Pod that changed, where it is not all of them.
        let mut changed_pod = None;
        let mut changed = true;
        match event {
            Ok(Event::Init) => {
                listing.clear();
                changed = false;
            }
            Ok(Event::InitApply(pod)) => {
                listing.extend(key_of(&pod).map(|key| (key, PodView::of(&pod))));
                changed = false;
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listing);
                ctx.workers.write(|known| known.list(&namespace, listed, Instant::now()));
            }
            Ok(Event::Apply(pod)) => {
                let Some(key) = key_of(&pod) else { continue };
                let view = PodView::of(&pod);
                changed_pod = Some(key.clone());
                ctx.workers.write(|known| changed = known.pods.insert(key, view.clone()).as_ref() != Some(&view));
            }
            Ok(Event::Delete(pod)) => {
                let Some(key) = key_of(&pod) else { continue };
                // How it stopped is often told only now.
                let view = PodView::of(&pod);
                changed_pod = Some(key.clone());
                ctx.workers.write(|known| {
                    known.pods.insert(key.clone(), view);
                    known.vanish(&key, Instant::now());
                });
            }
            Err(error) => {
                tracing::warn!(%error, %namespace, "watching pods failed; trying again");
                changed = false;
            }
        }
        if changed {
            let mut touched = ctx.workers.bury(&namespace, &mut next_burial);
            if let Some(pod) = changed_pod {
                touched.push(pod);
                look_at_seen_with(&ctx, &namespace, &touched);
            } else {
                ctx.jobs.look_at_seen_in(&namespace);
                ctx.pools.refresh_workers(&namespace);
            }
        }
    }
}

/// Pods changed: their tasks may have lost their holder.
fn look_at_seen_with(ctx: &Context, namespace: &Arc<str>, pods: &[ObjectKey]) {
    for pod in pods {
        ctx.jobs.look_at_seen_with(pod);
    }
    ctx.pools.refresh_workers(namespace);
}

/// When a Pod was told to go: its deletion is due after its grace period.
fn leaving_since(pod: &Pod) -> Option<Timestamp> {
    let due = pod.metadata.deletion_timestamp.as_ref()?.0;
    let grace = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    due.checked_sub(Duration::from_secs(grace.unwrap_or(0))).ok()
}

/// The current run of a container, or the last one when it waits to be started again.
struct Run {
    id: Option<String>,
    times: LastRun,
}

impl Run {
    fn of(status: &ContainerStatus) -> Option<Self> {
        let state = status.state.as_ref();
        if let Some(running) = state.and_then(|state| state.running.as_ref()) {
            let started_at = running.started_at.as_ref()?.0;
            return Some(Self { id: status.container_id.clone(), times: LastRun { started_at, finished_at: None } });
        }
        let last = status.last_state.as_ref();
        let over =
            state.and_then(|state| state.terminated.as_ref()).or(last.and_then(|last| last.terminated.as_ref()))?;
        let finished_at = over.finished_at.as_ref().map(|time| time.0);
        // Of a container that was lost in a reboot of its Node the kubelet knows no times.
        let started_at = over.started_at.as_ref().map(|time| time.0).or(finished_at)?;
        let id = over.container_id.clone().or_else(|| status.container_id.clone());
        Some(Self { id, times: LastRun { started_at, finished_at: finished_at.or(Some(started_at)) } })
    }

    fn container(&self, pod: &Pod) -> Option<Container> {
        Some(Container {
            pod: pod.name_any().into(),
            pod_uid: pod.uid()?.into(),
            id: self.id.as_deref()?.into(),
            started_at: self.times.started_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_leaving_since_it_was_told_to_and_not_since_it_must_be_gone() {
        let metadata = json!({ "deletionTimestamp": "2026-11-22T16:01:00Z", "deletionGracePeriodSeconds": 3660 });
        let pod: Pod = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
        assert_eq!(leaving_since(&pod), Some("2026-11-22T15:00:00Z".parse().unwrap()));
        assert_eq!(leaving_since(&Pod::default()), None);
    }

    #[test]
    fn a_pod_is_unreachable_when_the_node_controller_and_not_its_kubelet_says_that_it_is_not_ready() {
        let pod = |ready: &str, containers: &str, gates: serde_json::Value| -> Pod {
            let conditions = json!([
                { "type": "Ready", "status": ready },
                { "type": "ContainersReady", "status": containers },
            ]);
            let spec = json!({ "containers": [], "readinessGates": gates });
            serde_json::from_value(json!({ "spec": spec, "status": { "conditions": conditions } })).unwrap()
        };
        assert!(is_unreachable(&pod("False", "True", json!([]))));
        assert!(!is_unreachable(&pod("True", "True", json!([]))));
        assert!(!is_unreachable(&pod("False", "False", json!([]))), "its probe fails");
        assert!(!is_unreachable(&pod("False", "True", json!([{ "conditionType": "load-balancer" }]))));
    }

    /// A Pod of a worker that runs, or has stopped.
    fn view(running: bool) -> PodView {
        let times = json!({ "startedAt": "2026-11-22T15:00:00Z", "finishedAt": "2026-11-22T16:00:00Z" });
        let state = if running { json!({ "running": times }) } else { json!({ "terminated": times }) };
        let status = json!({ "containerStatuses": [{
            "name": "worker", "image": "", "imageID": "", "ready": running, "restartCount": 0, "state": state,
        }] });
        PodView::of(&serde_json::from_value(json!({ "status": status })).unwrap())
    }

    #[test]
    fn who_is_deleted_by_force_may_run_on_for_a_moment() {
        let (team, key, now) = (Arc::from("team"), ObjectKey::new("team", "w"), Instant::now());
        let mut known = Known::default();
        known.pods.insert(key.clone(), view(true));
        known.vanish(&key, now);
        assert_eq!(known.bury(&team, now), Some(now + AFTERLIFE));
        assert!(known.pods.contains_key(&key) && !known.pods[&key].ready);
        assert_eq!(known.bury(&team, now + AFTERLIFE), None);
        assert!(known.pods.is_empty());
    }

    #[test]
    fn who_was_seen_to_stop_is_gone_at_once() {
        let (key, now) = (ObjectKey::new("team", "w"), Instant::now());
        let mut known = Known::default();
        known.pods.insert(key.clone(), view(false));
        known.vanish(&key, now);
        assert!(known.pods.is_empty());
    }

    #[test]
    fn who_vanished_while_nobody_watched_may_run_on_too() {
        let (team, now) = (Arc::from("team"), Instant::now());
        let mut known = Known::default();
        for (namespace, name) in [("team", "here"), ("team", "gone"), ("others", "w")] {
            known.pods.insert(ObjectKey::new(namespace, name), view(true));
        }
        known.list(&team, HashMap::from([(ObjectKey::new("team", "here"), view(true))]), now);
        assert_eq!((known.pods.len(), known.bury(&team, now)), (3, Some(now + AFTERLIFE)));
        assert_eq!((known.bury(&team, now + AFTERLIFE), known.pods.len()), (None, 2));
    }
}
