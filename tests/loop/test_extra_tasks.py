"""Tasks of Celery workers that do what the example's do not: retry by themselves, leave no result."""

TASKS = ["extra_tasks.retries_by_itself", "extra_tasks.ends_without_a_word", "extra_tasks.returns_what_json_has_no_form_for"]


def test_retries_of_celery_and_of_the_operator_share_one_budget(bed, example_worker, events):
    bed.a.pool(bed.redis, allowedTasks=TASKS)
    example_worker("crew@first", "--include", "extra_tasks")
    policy = {"maxRetries": 3, "backoff": {"initial": "1s", "max": "1s"}}
    for name, inputs in (("comes-round", {"own_retries": 2}), ("never-does", {"own_retries": 2, "fails": True})):
        bed.a.job(name, task=TASKS[0], inputs=inputs, retryPolicy=policy)
    well = bed.a.in_phase("comes-round", "Succeeded")
    assert (well["attempts"], events.runs(well["taskID"]), str(well["result"]["value"])) == (3, 3, "2")

    badly = bed.a.in_phase("never-does", "Failed")
    assert bed.a.condition("never-does", "Failed")["reason"] == "RetriesExhausted"
    # Three runs of the first message and one of the second, which knows how many came before.
    runs = {past["taskID"]: events.runs(past["taskID"]) for past in badly["attemptHistory"]}
    assert badly["attempts"] == 4 and sorted(runs.values()) == [1, 3], runs


def test_a_task_that_ends_without_a_result_is_said_to_have_none(bed, example_worker, events):
    bed.a.pool(bed.redis, allowedTasks=TASKS)
    example_worker("crew@first", "--include", "extra_tasks")
    bed.a.job("silent", task=TASKS[1], inputs={"seconds": 2})
    status = bed.a.in_phase("silent", "Failed")
    assert bed.a.condition("silent", "Failed")["reason"] == "NoResult"
    assert "does not have the task any more" in bed.a.condition("silent", "Failed")["message"]
    assert events.runs(status["taskID"]) == 1


def test_a_task_whose_result_cannot_be_encoded_runs_once_and_its_job_says_what_to_return(bed, example_worker, events):
    bed.a.pool(bed.redis, allowedTasks=TASKS)
    example_worker("crew@first", "--include", "extra_tasks")
    bed.a.job("odd", task=TASKS[2], retryPolicy={"maxRetries": 3, "backoff": {"initial": "1s", "max": "1s"}})
    status = bed.a.in_phase("odd", "Failed")
    failed = bed.a.condition("odd", "Failed")
    assert (failed["reason"], status["attempts"], events.runs(status["taskID"])) == ("ResultNotEncodable", 1, 1)
    assert "result_serializer can encode" in failed["message"] and "EncodeError" in failed["message"]
