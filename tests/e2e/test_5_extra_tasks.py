"""Tasks that do what the example's do not: retry by themselves, leave no result, take too much memory."""

from pathlib import Path

import pytest

import crew
import kube
import operators
import workers

pytestmark = pytest.mark.usefixtures("clean")

MODULE = Path(__file__).with_name("extra_tasks.py")
TASKS = ("retries_by_itself", "ends_without_a_word", "takes_too_much_memory_once")


@pytest.fixture(scope="module", autouse=True)
def extra_workers(installation):
    """One worker that knows these tasks, in a pool that allows them."""
    allowed = kube.get("crewworkerpool", "default")["spec"]["allowedTasks"]
    named = [f"extra_tasks.{name}" for name in TASKS]
    metadata, data = {"name": "extra-tasks"}, {MODULE.name: MODULE.read_text()}
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    kube.patch("crewworkerpool", "default", {"spec": {"allowedTasks": allowed + named}})
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


def test_retries_of_celery_and_of_the_operator_share_one_budget(executions):
    task, quick = "extra_tasks.retries_by_itself", {"maxRetries": 3, "backoff": {"initial": "1s", "max": "1s"}}
    crew.start(
        crew.job("comes-round", task=task, inputs={"own_retries": 2}, retryPolicy=quick),
        crew.job("never-does", task=task, inputs={"own_retries": 2, "fails": True}, retryPolicy=quick),
    )
    well = crew.in_phase("comes-round", "Succeeded")
    assert (well["attempts"], executions.begun[well["taskID"]], str(well["result"]["value"])) == (3, 3, "2")

    badly = crew.in_phase("never-does", "Failed")
    assert crew.condition("never-does", "Failed")["reason"] == "RetriesExhausted"
    # Three runs of the first message and one of the second, which knows how many came before.
    ids = {past["taskID"]: executions.begun[past["taskID"]] for past in badly["attemptHistory"]}
    assert badly["attempts"] == 4 and sorted(ids.values()) == [1, 3], ids


def test_a_job_that_took_too_much_memory_runs_again(executions):
    crew.start(crew.job("greedy", task="extra_tasks.takes_too_much_memory_once"))
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


def test_a_task_that_ends_without_a_result_is_said_to_have_none(executions):
    with operators.auditing_every(3):
        crew.start(crew.job("silent", task="extra_tasks.ends_without_a_word", inputs={"seconds": 2}))
        status = crew.in_phase("silent", "Failed")
    assert crew.condition("silent", "Failed")["reason"] == "NoResult"
    assert "does not have the task any more" in crew.condition("silent", "Failed")["message"]
    assert executions.begun[status["taskID"]] == 1
