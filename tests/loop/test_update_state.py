"""Tasks that store an end state themselves while they run, as `update_state(state="FAILURE", meta={…})` does, or what the
operator cannot read: notes of a run that goes on, as long as its message is in flight with a living worker."""

import base64
import json
import pickle
import time

import pytest

from test_pods import POD, fleet
from waiting import holds, until

NODE = f"crew@{POD}"
MARKS = {
    "FAILURE": {"step": "search", "why": "the first source is down"},
    "SUCCESS": "so far",
    "REVOKED": {"exc_type": "TaskRevokedError", "exc_message": ["by itself"]},
}


def runs(bed, name: str, started: bool = True) -> tuple[str, dict]:
    """A job whose message a worker has taken: its task and that message."""
    bed.a.job(name, retryPolicy={"maxRetries": 3, "backoff": {"initial": "1s"}})
    task = bed.a.task(name)
    until("its message waits", lambda: bed.redis.queued(task))
    message = bed.redis.take(task)
    if started:
        bed.redis.event("task-received", NODE, uuid=task, name="crew")
        bed.redis.store(task, "STARTED", {"pid": 7}, worker=NODE)
        bed.redis.event("task-started", NODE, uuid=task)
    return task, message


def command(published: bytes) -> bytes:
    """The body of a message of remote control."""
    return base64.b64decode(json.loads(published)["body"])


def goes_on(bed, name: str, seconds: float = 6) -> None:
    """It runs on through two audits and more."""
    is_running = lambda: (bed.a.status(name).get("phase"), bed.a.status(name).get("attempts", 1)) == ("Running", 1)
    until("it runs", is_running)
    holds("it goes on", is_running, seconds)


def ends_with(bed, name: str, task: str, message: dict, value) -> dict:
    bed.redis.store(task, "SUCCESS", value, worker=NODE)
    time.sleep(0.001)
    bed.redis.acknowledge(message)
    status = bed.a.in_phase(name, "Succeeded", seconds=5)
    assert (status["attempts"], status["result"]["value"], status["taskID"]) == (1, value, task), status
    assert bed.a.warnings("crewjobs", name) == []
    return status


@pytest.mark.parametrize("mark", MARKS)
def test_an_end_state_that_a_running_task_stores_is_no_end(bed, mark):
    fleet(bed.a, POD)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    task, message = runs(bed, "crew")
    bed.redis.store(task, mark, MARKS[mark], worker=NODE)
    goes_on(bed, "crew")
    ends_with(bed, "crew", task, message, "from the second source")


def test_a_document_that_cannot_be_read_is_no_end_while_its_task_runs(bed):
    bed.a.pool(bed.redis)
    task, message = runs(bed, "crew")
    until("it runs", lambda: bed.a.status("crew").get("phase") == "Running")
    key, document = f"celery-task-meta-{task}", pickle.dumps({"status": "PROGRESS", "result": {"percent": 40}})
    bed.redis.client.set(key, document, ex=3600)
    bed.redis.client.publish(key, document)
    goes_on(bed, "crew")
    ends_with(bed, "crew", task, message, "done")


def test_a_failure_that_a_task_stores_at_its_end_is_its_end(bed):
    """As with `raise Ignore()` after `update_state`: nothing is published when the message is acknowledged."""
    bed.a.pool(bed.redis)
    task, message = runs(bed, "crew")
    bed.redis.store(task, "FAILURE", MARKS["FAILURE"], worker=NODE)
    goes_on(bed, "crew", 2)
    bed.redis.acknowledge(message)
    status = bed.a.in_phase("crew", "Retrying", seconds=10)
    assert (status["attempts"], status["error"]["type"]) == (1, "Unknown"), status


def test_a_task_that_has_stored_a_failure_runs_again_when_its_worker_dies(bed):
    fleet(bed.a, POD)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    task, _ = runs(bed, "crew")
    bed.redis.store(task, "FAILURE", MARKS["FAILURE"], worker=NODE)
    goes_on(bed, "crew", 1)
    bed.a.terminates(POD)
    until("its message is published again", lambda: bed.redis.queued(task))
    until("the loss is recorded", lambda: bed.a.status("crew").get("workerLosses"))
    status = bed.a.status("crew")
    assert (status["workerLosses"], status.get("messageLosses", 0), status["taskID"]) == (1, 0, task), status
    assert not bed.redis.client.exists(f"celery-task-meta-{task}"), "no worker takes it for ended"


@pytest.mark.parametrize("has_events", [False, True])
def test_an_end_is_recorded_within_a_second_where_the_message_is_acknowledged_after_it(bed, has_events):
    bed.a.pool(bed.redis)
    waits = []
    for number in range(3):
        task, message = runs(bed, f"crew-{number}", has_events)
        bed.redis.store(task, "SUCCESS", number, worker=NODE)
        ended_at = time.monotonic()
        time.sleep(0.001)
        bed.redis.acknowledge(message)
        if has_events:
            bed.redis.event("task-succeeded", NODE, uuid=task)
        bed.a.in_phase(f"crew-{number}", "Succeeded", seconds=10)
        waits.append(time.monotonic() - ended_at)
    assert min(waits) < 1, waits


def test_a_cancelled_task_that_stores_its_end_first_has_ended_as_soon_as_its_message_is_acknowledged(bed):
    fleet(bed.a, POD)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    task, message = runs(bed, "crew")
    told = bed.redis.client.pubsub()
    told.psubscribe("*celery.pidbox")
    bed.a.change("crew", cancel=True)
    sent = lambda: iter(lambda: told.get_message(timeout=0.01), None)  # noqa: E731
    revokes = lambda: sum(it["type"] == "pmessage" and b"revoke" in command(it["data"]) for it in sent())  # noqa: E731
    until("its worker is told to stop it", revokes)
    bed.redis.store(task, "REVOKED", {"exc_type": "TaskRevokedError", "exc_message": ["terminated"]}, worker=NODE)
    goes_on(bed, "crew", 3)
    assert revokes() < 8, "told more than once a second"
    bed.redis.acknowledge(message)
    bed.a.in_phase("crew", "Cancelled", seconds=8)
    assert "CancelUnsupported" not in {it["type"] for it in bed.a.status("crew")["conditions"]}
