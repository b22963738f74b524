"""Jobs go on, and are cancelled, while their workers are being replaced."""

from collections import Counter
from datetime import datetime

import pytest

import crew
import kube
import workers
from waiting import until

pytestmark = pytest.mark.usefixtures("clean")

PODS, CHILDREN = 3, 4
JOBS, LASTING = PODS * CHILDREN, 30
WORKERS, BUSY = 4, 8


def test_workers_that_are_told_to_stop_finish_their_jobs_although_they_send_no_events(executions, figure):
    crew.workers_at_most(WORKERS)
    with workers.replaced_as_soon_as_ready(), workers.at_least(WORKERS):
        crew.start(*crew.batch("busy", BUSY, inputs={"seconds": 15}))
        until(f"{BUSY} jobs run", lambda: crew.phases("busy").get("Running") == BUSY)
        tasks = crew.task_ids("busy")
        kube.kubectl("rollout", "restart", f"deployment/{kube.WORKER}")
        kube.patch("crewworkerpool", "default", {"spec": {"minReplicas": 0, "maxReplicas": WORKERS // 2}})
        leaving = lambda: sum("deletionTimestamp" in pod["metadata"] for pod in crew.worker_pods())
        until("busy workers are told to go", lambda: leaving() >= WORKERS // 2)
        crew.all_in_phase("busy", "Succeeded", BUSY, 120)
        assert executions.of(tasks) == dict.fromkeys(tasks, 1)
        for found in kube.items("crewjobs", "test=busy"):
            assert (found["status"]["attempts"], found["status"].get("workerLosses", 0)) == (1, 0)
        figure(f"{BUSY} jobs through a rollout and a scale-down of their workers: {BUSY} Succeeded, {BUSY} executions")


@pytest.fixture
def three_workers(installation):
    with workers.replaced_as_soon_as_ready(), workers.at_least(PODS):
        yield


def test_every_running_job_that_is_cancelled_while_workers_restart_is_cancelled_or_has_won(
    three_workers, executions, figure
):
    # A worker that was told to go hears nothing, and the kubelet does not end it sooner: its jobs win.
    jobs = crew.batch("storm", JOBS, inputs={"seconds": LASTING})
    crew.start(*jobs)
    crew.all_in_phase("storm", "Running", JOBS)

    old = crew.worker_pods()
    kube.kubectl("rollout", "restart", f"deployment/{kube.WORKER}")
    leaves = lambda: [pod for pod in crew.worker_pods() if "deletionTimestamp" in pod["metadata"]]
    until("a busy worker is told to go", leaves, every=0.1)
    leaving = {pod["metadata"]["name"] for pod in leaves()}
    workers.kill(next(pod for pod in old if pod["metadata"]["name"] not in leaving))
    before = Counter(crew.cancel("storm").values())
    assert before["Succeeded"] == 0 and before["Running"] + before["Queued"] == JOBS, before

    final = lambda: not set(crew.phases("storm")) - set(crew.FINAL)
    until("all have ended", final, seconds=240, every=0.5)
    kube.patch("crewworkerpool", "default", {"spec": {"minReplicas": 0}})
    crew.no_workers()
    ended = {found["metadata"]["name"]: found["status"] for found in kube.items("crewjobs", "test=storm")}
    ends = {name: end_of(status) for name, status in ended.items()}
    figure(f"{len(ended)} running jobs cancelled while workers restart: {dict(Counter(ends.values()))}")
    assert set(ends.values()) <= {"Cancelled", "FinishedBeforeCancel"}, ends
    begun_after = {
        name: executions.last_begin[status["taskID"]].at - datetime.fromisoformat(status["finishedAt"]).timestamp()
        for name, status in ended.items()
    }
    assert {name: late for name, late in begun_after.items() if late > 1} == {}


def end_of(status: dict) -> str:
    """The reason for which a job has ended, if it is over."""
    types = {"Succeeded": "Complete", "Failed": "Failed", "Cancelled": "Failed"}
    said = {found["type"]: found["reason"] for found in status["conditions"] if found["status"] == "True"}
    return said.get(types[status["phase"]], status["phase"])
