"""The Celery application: where Redis is, which queues there are, and how tasks are run."""

from celery import Celery
from celery.utils.log import get_task_logger
from kombu import Exchange, Queue

from backend import settings

logger = get_task_logger(__name__)

app = Celery(
    "backend",
    broker=settings.REDIS_URL,
    backend=settings.RESULT_BACKEND_URL,
    include=["backend.tasks", "crewjob.guard"] if settings.GUARD else ["backend.tasks"],
)

app.conf.update(
    # Nothing but JSON, in either direction.
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    result_accept_content=["json"],
    timezone="UTC",
    enable_utc=True,
    # A job takes minutes and costs money: hold one at a time, and give it up only when it is done.
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=100,
    worker_concurrency=settings.CONCURRENCY,
    task_time_limit=3600,
    task_soft_time_limit=3000,
    # On Redis priority 0 is served first and 9 last.
    task_default_priority=5,
    task_queues=(
        Queue("crew_jobs", Exchange("crew_jobs"), routing_key="crew.jobs", queue_arguments={"x-max-priority": 10}),
        Queue("default", Exchange("default"), routing_key="default"),
    ),
    task_default_queue="default",
    task_routes={"backend.tasks.run_crew_task": {"queue": "crew_jobs"}},
    # Results carry the task's name, arguments and worker, and say when it has started.
    result_expires=settings.RESULT_EXPIRES,
    result_extended=True,
    task_track_started=True,
    worker_send_task_events=True,
    task_send_sent_event=True,
    broker_transport_options={
        "visibility_timeout": settings.VISIBILITY_TIMEOUT,
        **settings.key_names(),
        **settings.SOCKETS,
        **settings.sentinel(settings.REDIS_URL),
    },
    # A run that ends while Redis is away waits for it. Celery would store a `ConnectionError` in place of the result,
    # and the run, which was paid for, would be repeated.
    result_backend_always_retry=True,
    result_backend_max_sleep_between_retries_ms=1000,
    # Left out where there is none: workers show that there is a prefix, and not whether it is empty.
    result_backend_transport_options={
        **({"global_keyprefix": settings.RESULT_KEYPREFIX} if settings.RESULT_KEYPREFIX else {}),
        **settings.sentinel(settings.RESULT_BACKEND_URL),
    },
    redis_socket_timeout=settings.SOCKET_TIMEOUT,
    redis_socket_connect_timeout=settings.SOCKETS["socket_connect_timeout"],
    redis_socket_keepalive=True,
    broker_connection_retry_on_startup=True,
    broker_use_ssl=settings.tls(settings.REDIS_URL),
    redis_backend_use_ssl=settings.tls(settings.RESULT_BACKEND_URL),
)


@app.task
def error_handler(request, exc=None, traceback=None):
    """Logs a task's failure; give it as `link_error=error_handler.s()`.

    Celery calls it in the worker with the failed request. Workers that do not know it call it with the task's id only.
    """
    task_id = getattr(request, "id", request)
    name = getattr(request, "task", None) or "task"
    logger.error("%s[%s] failed: %r\n%s", name, task_id, exc, traceback or "(no traceback)")
    return {"task_id": task_id, "error": None if exc is None else repr(exc)}
