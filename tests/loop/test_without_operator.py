"""What the operator is for: the same happens to the same tasks on the same Celery workers, with it and without.

The guard of the example is off, which would help in both cases.
"""

import time

import pytest
from celery import Celery

from waiting import holds, until

VISIBILITY_TIMEOUT = 6
LONGER = 14
# What shall be taken twice must go on until the other worker is connected, however slowly that starts.
FOR_LONG = 300
UNTOUCHED = 12
STOCK = {"crewjob_guard": "0", "visibility_timeout": str(VISIBILITY_TIMEOUT)}


@pytest.fixture
def send(bed):
    """Sends the example's task as a producer does."""
    producer = Celery("producer", broker=bed.redis.url, backend=bed.redis.url)
    inputs = lambda seconds: {"topic": "sent by Celery", "seconds": seconds}  # noqa: E731
    return lambda name, seconds: producer.send_task(
        "backend.tasks.run_crew_task", (name, inputs(seconds), True), queue="crew_jobs", routing_key="crew.jobs"
    )


def outlives_the_visibility_timeout(task: str, events, example_worker) -> None:
    """Waits until kombu takes a running task for abandoned; then another worker looks for such tasks, as it does whenever it
    connects, and every 100 seconds."""
    until("a worker has begun it", lambda: events.runs(task) == 1)
    began = time.monotonic()
    until("it runs for longer", lambda: time.monotonic() - began > VISIBILITY_TIMEOUT + 1)
    other = example_worker("crew@other", **STOCK)
    until("the other worker is connected", lambda: "crew@other ready" in other.log.read_text(), every=0.2)


def test_the_operator_keeps_a_task_with_its_worker_for_longer_than_the_visibility_timeout(bed, example_worker, events):
    bed.a.pool(bed.redis)
    example_worker("crew@first", **STOCK)
    bed.a.job("long", inputs={"seconds": LONGER})
    task = bed.a.in_phase("long", "Running")["taskID"]
    outlives_the_visibility_timeout(task, events, example_worker)
    status = bed.a.in_phase("long", "Succeeded")
    assert (status["attempts"], events.runs(task)) == (1, 1)


def test_celery_alone_runs_a_task_twice_that_takes_longer(send, example_worker, events):
    example_worker("crew@first", **STOCK)
    task = send("long", FOR_LONG).id
    outlives_the_visibility_timeout(task, events, example_worker)
    until("it is begun again while it runs", lambda: events.runs(task) == 2, 10)


def test_celery_alone_leaves_a_killed_workers_task_where_no_worker_runs_it(bed, send, example_worker, events):
    killed = example_worker("crew@first", crewjob_guard="0")
    task = send("orphan", 8).id
    until("it is begun", lambda: events.runs(task) == 1)
    killed.kill()
    example_worker("crew@other", crewjob_guard="0")
    assert send("another", 0.2).get(timeout=20)["status"] == "completed"
    in_flight = lambda: any(task.encode() in message for message in bed.redis.client.hvals("unacked"))  # noqa: E731
    holds("its message is in flight, and no worker runs it", lambda: in_flight() and events.runs(task) == 1, UNTOUCHED, 0.5)
