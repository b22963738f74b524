"""The same functions as tasks of a Celery worker. Celery is imported only when it is used."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import cache, partial, wraps
from typing import Any

from . import answers
from .calls import Call, SoftTimeLimitExceeded, running
from .state import State
from .tasks import task_of

logger = logging.getLogger(__name__)

# What is written over these would take back that the task is to stop.
STOPPED = {"REVOKED", "ABORTED"}


def celery_task(app: Any, function: Callable[..., Any], *, version: str | None = None, **options: Any) -> Any:
    """Makes a Celery task of a function that `crewjob.task` has decorated, with the options of `app.task`.

    It does what the function does under the native worker:

    * `crewjob.progress` is the state PROGRESS.
    * A failure that `retry_for` names is retried up to `max_retries` times (3 by default), with growing delays; any
      other one is final. For CrewJobs, too, whose retries belong to the operator: after a final failure the result
      says `"retryable": false`, if results are extended (`result_extended`).
    * A result that not every client of Celery can read is a failure.
    * `crewjob.state_dir` is saved on the broker's Redis by `crewjob.checkpoint`, and at the end of a run that failed.
      What another `version` of the task has saved is not used; by default the name of the task is its version.
    * `crewjob.report_usage` is kept with the progress and with the result, if results are extended.
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
        worker = CeleryWorker(task)
        call = Call.from_request(request, worker)
        worker.state = state = state_of(task, call, version)
        call = replace(call, state_dir=None if state is None else state.folder)
        is_done = False
        try:
            with running(call):
                value = about.run(args, kwargs)
            answers.encoded(value, most=None)
            is_done = True
            # Until the result is stored, another run may follow, which needs it.
            request.crewjob_state = state
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
        finally:
            worker.tell()
            if state is not None:
                if not is_done:
                    state.save()
                state.close()

    from celery.signals import task_success

    task_success.connect(forget_state, dispatch_uid="crewjob-state")
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


def forget_state(sender: Any, **_: Any) -> None:
    """Deletes the state of a job that has succeeded. Celery sends the signal when it has stored the result."""
    if (state := getattr(sender.request, "crewjob_state", None)) is not None:
        state.drop()


class CeleryWorker:
    """What a running task says, from any thread: progress in its result, its state on Redis, its usage with either."""

    def __init__(self, task: Any, keeps_stamps: bool = False):
        self._request, self._backend, self._keeps_stamps = task.request, at_once(task.backend), keeps_stamps
        self._models: dict[str, dict[str, Any]] = {}
        self._count = uuid.uuid4().hex
        self._shown: object = None
        self.state: State | None = None

    def progress(self, _text: bytes, value: object) -> None:
        self._shown = value
        self._show()

    def checkpoint(self) -> None:
        if self.state is not None:
            self.state.save()
            self._show()

    def usage(self, report: bytes) -> None:
        used = json.loads(report)
        name = used.pop("model", "") or "unknown"
        model = dict(self._models.get(name, {}))
        try:
            for what, value in used.items():
                if what == "cost_usd":
                    model[what] = str(Decimal(str(value)) + Decimal(model.get(what, 0)))
                else:
                    model[what] = model.get(what, 0) + value
        except (ArithmeticError, TypeError) as error:
            # A report must not fail the run that it is about.
            logger.warning("Task %s[%s]: usage is not reported: %r", self._request.task, self._request.id, error)
            return
        self._models[name] = model
        self._show()

    def tell(self) -> None:
        """Says in the result what was consumed, and what became of the state: as stamps, which Celery copies."""
        stamps = self._stamps()
        if stamps:
            request = self._request
            request.stamps = {**(request.stamps or {}), **stamps}
            known = list(request.stamped_headers or ())
            request.stamped_headers = known + [name for name in stamps if name not in known]

    def _stamps(self) -> dict[str, object]:
        stamps: dict[str, object] = {}
        if self._models:
            stamps["usage"] = {"count": self._count, "models": self._models}
        if self.state is not None and (said := self.state.report()):
            stamps["state"] = said
        return stamps

    def _show(self) -> None:
        request = self._request
        if not request.id or request.is_eager:
            return
        before = request.stamps, request.stamped_headers
        try:
            if self._backend.get_state(request.id) not in STOPPED:
                # For this document only: what the task sends meanwhile is not to inherit them.
                self.tell()
                self._backend.store_result(request.id, self._shown, "PROGRESS", request=request)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            logger.warning("Task %s[%s]: progress is not shown: %s", request.task, request.id, error)
        finally:
            if not self._keeps_stamps:
                request.stamps, request.stamped_headers = before


def state_of(task: Any, call: Call, version: str | None) -> State | None:
    """The state of the call's job, where the broker is a Redis."""
    request = task.request
    if not request.id or request.is_eager or task.app.connection_for_read().transport.driver_type != "redis":
        return None
    warn = partial(logger.warning, "Task %s[%s]: %s", call.task, call.id)
    try:
        redis, prefix = broker(task.app, os.getpid())
        name = f"{call.task} {version}" if version else call.task
        run = f"{call.worker}/{os.getpid()}/{uuid.uuid4()}"
        state = State(redis, prefix, call.idempotency_key, run, name, warn)
    except Exception as error:
        warn(f"there is no place for its state: {error}")
        return None
    resume = getattr(request, "crewjob_resume", None)
    if isinstance(resume, dict) and resume.get("problem"):
        state.begins_without(str(resume["problem"]))
    is_another_attempt = call.job is not None and request.root_id != request.id
    info = request.delivery_info or {}
    tag = str((request.properties or {}).get("delivery_tag") or "")
    other = resume if isinstance(resume, str) else None
    if call.retries or is_another_attempt or info.get("redelivered") or "#" in tag or other:
        state.open(other, anew=resume is False)
    return state


@cache
def broker(app: Any, _process: int) -> tuple[Any, str]:
    """The broker's Redis and key prefix for this process; connections do not survive a fork."""
    from redis import Redis

    with app.connection_for_read() as connection:
        # Not the channel's client: that one prefixes the keys of some commands only.
        return Redis(connection_pool=connection.default_channel.pool), connection.default_channel.global_keyprefix


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
    request = current_task.request
    if (worker := getattr(request, "crewjob_worker", None)) is None:
        # Nothing of ours is called at the end of such a task.
        worker = request.crewjob_worker = CeleryWorker(current_task, keeps_stamps=True)
    return Call.from_request(request, worker)
