"""Of the jobs with one dedup key, created within its window, one runs, whatever becomes of operators."""

import pytest

from waiting import settles, until


def reason(bed, name: str) -> str:
    return bed.a.condition(name).get("reason", "")


def ends(bed, name: str, result=None) -> None:
    task = bed.a.task(name)
    until(f"the message of {name} waits", lambda: bed.redis.queued(task))
    message = bed.redis.take(task)
    bed.redis.store(task, "SUCCESS", result or {"answer": 42})
    bed.redis.acknowledge(message)


def running(bed) -> set[str]:
    """The jobs of which messages wait."""
    return {message["headers"]["crewjob_name"] for message in bed.redis.messages()}


def test_a_second_job_with_the_key_fails_and_names_the_first_also_when_that_has_ended(bed):
    bed.a.pool(bed.redis)
    bed.a.job("first", dedup={"key": "order/7"})
    until("the first is published", lambda: running(bed) == {"first"})
    bed.a.job("second", dedup={"key": "order/7"})
    bed.a.in_phase("second", "Failed")
    assert reason(bed, "second") == "Duplicate" and '"first"' in bed.a.condition("second")["message"]
    ends(bed, "first")
    bed.a.in_phase("first", "Succeeded")
    bed.operator.kill()
    bed.operator.start()
    bed.a.job("third", dedup={"key": "order/7"})
    bed.a.in_phase("third", "Failed")
    bed.a.job("other", dedup={"key": "order/8"})
    until("another key runs", lambda: running(bed) == {"other"})
    bed.a.delete("crewjobs", "first")
    bed.a.job("fourth", dedup={"key": "order/7"})
    until("the key is free when its job is deleted", lambda: running(bed) == {"other", "fourth"})


def test_a_job_outside_of_the_window_is_no_duplicate(bed):
    bed.a.pool(bed.redis)
    bed.a.job("first", dedup={"key": "k"})
    until("the first is published", lambda: running(bed) == {"first"})
    # Times of creation are whole seconds.
    settles("the window is over", lambda: running(bed) == {"first"}, 2.1)
    bed.a.job("second", dedup={"key": "k", "window": "1s"})
    until("the second is published", lambda: running(bed) == {"first", "second"})


def test_attached_jobs_end_as_the_first_one_does_with_its_result(bed):
    bed.a.pool(bed.redis)
    bed.a.job("first", dedup={"key": "k"})
    until("the first is published", lambda: running(bed) == {"first"})
    for name in ("second", "third"):
        bed.a.job(name, dedup={"key": "k", "onConflict": "Attach"})
        until(f"{name} waits", lambda name=name: reason(bed, name) == "Attached")
    bed.operator.kill()
    bed.operator.start()
    large = {"text": "x" * 10_000}
    ends(bed, "first", large)
    result = bed.a.in_phase("first", "Succeeded")["result"]
    for name in ("second", "third"):
        status = bed.a.in_phase(name, "Succeeded")
        assert status["result"] == result and status.get("attempts", 0) == 0
        assert reason(bed, name) == "Attached"
    bed.a.job("late", dedup={"key": "k", "onConflict": "Attach"})
    assert bed.a.in_phase("late", "Succeeded")["result"] == result
    assert not bed.redis.messages()


def test_a_job_that_replaces_the_first_one_runs_when_that_is_cancelled(bed):
    bed.a.pool(bed.redis)
    bed.a.job("first", dedup={"key": "k"})
    until("the first is published", lambda: running(bed) == {"first"})
    bed.a.job("second", dedup={"key": "k", "onConflict": "Replace"})
    bed.a.in_phase("first", "Cancelled")
    until("the second is published", lambda: running(bed) == {"second"}, 10)
    ends(bed, "second")
    bed.a.in_phase("second", "Succeeded")


@pytest.mark.parametrize("kills", [0, 5])
def test_of_20_keys_submitted_five_times_each_20_jobs_run_whatever_becomes_of_the_operator(bed, kills):
    bed.a.pool(bed.redis)
    names = [f"job-{key:02}-{copy}" for copy in range(5) for key in range(20)]
    for number, name in enumerate(names):
        bed.a.job(name, dedup={"key": name[4:6]})
        if kills and number % 20 == 19:
            bed.operator.kill()
            bed.operator.start()
    until("80 are duplicates", lambda: sum(reason(bed, name) == "Duplicate" for name in names) == 80, 60)
    until("20 are published", lambda: len(running(bed)) == 20)
    assert {name[4:6] for name in running(bed)} == {f"{key:02}" for key in range(20)}
    settles("no more are", lambda: len(bed.redis.messages()) == 20, 2)
