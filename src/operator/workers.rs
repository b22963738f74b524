//! Pods and Deployments of workers: who holds a task, who is dead, what may be scaled.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};

use super::context::Context;
use super::lease::age;
use crate::core::evidence::{LastRun, Sighting};
use crate::core::job::ObjectKey;
use crate::core::observed::Liveness;
use crate::core::status::{Container, Holder};
use crate::runtime::clock;
use crate::runtime::metrics::{WriteOutcome, Written};

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
}

/// A Pod, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    uid: Arc<str>,
    labels: BTreeMap<String, String>,
    /// The container that runs the worker or ran it last, when it has started.
    container: Option<Container>,
    /// Its start, and its end.
    last_run: Option<LastRun>,
    ready: bool,
    leaving_since: Option<Timestamp>,
    over: bool,
    /// Whether its deletion cost says that it is busy.
    marked_busy: bool,
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
    is_marked_busy: bool,
}

#[cfg(test)]
impl WorkerPod {
    /// One that has not answered.
    pub fn silent(name: &str, started_at: Timestamp, leaving_since: Option<Timestamp>) -> Self {
        Self { name: name.into(), started_at, leaving_since, is_ready: false, is_marked_busy: false }
    }
}

/// A Deployment, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentView {
    /// `spec.replicas`.
    pub replicas: u32,
    /// `terminationGracePeriodSeconds` of its Pods.
    pub grace_period: Duration,
    /// Whether a rollout is under way.
    pub rolling_out: bool,
    /// Whether its replicas are the API server's default, which belongs to whoever created it by a client-side apply.
    pub is_default: bool,
    /// Labels that its Pods have.
    selector: BTreeMap<String, String>,
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
            self.liveness(namespace, &holder, seen.word.said_at)
        };
        (holder, liveness)
    }

    /// Whether a worker was named like a Pod of one of the Deployments, and there is no such Pod.
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
        let is_dead = known.pods.get(&ObjectKey::new(namespace.clone(), container.pod.clone())).is_none_or(|pod| {
            pod.uid != container.pod_uid || pod.over || pod.last_run.is_some_and(|run| run.is_over_since(seen_at))
        });
        if is_dead { Liveness::Dead } else { Liveness::Alive }
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
                is_marked_busy: pod.marked_busy,
            })
        });
        running.collect()
    }

    /// The Deployment's Pods whose deletion cost does not say what they do, and whether they are busy.
    fn mismarked(&self, deployment: &ObjectKey, busy: &HashSet<Arc<str>>) -> Vec<(Arc<str>, bool)> {
        let marked = self.pods_of(deployment).into_iter().map(|pod| {
            let is_busy = busy.contains(&pod.name);
            (pod.name, is_busy, pod.is_marked_busy)
        });
        marked
            .filter(|(_, is_busy, is_marked)| is_busy != is_marked)
            .map(|(name, is_busy, _)| (name, is_busy))
            .collect()
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

/// Follows the Pods of a namespace, for ever.
pub async fn watch_pods(ctx: Arc<Context>, namespace: Arc<str>) {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut events = watch(api, watcher::Config::default()).default_backoff().boxed();
    let mut listing: HashMap<ObjectKey, PodView> = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(pod)) => {
                listing.extend(key_of(&pod).map(|key| (key, PodView::of(&pod))));
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listing);
                ctx.workers.write(|known| {
                    known.pods.retain(|key, _| key.namespace != namespace);
                    known.pods.extend(listed);
                    if !known.listed.contains(&namespace) {
                        known.listed.push(namespace.clone());
                    }
                });
                look_at_held(&ctx, &namespace);
            }
            Ok(Event::Apply(pod)) => {
                let Some(key) = key_of(&pod) else { continue };
                let view = PodView::of(&pod);
                let mut changed = false;
                ctx.workers.write(|known| changed = known.pods.insert(key, view.clone()).as_ref() != Some(&view));
                if changed {
                    look_at_held(&ctx, &namespace);
                }
            }
            Ok(Event::Delete(pod)) => {
                ctx.workers.write(|known| {
                    if let Some(key) = key_of(&pod) {
                        known.pods.remove(&key);
                    }
                });
                look_at_held(&ctx, &namespace);
            }
            Err(error) => tracing::warn!(%error, %namespace, "watching pods failed; trying again"),
        }
    }
}

/// Follows the Deployments of a namespace, for ever.
pub async fn watch_deployments(ctx: Arc<Context>, namespace: Arc<str>) {
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut events = watch(api, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => ctx.workers.write(|known| known.deployments.retain(|key, _| key.namespace != namespace)),
            Ok(Event::InitApply(deployment) | Event::Apply(deployment)) => {
                let Some(key) = key_of(&deployment) else { continue };
                ctx.workers.write(|known| {
                    known.deployments.insert(key, DeploymentView::of(&deployment));
                });
                ctx.pools.refresh_namespace(&namespace);
            }
            Ok(Event::Delete(deployment)) => {
                ctx.workers.write(|known| {
                    if let Some(key) = key_of(&deployment) {
                        known.deployments.remove(&key);
                    }
                });
                ctx.pools.refresh_namespace(&namespace);
            }
            Ok(Event::InitDone) => ctx.pools.refresh_namespace(&namespace),
            Err(error) => tracing::warn!(%error, %namespace, "watching deployments failed; trying again"),
        }
    }
}

/// A Pod changed: its tasks may have lost their holder.
fn look_at_held(ctx: &Context, namespace: &Arc<str>) {
    ctx.jobs.look_at(|entry| entry.job.key.namespace == *namespace && entry.evidence.holder().is_some());
    ctx.pools.refresh_namespace(namespace);
}

fn key_of<K: Resource>(object: &K) -> Option<ObjectKey> {
    Some(ObjectKey::new(object.namespace()?, object.name_any()))
}

/// The Pod of a node `crew@pod-name`.
pub fn host_of(node: &str) -> &str {
    node.rsplit_once('@').map_or(node, |(_, host)| host)
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
            leaving_since: leaving_since(pod),
            over: matches!(phase, Some("Succeeded" | "Failed")),
            marked_busy: pod.annotations().get(DELETION_COST).is_some_and(|cost| cost == BUSY_COST),
        }
    }

    fn is_running(&self) -> bool {
        self.last_run.is_some_and(|run| run.finished_at.is_none())
    }
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

impl DeploymentView {
    fn of(deployment: &Deployment) -> Self {
        let number = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok());
        let spec = deployment.spec.as_ref();
        let status = deployment.status.as_ref();
        let replicas = number(spec.and_then(|spec| spec.replicas)).unwrap_or(1);
        let grace = spec
            .and_then(|spec| spec.template.spec.as_ref())
            .and_then(|pod| pod.termination_grace_period_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok());
        let updated = number(status.and_then(|status| status.updated_replicas)).unwrap_or(0);
        let existing = number(status.and_then(|status| status.replicas)).unwrap_or(0);
        Self {
            replicas,
            grace_period: Duration::from_secs(grace.unwrap_or(30)),
            rolling_out: existing > updated,
            is_default: has_default_replicas(deployment),
            selector: spec.and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default(),
        }
    }
}

/// Annotation in which a client-side `kubectl apply` notes what was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether one replica is all there is, and nobody is known to have asked for it.
///
/// A client that creates an object by POST (a client-side `kubectl apply`, `kubectl create`, Helm 3) owns the defaults of
/// the API server too, so ownership alone does not tell whether a person chose the number.
fn has_default_replicas(deployment: &Deployment) -> bool {
    let mut owners = deployment.metadata.managed_fields.iter().flatten().filter(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        fields.is_some_and(|fields| fields.pointer("/f:spec/f:replicas").is_some())
    });
    let is_of_creation = |entry: &ManagedFieldsEntry| {
        entry.operation.as_deref() == Some("Update") && entry.subresource.as_deref().unwrap_or("").is_empty()
    };
    let asked_for = deployment.annotations().get(LAST_APPLIED).is_some_and(|applied| {
        let applied: Option<serde_json::Value> = serde_json::from_str(applied).ok();
        applied.is_some_and(|applied| applied.pointer("/spec/replicas").is_some())
    });
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    replicas == Some(1) && !asked_for && owners.all(is_of_creation)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(replicas: i32, owners: &[(&str, &str, &str)], applied: Option<Value>) -> Deployment {
        let entry = |(manager, operation, subresource): &(&str, &str, &str)| {
            let fields = json!({ "f:spec": { "f:replicas": {} } });
            json!({ "manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": fields })
        };
        let annotations = applied.map(|applied| json!({ LAST_APPLIED: applied.to_string() }));
        let fields: Vec<Value> = owners.iter().map(entry).collect();
        let spec = json!({ "replicas": replicas, "selector": {}, "template": {} });
        let metadata = json!({ "managedFields": fields, "annotations": annotations });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[test]
    fn the_default_of_a_client_side_apply_is_nobodys_choice() {
        let kubectl = [("kubectl-client-side-apply", "Update", "")];
        let without = Some(json!({ "spec": {} }));
        assert!(has_default_replicas(&deployment(1, &kubectl, without.clone())));
        assert!(has_default_replicas(&deployment(1, &[("helm", "Update", "")], None)));
        assert!(!has_default_replicas(&deployment(3, &kubectl, without)), "somebody has scaled it");
    }

    #[test]
    fn a_number_that_was_asked_for_is_left_alone() {
        let kubectl = [("kubectl-client-side-apply", "Update", "")];
        let with = Some(json!({ "spec": { "replicas": 1 } }));
        assert!(!has_default_replicas(&deployment(1, &kubectl, with)));
        assert!(!has_default_replicas(&deployment(1, &[("argocd", "Apply", "")], None)));
        assert!(!has_default_replicas(&deployment(1, &[("kube-controller-manager", "Update", "scale")], None)));
    }

    fn seen(node: &str, seconds_ago: i64) -> Sighting {
        let said_at = clock::now() - jiff::SignedDuration::from_secs(seconds_ago);
        let holder = Some(Holder { node: node.into(), container: None });
        let word = crate::core::evidence::Word { holder, said_at, started_at: None, celery_retries: 0, progress: None };
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
            let view = DeploymentView::of(&deployment(1, &[], None));
            known.deployments.insert(ObjectKey::new("team", "worker"), view);
        });
        assert_eq!(liveness("crew@worker-7d4b9-x2x7q", 60), Liveness::Dead);
        assert_eq!(liveness("crew@worker-7d4b9-x2x7q", 5), Liveness::Alive, "the watch may be behind");
        for elsewhere in ["crew@laptop", "celery@worker", "crew@worker-1", "crew@other-7d4b9-x2x7q"] {
            assert_eq!(liveness(elsewhere, 60), Liveness::Alive, "{elsewhere}");
        }
    }

    #[test]
    fn a_pod_is_leaving_since_it_was_told_to_and_not_since_it_must_be_gone() {
        let metadata = json!({ "deletionTimestamp": "2026-11-22T16:01:00Z", "deletionGracePeriodSeconds": 3660 });
        let pod: Pod = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
        assert_eq!(leaving_since(&pod), Some("2026-11-22T15:00:00Z".parse().unwrap()));
        assert_eq!(leaving_since(&Pod::default()), None);
    }
}
