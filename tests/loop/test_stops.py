"""What ends a job before its task does, and where a queued one waits."""

import json

from test_deletion import restored
from waiting import until

MANY = 250


def test_queued_jobs_that_are_cancelled_without_a_worker_never_run(bed, crew_worker, events):
    bed.a.pool(bed.redis)
    names = [f"many-{number}" for number in range(MANY)]
    for name in (*names, "last"):
        bed.a.job(name)
    for name in (*names, "last"):
        bed.a.in_phase(name, "Queued")
    tasks = {item["metadata"]["name"]: item["status"]["taskID"] for item in bed.a.items("crewjobs")}
    for name in names:
        bed.a.change(name, cancel=True)
    for name in names:
        bed.a.in_phase(name, "Cancelled")
    until("only one message is left", lambda: len(bed.redis.messages()) == 1)
    crew_worker()
    bed.a.in_phase("last", "Succeeded")
    assert events.read().begun == {tasks["last"]: 1}


def test_a_copy_that_kombu_has_put_back_is_withdrawn_too(bed, crew_worker, events):
    bed.a.pool(bed.redis)
    bed.a.job("copied")
    bed.a.job("other")
    task = bed.a.in_phase("copied", "Queued")["taskID"]
    bed.a.in_phase("other", "Queued")
    restored(bed.redis, task)
    bed.a.change("copied", cancel=True)
    bed.a.in_phase("copied", "Cancelled")
    assert not bed.redis.queued(task)
    crew_worker()
    bed.a.in_phase("other", "Succeeded")
    assert events.runs(task) == 0


def test_a_queued_job_that_becomes_urgent_changes_its_place(bed):
    bed.a.pool(bed.redis)
    bed.a.job("patient")
    bed.a.job("urgent")
    bed.a.in_phase("patient", "Queued")
    task = bed.a.in_phase("urgent", "Queued")["taskID"]
    bed.a.change("urgent", priority=10)
    (element,) = until("it is in the first band", lambda: bed.redis.client.lrange("crew_jobs", 0, -1), 10)
    message = json.loads(element)
    assert message["headers"]["id"] == task and message["properties"]["priority"] == 0


def test_a_job_that_waits_too_long_for_a_worker_has_failed(bed):
    bed.a.pool(bed.redis)
    bed.a.job("waits", timeouts={"queue": "2s"})
    status = bed.a.in_phase("waits", "Failed", seconds=15)
    assert bed.a.condition("waits", "Failed")["reason"] == "QueueTimeout" and status["attempts"] == 0
    until("its message is gone", lambda: not bed.redis.messages())


def test_a_job_that_takes_too_long_in_all_is_stopped_on_its_celery_worker(bed, example_worker, events):
    bed.a.pool(bed.redis)
    example_worker()
    # A Celery worker takes some seconds to start.
    bed.a.job("first", inputs={"seconds": 0})
    bed.a.in_phase("first", "Succeeded")
    bed.a.job("endless", inputs={"seconds": 600}, timeouts={"total": "5s"})
    status = bed.a.in_phase("endless", "Failed")
    assert bed.a.condition("endless", "Failed")["reason"] == "DeadlineExceeded" and status["attempts"] == 1
    until("the worker has stopped the task", lambda: status["taskID"] in events.read().stopped, 20)
