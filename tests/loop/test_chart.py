"""The chart on a real API server, without nodes: what Helm asks of it, what it admits and grants, and whether a real Redis
takes the configuration that the chart makes."""

import base64
import json
import re
import shlex
import subprocess

import pytest
import redis

from servers import HERE, ControlPlane, free_port
from waiting import until

PROJECT = HERE.parents[1]
CHART = PROJECT / "charts/crewjob-operator"
EARLIER = PROJECT / "tests/chart/earlier"
BUNDLED = ("--set", "redis.bundled.enabled=true")
OPERATOR = "system:serviceaccount:crewjob:crewjob-operator"
LEFT = "secrets,serviceaccounts,rolebindings"
# Helm does not wait for Jobs here: nothing runs them. CRDs are there.
BARE = ("--no-hooks", "--skip-crds")


class Release:
    """A release of the chart in the namespace "crewjob", as the README has it."""

    def __init__(self, control_plane: ControlPlane):
        self.control_plane = control_plane

    def helm(self, *arguments: str) -> str:
        return self.control_plane.run("helm", "--namespace", "crewjob", *arguments)

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        return self.control_plane.kubectl("--namespace", "crewjob", *arguments, given=given)

    def secret(self, name: str) -> dict[str, str]:
        data = json.loads(self.kubectl("get", "secret", name, "-o", "json"))["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}


@pytest.fixture
def release(control_plane):
    for namespace in ("crewjob", "research"):
        control_plane.kubectl("create", "namespace", namespace)
    release = Release(control_plane)
    try:
        yield release
    finally:
        release.helm("uninstall", "crewjob", "--ignore-not-found", "--no-hooks")
        # Nothing empties a namespace here but these requests.
        for namespace in ("crewjob", "research"):
            control_plane.kubectl("--namespace", namespace, "delete", LEFT, "--all")
            control_plane.kubectl("delete", "namespace", namespace, "--wait=false")
            finalize = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}, "spec": {}})
            control_plane.kubectl("replace", "--raw", f"/api/v1/namespaces/{namespace}/finalize", "-f", "-", given=finalize)


@pytest.fixture
def serving(tmp_path):
    """Starts a redis-server with the configuration that a Secret has; gives its port."""
    processes = []

    def start(conf: str) -> int:
        port = free_port()
        # The folder is there in the container.
        (tmp_path / "redis.conf").write_text(conf.replace("dir /data", f"dir {tmp_path}"))
        command = ["redis-server", str(tmp_path / "redis.conf"), "--port", str(port)]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))

        def listens():
            try:
                redis.Redis(port=port).ping()
            except redis.AuthenticationError:
                return True
            except redis.ConnectionError:
                return False

        until("redis-server listens", listens, 10)
        return port

    yield start
    for process in processes:
        process.terminate()
        process.wait()


def at(url: str, port: int) -> redis.Redis:
    """A client as this URL says, of the server on this port."""
    return redis.Redis.from_url(re.sub(r"@[^/]+/", f"@127.0.0.1:{port}/", url))


@pytest.mark.parametrize("earlier", ["before-native", "before-worker-user"])
def test_helm_upgrades_an_earlier_chart_with_its_values_and_all_its_clients_get_into_redis(release, serving, earlier):
    kept = ("--set", "operator.podLabels.kept=as-it-was")
    release.helm("install", "crewjob", str(EARLIER / f"{earlier}.tgz"), *BARE, *BUNDLED, *kept)
    before = release.secret("crewjob-redis")

    release.helm("upgrade", "crewjob", str(CHART), "--no-hooks", "--reuse-values", "--set", "poolNamespaces={crewjob,research}")
    after, workers = release.secret("crewjob-redis"), release.secret("crewjob-redis-worker")
    assert after["password"] == before["password"]
    deployment = json.loads(release.kubectl("get", "deployment", "crewjob-operator", "-o", "json"))
    assert deployment["spec"]["template"]["metadata"]["labels"]["kept"] == "as-it-was"

    port = serving(after["redis.conf"])
    # Workers of the earlier chart end their jobs with the URL that they have.
    assert at(before["REDIS_URL"], port).ping()
    assert at(before["REDIS_URL"], port).acl_whoami() == "default"
    assert at(after["REDIS_URL"], port).ping()
    worker = at(workers["REDIS_URL"], port)
    assert worker.set("crew_jobs", "mine")
    with pytest.raises(redis.exceptions.NoPermissionError):
        worker.set("crewjob:{4f5b}:epoch:crewjob/crewjob-operator", "mine")

    release.helm("upgrade", "crewjob", str(CHART), "--no-hooks", "--reset-then-reuse-values")
    assert (release.secret("crewjob-redis"), release.secret("crewjob-redis-worker")) == (after, workers)


def test_the_documented_binding_grants_the_rights_that_a_label_alone_does_not(release):
    release.helm("install", "crewjob", str(CHART), *BARE, *BUNDLED, "--set", "poolNamespaceSelector=crewjob.dev/pools=true")

    def may(verb: str, resource: str, *where: str) -> bool:
        asked = ["auth", "can-i", verb, resource, f"--as={OPERATOR}", *where]
        done = subprocess.run([*release.control_plane.command, "kubectl", *asked], capture_output=True, text=True)
        return done.stdout.strip() == "yes"

    there = ("--namespace", "research")
    release.kubectl("label", "namespace", "research", "crewjob.dev/pools=true")
    assert may("watch", "namespaces")
    assert not may("get", "secrets", *there)
    commands = [line for line in (CHART / "README.md").read_text().splitlines() if "create rolebinding" in line]
    assert len(commands) == 1
    release.control_plane.kubectl(*shlex.split(commands[0])[1:])
    for verb, resource in (("get", "secrets"), ("watch", "pods"), ("patch", "deployments.apps"), ("create", "configmaps")):
        part = ["--subresource=scale"] if verb == "patch" else []
        assert may(verb, resource, *part, *there), f"{verb} {resource}"
    assert not may("get", "secrets", "--namespace", "default")


def test_secrets_that_are_not_named_cannot_be_read(release):
    release.helm("install", "crewjob", str(CHART), *BARE, *BUNDLED, "--set", "rbac.secretNames={theirs}")
    for name, readable in (("theirs", True), ("crewjob-redis", True), ("other", False), ("crewjob-redis-worker", False)):
        done = subprocess.run(
            [*release.control_plane.command, "kubectl", "auth", "can-i", "get", f"secret/{name}", f"--as={OPERATOR}", "-n", "crewjob"],
            capture_output=True,
            text=True,
        )
        assert (done.stdout.strip() == "yes") == readable, name


@pytest.mark.parametrize("ids", ["true", "false"])
def test_every_pod_is_admitted_where_the_restricted_standard_is_enforced(release, ids):
    release.kubectl("label", "namespace", "crewjob", "pod-security.kubernetes.io/enforce=restricted")
    release.kubectl("create", "serviceaccount", "default")
    for account in ("crewjob-operator", "crewjob-crds", "crewjob-doctor"):
        release.kubectl("create", "serviceaccount", account)
    for values in ("bundled-redis", "native"):
        options = [*BUNDLED, "--set", f"podSecurity.setIds={ids}", "--set", "networkPolicy.enabled=true"]
        options += ["--set", "worker.podDisruptionBudget.enabled=true"]
        if values == "native":
            options += ["--set", "worker.native.enabled=true", "--set-json", 'worker.native.tasks.crew.run.command=["/bin/crew"]']
        manifests = release.helm("template", "crewjob", str(CHART), *options)
        rendered = documents(release.kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", given=manifests))
        templates = [item["spec"]["template"] for item in rendered if "template" in item.get("spec", {})]
        assert len(templates) == 4
        for number, template in enumerate(templates):
            pod = {"apiVersion": "v1", "kind": "Pod", **template}
            pod["metadata"] = {**template["metadata"], "name": f"pod-{number}"}
            release.kubectl("create", "--dry-run=server", "-f", "-", given=json.dumps(pod))
        others = {"apiVersion": "v1", "kind": "List", "items": [it for it in rendered if it["kind"] != "ServiceAccount"]}
        release.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=json.dumps(others))


def documents(text: str) -> list[dict]:
    """JSON documents that follow each other."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found
