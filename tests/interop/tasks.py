"""The tasks of both kinds of workers: functions here, commands in `tasks.yaml`."""

import json
import os
import time

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

URL = os.environ["REDIS_URL"]

app = Celery("tasks", broker=URL, backend=URL)
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    timezone="UTC",
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=100,
    task_default_priority=5,
    task_default_queue="default",
    task_time_limit=3600,
    task_soft_time_limit=3000,
    result_expires=3600,
    result_extended=True,
    result_compression=os.environ.get("RESULT_COMPRESSION"),
    worker_send_task_events=True,
    task_send_sent_event=True,
    broker_transport_options={
        "visibility_timeout": int(os.environ.get("VISIBILITY_TIMEOUT", "3600")),
        **json.loads(os.environ.get("BROKER_OPTIONS", "{}")),
    },
    result_backend_transport_options=json.loads(os.environ.get("RESULT_OPTIONS", "{}")),
)


@app.task(name="echo")
def echo(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


@app.task(name="total")
def total(*numbers):
    return sum(numbers)


@app.task(name="fail")
def fail(message="bad input"):
    raise ValueError(message)


@app.task(name="flaky", bind=True, max_retries=3)
def flaky(self, good_after):
    """Succeeds once it has run so often before.

    A Python worker publishes the retry before it stores RETRY: without a countdown its other process can succeed in
    between, and RETRY is stored over SUCCESS for good.
    """
    if self.request.retries < good_after:
        raise self.retry(exc=ConnectionError("upstream unavailable"), countdown=0.5)
    return self.request.retries


@app.task(name="nap")
def nap(seconds):
    time.sleep(seconds)
    return "rested"


@app.task(name="stubborn")
def stubborn():
    """Does not stop when it is asked to."""
    while True:
        try:
            time.sleep(60)
        except SoftTimeLimitExceeded:
            pass


@app.task(name="note")
def note(path, line):
    """Leaves a line in a file, in one write."""
    with open(path, "a") as file:
        file.write(f"{line}\n")
    return line


@app.task(name="old_errback")
def old_errback(failed_id):
    return failed_id
