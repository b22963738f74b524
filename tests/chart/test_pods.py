"""What every Pod of the chart has in common, and what the workers need to finish their jobs."""

import re

import pytest
from chart import BUNDLED, NATIVE, PROJECT, SCENARIOS, containers, find, pods, refusal, render, template, values

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(pod: dict) -> list[str]:
    """What the Pod Security Standard "restricted" has against a Pod."""
    spec = pod["spec"]
    shared = spec.get("securityContext", {})
    found = [f"spec.{name}" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [
        f"volume {volume['name']}" for volume in spec.get("volumes", []) if not (set(volume) - {"name"}) <= VOLUMES
    ]
    for container in containers(pod):
        own = container.get("securityContext", {})
        effective = shared | own
        capabilities = own.get("capabilities", {})
        checks = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "privileged": not own.get("privileged"),
            "capabilities.drop": capabilities.get("drop") == ["ALL"],
            "capabilities.add": not set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"},
            "runAsNonRoot": effective.get("runAsNonRoot") is True,
            "runAsUser": effective.get("runAsUser") != 0,
            "seccompProfile": effective.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {name}" for name, good in checks.items() if not good]
    return found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_pod_meets_the_restricted_pod_security_standard(scenario):
    for name, pod in pods(render(scenario=scenario)).items():
        assert violations(pod) == [], name


def test_the_check_of_the_pod_security_standard_finds_each_violation():
    bad = {
        "spec": {
            "hostNetwork": True,
            "containers": [{"name": "a"}],
            "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
        }
    }
    expected = ["allowPrivilegeEscalation", "capabilities.drop", "runAsNonRoot", "seccompProfile"]
    assert violations(bad) == ["spec.hostNetwork", "volume v", *(f"a: {name}" for name in expected)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_container_can_write_to_its_image_and_every_one_has_a_memory_limit(scenario):
    for name, pod in pods(render(scenario=scenario)).items():
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert "memory" in container["resources"]["limits"], name
            assert {"cpu", "memory"} >= set(container["resources"]["requests"]) >= {"memory"}, name


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_only_pods_that_speak_to_the_api_server_get_a_token(scenario):
    for name, pod in pods(render(scenario=scenario)).items():
        with_token = pod["spec"].get("automountServiceAccountToken", True)
        # The gateway of this scenario has an account of its own: tests/chart/test_gateway.py has the one that has not.
        speaking = ("Deployment/crewjob-operator", "Deployment/crewjob-gateway", "Job/crewjob-crds", "Pod/crewjob-doctor")
        assert with_token == (name in speaking), name


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_services_leave_no_variables_that_could_be_taken_for_options(scenario):
    for name, pod in pods(render(scenario=scenario)).items():
        assert pod["spec"]["enableServiceLinks"] is False, name


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_labels_of_pods_do_not_change_with_the_version(scenario):
    for name, pod in pods(render(scenario=scenario)).items():
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(pod["metadata"]["labels"]), name


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_selectors_find_their_pods_and_no_others(scenario):
    objects = render(scenario=scenario)
    seen = []
    for item in objects:
        if item["kind"] in ("Deployment", "StatefulSet"):
            selector = item["spec"]["selector"]["matchLabels"]
            assert selector.items() <= item["spec"]["template"]["metadata"]["labels"].items()
            seen.append(tuple(sorted(selector.items())))
        if item["kind"] == "Service":
            matching = [
                name
                for name, pod in pods(objects).items()
                if item["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
            ]
            assert len(matching) == 1, f"{item['metadata']['name']} leads to {matching}"
    assert len(seen) == len(set(seen))


# The operator


def operator(*sets, **where) -> tuple[dict, dict, dict]:
    deployment = find(render(*sets, **where), "Deployment", "crewjob-operator")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    return deployment, container, {item["name"]: item for item in container["env"]}


def test_the_operator_is_told_its_pod_namespace_and_settings():
    _, container, env = operator(BUNDLED)
    assert container["args"] == ["operator"]
    assert env["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert env["POD_NAMESPACE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
    said = {name: item["value"] for name, item in env.items() if "value" in item}
    assert said == {
        "CREWJOB_ADMIN_ADDRESS": "[::]:8080",
        "CREWJOB_LEASE_NAME": "crewjob-operator",
        "CREWJOB_LEASE_NAMESPACE": "crewjob",
        "CREWJOB_LOG": "info",
        "CREWJOB_LOG_FORMAT": "json",
        "CREWJOB_POOL_NAMESPACES": "crewjob",
    }


def test_the_kubelet_asks_the_operator_how_it_is():
    deployment, container, _ = operator(BUNDLED)
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 15
    assert container["resources"]["limits"] == {"memory": "128Mi"}


def test_one_operator_has_no_disruption_budget_and_two_have_one():
    assert not [item for item in render(BUNDLED) if item["kind"] == "PodDisruptionBudget"]
    objects = render(BUNDLED, "operator.replicas=2")
    deployment = find(objects, "Deployment", "crewjob-operator")
    budget = find(objects, "PodDisruptionBudget", "crewjob-operator")
    assert deployment["spec"]["replicas"] == 2
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"][0]
    assert spread["topologyKey"] == "kubernetes.io/hostname"


def test_the_settings_of_an_administrator_reach_the_operator():
    deployment, container, env = operator(scenario="existing-redis")
    template = deployment["spec"]["template"]
    spec = template["spec"]
    assert deployment["metadata"]["annotations"] == {"team": "platform"}
    assert template["metadata"]["annotations"]["example.com/scrape"] == "true"
    assert template["metadata"]["labels"]["cost-center"] == "42"
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
    assert "nodeAffinity" in spec["affinity"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert env["RUST_BACKTRACE"]["value"] == "1"
    assert env["CREWJOB_LOG"]["value"] == "info,crewjob::store=debug"
    assert env["CREWJOB_LOG_FORMAT"]["value"] == "text"
    assert env["CREWJOB_POOL_NAMESPACES"]["value"] == "crewjob,research"


# The worker


def worker(*sets, **where) -> tuple[dict, dict]:
    deployment = find(render(*sets, **where), "Deployment", "crewjob-worker")
    return deployment, deployment["spec"]["template"]


def test_the_worker_is_celery_itself_under_the_name_of_its_pod():
    _, pod = worker(BUNDLED)
    container = pod["spec"]["containers"][0]
    assert container["command"] == ["celery"]
    line = "-A backend.celery_app worker -n crew@$(POD_NAME) --loglevel INFO --concurrency 1 --queues crew_jobs,default"
    assert container["args"] == line.split()
    env = {item["name"]: item for item in container["env"]}
    # Kubernetes leaves $(POD_NAME) as it is unless the variable is defined in the same container.
    assert env["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "worker"


def test_the_worker_and_its_pool_agree():
    objects = render(scenario="existing-redis")
    pool = find(objects, "CrewWorkerPool", "crews")["spec"]
    container = find(objects, "Deployment", "crewjob-worker")["spec"]["template"]["spec"]["containers"][0]
    env = {item["name"]: item for item in container["env"]}
    flags = container["args"]
    assert pool["deploymentRef"]["name"] == "crewjob-worker"
    assert flags[flags.index("--concurrency") + 1] == str(pool["concurrency"]) == "2"
    assert flags[flags.index("--queues") + 1].split(",") == [queue["name"] for queue in pool["queues"]]
    assert env["REDIS_URL"]["valueFrom"]["secretKeyRef"] == {"name": pool["redis"]["secretName"], "key": "REDIS_URL"}
    assert env["RESULT_BACKEND_URL"]["valueFrom"]["secretKeyRef"]["name"] == pool["redis"]["secretName"]
    for name in ("MASTER", "USERNAME", "PASSWORD", "TLS"):
        key = f"REDIS_SENTINEL_{name}"
        assert env[key]["valueFrom"]["secretKeyRef"] == {"name": pool["redis"]["secretName"], "key": key, "optional": True}
    assert (pool["celery"]["visibilityTimeout"], env["VISIBILITY_TIMEOUT"]["value"]) == ("2h", "7200")
    assert (pool["celery"]["resultExpires"], env["RESULT_EXPIRES"]["value"]) == ("24h", "86400")


@pytest.mark.parametrize("workers", [(), NATIVE], ids=["celery", "native"])
def test_workers_are_told_the_names_that_their_pool_uses(workers):
    names = {"globalKeyPrefix": "app:", "resultKeyPrefix": "", "unackedKey": "held", "separator": "\x06\x16", "prioritySteps": [0, 5]}
    sets = [f"defaultPool.celery.{name}={value}" for name, value in names.items()]
    objects = render(BUNDLED, *workers, *sets)
    assert find(objects, "CrewWorkerPool", "default")["spec"]["celery"] == names
    container = find(objects, "Deployment", "crewjob-worker")["spec"]["template"]["spec"]["containers"][0]
    env = {item["name"]: item.get("value") for item in container["env"]}
    assert env.items() >= {
        ("GLOBAL_KEYPREFIX", "app:"),
        ("RESULT_KEYPREFIX", ""),
        ("UNACKED_KEY", "held"),
        ("PRIORITY_SEPARATOR", "\x06\x16"),
        ("PRIORITY_STEPS", "0,5"),
    }


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_operator_owns_the_number_of_workers(scenario):
    for item in render(scenario=scenario):
        if item["kind"] == "Deployment" and item["metadata"]["name"] == "crewjob-worker":
            assert "replicas" not in item["spec"]


@pytest.mark.parametrize(
    ("hard", "seconds"),
    [
        ("60m", 3660),
        ("1h", 3660),
        ("1h30m", 5460),
        ("90s", 150),
        ("2h45m30s", 9990),
        ("500ms", 61),
        ("1m500ms", 121),
        ("168h", 604860),
    ],
)
def test_a_worker_that_must_stop_has_time_for_the_longest_job_and_a_minute(hard, seconds):
    _, pod = worker(BUNDLED, f"defaultPool.jobDefaults.timeouts.hard={hard}")
    assert pod["spec"]["terminationGracePeriodSeconds"] == seconds


def test_a_worker_that_is_told_to_stop_while_it_starts_hears_it_because_it_is_not_pid_1():
    _, pod = worker(BUNDLED)
    assert pod["spec"]["shareProcessNamespace"] is True


def test_the_grace_period_may_be_longer_but_not_shorter():
    _, pod = worker(BUNDLED, "worker.terminationGracePeriodSeconds=7260")
    assert pod["spec"]["terminationGracePeriodSeconds"] == 7260
    message = refusal(BUNDLED, "worker.terminationGracePeriodSeconds=600")
    assert "worker.terminationGracePeriodSeconds is 600" in message
    assert "needs at least 3660" in message


def test_autoscalers_are_asked_to_leave_workers_alone():
    _, pod = worker(scenario="existing-redis")
    assert pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert pod["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"


def test_a_rollout_starts_new_workers_before_it_stops_old_ones():
    deployment, _ = worker(BUNDLED)
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}


def test_keys_of_language_models_come_from_an_existing_secret():
    _, pod = worker(scenario="existing-redis")
    assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "llm-keys"}}]


def test_a_worker_can_write_to_its_temporary_directory():
    _, pod = worker(BUNDLED)
    container = pod["spec"]["containers"][0]
    assert {"name": "HOME", "value": "/tmp"} in container["env"]
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


# Images


@pytest.mark.parametrize(
    ("workload", "values", "image"),
    [
        ("Deployment/crewjob-operator", [], "crewjob/crewjob:0.1.0"),
        ("Deployment/crewjob-worker", [], "crewjob/celery-worker:0.1.0"),
        ("StatefulSet/crewjob-redis", [], "redis:7.2.12-bookworm"),
        ("Job/crewjob-crds", ["operator.image.tag=main"], "crewjob/crewjob:main"),
        (
            "Deployment/crewjob-operator",
            ["operator.image.repository=registry:5000/a/b", "operator.image.tag=v1"],
            "registry:5000/a/b:v1",
        ),
        (
            "Deployment/crewjob-worker",
            ["worker.image.digest=sha256:" + "a" * 64],
            "crewjob/celery-worker@sha256:" + "a" * 64,
        ),
    ],
)
def test_images_are_named_as_asked(workload, values, image):
    assert pods(render(BUNDLED, *values))[workload]["spec"]["containers"][0]["image"] == image


def test_no_tag_moves_and_the_clusters_of_the_tests_have_the_same_redis():
    tag = values()["redis"]["bundled"]["image"]["tag"]
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+-[a-z]+", tag)
    for path in ("tests/cluster/lib/images.sh", "tests/cluster/check", "tests/e2e/test_7_native.py"):
        assert tag in (PROJECT / path).read_text(), path
    for component in ("operator", "worker"):
        assert values()[component]["image"]["tag"] == "", "the chart's appVersion"


def test_secrets_are_not_on_any_command_line():
    password = "correct-horse-battery-staple"
    objects = render(scenario="persistent-redis")
    for item in objects:
        if item["kind"] != "Secret":
            assert password not in str(item), f"{item['kind']}/{item['metadata']['name']}"
    assert password not in template(scenario="persistent-redis").stdout
