"""The chart's NetworkPolicies, with traffic: kube-router enforces them on the node."""

import pytest

import conftest
import crew
import kube
import workers
from waiting import until

pytestmark = pytest.mark.usefixtures("clean")

LISTEN = ["python3", "-m", "http.server", "8000"]
POLICIES = {"enabled": True, "redisFrom": [{"podSelector": {"matchLabels": {"app": "producer"}}}]}
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close(); print('open')"

# From which Pod to which: open without policies, all of them, and open with them.
PATHS = {
    ("worker", "redis"): True,
    ("producer", "redis"): True,
    ("stranger", "operator"): True,
    ("stranger", "redis"): False,
    ("worker", "operator"): False,
    ("worker", "stranger"): False,
    ("worker", "kubernetes"): False,
}


@pytest.fixture(scope="module", autouse=True)
def others(installation):
    """Pods of the namespace that are not of the chart: one that produces tasks, and one that has no business here."""
    for name in ("producer", "stranger"):
        workers.deploy(name, [], LISTEN)
    for name in ("producer", "stranger"):
        kube.kubectl("wait", "--for=condition=Available", f"deployment/{name}", "--timeout=60s")
    yield
    kube.kubectl("delete", "deployment", "producer", "stranger")


def pod(selector: str) -> dict:
    return next(pod for pod in kube.items("pods", selector) if pod["status"]["phase"] == "Running")


def reachable() -> dict[tuple[str, str], bool]:
    """Which of the paths are open now."""
    labelled = lambda component: pod(f"app.kubernetes.io/component={component}")
    pods = {name: labelled(name) for name in ("operator", "redis", "worker")}
    pods |= {name: pod(f"app={name}") for name in ("producer", "stranger")}
    ports = {"operator": 8080, "redis": 6379, "stranger": 8000}
    address = lambda to: ("kubernetes.default", "443") if to == "kubernetes" else (pods[to]["status"]["podIP"], str(ports[to]))

    def is_open(source: str, to: str) -> bool:
        command = ["exec", pods[source]["metadata"]["name"], "--", "python3", "-c", CONNECT, *address(to)]
        done = kube.run(["kubectl", "-n", kube.NAMESPACE, *command])
        assert done.returncode == 0 or "TimeoutError" in done.stderr or "Connection refused" in done.stderr, done.stderr
        return done.stdout == "open\n"

    return {path: is_open(*path) for path in PATHS}


def test_policies_leave_open_what_operator_workers_and_producers_need_and_nothing_else(tmp_path, figure):
    with workers.at_least(1):
        assert all(reachable().values()), "without policies everything is open"
    with conftest.installed_with({"networkPolicy": POLICIES}, tmp_path):
        crew.start(crew.job("under-policies"))
        crew.in_phase("under-policies", "Succeeded", seconds=90)
        with workers.at_least(1):
            until("the policies hold", lambda: reachable() == PATHS, seconds=60)
    figure(f"{sum(not is_open for is_open in PATHS.values())} paths of {len(PATHS)} are closed by the chart's policies")
