"""One call of a task, as its function sees it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .answers import encoded

if TYPE_CHECKING:

    class SoftTimeLimitExceeded(Exception):
        """The soft time limit of a call has passed: return what is done so far, or let it end the call."""

else:
    try:
        # Celery raises this one in a task. A function that catches it does so in both kinds of worker.
        from billiard.exceptions import SoftTimeLimitExceeded
    except ImportError:

        class SoftTimeLimitExceeded(Exception):
            """The soft time limit of a call has passed: return what is done so far, or let it end the call."""


@dataclass(frozen=True)
class Job:
    """The CrewJob behind a call."""

    name: str
    namespace: str
    uid: str


@dataclass(frozen=True)
class Call:
    """What is known of a call beside its arguments."""

    task: str
    """Name of the task."""
    id: str
    """The task's id. Each attempt of a CrewJob has another one."""
    job: Job | None = None
    """The CrewJob; None for a task of another producer."""
    idempotency_key: str = ""
    """The same for all attempts of a CrewJob, and for all retries of another task: makes a step safe to repeat."""
    retries: int = 0
    """How many runs came before this one."""
    worker: str = ""
    """Node name of the worker."""
    time_limit: float | None = None
    """Seconds after which the worker kills the run."""
    soft_time_limit: float | None = None
    """Seconds after which `SoftTimeLimitExceeded` is raised in it."""
    state_dir: Path | None = None
    """The folder that each attempt of a CrewJob, and each retry of another task, finds as the last one left it; None
    where there is none."""
    _reporting: Reporting | None = field(default=None, repr=False, compare=False)

    def checkpoint(self) -> None:
        """Says that the files in `state_dir` are whole, and has them saved. What follows must not change a file in
        place: write another one, and rename it."""
        if self._reporting is not None:
            self._reporting.say(lambda worker: worker.checkpoint())

    def report_usage(
        self,
        model: str = "",
        *,
        input_tokens: int = 0,
        cached_tokens: int = 0,
        output_tokens: int = 0,
        requests: int = 0,
        cost_usd: float | str | None = None,
    ) -> None:
        """Reports what was consumed of a model since the last report. `input_tokens` include those from a cache."""
        if self._reporting is None:
            return
        report: dict[str, object] = {
            "model": model,
            "input_tokens": input_tokens,
            "cached_tokens": cached_tokens,
            "output_tokens": output_tokens,
            "requests": requests,
        }
        report = {name: value for name, value in report.items() if value}
        if cost_usd is not None:
            report["cost_usd"] = cost_usd
        try:
            text = encoded(report)
        except ValueError as error:
            # A report must not fail the run that it is about.
            print(f"usage is not reported: {error}", file=sys.stderr)
            return
        self._reporting.say(lambda worker: worker.usage(text))

    def progress(self, value: object) -> None:
        """Reports how far this call is: any JSON value. From any thread; after the end of the call it does nothing."""
        if self._reporting is not None:
            self._reporting.report(value)

    @classmethod
    def from_line(cls, call: Mapping[str, Any], worker: Worker) -> Call:
        """The call that the native worker describes in a line of JSON."""
        job = call.get("job")
        return cls(
            task=str(call.get("task") or ""),
            id=str(call.get("id") or ""),
            job=Job(job["name"], job["namespace"], job["uid"]) if job else None,
            idempotency_key=str(call.get("idempotency_key") or call.get("id") or ""),
            retries=call.get("retries") or 0,
            worker=str(call.get("worker") or ""),
            time_limit=call.get("time_limit"),
            soft_time_limit=call.get("soft_time_limit"),
            state_dir=Path(call["state_dir"]) if call.get("state_dir") else None,
            _reporting=Reporting(worker),
        )

    @classmethod
    def from_request(cls, request: Any, worker: Worker) -> Call:
        """The call that Celery describes in a task's request."""
        uid = getattr(request, "crewjob_uid", None)
        job = Job(getattr(request, "crewjob_name", ""), getattr(request, "crewjob_namespace", ""), uid) if uid else None
        hard, soft = getattr(request, "timelimit", None) or (None, None)
        return cls(
            task=request.task or "",
            id=request.id or "",
            job=job,
            # The first attempt of a CrewJob is the root of all others.
            idempotency_key=(request.root_id if job else request.id) or request.id or "",
            retries=request.retries or 0,
            worker=request.hostname or "",
            time_limit=hard,
            soft_time_limit=soft,
            _reporting=Reporting(worker),
        )


class Worker(Protocol):
    """What a worker is told of a call that goes on."""

    def progress(self, text: bytes, value: object) -> None:
        """How far it is, as JSON and as it was given."""

    def checkpoint(self) -> None:
        """Its state is whole, and is to be saved."""

    def usage(self, report: bytes) -> None:
        """What it has consumed since the last such report, as JSON."""


class Reporting:
    """The way of reports to the worker, until the call has ended."""

    def __init__(self, worker: Worker):
        self._worker = worker
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._over = False

    def report(self, value: object) -> None:
        try:
            text = encoded(value)
        except ValueError as error:
            # A report must not fail the run that it is about.
            print(f"progress is not reported: {error}", file=sys.stderr)
            return
        self.say(lambda worker: worker.progress(text, value))

    def say(self, what: Callable[[Worker], None]) -> None:
        # A forked process does not know when the call has ended.
        if os.getpid() != self._process:
            return
        # The end waits for a report on its way, so that none follows it.
        with self._lock:
            if not self._over:
                what(self._worker)

    def end(self) -> None:
        with self._lock:
            self._over = True


_current: ContextVar[Call | None] = ContextVar("crewjob_call", default=None)
_running: list[Call] = []
before_end: list[Callable[[], object]] = []
"""What is waited for before the end of each call: reports that other threads are about to make."""


@contextmanager
def running(call: Call) -> Iterator[Call]:
    """Makes this the current call, and lets it report its progress."""
    token = _current.set(call)
    _running.append(call)
    try:
        yield call
    finally:
        for wait in before_end:
            wait()
        _running.remove(call)
        _current.reset(token)
        if call._reporting is not None:
            call._reporting.end()


def current_call() -> Call | None:
    """The call that runs; None if none does. Its threads know it, too, if this process has no other call."""
    if (call := _current.get()) is not None:
        return call
    if len(running := _running[:]) == 1:
        return running[0]
    if sys.modules.get("celery"):
        from .celery_tasks import call_of_plain_task

        return call_of_plain_task()
    return None


def progress(value: object) -> None:
    """Reports how far the current call is: any JSON value, such as `{"percent": 50, "message": "writer: at work"}`.

    Outside a call it does nothing, so that functions can be called and tested by themselves.
    """
    if (call := current_call()) is not None:
        call.progress(value)


def state_dir() -> Path | None:
    """The folder that each attempt of the current CrewJob finds as the last one left it; None outside a call."""
    return call.state_dir if (call := current_call()) is not None else None


def checkpoint() -> None:
    """Says that the files in `state_dir()` are whole, and has them saved for the next attempt.

    Outside a call it does nothing, as `report_usage` and `progress` do.
    """
    if (call := current_call()) is not None:
        call.checkpoint()


def report_usage(
    model: str = "",
    *,
    input_tokens: int = 0,
    cached_tokens: int = 0,
    output_tokens: int = 0,
    requests: int = 0,
    cost_usd: float | str | None = None,
) -> None:
    """Reports what the current call has consumed of a model since the last report."""
    if (call := current_call()) is not None:
        call.report_usage(
            model,
            input_tokens=input_tokens,
            cached_tokens=cached_tokens,
            output_tokens=output_tokens,
            requests=requests,
            cost_usd=cost_usd,
        )
