"""The reference configuration under which the golden files are recorded."""

import os

from celery import Celery
from kombu import Exchange, Queue

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")

REFERENCE = dict(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    result_accept_content=["json"],
    timezone="UTC",
    enable_utc=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=100,
    task_time_limit=3600,
    task_soft_time_limit=3000,
    task_track_started=True,
    task_default_priority=5,
    task_default_queue="default",
    task_queues=(
        Queue("crew_jobs", Exchange("crew_jobs"), routing_key="crew.jobs", queue_arguments={"x-max-priority": 10}),
        Queue("default", Exchange("default"), routing_key="default"),
    ),
    task_routes={"backend.tasks.run_crew_task": {"queue": "crew_jobs"}},
    result_expires=3600,
    result_extended=True,
    worker_send_task_events=True,
    task_send_sent_event=True,
)

app = Celery("backend", broker=REDIS_URL, backend=REDIS_URL, include=["backend.tasks"])
app.conf.update(REFERENCE)


@app.task
def error_handler(request, exc, traceback):
    print(f"task {request.id} failed: {exc!r}")
