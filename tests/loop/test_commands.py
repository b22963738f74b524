"""What a command of a native worker is told of its job, and what it says of its failure, which the operator heeds."""

POLICY = {"maxRetries": 3, "backoff": {"initial": "1s", "max": "1s"}}


def test_a_job_whose_command_exits_with_a_status_that_is_not_to_be_retried_runs_once(bed, crew_worker, events):
    bed.a.pool(bed.redis)
    crew_worker()
    bed.a.job("wrong", inputs={"exits": 2}, retryPolicy=POLICY)
    status = bed.a.in_phase("wrong", "Failed")
    assert bed.a.condition("wrong", "Failed")["reason"] == "NonRetryableError"
    assert "or the task itself asks: CommandFailed: exit status 2" in bed.a.condition("wrong", "Failed")["message"]
    assert (status["attempts"], events.runs(status["taskID"])) == (1, 1)


def test_a_job_whose_command_exits_with_75_runs_again_as_often_as_its_policy_says(bed, crew_worker, events):
    bed.a.pool(bed.redis)
    crew_worker()
    bed.a.job("busy", inputs={"exits": 75}, retryPolicy=POLICY | {"maxRetries": 1})
    status = bed.a.in_phase("busy", "Failed")
    assert bed.a.condition("busy", "Failed")["reason"] == "RetriesExhausted"
    assert status["attempts"] == 2
    assert [events.runs(past["taskID"]) for past in status["attemptHistory"]] == [1, 1]


def test_a_command_is_told_its_job_and_a_key_that_is_the_same_for_all_attempts(bed, crew_worker):
    bed.a.pool(bed.redis)
    crew_worker()
    bed.a.job("again", inputs={"fails": 1}, retryPolicy=POLICY)
    status = bed.a.in_phase("again", "Succeeded")
    metadata = bed.a.get("crewjobs", "again")["metadata"]
    first, second = (past["taskID"] for past in status["attemptHistory"])
    assert first != second
    told = f"done for {metadata['namespace']}/again {metadata['uid']} under {first}"
    assert told in str(status["result"]["value"]), status["result"]
    assert first in status["attemptHistory"][0]["message"]
