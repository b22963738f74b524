"""Workers die and go in the middle of a job."""

import json
import time

import pytest

import crew
import kube
import workers
from waiting import until

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def kept_workers(installation):
    with workers.at_least(2):
        yield


@pytest.fixture
def two_workers(kept_workers):
    until("two workers are ready again", lambda: crew.status_of_pool()["replicas"].get("ready") == 2)


def test_the_job_of_a_killed_worker_runs_elsewhere_within_ten_seconds(two_workers, executions, figure):
    crew.start(crew.job("orphan", inputs={"seconds": 8}))
    status = crew.in_phase("orphan", "Running")
    task, pod = status["taskID"], kube.get("pod", status["worker"]["podName"])
    killed_at = workers.kill(pod)
    until("it runs again", lambda: executions.begun[task] == 2, seconds=30, every=0.05)
    took = time.monotonic() - killed_at
    status = crew.in_phase("orphan", "Succeeded")
    figure(f"a killed worker's job ran again after {took:.1f} s")
    assert took < crew.TAKEOVER_LIMIT
    assert (status["workerLosses"], status["taskID"], executions.begun[task]) == (1, task, 2)
    assert kube.warnings_about("crewjob", "orphan")[0]["reason"] == "WorkerLost"


def test_the_job_of_a_pod_that_is_deleted_by_force_runs_elsewhere(two_workers, executions, figure):
    crew.start(crew.job("forced", inputs={"seconds": 6}))
    status = crew.in_phase("forced", "Running")
    task, began = status["taskID"], time.monotonic()
    kube.kubectl("delete", "pod", status["worker"]["podName"], "--grace-period=0", "--force", "--wait=false")
    until("it runs again", lambda: executions.begun[task] == 2, seconds=30, every=0.05)
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
