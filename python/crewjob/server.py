"""A program that stays: one call after the other from the native worker.

The contract is in `docs/worker-commands.md`, "A command that stays".
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from . import answers
from .calls import Call, SoftTimeLimitExceeded, running
from .tasks import Task, registered, task_of


def serve(*functions: Callable[..., Any]) -> None:
    """Serves calls until standard input ends: of these tasks, or of all that `crewjob.task` has made.

    A program of one task serves every call with it, whatever its name; one of several goes by the name.

    From here on standard output is for answers only: what anything prints there, a library or a child process, too,
    goes to standard error, which the worker logs. Standard input is empty for everything else.

    The worker's soft time limit raises `SoftTimeLimitExceeded` in the function, unless SIGTERM has another handler.
    """
    tasks = {about.name: about for about in map(task_of, functions)} if functions else dict(registered)
    if not tasks:
        raise ValueError("there is no task to serve: decorate a function with crewjob.task")
    calls, lines = claim()
    limit = SoftLimit()
    while not limit.has_passed:
        limit.is_idle = True
        line = calls.readline()
        limit.is_idle = False
        if not line:
            break
        if line.strip():
            lines.write(answer(line, tasks, lines, limit))


class Lines:
    """Whole lines on the descriptor that was standard output."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._lock = threading.Lock()
        # What was printed before, by whatever means, may have no end yet. The worker ignores empty lines.
        self._lead = b"" if os.isatty(descriptor) else b"\n"

    def write(self, line: bytes) -> None:
        with self._lock:
            rest, self._lead = memoryview(self._lead + line), b""
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


def claim() -> tuple[io.BufferedReader, Lines]:
    """Takes standard input and output from everything else in this process and its children."""
    calls, output = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    return os.fdopen(calls, "rb"), Lines(output)


class SoftLimit:
    """SIGTERM, by which the worker says that the soft time limit has passed, or that there are no more calls."""

    def __init__(self) -> None:
        self.is_idle = False
        self.is_armed = False
        self.has_passed = False
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._signalled)

    def _signalled(self, _number: int, _frame: object) -> None:
        self.has_passed = True
        if self.is_idle:
            raise SystemExit(0)
        # Once: what catches it has the time until the hard limit.
        is_armed, self.is_armed = self.is_armed, False
        if is_armed:
            raise SoftTimeLimitExceeded()


def answer(line: bytes, tasks: Mapping[str, Task], lines: Lines, limit: SoftLimit) -> bytes:
    """What a call comes to. SystemExit goes through: the worker names the failure after the exit status."""
    about = None
    try:
        said = json.loads(line)
        call = Call.from_line(said, Listening(lines))
        about = task_for(call.task, tasks)
        with running(call):
            value = limited(about, said, limit)
        return answers.result(answers.encoded(value))
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        # The frames of this file say nothing about the task.
        tail = error.__traceback__
        while tail and tail.tb_next and tail.tb_frame.f_code.co_filename in OWN:
            tail = tail.tb_next
        # It becomes the traceback of the failure.
        for part in traceback.TracebackException(type(error), error, tail).format():
            sys.stderr.write(answers.shortened(part.removesuffix("\n")) + "\n")
        sys.stderr.flush()
        return answers.error(error, about is not None and isinstance(error, about.retry_for))


class Listening:
    """The native worker, which reads lines of JSON."""

    def __init__(self, lines: Lines):
        self._lines = lines

    def progress(self, text: bytes, _value: object) -> None:
        self._lines.write(answers.progress(text))

    def checkpoint(self) -> None:
        self._lines.write(answers.CHECKPOINT)

    def usage(self, report: bytes) -> None:
        self._lines.write(answers.usage(report))


OWN = {__file__, Task.run.__code__.co_filename}


def limited(about: Task, said: Mapping[str, Any], limit: SoftLimit) -> Any:
    limit.is_armed = True
    try:
        return about.run(said.get("args") or [], said.get("kwargs") or {})
    finally:
        limit.is_armed = False


def task_for(name: str, tasks: Mapping[str, Task]) -> Task:
    """The task of this name; of a program that has but one, that one."""
    if len(tasks) == 1:
        return next(iter(tasks.values()))
    if name not in tasks:
        raise NotRegistered(f"{name!r}; there are: {', '.join(sorted(tasks))}")
    return tasks[name]


class NotRegistered(KeyError):
    """This program has no task of that name."""

    __str__ = Exception.__str__


# As Celery's workers call it.
NotRegistered.__module__ = "celery.exceptions"
