//! From the manifests of Pods and Deployments to what follows of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;

use super::*;
use crate::core::evidence::{Report, Sighting};
use crate::core::index::pods::{DeploymentView, Fleet, PodView, Stay, Unclear};
use crate::core::observed::Liveness;
use crate::core::status::{Container, Holder};

/// The Deployment of the workers: Pods with the label `app: crew`, as a chart's, and its `ReplicaSet` `crew-7d4b9c5f6d`.
const CREW: &str = "
metadata: { name: crew, namespace: team }
spec:
  selector: { matchLabels: { app: crew } }
  template: { spec: { containers: [{ name: crew }, { name: cloud-sql-proxy }] } }
";

/// The same with expressions only.
const EXPRESSIONS: &str = "
metadata: { name: crew, namespace: team }
spec:
  selector: { matchExpressions: [{ key: app, operator: In, values: [crew] }, { key: canary, operator: DoesNotExist }] }
  template: { spec: { containers: [{ name: crew }] } }
";

/// A Pod of it, with a sidecar that is a container like the worker's, and a native one. The kubelet sorts the statuses.
const POD: &str = "
metadata:
  name: crew-7d4b9c5f6d-x2x7q
  namespace: team
  uid: pod-1
  labels: { app: crew, pod-template-hash: 7d4b9c5f6d }
  annotations: { kubectl.kubernetes.io/default-container: crew }
  ownerReferences: [{ apiVersion: apps/v1, kind: ReplicaSet, name: crew-7d4b9c5f6d, uid: rs-1, controller: true }]
spec:
  initContainers: [{ name: istio-proxy, restartPolicy: Always }]
  containers: [{ name: crew, command: [sh, -c], args: [celery -A app worker] }, { name: cloud-sql-proxy }]
status:
  phase: Running
  containerStatuses:
    - { name: cloud-sql-proxy, image: p, imageID: p, ready: true, restartCount: 0, containerID: c://proxy-1, state: { running: { startedAt: 2026-11-26T10:00:00Z } } }
    - { name: crew, image: c, imageID: c, ready: true, restartCount: 0, containerID: c://crew-1, state: { running: { startedAt: 2026-11-26T10:00:02Z } } }
  initContainerStatuses:
    - { name: istio-proxy, image: i, imageID: i, ready: true, restartCount: 0, containerID: c://istio-1, state: { running: { startedAt: 2026-11-26T09:59:58Z } } }
";

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap()
}

fn fleet(container: Option<&str>) -> Fleet {
    Fleet { deployment: ObjectKey::new("team", "crew"), container: container.map(Arc::from) }
}

/// A namespace with this Deployment and these Pods.
fn pods(deployment: &str, pods: &[&str]) -> Pods {
    let deployment: Deployment = yaml(deployment);
    let listed = pods.iter().map(|pod| yaml(pod)).map(|pod: Pod| (key_of(&pod).unwrap(), PodView::from(&pod)));
    let mut pods = Pods::default();
    pods.apply_deployment(key_of(&deployment).unwrap(), DeploymentView::from(&deployment));
    pods.list(&"team".into(), HashMap::new(), Timestamp::UNIX_EPOCH);
    for (key, pod) in listed {
        pods.apply(key, pod);
    }
    pods
}

fn holder(pods: &Pods, fleet: &Fleet, node: &str) -> Option<Container> {
    pods.holder(Some(fleet), &node.into()).container
}

fn seen(holder: Holder, at: &str) -> Sighting {
    let said_at = at.parse().unwrap();
    Sighting {
        generation: 0,
        report: Report {
            holder: Some(holder),
            said_at,
            behind: 0,
            started_at: None,
            celery_retries: 0,
            progress: None,
            account: None,
        },
    }
}

const NODE: &str = "crew@crew-7d4b9c5f6d-x2x7q";
const LATER: &str = "2026-11-26T10:05:00Z";

/// What becomes of a worker that was seen in the container of `POD`, once these Pods are there instead.
fn liveness_after(container: Option<&str>, before: &str, after: &[&str]) -> Liveness {
    let fleet = fleet(container);
    let holder = pods(CREW, &[before]).holder(Some(&fleet), &NODE.into());
    pods(CREW, after).judge(Some(&fleet), &"team".into(), &seen(holder, LATER)).1
}

fn replaced(from: &str, to: &str) -> String {
    assert!(POD.contains(from), "{from}");
    POD.replace(from, to)
}

/// `POD` after one of its containers has ended and was started again.
fn restarted(container: &str, started_at: &str) -> String {
    let id = container.rsplit('-').next().unwrap();
    let before = format!("containerID: c://{id}-1, state: {{ running: {{ startedAt: {started_at} }} }}");
    let last =
        "lastState: { terminated: { exitCode: 1, startedAt: 2026-11-26T10:00:00Z, finishedAt: 2026-11-26T10:06:00Z } }";
    let after = format!("containerID: c://{id}-2, state: {{ running: {{ startedAt: 2026-11-26T10:06:02Z }} }}, {last}");
    replaced(&before, &after)
}

#[test]
fn a_name_leads_to_a_pod_that_the_selector_matches_and_a_replica_set_of_the_deployment_controls() {
    for deployment in [CREW, EXPRESSIONS] {
        let known = pods(deployment, &[POD]);
        assert_eq!(holder(&known, &fleet(None), NODE).map(|it| it.id), Some("c://crew-1".into()));
        assert_eq!(known.workers_of(&fleet(None)).len(), 1);
    }
}

#[test]
fn a_name_never_leads_to_a_pod_of_another_deployment_of_redis_or_of_the_operator() {
    let other_labels = replaced("app: crew,", "app: redis,");
    let other_owner = replaced("name: crew-7d4b9c5f6d, uid", "name: crew-canary-7d4b9c5f6d, uid");
    let other_hash = replaced("pod-template-hash: 7d4b9c5f6d", "pod-template-hash: 5f6d");
    let no_hash = replaced(", pod-template-hash: 7d4b9c5f6d", "");
    let stateful = replaced("kind: ReplicaSet", "kind: StatefulSet");
    let foreign_kind = replaced("apiVersion: apps/v1, kind", "apiVersion: argoproj.io/v1, kind");
    let not_controlled = replaced("controller: true", "controller: false");
    let other_namespace = replaced("namespace: team", "namespace: others");
    for pod in [other_labels, other_owner, other_hash, no_hash, stateful, foreign_kind, not_controlled, other_namespace]
    {
        let known = pods(CREW, &[&pod]);
        assert_eq!(holder(&known, &fleet(None), NODE), None, "{pod}");
        assert!(
            known.workers_of(&fleet(None)).is_empty() && !known.is_pod_of(&fleet(None), "crew-7d4b9c5f6d-x2x7q"),
            "{pod}"
        );
    }
    let canary = replaced("app: crew,", "app: crew, canary: x,");
    assert_eq!(holder(&pods(EXPRESSIONS, &[&canary]), &fleet(None), NODE), None);
    let known = pods(CREW, &[POD]);
    assert_eq!(known.holder(None, &NODE.into()).container, None, "the pool names no Deployment");
}

#[test]
fn a_selector_that_cannot_be_read_counts_no_pod() {
    let unreadable = EXPRESSIONS.replace("operator: In", "operator: Near");
    assert!(pods(&unreadable, &[POD]).workers_of(&fleet(None)).is_empty());
}

#[test]
fn a_sidecar_that_restarts_ends_no_worker_and_the_workers_container_that_ends_does() {
    assert_eq!(liveness_after(None, POD, &[POD]), Liveness::Alive);
    assert_eq!(liveness_after(None, POD, &[&restarted("cloud-sql-proxy", "2026-11-26T10:00:00Z")]), Liveness::Alive);
    assert_eq!(liveness_after(None, POD, &[&restarted("crew", "2026-11-26T10:00:02Z")]), Liveness::Dead);
    let native = replaced("startedAt: 2026-11-26T09:59:58Z", "startedAt: 2026-11-26T10:06:00Z");
    assert_eq!(liveness_after(None, POD, &[&native]), Liveness::Alive, "a native sidecar");
}

#[test]
fn a_worker_whose_node_has_a_clock_ahead_that_is_not_known_yet_is_not_taken_for_dead_while_its_container_runs() {
    let ahead = replaced("startedAt: 2026-11-26T10:00:02Z", "startedAt: 2026-11-26T10:08:02Z");
    assert_eq!(liveness_after(None, &ahead, &[&ahead]), Liveness::Alive);
    let other = ahead.replace("c://crew-1", "c://crew-2");
    assert_eq!(liveness_after(None, &ahead, &[&other]), Liveness::Dead, "another container runs in its place");
}

#[test]
fn a_worker_that_spoke_before_its_container_was_known_is_dead_when_that_container_has_started_since() {
    let judged = |started_at: &str| {
        let pod = replaced("startedAt: 2026-11-26T10:00:02Z", started_at);
        let unknown = Holder { node: NODE.into(), container: None };
        pods(CREW, &[&pod]).judge(Some(&fleet(None)), &"team".into(), &seen(unknown, LATER)).1
    };
    assert_eq!(judged("startedAt: 2026-11-26T10:00:02Z"), Liveness::Alive);
    assert_eq!(judged("startedAt: 2026-11-26T10:05:01Z"), Liveness::Dead);
}

#[test]
fn the_container_that_the_pool_names_is_the_workers() {
    let proxy = restarted("cloud-sql-proxy", "2026-11-26T10:00:00Z");
    assert_eq!(liveness_after(Some("cloud-sql-proxy"), POD, &[&proxy]), Liveness::Dead);
    assert_eq!(liveness_after(Some("crew"), POD, &[&proxy]), Liveness::Alive);
}

#[test]
fn no_container_that_is_unclear_is_a_holder_and_its_end_is_not_declared() {
    let unclear = replaced("  annotations: { kubectl.kubernetes.io/default-container: crew }\n", "");
    let known = pods(CREW, &[&unclear]);
    assert_eq!(holder(&known, &fleet(None), NODE), None);
    assert!(holder(&known, &fleet(Some("crew")), NODE).is_some());
    let (pod, why) = known.unclear(&fleet(None)).unwrap();
    assert_eq!(
        (pod.as_deref(), why),
        (Some("crew-7d4b9c5f6d-x2x7q"), Unclear::Several(vec!["crew".into(), "cloud-sql-proxy".into()]))
    );
    assert_eq!(known.workers_of(&fleet(None)).len(), 1, "it may have a message, so it is asked");
    let ended = restarted("crew", "2026-11-26T10:00:02Z")
        .replace("  annotations: { kubectl.kubernetes.io/default-container: crew }\n", "");
    assert_eq!(liveness_after(None, &unclear, &[&ended]), Liveness::Alive);
    assert_eq!(liveness_after(None, POD, &[&ended]), Liveness::Alive, "it was clear when it was recorded");
}

#[test]
fn without_a_pod_the_template_of_the_deployment_tells_whether_the_container_is_clear() {
    assert_eq!(pods(EXPRESSIONS, &[]).unclear(&fleet(None)), None);
    let (pod, _) = pods(CREW, &[]).unclear(&fleet(None)).unwrap();
    assert_eq!(pod, None);
    assert_eq!(pods(CREW, &[]).unclear(&fleet(Some("crew"))), None);
    assert!(pods(CREW, &[]).unclear(&fleet(Some("worker"))).is_some());
}

#[test]
fn a_pod_that_was_seen_and_is_gone_is_dead_and_so_is_one_that_has_another_in_its_place() {
    assert_eq!(liveness_after(None, POD, &[]), Liveness::Dead);
    assert_eq!(liveness_after(None, POD, &[&replaced("uid: pod-1", "uid: pod-2")]), Liveness::Dead);
    assert_eq!(liveness_after(None, POD, &[&replaced("phase: Running", "phase: Failed")]), Liveness::Dead);
}

#[test]
fn a_worker_whose_host_was_never_seen_as_a_pod_is_never_dead_whatever_it_is_called() {
    let known = pods(CREW, &[]);
    for host in ["crew-prod-01", "crew-7d4b9c5f6d-x2x7q", "laptop", "worker"] {
        let holder = Holder { node: format!("celery@{host}").into(), container: None };
        let (_, liveness) = known.judge(Some(&fleet(None)), &"team".into(), &seen(holder, "2026-01-01T00:00:00Z"));
        assert_eq!(liveness, Liveness::Alive, "{host}");
    }
}

#[test]
fn a_container_that_a_status_records_is_dead_when_its_pod_is_gone_before_this_operator_has_started() {
    let recorded = pods(CREW, &[POD]).holder(Some(&fleet(None)), &NODE.into());
    let now = pods(CREW, &[]);
    assert_eq!(now.judge(Some(&fleet(None)), &"team".into(), &seen(recorded.clone(), LATER)).1, Liveness::Dead);
    assert_eq!(
        now.judge(None, &"team".into(), &seen(recorded.clone(), LATER)).1,
        Liveness::Dead,
        "its pool names no Deployment any more"
    );
    assert_eq!(now.judge(None, &"others".into(), &seen(recorded, LATER)).1, Liveness::Alive, "its Pods are not listed");
}

#[test]
fn a_sidecar_that_a_status_records_as_the_worker_proves_nothing() {
    let recorded = Holder {
        node: NODE.into(),
        container: Some(Container {
            pod: "crew-7d4b9c5f6d-x2x7q".into(),
            pod_uid: "pod-1".into(),
            id: "c://proxy-1".into(),
            started_at: "2026-11-26T10:00:00Z".parse().unwrap(),
        }),
    };
    let (_, liveness) =
        pods(CREW, &[POD]).judge(Some(&fleet(None)), &"team".into(), &seen(recorded, "2026-11-26T10:00:00Z"));
    assert_eq!(liveness, Liveness::Alive, "the worker's container has started two seconds later");
}

#[test]
fn only_a_pod_of_the_pool_may_be_deleted() {
    let known = pods(CREW, &[POD]);
    let container = holder(&known, &fleet(None), NODE).unwrap();
    assert_eq!(known.stay(&fleet(None), &container), Stay::Stays);
    let other = Fleet { deployment: ObjectKey::new("team", "redis"), container: None };
    assert_eq!(known.stay(&other, &container), Stay::Foreign);
    let replaced = Container { pod_uid: "pod-0".into(), ..container };
    assert_eq!(known.stay(&fleet(None), &replaced), Stay::Foreign);
}

#[test]
fn the_shell_of_a_worker_is_known_by_the_manifest_of_its_pod() {
    let known = pods(CREW, &[POD]);
    assert_eq!(known.shell_of(Some(&fleet(None)), NODE), Some(("sh".into(), "crew".into())));
    assert_eq!(known.shell_of(Some(&fleet(Some("cloud-sql-proxy"))), NODE), None);
    assert_eq!(known.shell_of(Some(&fleet(None)), "crew@elsewhere"), None);
}

#[test]
fn only_the_pools_pods_are_marked_as_busy() {
    let redis = replaced("app: crew,", "app: redis,").replace("x2x7q", "redis");
    let known = pods(CREW, &[POD, &redis]);
    let busy = HashSet::from(["crew-7d4b9c5f6d-x2x7q".into(), "crew-7d4b9c5f6d-redis".into()]);
    assert_eq!(known.mismarked(&fleet(None), &busy), [("crew-7d4b9c5f6d-x2x7q".into(), true)]);
}
