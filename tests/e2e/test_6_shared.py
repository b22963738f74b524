"""A Redis that another cluster uses too, whose workers take jobs of this one."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

import celery_side
import crew
import kube
import operators

pytestmark = pytest.mark.usefixtures("clean")

# Longer than the operator waits before a worker named like a Pod that is not there is suspicious, and some audits.
LONG = 24


@contextmanager
def worker_elsewhere(node: str):
    """A worker that is in no Pod."""
    command = ["-m", "celery", "-A", "backend.celery_app", "worker", "-n", node, "--concurrency", "1"]
    env = os.environ | {"REDIS_URL": celery_side.redis_url()}
    process = subprocess.Popen(
        [sys.executable, *command, "--queues", "crew_jobs,default"],
        cwd=celery_side.EXAMPLE,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_a_worker_of_another_cluster_is_not_taken_for_a_dead_one_of_ours(app, executions):
    crew.workers_at_most(0)
    crew.no_workers()
    node = f"crew@{kube.WORKER}-7d4b9-x2x7q"
    with operators.auditing_every(3), worker_elsewhere(node):
        kube.until("it is there", lambda: celery_side.answers(app, node))
        crew.start(crew.job("guest", inputs={"seconds": LONG}))
        status = crew.in_phase("guest", "Running")
        assert status["worker"]["name"] == node
        began = time.monotonic()
        status = crew.in_phase("guest", "Succeeded", seconds=LONG + 20)
        assert time.monotonic() - began > LONG / 2, "it was over before anybody could suspect anything"
    assert (status["attempts"], status.get("workerLosses", 0)) == (1, 0)
    assert executions.begun[status["taskID"]] == 1
