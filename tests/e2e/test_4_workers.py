"""Workers die, go and fall silent in the middle of a job."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

import crew
import kube
import operators

pytestmark = pytest.mark.usefixtures("clean")

TAKEOVER_LIMIT = 10
BUSY = 8


def processes_of(uid: str) -> dict[int, int]:
    """The Celery processes of a Pod, each with its parent."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if uid in (folder / "cgroup").read_text() and b"celery_app" in (folder / "cmdline").read_bytes():
                found[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    return found


def kill_worker(pod: dict) -> float:
    """Ends a worker's main process with signal 9, and so its container; returns when."""
    processes = processes_of(pod["metadata"]["uid"])
    (main,) = [pid for pid, parent in processes.items() if parent not in processes]
    os.kill(main, signal.SIGKILL)
    return time.monotonic()


@pytest.fixture
def two_workers():
    kube.patch("crewworkerpool", "default", {"spec": {"minReplicas": 2}})
    ready = lambda: crew.status_of_pool().get("replicas", {}).get("ready") == 2
    kube.until("two workers are ready", ready, 60)
    yield
    kube.patch("crewworkerpool", "default", {"spec": {"minReplicas": 0}})


def test_the_job_of_a_killed_worker_runs_elsewhere_within_ten_seconds(two_workers, executions, figure):
    crew.start(crew.job("orphan", inputs={"seconds": 8}))
    status = crew.in_phase("orphan", "Running")
    task, pod = status["taskID"], kube.get("pod", status["worker"]["podName"])
    killed_at = kill_worker(pod)
    kube.until("it runs again", lambda: executions.begun[task] == 2, seconds=30, every=0.05)
    took = time.monotonic() - killed_at
    status = crew.in_phase("orphan", "Succeeded")
    figure(f"a killed worker's job ran again after {took:.1f} s")
    assert took < TAKEOVER_LIMIT
    assert (status["workerLosses"], status["taskID"], executions.begun[task]) == (1, task, 2)
    assert kube.warnings_about("crewjob", "orphan")[0]["reason"] == "WorkerLost"


def test_workers_that_have_to_go_finish_their_jobs_although_nobody_hears_of_them(executions, figure):
    one_each = {"concurrency": 1, "targetPerWorker": 1, "maxReplicas": BUSY}
    kube.patch("crewworkerpool", "default", {"spec": one_each})
    try:
        crew.start(*crew.batch("busy", BUSY, inputs={"seconds": 30}))
        kube.until(f"{BUSY} workers are busy", lambda: crew.phases("busy").get("Running") == BUSY, seconds=120)
        tasks = crew.task_ids("busy")
        kube.kubectl("rollout", "restart", f"deployment/{kube.WORKER}")
        kube.patch("crewworkerpool", "default", {"spec": {"maxReplicas": 2}})
        leaving = lambda: sum("deletionTimestamp" in pod["metadata"] for pod in crew.worker_pods())
        kube.until("busy workers are told to go", lambda: leaving() >= BUSY // 2, seconds=60)
        crew.all_in_phase("busy", "Succeeded", BUSY, 120)
        assert executions.of(tasks) == dict.fromkeys(tasks, 1)
        for found in kube.items("crewjobs", "test=busy"):
            assert (found["status"]["attempts"], found["status"].get("workerLosses", 0)) == (1, 0)
        figure(f"{BUSY} busy workers through a rollout and a scale-down: {BUSY} Succeeded, {BUSY} executions")
    finally:
        kube.patch("crewworkerpool", "default", {"spec": {"concurrency": 4, "targetPerWorker": None}})


def test_what_a_living_worker_runs_is_never_old_enough_to_be_given_to_another(app):
    """kombu gives away what was taken longer ago than the visibility timeout; the operator keeps it young."""
    kube.kubectl("set", "env", f"deployment/{kube.OPERATOR}", "CREWJOB_AUDIT_EVERY=3")
    operators.settle()
    try:
        crew.start(crew.job("long", inputs={"seconds": 25}))
        task = crew.in_phase("long", "Running")["taskID"]
        redis, oldest = app.backend.client, 0.0
        while crew.status("long")["phase"] == "Running":
            taken_at = redis.zscore("unacked_index", task)
            oldest = max(oldest, time.time() - taken_at) if taken_at else oldest
            time.sleep(0.5)
        assert 0 < oldest < 12
    finally:
        kube.kubectl("set", "env", f"deployment/{kube.OPERATOR}", "CREWJOB_AUDIT_EVERY-")
        operators.settle()
