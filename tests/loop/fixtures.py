"""One API server for each process of pytest, and for the tests of each file that run in it namespaces of their own, Redis
servers of their own, and an operator that leads."""

import contextlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "e2e"))

import waiting  # noqa: E402
from servers import CREWJOB, ControlPlane, CrewWorker, Events, ExampleWorker, Operator, Redis, Refused  # noqa: E402
from tenant import Tenant  # noqa: E402

waiting.SECONDS = 30

# A process that runs some tests of a file, then others, then more of the first, has three beds.
BEDS = itertools.count(1)


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: measures memory or times; runs when no other test does")


@pytest.fixture(scope="session")
def control_plane():
    server = ControlPlane(f"loop-{os.getpid()}")
    try:
        env = os.environ | {"KUBECONFIG": str(server.kubeconfig)}
        subprocess.run([CREWJOB, "crds", "apply"], env=env, check=True, stdout=subprocess.DEVNULL)
        yield server
    finally:
        server.down()


class Bed:
    """What tests of one file work with: tenants `a` and `b`, Redis servers `redis` and `other`, and the operator."""

    def __init__(self, control_plane: ControlPlane, folder: Path, name: str):
        self.control_plane, self.folder, self.name = control_plane, folder, name
        self.redis, self.other = Redis(folder / "redis"), Redis(folder / "other")
        self.a, self.b = self.tenant(f"{name}-a"), self.tenant(f"{name}-b")
        namespaces = [self.a.namespace, self.b.namespace]
        self.operator = Operator(folder, control_plane.kubeconfig, self.a.namespace, namespaces)

    def tenant(self, namespace: str) -> Tenant:
        """A new namespace; the operator looks into `a` and `b` only, unless it is started with others."""
        self.control_plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        tenant = Tenant(self.control_plane, namespace)
        # A controller makes it in a whole cluster; without it no Pod is admitted.
        tenant.create("serviceaccounts", {"metadata": {"name": "default"}})
        return tenant

    def clear(self) -> None:
        """Removes what a test has made."""
        for tenant in (self.a, self.b):
            for kind in ("crewjobs", "crewworkerpools", "deployments", "replicasets", "secrets", "configmaps"):
                tenant.delete(kind)
            for pod in tenant.items("pods"):
                with contextlib.suppress(Refused):
                    tenant.vanishes(pod["metadata"]["name"])
        for redis in (self.redis, self.other):
            redis.client.flushall()

    def end(self) -> None:
        self.operator.stop()
        self.clear()
        for redis in (self.redis, self.other):
            redis.stop()


@pytest.fixture(scope="module")
def bed(control_plane, request, tmp_path_factory):
    name = f"{Path(request.node.path).stem.replace('_', '-')}-{next(BEDS)}"
    bed = Bed(control_plane, tmp_path_factory.mktemp(name), name)
    bed.operator.start()
    yield bed
    bed.end()


@pytest.fixture(autouse=True)
def nothing_left(request):
    """Removes what a test has made, so that the next one of the file finds nothing; the operator goes on."""
    yield
    if "bed" in request.fixturenames:
        bed = request.getfixturevalue("bed")
        bed.clear()


@pytest.fixture
def events(bed):
    """What workers on `redis` tell of their tasks."""
    events = Events(bed.redis)
    yield events
    events.listener.close()


@pytest.fixture
def crew_worker(bed, tmp_path):
    """Starts a native worker on `redis` that runs crews."""
    yield from starts(lambda node="crew@first", *options: CrewWorker(tmp_path / node, bed.redis.url, node, *options))


@pytest.fixture
def example_worker(bed, tmp_path):
    """Starts a Celery worker of the example on `redis`."""
    start = lambda node="crew@first", *options, **env: ExampleWorker(tmp_path / node, bed.redis.url, node, *options, **env)  # noqa: E731
    yield from starts(start)


def starts(start):
    """What `start` has started is stopped in the end."""
    running = []

    def started(*arguments, **options):
        running.append(start(*arguments, **options))
        return running[-1]

    yield started
    for worker in running:
        worker.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call" and report.failed and "bed" in item.fixturenames:
        report.sections.append(("the operator's log", item.funcargs["bed"].operator.said()))
    return report
