"""The application of the guard's tests. Its tasks write down when they begin and end."""

import json
import os
import time

import redis
from celery import Celery, Task, shared_task

app = Celery(
    "guard_app",
    broker=os.environ["GUARD_TESTS_BROKER"],
    backend=os.environ["GUARD_TESTS_BACKEND"],
    include=[os.environ.get("GUARD_TESTS_NAME", "crewjob.guard")] if os.environ.get("CREWJOB_GUARD") != "0" else [],
)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_track_started=True,
    result_extended=True,
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options=json.loads(os.environ["GUARD_TESTS_OPTIONS"]),
    result_backend_always_retry=os.environ.get("GUARD_TESTS_ALWAYS_RETRY") == "1",
    worker_cancel_long_running_tasks_on_connection_loss=os.environ.get("GUARD_TESTS_CANCEL") == "1",
)


class OwnBase(Task):
    """A base class that knows nothing of the application's."""


def note(task, what):
    client = redis.Redis.from_url(os.environ["GUARD_TESTS_NOTES"])
    client.rpush(f"notes:{task.request.id}", f"{what} {task.request.retries} {task.request.hostname}")
    client.close()


def work_for(task, seconds):
    note(task, "begin")
    time.sleep(seconds)
    note(task, "end")


@app.task(bind=True)
def work(self, seconds):
    work_for(self, seconds)
    return "done"


@app.task(bind=True, base=OwnBase)
def based(self, seconds):
    work_for(self, seconds)
    return "done"


@shared_task(bind=True)
def shared(self, seconds):
    work_for(self, seconds)
    return "done"


@app.task(bind=True)
def failing(self, seconds):
    work_for(self, seconds)
    raise ValueError("no")


@app.task(bind=True, soft_time_limit=1)
def limited(self, seconds):
    work_for(self, seconds)


@app.task(bind=True)
def retried(self, seconds, failures, countdown=0):
    work_for(self, seconds)
    if self.request.retries < failures:
        raise self.retry(countdown=countdown)
    return "done"


@app.task(bind=True, autoretry_for=(ConnectionError,), default_retry_delay=0)
def autoretried(self, seconds, failures):
    work_for(self, seconds)
    if self.request.retries < failures:
        raise ConnectionError("again")
    return "done"
