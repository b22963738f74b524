"""What ends a job before its task does, and where a queued one waits."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

import crew
import kube
import workers

pytestmark = pytest.mark.usefixtures("clean")

MANY = 250


@pytest.fixture
def no_worker():
    crew.workers_at_most(0)
    crew.no_workers()


@pytest.fixture(scope="module")
def expired(installation):
    """A finished job that gets a time to live which passed an hour ago."""
    crew.start(crew.job("expired", inputs={"seconds": 0}, ttlAfterFinished="1h"))
    bucket = crew.in_phase("expired", "Succeeded")["expiryBucket"]
    assert bucket == f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H}"
    past = {"status": {"finishedAt": f"{datetime.now(UTC) - timedelta(hours=3):%Y-%m-%dT%H:%M:%SZ}"}}
    patch = ["--subresource=status", "--type=merge", "--patch", json.dumps(past)]
    kube.kubectl("patch", "crewjob", "expired", *patch)
    kube.kubectl("patch", "crewjob", "expired", "--type=merge", "--patch", json.dumps({"spec": {"ttlAfterFinished": "2h"}}))
    return time.monotonic()


def test_queued_jobs_that_are_cancelled_without_a_worker_never_run(expired, no_worker, executions, figure):
    crew.start(*crew.batch("many", MANY), crew.job("last"))
    crew.all_in_phase("many", "Queued", MANY, 60)
    tasks = crew.task_ids("many")
    crew.cancel("many")
    took = crew.all_in_phase("many", "Cancelled", MANY, 60)
    kube.until("only one message is left", lambda: crew.status_of_pool()["depth"] == 1)
    crew.workers_at_most(3)
    crew.in_phase("last", "Succeeded")
    assert {task: count for task, count in executions.of(tasks).items() if count} == {}
    figure(f"{MANY} queued jobs cancelled without a worker: all Cancelled after {took:.1f} s, none has run")


def test_a_copy_that_kombu_has_put_back_is_withdrawn_too(no_worker, app, executions):
    crew.start(crew.job("copied"), crew.job("other"))
    task = crew.in_phase("copied", "Queued")["taskID"]
    crew.in_phase("other", "Queued")
    redis, queue = app.backend.client, "crew_jobs\x06\x163"
    (message,) = [found for found in redis.lrange(queue, 0, -1) if task.encode() in found]
    restored = json.loads(message)
    restored["headers"]["redelivered"] = restored["properties"]["delivery_info"]["redelivered"] = True
    assert redis.lrem(queue, 1, message) == 1
    redis.rpush(queue, json.dumps(restored))
    crew.cancel("copied")
    crew.in_phase("copied", "Cancelled")
    assert not any(task.encode() in found for found in redis.lrange(queue, 0, -1))
    crew.workers_at_most(3)
    crew.in_phase("other", "Succeeded")
    assert executions.begun[task] == 0


def test_a_queued_job_that_becomes_urgent_changes_its_place(no_worker, app):
    crew.start(crew.job("patient"), crew.job("urgent"))
    crew.in_phase("patient", "Queued")
    task = crew.in_phase("urgent", "Queued")["taskID"]
    kube.patch("crewjob", "urgent", {"spec": {"priority": 10}})
    (message,) = kube.until("it is in the first band", lambda: app.backend.client.lrange("crew_jobs", 0, -1), 10)
    assert json.loads(message)["headers"]["id"] == task and json.loads(message)["properties"]["priority"] == 0


def test_a_job_that_waits_too_long_for_a_worker_has_failed(no_worker, app):
    crew.start(crew.job("waits", timeouts={"queue": "2s"}))
    status = crew.in_phase("waits", "Failed", seconds=15)
    assert crew.condition("waits", "Failed")["reason"] == "QueueTimeout" and status["attempts"] == 0
    kube.until("its message is gone", lambda: crew.status_of_pool()["depth"] == 0)


def test_a_job_that_takes_too_long_in_all_is_stopped(executions):
    crew.start(crew.job("endless", inputs={"seconds": 600}, timeouts={"total": "8s"}))
    status = crew.in_phase("endless", "Failed", seconds=40)
    assert crew.condition("endless", "Failed")["reason"] == "DeadlineExceeded" and status["attempts"] == 1
    kube.until("the worker has stopped the task", lambda: status["taskID"] in executions.revoked, seconds=20)


def test_a_worker_that_does_not_hear_that_its_job_is_cancelled_is_replaced(figure):
    """A solo pool runs the task in its main loop: while it does, it hears nothing."""
    crew.no_workers()
    kube.patch("crewworkerpool", "default", {"spec": {"concurrency": 1}})
    try:
        with workers.started_with(["--pool", "solo"]):
            crew.start(crew.job("unheard", inputs={"seconds": 600}))
            pod = crew.in_phase("unheard", "Running")["worker"]["podName"]
            began = time.monotonic()
            crew.cancel("unheard")
            crew.in_phase("unheard", "Cancelled", seconds=90)
            figure(f"a job on a deaf worker was Cancelled after {time.monotonic() - began:.1f} s")
            kube.until("its Pod is gone", lambda: kube.find("pod", pod) is None)
    finally:
        kube.patch("crewworkerpool", "default", {"spec": {"concurrency": 4}})


def test_a_job_whose_time_to_live_has_passed_is_deleted(expired, figure):
    kube.until("it is deleted", lambda: kube.find("crewjob", "expired") is None, seconds=90)
    figure(f"an expired job was deleted within {time.monotonic() - expired:.0f} s")
