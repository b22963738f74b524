"""Workers die, go and fall silent in the middle of a job."""

import json
import time

import pytest

import crew
import kube
import workers

pytestmark = pytest.mark.usefixtures("clean")

TAKEOVER_LIMIT = 10
WORKERS, BUSY = 4, 8


def test_the_job_of_a_killed_worker_runs_elsewhere_within_ten_seconds(two_workers, executions, figure):
    crew.start(crew.job("orphan", inputs={"seconds": 8}))
    status = crew.in_phase("orphan", "Running")
    task, pod = status["taskID"], kube.get("pod", status["worker"]["podName"])
    killed_at = workers.kill(pod)
    kube.until("it runs again", lambda: executions.begun[task] == 2, seconds=30, every=0.05)
    took = time.monotonic() - killed_at
    status = crew.in_phase("orphan", "Succeeded")
    figure(f"a killed worker's job ran again after {took:.1f} s")
    assert took < TAKEOVER_LIMIT
    assert (status["workerLosses"], status["taskID"], executions.begun[task]) == (1, task, 2)
    assert kube.warnings_about("crewjob", "orphan")[0]["reason"] == "WorkerLost"


def test_workers_that_are_told_to_stop_finish_their_jobs_although_they_send_no_events(executions, figure):
    crew.workers_at_most(WORKERS)
    with workers.at_least(WORKERS):
        crew.start(*crew.batch("busy", BUSY, inputs={"seconds": 30}))
        kube.until(f"{BUSY} jobs run", lambda: crew.phases("busy").get("Running") == BUSY)
        tasks = crew.task_ids("busy")
        kube.kubectl("rollout", "restart", f"deployment/{kube.WORKER}")
        kube.patch("crewworkerpool", "default", {"spec": {"minReplicas": 0, "maxReplicas": WORKERS // 2}})
        leaving = lambda: sum("deletionTimestamp" in pod["metadata"] for pod in crew.worker_pods())
        kube.until("busy workers are told to go", lambda: leaving() >= WORKERS // 2)
        crew.all_in_phase("busy", "Succeeded", BUSY, 120)
        assert executions.of(tasks) == dict.fromkeys(tasks, 1)
        for found in kube.items("crewjobs", "test=busy"):
            assert (found["status"]["attempts"], found["status"].get("workerLosses", 0)) == (1, 0)
        figure(f"{BUSY} jobs through a rollout and a scale-down of their workers: {BUSY} Succeeded, {BUSY} executions")


def test_the_job_of_a_pod_that_is_deleted_by_force_runs_elsewhere(two_workers, executions, figure):
    crew.start(crew.job("forced", inputs={"seconds": 6}))
    status = crew.in_phase("forced", "Running")
    task, began = status["taskID"], time.monotonic()
    kube.kubectl("delete", "pod", status["worker"]["podName"], "--grace-period=0", "--force", "--wait=false")
    kube.until("it runs again", lambda: executions.begun[task] == 2, seconds=30, every=0.05)
    figure(f"the job of a Pod deleted by force ran again after {time.monotonic() - began:.1f} s")
    status = crew.in_phase("forced", "Succeeded")
    assert (status["workerLosses"], executions.begun[task]) == (1, 2)
    assert status["worker"]["podName"] in {pod["metadata"]["name"] for pod in crew.worker_pods()}


def test_an_evicted_worker_finishes_its_job(two_workers, executions):
    crew.start(crew.job("evicted", inputs={"seconds": 8}))
    status = crew.in_phase("evicted", "Running")
    pod = status["worker"]["podName"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": kube.NAMESPACE}}
    path = f"/api/v1/namespaces/{kube.NAMESPACE}/pods/{pod}/eviction"
    kube.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
    assert "deletionTimestamp" in kube.get("pod", pod)["metadata"]
    ended = crew.in_phase("evicted", "Succeeded")
    assert (ended["attempts"], ended.get("workerLosses", 0), ended["worker"]["podName"]) == (1, 0, pod)
    assert executions.begun[status["taskID"]] == 1


@pytest.fixture
def two_stock_workers(installation):
    """Two workers as Celery comes, without the guard of the example."""
    with workers.started_with(env=[{"name": "CREWJOB_GUARD", "value": "0"}]), workers.at_least(2):
        yield


def test_the_operator_has_the_task_of_a_killed_stock_worker_run_elsewhere_within_ten_seconds(
    two_stock_workers, executions, figure
):
    """What Celery alone does with it: tests/loop/test_without_operator.py."""
    crew.start(crew.job("orphan-stock", inputs={"seconds": 8}))
    status = crew.in_phase("orphan-stock", "Running")
    task, pod = status["taskID"], kube.get("pod", status["worker"]["podName"])
    killed_at = workers.kill(pod)
    kube.until("it runs again", lambda: executions.begun[task] == 2, seconds=30, every=0.05)
    took = time.monotonic() - killed_at
    figure(f"stock workers, one killed: its task ran again after {took:.1f} s")
    assert took < TAKEOVER_LIMIT
    status = crew.in_phase("orphan-stock", "Succeeded")
    assert (status["workerLosses"], executions.begun[task]) == (1, 2)
