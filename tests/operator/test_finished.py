"""The status of a finished job follows a change of its spec, and the job is deleted when its time is over."""

from datetime import UTC, datetime, timedelta

import pytest
from servers import until


def finished(bed, name: str, status: str = "SUCCESS", **spec) -> dict:
    """A job that has ended; its object."""
    bed.a.job(name, **spec)
    task = bed.a.task(name)
    until("its message waits", lambda: bed.redis.queued(task))
    message = bed.redis.take(task)
    result = {"answer": 42} if status == "SUCCESS" else {"exc_type": "ValueError", "exc_message": ["no"]}
    bed.redis.store(task, status, result)
    bed.redis.acknowledge(message)
    bed.a.in_phase(name, "Succeeded", "Failed")
    return bed.a.get("crewjobs", name)


def hour(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H}"


def ended_at(job: dict) -> datetime:
    return datetime.fromisoformat(job["status"]["finishedAt"])


def follows(bed, name: str, generation: int) -> dict:
    """Waits until the status has observed this generation, and returns it."""
    job = bed.a.get("crewjobs", name)
    assert job["metadata"]["generation"] == generation
    until("the generation is observed", lambda: bed.a.status(name).get("observedGeneration") == generation, 10)
    return bed.a.status(name)


CHANGES = {"priority": 9, "inputs": {"other": True}, "suspend": True, "cancel": True}


@pytest.mark.parametrize("end", ["SUCCESS", "FAILURE"])
def test_a_change_of_a_finished_jobs_spec_is_observed_and_changes_nothing_else(bed, end):
    bed.a.pool(bed.redis)
    before = finished(bed, "crew", end, retryPolicy={"maxRetries": 0})["status"]
    for number, (field, value) in enumerate(CHANGES.items(), 2):
        bed.a.change("crew", **{field: value})
        assert follows(bed, "crew", number) == before | {"observedGeneration": number}, field
    assert not bed.redis.messages()


def test_a_change_while_the_operator_is_down_is_observed_when_it_is_back(bed):
    bed.a.pool(bed.redis)
    finished(bed, "crew")
    finished(bed, "twice")
    bed.a.change("twice", priority=1)
    follows(bed, "twice", 2)
    for number in range(3, 6):
        bed.a.change("twice", priority=number)
        follows(bed, "twice", number)
    bed.operator.stop()
    try:
        bed.a.change("crew", priority=9, ttlAfterFinished="24h")
        bed.a.change("twice", priority=9)
    finally:
        bed.operator.start()
    follows(bed, "twice", 6)
    assert follows(bed, "crew", 2)["expiryBucket"] == hour(ended_at(bed.a.get("crewjobs", "crew")) + timedelta(days=1))


def test_a_ttl_that_is_added_changed_or_removed_after_the_end_counts_from_the_end(bed):
    bed.a.pool(bed.redis)
    job = finished(bed, "crew")
    for number, (ttl, hours) in enumerate({"24h": 24, "48h": 48, "2h": 2}.items(), 2):
        bed.a.change("crew", ttlAfterFinished=ttl)
        assert follows(bed, "crew", number)["expiryBucket"] == hour(ended_at(job) + timedelta(hours=hours))
    bed.a.change("crew", ttlAfterFinished=None)
    assert "expiryBucket" not in follows(bed, "crew", 5)


def test_a_finished_job_without_a_ttl_of_its_own_is_kept_as_its_pool_says(bed):
    bed.a.pool(bed.redis, jobDefaults={"ttlAfterFinished": "24h"})
    job = finished(bed, "crew", ttlAfterFinished="2h")
    bed.a.change("crew", ttlAfterFinished=None)
    assert follows(bed, "crew", 2)["expiryBucket"] == hour(ended_at(job) + timedelta(hours=24))
