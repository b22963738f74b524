"""Workers as Celery comes, without the guard of the example."""

import time

import pytest

import crew
import kube
import workers
from waiting import until

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture
def two_stock_workers(installation):
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
    until("it runs again", lambda: executions.begun[task] == 2, seconds=30, every=0.05)
    took = time.monotonic() - killed_at
    figure(f"stock workers, one killed: its task ran again after {took:.1f} s")
    assert took < crew.TAKEOVER_LIMIT
    status = crew.in_phase("orphan-stock", "Succeeded")
    assert (status["workerLosses"], executions.begun[task]) == (1, 2)
