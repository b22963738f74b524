"""One cluster and one installation for all tests, which follow each other in the order of their files."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import celery_side
import crew
import kube
import workers
from waiting import until

CHART = crew.PROJECT / "charts/crewjob-operator"
FIGURES = pytest.StashKey[list[str]]()
SETTINGS = {
    "redis.bundled.enabled": "true",
    "defaultPool.concurrency": "4",
    "defaultPool.maxReplicas": "3",
    "defaultPool.scaleDownDelay": "1s",
}


def settings() -> list[str]:
    return [text for name, value in SETTINGS.items() for text in ("--set", f"{name}={value}")]


def pytest_configure(config):
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[FIGURES]:
        terminalreporter.section("figures")
        terminalreporter.write("\n".join(config.stash[FIGURES]) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call" and report.failed:
        report.sections.append(
            ("CrewJobs and Pods", kube.run(["kubectl", "get", "crew,pods", "-A", "-o", "wide"]).stdout)
        )
        logs = ["kubectl", "-n", kube.NAMESPACE, "logs", f"deployment/{kube.OPERATOR}", "--all-pods", "--tail", "60"]
        report.sections.append(("the operator's log", kube.run(logs).stdout))
    return report


@pytest.fixture
def figure(request):
    """Notes a line for the end of the run."""
    return request.config.stash[FIGURES].append


@pytest.fixture(scope="session", autouse=True)
def installation(request):
    """Installs the chart; says since when."""
    kube.run(["helm", "-n", kube.NAMESPACE, "uninstall", kube.RELEASE, "--wait", "--ignore-not-found"])
    kube.run(["kubectl", "-n", kube.NAMESPACE, "delete", "crewjobs,leases", "--all"])
    # All Pods of these tests, those of the chart and their own, meet the strictest standard. The namespace may be there.
    kube.run(["kubectl", "create", "namespace", kube.NAMESPACE])
    kube.kubectl("label", "--overwrite", "namespace", kube.NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    since = datetime.now(UTC).isoformat()
    began = time.monotonic()
    kube.helm("install", kube.RELEASE, str(CHART), "--create-namespace", "--wait", "--timeout", "3m", *settings())
    until("the pool is ready", lambda: crew.ready("default"))
    request.config.stash[FIGURES].append(f"installed and ready in {time.monotonic() - began:.1f} s")
    return since


@contextmanager
def installed_with(values: dict, folder: Path) -> Iterator[None]:
    """Further values for a while. They change while there are no workers: a rollout takes ten seconds for each."""
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    upgrade = ["upgrade", kube.RELEASE, str(CHART), "--wait", "--timeout", "3m", *settings()]
    # Other tests have patched the workers. The hook that applies the CRDs takes seconds, and is a matter of test_8_upgrade.py.
    upgrade += ["--force-conflicts", "--set", "crds.upgrade=false"]
    with workers.none():
        kube.helm(*upgrade, "--values", str(file))
    yield
    with workers.none():
        kube.helm(*upgrade)


@pytest.fixture
def app(installation):
    return celery_side.application()


@pytest.fixture
def executions(app):
    counter = celery_side.Executions(app)
    yield counter
    counter.stop()


@pytest.fixture(scope="session")
def expired(installation):
    """A finished job that gets a time to live which passed an hour ago; says since when."""
    crew.start(crew.job("expired", crew.KEPT, inputs={"seconds": 0}, ttlAfterFinished="1h"))
    bucket = crew.in_phase("expired", "Succeeded")["expiryBucket"]
    assert bucket == f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H}"
    past = {"status": {"finishedAt": f"{datetime.now(UTC) - timedelta(hours=3):%Y-%m-%dT%H:%M:%SZ}"}}
    patch = ["--subresource=status", "--type=merge", "--patch", json.dumps(past)]
    kube.kubectl("patch", "crewjob", "expired", *patch)
    kube.patch("crewjob", "expired", {"spec": {"ttlAfterFinished": "2h"}})
    return time.monotonic()


@pytest.fixture(scope="session")
def unheard(installation):
    """A running job of a solo worker, in a pool of its own, that is cancelled; gives the worker's Pod, and says since when.

    A solo worker runs the task in its main loop: while it does, it hears nothing. Workers of several tasks at a time, which
    answer on the same database, would keep the operator from taking it at its pool's word.
    """
    url = lambda secret: celery_side.of_the_secret("REDIS_URL", secret).removesuffix("/0") + "/1"
    workers.deploy("solo", ["--pool", "solo", "--concurrency", "1", "--queues", "solo"], REDIS_URL=url(crew.WORKER_SECRET))
    own = {"redis": {"secretName": "solo"}, "deploymentRef": {"name": "solo"}, "queues": [{"name": "solo"}]}
    one = {"concurrency": 1, "minReplicas": 1, "maxReplicas": 1}
    secret, pool = crew.secret("solo", REDIS_URL=url(crew.SECRET)), crew.pool("solo")
    pool["spec"] = kube.get("crewworkerpool", "default")["spec"] | own | one
    for made in (secret, pool):
        del made["metadata"]["labels"]["test"]
    kube.create(secret, pool)
    crew.start(crew.job("unheard", crew.KEPT, inputs={"seconds": 600}, poolRef={"name": "solo"}))
    pod = crew.in_phase("unheard", "Running")["worker"]["podName"]
    kube.patch("crewjob", "unheard", {"spec": {"cancel": True}})
    yield pod, time.monotonic()
    kube.kubectl("delete", "crewworkerpool,deployment,secret", "solo", "--ignore-not-found")


@pytest.fixture
def clean(installation):
    """Leaves nothing of a test to the next one."""
    yield
    if kube.find("crewworkerpool", "default"):
        crew.workers_at_most(int(SETTINGS["defaultPool.maxReplicas"]))
    crew.remove_all()
    kube.kubectl("delete", "crewworkerpools,secrets", "-l", "test=pools")
