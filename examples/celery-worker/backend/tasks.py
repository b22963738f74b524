"""The four tasks of the application: three here, `error_handler` beside the Celery application."""

import asyncio
import time

import celery
import crewjob
from celery.exceptions import Ignore
from celery.utils.log import get_task_logger
from crewjob.celery_tasks import at_once
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from backend import crew, housekeeping, settings
from backend.cache import ResultCache
from backend.celery_app import app
from backend.parsing import parse

logger = get_task_logger(__name__)

CANCELLED_STATES = {"REVOKED", "ABORTED"}
CANCEL_POLL_SECONDS = 1.0


@crewjob.task(name="backend.tasks.run_crew_task", retry_for=(ConnectionError, TimeoutError))
async def run_crew(job_id, inputs, bypass_cache=False):
    """Runs the crew on `inputs` and returns what it wrote, or what it wrote for the same inputs before."""
    check_arguments(job_id, inputs, bypass_cache)
    call = crewjob.current_call()
    started = time.monotonic()
    configured = crew.configured()
    cache = ResultCache(configured.name)

    output = None if bypass_cache else cache.get(inputs)
    cached = output is not None
    if not cached:
        output = await run_until_cancelled(celery.current_task, configured, inputs)
        cache.put(inputs, output)

    content, format = parse(output["text"])
    return {
        "job_id": job_id,
        "status": "completed",
        "result": content,
        "format": format,
        **{key: value for key, value in output.items() if key != "text"},
        "cached": cached,
        "elapsed_seconds": round(time.monotonic() - started, 3),
        "celery": {"task_id": call.id, "retries": call.retries, "worker": call.worker},
    }


run_crew_task = crewjob.celery_task(app, run_crew)


@app.task(bind=True)
def health_check(self):
    """Says that a worker takes tasks, and which one it is."""
    return {
        "status": "healthy",
        "worker_id": self.request.hostname,
        "task_id": self.request.id,
        "crew": crew.configured().name,
        "celery_version": celery.__version__,
    }


@app.task
def cleanup_old_results(retention_seconds=None):
    """Deletes results without an expiry, and replies to remote control calls that were never read."""
    if retention_seconds is None:
        retention_seconds = settings.RESULT_RETENTION
    if isinstance(retention_seconds, bool) or not isinstance(retention_seconds, (int, float)) or retention_seconds < 0:
        raise ValueError(f"retention_seconds must be a number of seconds, not {retention_seconds!r}")
    return housekeeping.clean(retention_seconds)


def check_arguments(job_id, inputs, bypass_cache):
    if not isinstance(job_id, str) or not job_id:
        raise ValueError(f"job_id must be a non-empty string, not {job_id!r}")
    if not isinstance(inputs, dict):
        raise ValueError(f"inputs must be a JSON object, not {type(inputs).__name__}")
    topic = inputs.get("topic")
    if not isinstance(topic, str) or not topic.strip():
        raise ValueError("inputs.topic must be a non-empty string")
    if not isinstance(bypass_cache, bool):
        raise ValueError(f"bypass_cache must be true or false, not {bypass_cache!r}")


async def run_until_cancelled(task, configured, inputs):
    """Runs the crew; stops it when the task's state says that it has been cancelled.

    A prefork worker that gets `revoke(terminate=True)` kills the process and never comes here. This is for the other
    pools, and for `AbortableAsyncResult.abort()`.
    """

    def report(percent, message):
        crewjob.progress({"percent": percent, "message": message})

    running = asyncio.current_task()
    watching = asyncio.create_task(until_cancelled(task.backend, task.request.id))
    watching.add_done_callback(lambda watching: None if watching.cancelled() else running.cancel())
    try:
        return await configured.run(inputs, report, task.request.retries)
    except asyncio.CancelledError:
        if not watching.done():
            raise
        watching.result()
    finally:
        # Nothing is awaited from here on: a cancellation that is seen now would take the place of the end.
        watching.cancel()
    mark_cancelled(task)
    raise Ignore()


async def until_cancelled(backend, task_id):
    while not await asyncio.to_thread(is_cancelled, backend, task_id):
        await asyncio.sleep(CANCEL_POLL_SECONDS)


def is_cancelled(backend, task_id):
    try:
        return at_once(backend).get_state(task_id) in CANCELLED_STATES
    except (OperationalError, RedisError) as error:
        logger.warning("cannot ask whether the task is cancelled: %s", error)
        return False


def mark_cancelled(task):
    logger.info("cancelled")
    task.backend.mark_as_revoked(task.request.id, "revoked", request=task.request)
    task.send_event("task-revoked", terminated=False, signum=None, expired=False)
