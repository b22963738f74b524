"""Deleting a CrewJob, wherever it is in its life."""

import time

import pytest

import crew
import kube
import operators

pytestmark = pytest.mark.usefixtures("clean")

AT_ONCE = 2.0


def delete(name: str) -> dict:
    """Deletes a job, waits until it is gone, and returns its last status."""
    last = crew.status(name)
    began = time.monotonic()
    kube.kubectl("delete", "crewjob", name, "--wait=true", "--timeout=10s")
    took = time.monotonic() - began
    assert took < AT_ONCE, f"{name}, {last['phase']}, took {took:.1f} s to delete"
    return last


def test_jobs_that_no_worker_has_begun_go_at_once_and_never_run(executions):
    crew.workers_at_most(0)
    crew.no_workers()
    crew.start(
        crew.job("held", poolRef={"name": "nowhere"}),
        crew.job("suspended", suspend=True),
        crew.job("queued"),
        crew.job("queued-too"),
    )
    crew.in_phase("queued", "Queued")
    crew.in_phase("queued-too", "Queued")
    kube.until(
        "the missing pool is noticed", lambda: crew.condition("held", "Reconciling").get("reason") == "PoolNotFound"
    )
    deleted = [delete(name) for name in ("held", "suspended", "queued")]
    assert [last["phase"] for last in deleted] == ["Pending", "Pending", "Queued"]

    kube.until("only one message is left", lambda: crew.status_of_pool()["depth"] == 1)
    crew.workers_at_most(3)
    crew.in_phase("queued-too", "Succeeded")
    assert executions.begun[deleted[-1]["taskID"]] == 0


def test_jobs_that_are_deleted_while_nobody_operates_never_run(executions):
    crew.workers_at_most(0)
    crew.no_workers()
    crew.start(crew.job("kept"), crew.job("deleted-meanwhile"))
    crew.in_phase("kept", "Queued")
    crew.in_phase("deleted-meanwhile", "Queued")
    operators.scale(0)
    try:
        task = delete("deleted-meanwhile")["taskID"]
    finally:
        operators.scale(1)
    kube.until("only one message is left", lambda: crew.status_of_pool()["depth"] == 1)
    crew.workers_at_most(3)
    crew.in_phase("kept", "Succeeded")
    assert executions.begun[task] == 0


def test_a_running_job_goes_at_once_and_its_worker_is_told(executions):
    crew.start(crew.job("running", inputs={"seconds": 600}))
    crew.in_phase("running", "Running")
    task = delete("running")["taskID"]
    kube.until("the worker has stopped the task", lambda: task in executions.revoked, seconds=20)
    crew.no_workers()
    assert executions.begun[task] == 1


def test_a_job_that_waits_for_its_next_attempt_goes_at_once(executions):
    later = {"maxRetries": 3, "backoff": {"initial": "9m", "max": "10m"}}
    crew.start(crew.job("retrying", inputs={"fail": "transient", "seconds": 0}, retryPolicy=later))
    crew.in_phase("retrying", "Retrying")
    task = delete("retrying")["taskID"]
    assert executions.begun[task] == 1


def test_a_finished_job_goes_at_once_with_the_config_map_of_its_result():
    crew.start(crew.job("finished", inputs={"result_bytes": 8000}))
    result = crew.in_phase("finished", "Succeeded")["result"]
    name = result["configMapName"]
    assert result["sizeBytes"] > 8000 and len(kube.get("configmap", name)["data"]["result.json"]) == result["sizeBytes"]
    delete("finished")
    kube.until("the garbage collector has taken the result", lambda: kube.find("configmap", name) is None)
