"""A Redis server with the users of the chart, and workers of both kinds, on a free port."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

HERE = Path(__file__).resolve().parent
CREWJOB = Path(json.loads(os.environ["CARGO_METADATA"])["target_directory"]) / "debug/crewjob"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


PORT = free_port()
USERS_OF_THE_CHART = HERE.parents[1] / "charts/crewjob-operator/files/redis-users.acl"


def url(user, database=0):
    """How the chart's user of this name gets in."""
    return f"redis://{user}:password-of-{user}@127.0.0.1:{PORT}/{database}"


# Before the application is imported: it reads its settings once. Producers and workers are one user, as in the chart.
os.environ["REDIS_URL"] = url("worker")
sys.path.insert(0, str(HERE))

from tasks import app  # noqa: E402


def eventually(probe, timeout=30, what="the expected state"):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} was not reached within {timeout} s")


@dataclass
class Worker:
    """A worker of either kind."""

    kind: str
    node: str
    process: subprocess.Popen
    log: Path

    def answers(self):
        return self.node in (app.control.inspect(timeout=0.5, destination=[self.node]).ping() or {})

    def stop(self, patience=30):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def start(kind, folder, concurrency=1, number=1, options=(), environment=()):
    """Starts a worker; it need not be ready when this returns."""
    node = f"{kind}{number}@interop"
    log = folder / f"{kind}{number}.log"
    common = ["-n", node, "-c", str(concurrency), "-Q", "default"]
    commands = {
        "python": [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-l", "INFO", *common],
        "native": [str(CREWJOB), "worker", "--tasks", str(HERE / "tasks.yaml"), *common],
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [*commands[kind], *options],
            cwd=HERE,
            env=os.environ | dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Worker(kind, node, process, log)


@contextlib.contextmanager
def running(kind, folder, **options):
    worker = start(kind, folder, **options)
    try:
        eventually(worker.answers, 30, f"an answer of {worker.node}")
        yield worker
    finally:
        worker.stop()


def users_of_the_chart():
    """The rules of each user."""
    lines = USERS_OF_THE_CHART.read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def is_unknown(client, command):
    """Whether an older server does not have a command, and no rule can deny it."""
    return not command.startswith("@") and client.execute_command("COMMAND INFO", command.split("|")[0]) in ([None], {})


def refused(client):
    """What the users of the chart wanted to do and may not, but to name their library."""
    # Redis 6.2 says only "client" of it; newer servers always name the part.
    entries = client.acl_log()
    return {
        f"{entry['username']}: {entry['reason']} {entry['object']}"
        for entry in entries
        if not (entry["object"] == "client" or entry["object"].startswith("client|setinfo"))
    }


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """An administrator's client of a redis-server that only these tests use. Nothing that they do may be refused."""
    program = os.environ.get("REDIS_SERVER", "redis-server")
    if shutil.which(program) is None:
        pytest.exit("redis-server is not on the PATH; install it (Debian: apt-get install redis-server)", returncode=2)
    command = [program, "--port", str(PORT), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    env = os.environ | json.loads(os.environ.get("REDIS_SERVER_ENVIRONMENT", "{}"))
    process = subprocess.Popen(command, cwd=tmp_path_factory.mktemp("redis"), env=env, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=PORT)

    def is_up():
        with contextlib.suppress(redis.ConnectionError):
            return client.ping()

    try:
        eventually(is_up, 10, "a redis-server that answers")
        for name, rules in users_of_the_chart().items():
            known = [rule for rule in rules.split() if not (rule.startswith("-") and is_unknown(client, rule[1:]))]
            client.execute_command("ACL SETUSER", name, "on", f">password-of-{name}", *known)
        yield client
        assert refused(client) == set()
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module", params=["python", "native"])
def worker(request, server, tmp_path_factory):
    """One worker, of each kind in turn."""
    server.flushall()
    with running(request.param, tmp_path_factory.mktemp(request.param), concurrency=2) as worker:
        yield worker
