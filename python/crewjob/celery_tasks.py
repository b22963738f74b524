"""The same functions as tasks of a Celery worker. Celery is imported only when it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from . import answers
from .calls import Call, SoftTimeLimitExceeded, running
from .tasks import task_of

logger = logging.getLogger(__name__)

# What is written over these would take back that the task is to stop.
STOPPED = {"REVOKED", "ABORTED"}


def celery_task(app: Any, function: Callable[..., Any], **options: Any) -> Any:
    """Makes a Celery task of a function that `crewjob.task` has decorated, with the options of `app.task`.

    It does what the function does under the native worker:

    * `crewjob.progress` is the state PROGRESS.
    * A failure that `retry_for` names is retried up to `max_retries` times (3 by default), with growing delays; any
      other one is final. For CrewJobs, too, whose retries belong to the operator: after a final failure the result
      says `"retryable": false`, if results are extended (`result_extended`).
    * A result that not every client of Celery can read is a failure.
    * Running out of memory is a failure. Celery would stop the worker, and the next one would get the same job.
    """
    about = task_of(function)
    if about.is_named:
        options.setdefault("name", about.name)
    options.setdefault("max_retries", 3)

    @wraps(function)
    def run(task: Any, *args: Any, **kwargs: Any) -> Any:
        from celery.exceptions import TaskPredicate

        request = task.request
        call = Call.from_request(request, reporter(task))
        try:
            with running(call):
                value = about.run(args, kwargs)
            answers.encoded(value, most=None)
            return value
        except (TaskPredicate, SoftTimeLimitExceeded):
            # What Celery says by exceptions of its own, and a limit, which is no verdict on the task.
            raise
        except about.retry_for as error:
            if call.job is not None:
                raise
            raise task.retry(exc=error, countdown=delay(call.retries)) from error
        except MemoryError as error:
            finish(call, request)
            raise RuntimeError(f"{call.task} ran out of memory") from error
        except Exception:
            finish(call, request)
            raise

    return app.task(bind=True, **options)(run)


def delay(retries: int) -> int:
    """Seconds until the next attempt: Celery's exponential backoff, with full jitter."""
    from celery.utils.time import get_exponential_backoff_interval

    return int(get_exponential_backoff_interval(factor=1, retries=retries, maximum=600, full_jitter=True))


def finish(call: Call, request: Any) -> None:
    """Says in the result of a CrewJob's task that another run would not help: as a stamp, which Celery copies."""
    if call.job is not None:
        request.stamps = {**(request.stamps or {}), "retryable": False}
        request.stamped_headers = [*(request.stamped_headers or ()), "retryable"]


def reporter(task: Any) -> Callable[[bytes, object], None]:
    """How a running task reports progress, from any thread."""
    request, backend = task.request, at_once(task.backend)

    def report(_text: bytes, value: object) -> None:
        if not request.id or request.is_eager:
            return
        try:
            if backend.get_state(request.id) not in STOPPED:
                backend.store_result(request.id, value, "PROGRESS", request=request)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            logger.warning("Task %s[%s]: progress is not shown: %s", request.task, request.id, error)

    return report


def at_once(backend: Any) -> Any:
    """A backend that fails while it cannot be reached, although `result_backend_always_retry` has `backend` wait."""
    if not getattr(backend, "always_retry", False):
        return backend
    # `crewjob.guard` has the same: it is a file that stands alone, and importing it turns it on.
    # With the connections of the first one. `copy.copy` would make a backend with connections of its own.
    twin = object.__new__(type(backend))
    twin.__dict__.update(backend.__dict__, always_retry=False)
    return twin


def call_of_plain_task() -> Call | None:
    """The call of a task that `app.task` alone has made of a function."""
    from celery import current_task

    if not current_task or current_task.request.called_directly:
        return None
    return Call.from_request(current_task.request, reporter(current_task))
