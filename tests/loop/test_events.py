"""Normal Events say that a job was enqueued, started, retried and finished, once each; a job of a moment has none."""

from collections import Counter

from waiting import holds, until


def told(bed, name: str) -> dict[str, int]:
    """How often each reason is among the Normal Events of a job."""
    uid = bed.a.get("crewjobs", name)["metadata"]["uid"]
    events = bed.a.items("events", f"?fieldSelector=type=Normal,involvedObject.uid={uid}")
    return dict(Counter(event["reason"] for event in events))


def begun(bed, name: str, attempt: int = 1) -> tuple:
    """A job of which a worker has begun an attempt; its task and message."""
    task = bed.a.task(name, attempt)
    until("its message waits", lambda: bed.redis.queued(task))
    message = bed.redis.take(task)
    bed.redis.event("task-started", "crew@elsewhere", uuid=task)
    return task, message


def ends(bed, task: str, message, status: str = "SUCCESS") -> None:
    result = {"answer": 42} if status == "SUCCESS" else {"exc_type": "ValueError", "exc_message": ["no"]}
    bed.redis.store(task, status, result)
    bed.redis.acknowledge(message)


def test_a_job_of_ten_seconds_is_told_of_once_also_when_the_operator_is_killed_in_between(bed):
    bed.a.pool(bed.redis)
    bed.a.job("crew")
    task, message = begun(bed, "crew")
    until("its start is told of", lambda: told(bed, "crew") == {"Enqueued": 1, "Started": 1})
    bed.operator.kill()
    bed.operator.start()
    tries = lambda: bed.operator.metric("crewjob_api_writes_total", write="Event", outcome="Conflict")  # noqa: E731
    until("the next leader has tried as well", lambda: tries() == 2)
    ends(bed, task, message)
    bed.a.in_phase("crew", "Succeeded")
    everything = {"Enqueued": 1, "Started": 1, "Finished": 1}
    until("its end is told of", lambda: told(bed, "crew") == everything)
    bed.operator.kill()
    bed.operator.start()
    holds("nothing is told of again", lambda: told(bed, "crew") == everything, seconds=3)


def test_a_job_whose_operator_dies_before_it_is_old_enough_is_told_of_by_the_next_one(bed):
    bed.a.pool(bed.redis)
    bed.a.job("crew")
    begun(bed, "crew")
    bed.a.in_phase("crew", "Running")
    bed.operator.kill()
    assert told(bed, "crew") == {}
    bed.operator.start()
    until("its start is told of", lambda: told(bed, "crew") == {"Enqueued": 1, "Started": 1})


def test_a_job_of_a_moment_has_no_events_and_no_writes_after_its_end(bed):
    bed.a.pool(bed.redis)
    writes = lambda: [bed.operator.metric("crewjob_api_writes_total", write=kind) for kind in ("JobStatus", "Event")]  # noqa: E731
    bed.a.job("crew")
    task, message = begun(bed, "crew")
    ends(bed, task, message)
    bed.a.in_phase("crew", "Succeeded")
    until("the operator is done with it", lambda: bed.operator.metric("crewjob_jobs_live") == 0)
    after = writes()
    holds("it stays so when it is old", lambda: (writes(), told(bed, "crew")) == (after, {}), seconds=7)


def test_a_job_that_is_retried_says_so_with_the_error(bed):
    bed.a.pool(bed.redis)
    bed.a.job("crew", retryPolicy={"maxRetries": 1, "backoff": {"initial": "6s"}})
    task, message = begun(bed, "crew")
    ends(bed, task, message, "FAILURE")
    until("its retry is told of", lambda: told(bed, "crew") == {"Enqueued": 1, "Started": 1, "Retried": 1})
    ends(bed, *begun(bed, "crew", 2))
    bed.a.in_phase("crew", "Succeeded")
    until("its end is told of", lambda: told(bed, "crew") == {"Enqueued": 1, "Started": 2, "Retried": 1, "Finished": 1})
    uid = bed.a.get("crewjobs", "crew")["metadata"]["uid"]
    [retried] = bed.a.items("events", f"?fieldSelector=reason=Retried,involvedObject.uid={uid}")
    assert retried["message"].startswith("attempt 1 failed (ValueError: no); the next one is published ")
    assert "attempt 1 failed (ValueError: no)" in bed.a.kubectl("describe", "crewjob", "crew")
