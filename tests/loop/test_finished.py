"""The status of a finished job follows a change of its spec, and the job is deleted when its time is over."""

from datetime import UTC, datetime, timedelta

import pytest

from waiting import holds, until


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


def ended(bed, name: str, days: int, **status) -> None:
    """Dates the end of a job back."""
    at = datetime.now(UTC) - timedelta(days=days)
    bed.a.patch("crewjobs", name, {"status": {"finishedAt": f"{at:%Y-%m-%dT%H:%M:%SZ}", **status}}, "status")


def test_a_ttl_that_is_added_after_the_end_deletes_the_job_if_its_time_is_over(bed):
    bed.a.pool(bed.redis)
    for name in ("over", "not-yet"):
        finished(bed, name)
        ended(bed, name, days=3)
    bed.a.change("not-yet", ttlAfterFinished="96h")
    bed.a.change("over", ttlAfterFinished="24h")
    until("its time is over", lambda: bed.a.get("crewjobs", "over") is None, 20)
    follows(bed, "not-yet", 2)


def test_a_job_expires_also_if_that_was_weeks_before_an_operator_came_and_a_removed_ttl_keeps_it(bed):
    bed.a.pool(bed.redis)
    for name in ("over", "kept"):
        job = finished(bed, name, ttlAfterFinished="24h")
        assert job["status"]["expiryBucket"] == hour(ended_at(job) + timedelta(hours=24))
    bed.operator.stop()
    try:
        for name in ("over", "kept"):
            ended(bed, name, days=50, expiryBucket=hour(datetime.now(UTC) - timedelta(days=49)))
        bed.a.change("kept", ttlAfterFinished=None)
    finally:
        bed.operator.start()
    until("it is deleted", lambda: bed.a.get("crewjobs", "over") is None, 20)
    assert "expiryBucket" not in follows(bed, "kept", 2)
    holds("the other is kept", lambda: bed.a.get("crewjobs", "kept"), seconds=7)


def test_a_job_that_is_held_by_a_finalizer_keeps_no_other_from_being_deleted(bed):
    bed.a.pool(bed.redis)
    held = [f"held-{number}" for number in range(12)]
    for name in (*held, "later"):
        finished(bed, name)
        ended(bed, name, days=3)
    for name in held:
        bed.a.patch("crewjobs", name, {"metadata": {"finalizers": ["example.com/hold"]}})
        bed.a.change(name, ttlAfterFinished="24h")
    try:
        going = lambda: all(bed.a.get("crewjobs", name)["metadata"].get("deletionTimestamp") for name in held)  # noqa: E731
        until("all of them are being deleted", going, 20)
        bed.a.change("later", ttlAfterFinished="24h")
        until("another is deleted", lambda: bed.a.get("crewjobs", "later") is None, 20)
    finally:
        for name in held:
            bed.a.patch("crewjobs", name, {"metadata": {"finalizers": None}})
