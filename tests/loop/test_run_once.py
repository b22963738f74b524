"""Of all jobs with the same run-once key one runs, whatever becomes of jobs, Redis and operators."""

import pytest

from waiting import settles, until


def ends(bed, name: str, state: str = "SUCCESS") -> None:
    """Lets the run of a job end."""
    task = bed.a.task(name)
    until(f"the message of {name} waits", lambda: bed.redis.queued(task))
    message = bed.redis.take(task)
    result = {"answer": 42} if state == "SUCCESS" else {"exc_type": "ValueError", "exc_message": ["no"]}
    bed.redis.store(task, state, result)
    bed.redis.acknowledge(message)


def reason(bed, name: str) -> str:
    return bed.a.condition(name).get("reason", "")


def records(bed) -> list[dict]:
    return bed.a.items("configmaps", "?labelSelector=crewjob.dev/run-once")


def is_not_run(bed, name: str, phase: str, by: str) -> None:
    """The job ends in this phase without a run, and names the job that has run."""
    bed.a.in_phase(name, phase)
    assert reason(bed, name) == "AlreadyRan"
    assert by in bed.a.condition(name)["message"]
    assert bed.a.status(name).get("attempts", 0) == 0
    assert not bed.redis.queued(bed.a.task(name))


@pytest.mark.parametrize(("state", "phase"), [("SUCCESS", "Succeeded"), ("FAILURE", "Failed")])
def test_a_job_that_was_deleted_and_is_created_again_ends_as_the_first_one_did_without_a_run(bed, state, phase):
    bed.a.pool(bed.redis, runOnceRetention="48h")
    bed.a.job("report", runOnce="report/2026", retryPolicy={"maxRetries": 0})
    first = bed.a.get("crewjobs", "report")["metadata"]["uid"]
    ends(bed, "report", state)
    bed.a.in_phase("report", phase)
    [record] = records(bed)
    assert record["data"] | {"term": "", "endedAt": "", "expiresAt": ""} == {
        "key": "report/2026", "job": "report", "uid": first, "ended": phase, "term": "", "endedAt": "", "expiresAt": "",
    }
    assert "T" in record["metadata"]["annotations"]["crewjob.dev/expires-at"]
    bed.a.delete("crewjobs", "report")
    until("the job is gone", lambda: bed.a.get("crewjobs", "report") is None)
    bed.redis.client.flushall()
    bed.operator.stop()
    bed.operator.start()
    bed.a.job("report", runOnce="report/2026")
    is_not_run(bed, "report", phase, first)
    kstatus = {"Succeeded": "Complete", "Failed": "Failed"}[phase]
    assert bed.a.condition("report", kstatus)["status"] == "True"
    bed.a.job("other-key", runOnce="report/2027")
    until("another key runs", lambda: bed.redis.queued(bed.a.task("other-key")))
    bed.a.job("no-key")
    until("a job without a key runs", lambda: bed.redis.queued(bed.a.task("no-key")))


def test_of_many_jobs_with_one_key_one_runs_and_the_others_wait_for_its_end(bed):
    bed.a.pool(bed.redis)
    names = [f"crew-{number}" for number in range(20)]
    for name in names:
        bed.a.job(name, runOnce="k")
    until("19 wait", lambda: sum(reason(bed, name) == "RunOnceHeld" for name in names) == 19)
    [runs] = [name for name in names if reason(bed, name) != "RunOnceHeld"]
    settles("one message is there", lambda: len(bed.redis.messages()) == 1, 6)
    ends(bed, runs)
    bed.a.in_phase(runs, "Succeeded")
    until("the others have ended at once", lambda: all(bed.a.status(name)["phase"] == "Succeeded" for name in names), 10)
    for name in names:
        if name != runs:
            is_not_run(bed, name, "Succeeded", runs)


@pytest.mark.parametrize("end", ["cancelled", "deleted"])
def test_a_job_that_is_cancelled_or_deleted_leaves_the_key_to_the_next_one(bed, end):
    bed.a.pool(bed.redis)
    bed.a.job("first", runOnce="k")
    until("the first is published", lambda: bed.redis.queued(bed.a.task("first")))
    bed.a.job("second", runOnce="k")
    until("the second waits", lambda: reason(bed, "second") == "RunOnceHeld")
    if end == "cancelled":
        bed.a.change("first", cancel=True)
        bed.a.in_phase("first", "Cancelled")
    else:
        bed.a.delete("crewjobs", "first")
    until("the second is published", lambda: bed.redis.queued(bed.a.task("second")), 10)
    ends(bed, "second")
    bed.a.in_phase("second", "Succeeded")
    assert records(bed)[0]["data"]["job"] == "second"


def test_an_operator_that_is_killed_at_any_time_runs_no_key_twice(bed):
    bed.a.pool(bed.redis)
    names = [f"crew-{number}" for number in range(12)]
    for name in names:
        bed.a.job(name, runOnce=f"k{names.index(name) % 4}")
        if names.index(name) % 3 == 2:
            bed.operator.kill()
            bed.operator.start()
    until("four run", lambda: len(bed.redis.messages()) == 4)
    until("eight wait", lambda: sum(reason(bed, name) == "RunOnceHeld" for name in names) == 8)
    running = [name for name in names if bed.redis.queued(bed.a.task(name))]
    for name in running:
        ends(bed, name)
        bed.operator.kill()
        bed.operator.start()
    for name in names:
        bed.a.in_phase(name, "Succeeded")
    assert [name for name in names if reason(bed, name) != "AlreadyRan"] == running
    assert not bed.redis.messages()


def test_a_record_that_is_refused_or_whose_name_is_taken_is_said_and_the_job_goes_on_when_that_is_mended(bed):
    bed.a.pool(bed.redis)
    bed.a.job("first", runOnce="k")
    until("the first is published", lambda: bed.redis.queued(bed.a.task("first")))
    name = records(bed)[0]["metadata"]["name"]
    bed.a.delete("configmaps", name)
    bed.a.create("configmaps", {"metadata": {"name": name}, "data": {"mine": "yes"}})
    bed.a.job("second", runOnce="k")
    until("the second says so", lambda: reason(bed, "second") == "RunOnceRefused")
    assert f"kubectl delete configmap {name}" in bed.a.condition("second")["message"]
    ends(bed, "first")
    until("the first says so", lambda: reason(bed, "first") == "RunOnceRefused")
    bed.a.delete("configmaps", name)
    bed.a.in_phase("first", "Succeeded")
    until("the second ends, or runs", lambda: reason(bed, "second") in ("AlreadyRan", "Enqueued"), 40)


def test_expired_records_are_deleted_and_their_keys_run_again(bed):
    bed.a.pool(bed.redis)
    bed.a.job("first", runOnce="k")
    ends(bed, "first")
    bed.a.in_phase("first", "Succeeded")
    [record] = records(bed)
    expired = "2026-01-01T00:00:00Z"
    change = {"metadata": {"annotations": {"crewjob.dev/expires-at": expired}}, "data": {"expiresAt": expired}}
    bed.a.patch("configmaps", record["metadata"]["name"], change)
    bed.a.job("second", runOnce="k")
    until("the second is published", lambda: bed.redis.queued(bed.a.task("second")))
    ends(bed, "second")
    bed.a.in_phase("second", "Succeeded")
    bed.a.patch("configmaps", record["metadata"]["name"], change)
    bed.operator.stop()
    bed.operator.start()
    until("the record is deleted", lambda: not records(bed))


def test_a_job_without_a_key_costs_no_config_map(bed):
    bed.a.pool(bed.redis)
    bed.a.job("plain")
    ends(bed, "plain")
    bed.a.in_phase("plain", "Succeeded")
    assert not records(bed)
