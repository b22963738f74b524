"""Coroutines as tasks, which a soft time limit ends as it ends other functions."""

from __future__ import annotations

import asyncio
import signal
import threading
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .calls import SoftTimeLimitExceeded

# The soft time limit is an exception that a signal handler raises: of SIGUSR1 in Celery's prefork pool, and of SIGTERM
# under `serve`.
SIGNALS = tuple(number for number in signal.Signals if number.name in ("SIGUSR1", "SIGTERM"))


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What the coroutine returns.

    A soft time limit is raised where the coroutine waits. Without this it would be raised in whatever runs when the
    signal comes: in asyncio's own loop, which ends and cancels all tasks, or in a callback, and is logged and lost.
    """
    return asyncio.run(under_limits(coroutine))


async def under_limits(coroutine: Coroutine[Any, Any, Any]) -> Any:
    main = asyncio.current_task()
    assert main is not None
    limit = Limit(main)
    with limit.instead_of(SIGNALS):
        return await limit.around(coroutine)


class Limit:
    """A soft time limit on its way to the task that it is for."""

    def __init__(self, main: asyncio.Task[Any]):
        self.main = main
        self.loop = main.get_loop()
        self.passed: SoftTimeLimitExceeded | None = None

    @contextmanager
    def instead_of(self, signals: tuple[signal.Signals, ...]) -> Iterator[None]:
        """Handles these signals. Only a main thread can, and elsewhere no signal raises anything."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: handler for number in signals if callable(handler := signal.getsignal(number))}
        for number, handler in handlers.items():
            signal.signal(number, self.handler(handler))
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def handler(self, original: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            try:
                original(number, frame)
            except SoftTimeLimitExceeded as error:
                # What the task itself does, and be it a call that blocks, is interrupted.
                if asyncio.current_task(self.loop) is self.main:
                    raise
                self.loop.call_soon_threadsafe(self.interrupt, error)

        return handle

    def interrupt(self, error: SoftTimeLimitExceeded) -> None:
        self.passed = error
        self.main.cancel()

    @types.coroutine
    def around(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The coroutine, in which the limit is raised in place of the cancellation that carries it."""
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                awaited = coroutine.send(value) if error is None else coroutine.throw(error)
            except StopIteration as end:
                return end.value
            value, error = None, None
            try:
                value = yield awaited
            except asyncio.CancelledError as cancelled:
                error = self.taken() or cancelled
            except BaseException as other:
                error = other

    def taken(self) -> SoftTimeLimitExceeded | None:
        error, self.passed = self.passed, None
        if error is not None and hasattr(self.main, "uncancel"):  # from Python 3.11 on
            self.main.uncancel()
        return error
