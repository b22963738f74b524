"""A Redis server and Celery workers of the tests' own, on a free port."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT.parents[1] / "python"


def eventually(probe, timeout=30, what="the expected state"):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} was not reached within {timeout} s")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


PORT = free_port()

# Before the application is imported: it reads its settings once.
os.environ["REDIS_URL"] = f"redis://127.0.0.1:{PORT}/0"
os.environ["RESULT_BACKEND_URL"] = f"redis://127.0.0.1:{PORT}/1"
for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CREW_MODEL"):
    os.environ.pop(name, None)
# Of processes that have the package as installed.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(PACKAGE)}


@contextlib.contextmanager
def running_redis(port, directory):
    """Runs a redis-server that keeps nothing, and gives a client of it."""
    if shutil.which("redis-server") is None:
        pytest.exit("redis-server is not on the PATH; install it (Debian: apt-get install redis-server)", returncode=2)
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    try:
        eventually(lambda: is_up(client), 10, "a redis-server that answers")
        yield client
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A client of a redis-server that only these tests use."""
    with running_redis(PORT, tmp_path_factory.mktemp("redis")) as client:
        yield client


def is_up(client):
    with contextlib.suppress(redis.ConnectionError):
        return client.ping()


@pytest.fixture(scope="session")
def results(server):
    """A client of the database that results are kept in."""
    return redis.Redis(port=PORT, db=1)


@contextlib.contextmanager
def running_worker(name, log, *options, **environment):
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "worker", "-l", "INFO", "-n", name, *options]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=PROJECT, env=ENVIRONMENT | environment, stdout=output, stderr=output)
    try:
        eventually(lambda: f"{name} ready." in log.read_text(), what=f"worker {name} being ready (see {log})")
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def worker(server, tmp_path_factory):
    """The log of a prefork worker on the application's queues."""
    log = tmp_path_factory.mktemp("worker") / "crew.log"
    with running_worker("crew@tests", log, "-c", "2", "-Q", "crew_jobs,default"):
        yield log


@pytest.fixture(scope="session")
def thread_worker(server, tmp_path_factory):
    """A worker that cannot kill its tasks, on a queue of its own."""
    log = tmp_path_factory.mktemp("worker") / "threads.log"
    with running_worker("crew@threads", log, "-P", "threads", "-c", "1", "-Q", "threads"):
        yield log
