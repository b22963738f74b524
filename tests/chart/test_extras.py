"""What an administrator adds: labels and annotations of everything, containers and volumes, and where workers run."""

import json

import pytest
from chart import BUNDLED, NATIVE, SCENARIOS, find, hook, names, of_kind, pods, refusal, render

COMMON = ("commonLabels.team=platform", "commonAnnotations.note=ours")
SIDECAR = {"name": "proxy", "image": "proxy:1"}
INIT = {"name": "fetch", "image": "fetch:1"}
VOLUME = {"name": "models", "emptyDir": {}}
MOUNT = {"name": "models", "mountPath": "/models"}


def added(component: str) -> tuple[str, ...]:
    given = {"sidecars": SIDECAR, "initContainers": INIT, "extraVolumes": VOLUME, "extraVolumeMounts": MOUNT}
    return tuple(f"{component}.{name}={json.dumps([item])}" for name, item in given.items())


def pod(component: str, *sets: str, **where) -> dict:
    return pods(render(*(sets or (BUNDLED,)), **where))[f"Deployment/crewjob-{component}"]


# Labels and annotations


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_common_labels_and_annotations_are_on_every_object_and_every_pod(scenario):
    objects = render(*COMMON, "networkPolicy.enabled=true", "worker.podDisruptionBudget.enabled=true", scenario=scenario)
    for item in objects:
        assert item["metadata"]["labels"]["team"] == "platform", item["metadata"]["name"]
        assert item["metadata"]["annotations"]["note"] == "ours", item["metadata"]["name"]
    for name, template in pods(objects).items():
        assert template["metadata"]["labels"]["team"] == "platform", name
        assert template["metadata"]["annotations"]["note"] == "ours", name


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_common_labels_are_in_no_selector(scenario):
    """Selectors of Deployments cannot be changed, and would part Services from Pods."""
    for item in render(*COMMON, scenario=scenario):
        assert "team" not in str(item.get("spec", {}).get("selector", "")), item["metadata"]["name"]


def test_labels_and_annotations_of_one_component_win_over_the_common_ones():
    sets = (BUNDLED, *COMMON, "operator.podLabels.team=core", "operator.podAnnotations.note=core")
    metadata = pod("operator", *sets)["metadata"]
    assert (metadata["labels"]["team"], metadata["annotations"]["note"]) == ("core", "core")
    assert pod("worker", *sets)["metadata"]["labels"]["team"] == "platform"


@pytest.mark.parametrize("name", ["app.kubernetes.io/name", "crewjob.dev/redis", "helm.sh/hook"])
def test_names_that_the_chart_uses_itself_are_refused(name):
    assert "commonLabels" in refusal(BUNDLED, f'commonLabels={{"{name}":"x"}}')


def test_pod_labels_cannot_take_a_pod_away_from_its_deployment():
    labels = pod("worker", BUNDLED, 'worker.podLabels={"app.kubernetes.io/component":"mine"}')["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "worker"


def test_an_autoscaler_may_be_let_at_workers():
    sets = 'worker.podAnnotations={"cluster-autoscaler.kubernetes.io/safe-to-evict":"true"}'
    annotations = pod("worker", BUNDLED, sets)["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true"
    assert annotations["kubectl.kubernetes.io/default-container"] == "worker"


# The Pods of hooks


@pytest.mark.parametrize("name", ["Job/crewjob-crds", "Pod/crewjob-doctor"])
def test_pods_of_hooks_are_like_the_operators(name):
    objects = render(*COMMON, "crds.upgrade=true", scenario="existing-redis")
    template, theirs = pods(objects)[name], pods(objects)["Deployment/crewjob-operator"]
    for field in (
        "priorityClassName",
        "nodeSelector",
        "tolerations",
        "affinity",
        "imagePullSecrets",
        "securityContext",
        "enableServiceLinks",
    ):
        assert template["spec"][field] == theirs["spec"][field], field
    own = {"kubectl.kubernetes.io/default-container"}
    assert template["metadata"]["annotations"].keys() >= theirs["metadata"]["annotations"].keys() - own
    assert template["metadata"]["labels"].keys() >= theirs["metadata"]["labels"].keys()
    assert template["metadata"]["labels"]["cost-center"] == "42"
    container, theirs = template["spec"]["containers"][0], theirs["spec"]["containers"][0]
    for field in ("image", "imagePullPolicy", "securityContext", "resources"):
        assert container[field] == theirs[field], field


def test_the_job_of_a_hook_is_labelled_like_the_operator():
    objects = render(*COMMON, "crds.upgrade=true", scenario="existing-redis")
    job, operator = find(objects, "Job", "crewjob-crds"), find(objects, "Deployment", "crewjob-operator")
    assert hook(job)
    assert operator["metadata"]["annotations"].items() <= job["metadata"]["annotations"].items()
    assert job["metadata"]["labels"].keys() == operator["metadata"]["labels"].keys()


# User and group ids


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_cluster_that_assigns_user_ids_is_left_to_do_so(scenario):
    """As OpenShift's SCC restricted-v2, which refuses Pods that ask for an id outside the namespace's range."""
    for name, template in pods(render("podSecurity.setIds=false", *NATIVE[1:], scenario=scenario)).items():
        assert template["spec"]["securityContext"] == {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }, name
        for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


def test_ids_are_set_by_default():
    for name, template in pods(render(BUNDLED)).items():
        assert {"runAsUser", "runAsGroup", "fsGroup"} <= template["spec"]["securityContext"].keys(), name


# Containers and volumes


@pytest.mark.parametrize("component", ["operator", "worker"])
def test_containers_and_volumes_can_be_added(component):
    spec = pod(component, BUNDLED, *added(component))["spec"]
    assert [container["name"] for container in spec["containers"]] == [component, "proxy"]
    assert spec["initContainers"] == [INIT]
    assert VOLUME in spec["volumes"]
    assert MOUNT in spec["containers"][0]["volumeMounts"]


def test_a_native_worker_is_there_before_containers_that_are_added():
    spec = pod("worker", *NATIVE, *added("worker"))["spec"]
    assert [container["name"] for container in spec["initContainers"]] == ["install", "fetch"]


def test_the_workers_container_is_named_whatever_is_beside_it():
    annotations = pod("worker", BUNDLED, *added("worker"))["metadata"]["annotations"]
    assert annotations["kubectl.kubernetes.io/default-container"] == "worker"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ('worker.sidecars=[{"name":"worker","image":"a"}]', "sidecars"),
        ('worker.sidecars=[{"name":"a"}]', "image"),
        ('worker.initContainers=[{"name":"install","image":"a"}]', "initContainers"),
        ('worker.extraVolumes=[{"name":"tmp","emptyDir":{}}]', "extraVolumes"),
        ('worker.extraVolumeMounts=[{"name":"a","mountPath":"/tmp"}]', "extraVolumeMounts"),
        ('worker.extraVolumeMounts=[{"name":"a","mountPath":"models"}]', "extraVolumeMounts"),
        ("operator.sidecars=proxy", "sidecars"),
    ],
)
def test_containers_and_volumes_that_clash_with_the_charts_own_or_are_incomplete_are_refused(value, named):
    assert named in refusal(BUNDLED, value)


# Where workers run, and how many of them stop at a time


def test_workers_spread_as_asked_and_by_their_own_labels():
    constraint = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
    other = {**constraint, "labelSelector": {"matchLabels": {"app": "crew"}}}
    sets = f"worker.topologySpreadConstraints={json.dumps([constraint, other])}"
    deployment = find(render(BUNDLED, sets), "Deployment", "crewjob-worker")["spec"]
    first, second = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert first == {**constraint, "labelSelector": deployment["selector"]}
    assert second == other
    assert "topologySpreadConstraints" not in pod("worker")["spec"]


def test_a_drain_stops_as_many_workers_at_a_time_as_asked():
    assert "PodDisruptionBudget/crewjob-worker" not in names(render(BUNDLED))
    for given in (1, "25%"):
        sets = ("worker.podDisruptionBudget.enabled=true", f"worker.podDisruptionBudget.maxUnavailable={given}")
        objects = render(BUNDLED, *sets)
        budget = find(objects, "PodDisruptionBudget", "crewjob-worker")["spec"]
        assert budget["maxUnavailable"] == given
        assert budget["selector"] == find(objects, "Deployment", "crewjob-worker")["spec"]["selector"]
    assert "maxUnavailable" in refusal(BUNDLED, "worker.podDisruptionBudget.maxUnavailable=101%")
