"""Tasks that take more memory than their container may have."""

from pathlib import Path

import pytest

import crew
import kube
import workers

pytestmark = pytest.mark.usefixtures("clean")

MODULE = Path(__file__).with_name("extra_tasks.py")
TASK = "extra_tasks.takes_too_much_memory_once"


@pytest.fixture(scope="module", autouse=True)
def extra_workers(installation):
    """One worker that knows such a task, in a pool that allows it."""
    allowed = kube.get("crewworkerpool", "default")["spec"]["allowedTasks"]
    metadata, data = {"name": "extra-tasks"}, {MODULE.name: MODULE.read_text()}
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    kube.patch("crewworkerpool", "default", {"spec": {"allowedTasks": [*allowed, TASK]}})
    try:
        with (
            workers.started_with(
                ["--include", "extra_tasks"],
                env=[{"name": "PYTHONPATH", "value": "/extra"}],
                volumeMounts=[{"name": "extra", "mountPath": "/extra", "readOnly": True}],
                volumes=[{"name": "extra", "configMap": {"name": "extra-tasks"}}],
            ),
            workers.at_least(1),
        ):
            yield
    finally:
        kube.patch("crewworkerpool", "default", {"spec": {"allowedTasks": allowed}})
        kube.kubectl("delete", "configmap", "extra-tasks")


@pytest.fixture
def one_worker(clean, extra_workers):
    crew.workers_at_most(1)


def test_a_job_that_took_too_much_memory_runs_again(executions):
    crew.start(crew.job("greedy", task=TASK))
    status = crew.in_phase("greedy", "Succeeded")
    assert (status["workerLosses"], status["result"]["value"]) == (1, "modest")
    assert [past["outcome"] for past in status["attemptHistory"]] == ["WorkerLost", "Succeeded"]
    assert executions.begun[status["taskID"]] == 2


def test_a_job_whose_worker_ran_out_of_memory_runs_again_in_the_same_pod(one_worker, app, executions):
    crew.start(crew.job("bystander", inputs={"seconds": 8}))
    worker = crew.in_phase("bystander", "Running")["worker"]
    app.control.broadcast("take_too_much_memory", destination=[worker["name"]])
    status = crew.in_phase("bystander", "Succeeded")
    assert workers.lost_container(worker["podName"])["reason"] == "OOMKilled"
    assert (status["workerLosses"], status["worker"]["podUID"]) == (1, worker["podUID"])
    assert executions.begun[status["taskID"]] == 2
