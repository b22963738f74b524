"""Tasks that live on in messages that no operator has published: Celery's own retries, and what a task replaces itself by.

Messages are looked for every two seconds here, and one that is missed twice counts as lost.
"""

import json

import pytest

from test_pods import HASH, POD, fleet
from waiting import holds, until

RETRIES, REPLACES, SLEEPS = (f"extra_tasks.{name}" for name in ("retries_once", "replaces_itself", "sleeps"))
TASKS = [RETRIES, REPLACES, SLEEPS]


def start(bed, example_worker, node: str = "crew@first", **pool) -> None:
    bed.a.pool(bed.redis, allowedTasks=TASKS, **pool)
    example_worker(node, "--include", "extra_tasks", "-c", "1")


def keep_busy(bed, seconds: float, jobs: int = 1, **spec) -> None:
    """Other jobs for the only worker, in the queue before what comes next."""
    for number in range(jobs):
        bed.a.job(f"other-{number}", task=SLEEPS, inputs={"seconds": seconds}, **spec)
    until("they wait", lambda: len(bed.redis.messages()) >= jobs)


def copies(bed, task: str) -> list[str]:
    """The delivery tags of all messages of a task, in the queues and in flight."""
    in_flight = [json.loads(value)[0] for value in bed.redis.client.hvals("unacked")]
    messages = [message for message in in_flight if message["headers"]["id"] == task] + bed.redis.queued(task)
    return [message["properties"]["delivery_tag"] for message in messages]


def is_whole(bed, name: str) -> bool:
    """Whether nothing of this job was counted as lost, or published again."""
    status = bed.a.status(name)
    lost = [status.get(count, 0) for count in ("messageLosses", "workerLosses", "deliveryGeneration")]
    return not any(lost) and bed.a.warnings("crewjobs", name) == []


def test_a_retry_of_celerys_own_that_waits_behind_other_messages_is_no_loss(bed, example_worker, events):
    start(bed, example_worker)
    bed.a.job("retries", task=RETRIES, inputs={"before": 3})
    task = bed.a.in_phase("retries", "Running")["taskID"]
    keep_busy(bed, 4, jobs=3)
    until("the retry waits", lambda: [tag for tag in copies(bed, task) if tag != task])
    status = bed.a.in_phase("retries", "Succeeded", seconds=60)
    assert (status["attempts"], events.runs(task)) == (2, 2)
    assert is_whole(bed, "retries"), status


def test_a_retry_that_a_worker_holds_for_a_countdown_is_no_loss(bed, example_worker, events):
    fleet(bed.a, POD)
    start(bed, example_worker, f"crew@{POD}", deploymentRef={"name": "worker"})
    bed.a.job("retries", task=RETRIES, inputs={"before": 1, "countdown": 15})
    status = bed.a.in_phase("retries", "Succeeded", seconds=60)
    assert (status["attempts"], events.runs(status["taskID"])) == (2, 2)
    assert is_whole(bed, "retries"), status


@pytest.mark.parametrize("by, value", [("chain", 2), ("group", [1, 2]), ("task", 2)])
def test_a_task_that_replaces_itself_ends_with_what_it_was_replaced_by(bed, example_worker, events, by, value):
    start(bed, example_worker)
    bed.a.job("replaced", task=REPLACES, inputs={"by": by, "before": 3, "seconds": 5}, queue="default")
    task = bed.a.in_phase("replaced", "Running")["taskID"]
    keep_busy(bed, 4, jobs=2, queue="default")
    goes_on = lambda: bed.a.status("replaced")["phase"] in ("Queued", "Running")
    holds("it goes on", goes_on, 9)
    status = bed.a.in_phase("replaced", "Succeeded", seconds=60)
    assert json.loads(json.dumps(status["result"]["value"])) == value
    assert is_whole(bed, "replaced"), status
    assert not copies(bed, task)


def test_a_job_that_is_cancelled_while_its_retry_waits_leaves_no_message(bed, example_worker, events):
    start(bed, example_worker)
    bed.a.job("retries", task=RETRIES, inputs={"before": 3})
    task = bed.a.in_phase("retries", "Running")["taskID"]
    keep_busy(bed, 60)
    until("the retry waits", lambda: [tag for tag in copies(bed, task) if tag != task])
    until("the first message is acknowledged", lambda: task not in copies(bed, task))
    bed.a.change("retries", cancel=True)
    bed.a.in_phase("retries", "Cancelled")
    until("no message of it is left", lambda: not copies(bed, task))
    assert events.runs(task) == 1


def test_a_job_that_is_cancelled_while_what_replaced_it_runs_is_stopped(bed, example_worker, events):
    start(bed, example_worker)
    bed.a.job("replaced", task=REPLACES, inputs={"by": "chain", "before": 2, "seconds": 300})
    task = bed.a.in_phase("replaced", "Running")["taskID"]
    until("the first step runs", lambda: bed.redis.client.hlen("unacked") == 1 and not copies(bed, task))
    holds("it goes on", lambda: bed.a.status("replaced")["phase"] == "Running", 5)
    bed.a.change("replaced", cancel=True)
    bed.a.in_phase("replaced", "Cancelled", seconds=60)
    until("nothing is left", lambda: not bed.redis.client.hlen("unacked") and not bed.redis.messages())
    until("the worker says that it has stopped the step", lambda: len(events.read().stopped) == 1)


def test_a_retry_whose_worker_is_killed_runs_once_more_and_there_is_one_message_of_it(bed, example_worker, events):
    second = f"worker-{HASH}-next1"
    fleet(bed.a, POD)
    bed.a.pool(bed.redis, allowedTasks=TASKS, deploymentRef={"name": "worker"})
    worker = example_worker(f"crew@{POD}", "--include", "extra_tasks", "-c", "1")
    bed.a.job("retries", task=RETRIES, inputs={"before": 1, "after": 8})
    task = bed.a.in_phase("retries", "Running")["taskID"]
    until("the retry runs", lambda: events.runs(task) == 2)
    worker.kill()
    bed.a.terminates(POD)
    until("the loss is noticed", lambda: bed.a.status("retries").get("workerLosses") == 1, 30)
    assert copies(bed, task) == [f"{task}#1"]
    bed.a.pod(second)
    bed.a.runs(second)
    example_worker(f"crew@{second}", "--include", "extra_tasks", "-c", "1")
    status = bed.a.in_phase("retries", "Succeeded", seconds=60)
    assert (status["attempts"], status["workerLosses"], status.get("messageLosses", 0)) == (2, 1, 0)
    assert events.runs(task) == 3, "the retry, and not what came before it, once more"
    assert not copies(bed, task)
