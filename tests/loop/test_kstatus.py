"""What Flux makes of jobs and pools, by the library that it waits with: a job is current when it has ended well."""

import pytest

from kstatus import program, verdict
from waiting import holds, until


@pytest.fixture(autouse=True, scope="module")
def built():
    program()


def of_job(bed, name: str) -> str:
    return verdict(bed.a.get("crewjobs", name))


def of_pool(bed) -> str:
    return verdict(bed.a.get("crewworkerpools", "default"))


def ends(bed, task: str, status: str, result) -> None:
    message = bed.redis.take(task)
    bed.redis.store(task, status, result)
    bed.redis.acknowledge(message)


def queued(bed, name: str, **spec) -> str:
    bed.a.job(name, **spec)
    task = bed.a.task(name)
    until("its message waits", lambda: bed.redis.queued(task))
    bed.a.in_phase(name, "Queued")
    return task


def test_a_job_and_a_pool_that_no_operator_has_seen_are_in_progress(bed):
    bed.operator.stop()
    try:
        bed.a.pool(bed.redis, ready=False)
        bed.a.job("crew")
        assert of_job(bed, "crew") == of_pool(bed) == "InProgress"
    finally:
        bed.operator.start()


def test_a_job_is_in_progress_from_its_creation_to_its_end_and_then_current(bed):
    bed.a.job("crew")
    until("it says that it waits for its pool", lambda: bed.a.condition("crew").get("reason") == "PoolNotFound")
    assert of_job(bed, "crew") == "InProgress"
    bed.a.pool(bed.redis)
    bed.a.in_phase("crew", "Queued")
    assert of_job(bed, "crew") == "InProgress"
    task = bed.a.task("crew")
    message = bed.redis.take(task)
    bed.redis.event("task-started", "crew@elsewhere", uuid=task)
    bed.a.in_phase("crew", "Running")
    assert of_job(bed, "crew") == "InProgress"
    bed.redis.store(task, "SUCCESS", 1)
    bed.redis.acknowledge(message)
    bed.a.in_phase("crew", "Succeeded")
    assert of_job(bed, "crew") == "Current"


def test_a_job_that_failed_is_failed(bed):
    bed.a.pool(bed.redis)
    task = queued(bed, "crew", retryPolicy={"maxRetries": 0})
    ends(bed, task, "FAILURE", {"exc_type": "ValueError", "exc_message": ["no"]})
    bed.a.in_phase("crew", "Failed")
    assert of_job(bed, "crew") == "Failed"


def test_a_suspended_job_is_in_progress_and_a_cancelled_one_is_current(bed):
    bed.a.pool(bed.redis)
    bed.a.job("crew", suspend=True)
    until("it says that it is suspended", lambda: bed.a.condition("crew").get("reason") == "Suspended")
    holds("it is in progress", lambda: of_job(bed, "crew") == "InProgress", seconds=1)
    bed.a.change("crew", cancel=True)
    bed.a.in_phase("crew", "Cancelled")
    assert of_job(bed, "crew") == "Current"


def test_a_finished_job_whose_spec_was_touched_becomes_current_or_failed_again(bed):
    bed.a.pool(bed.redis)
    ends(bed, queued(bed, "good"), "SUCCESS", 1)
    ends(bed, queued(bed, "bad", retryPolicy={"maxRetries": 0}), "FAILURE", {"exc_type": "ValueError", "exc_message": ["no"]})
    for name, phase, last in (("good", "Succeeded", "Current"), ("bad", "Failed", "Failed")):
        bed.a.in_phase(name, phase)
        bed.a.change(name, priority=9)
        until(f"{name} is {last} again", lambda name=name, last=last: of_job(bed, name) == last, 10)
        assert bed.a.status(name)["observedGeneration"] == 2


def test_a_pool_is_current_when_it_is_ready_and_in_progress_when_its_redis_cannot_be_reached(bed):
    bed.a.pool(bed.redis)
    until("it is current", lambda: of_pool(bed) == "Current", 10)
    bed.redis.stop()
    try:
        until("it is in progress", lambda: of_pool(bed) == "InProgress")
    finally:
        bed.redis.start()
    until("it is current again", lambda: of_pool(bed) == "Current")
