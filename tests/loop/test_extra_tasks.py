"""Tasks of Celery workers that do what the example's do not: retry by themselves, leave no result, have a rate limit."""

from test_pods import POD, fleet
from waiting import until

TASKS = ["extra_tasks.retries_by_itself", "extra_tasks.ends_without_a_word", "extra_tasks.returns_what_json_has_no_form_for"]
LIMITED = "extra_tasks.runs_every_ten_seconds"


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


def test_a_message_that_waits_in_its_worker_for_a_rate_limit_is_not_lost_and_runs_once(bed, example_worker, events):
    fleet(bed.a, POD)
    bed.a.pool(bed.redis, allowedTasks=[LIMITED], deploymentRef={"name": "worker"})
    example_worker(f"crew@{POD}", "--include", "extra_tasks")
    names = [f"crew-{n}" for n in range(3)]
    for name in names:
        bed.a.job(name, task=LIMITED)
    phases = lambda: [bed.a.status(name).get("phase") for name in names]
    until("the first has run", lambda: "Succeeded" in phases(), 30)
    seen = set()
    until("all have run", lambda: (now := phases(), seen.update(now))[0] == ["Succeeded"] * 3, 60)
    for name in names:
        status = bed.a.status(name)
        assert (status["attempts"], status.get("workerLosses", 0), status.get("messageLosses", 0)) == (1, 0, 0), status
        assert events.runs(status["taskID"]) == 1
        assert bed.a.warnings("crewjobs", name) == []
    assert "Queued" in seen, seen
    assert bed.a.pool_condition("WorkersStalled").get("status") != "True"
