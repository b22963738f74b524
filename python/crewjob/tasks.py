"""Functions as tasks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, overload

from .answers import module_name

P = ParamSpec("P")
R = TypeVar("R")
Failures = tuple[type[BaseException], ...]


@dataclass(frozen=True)
class Task:
    """A function, the name by which it is called, and which of its failures another run may avoid."""

    function: Callable[..., Any]
    name: str
    is_named: bool
    retry_for: Failures

    def run(self, args: Any, kwargs: Any) -> Any:
        """What the function returns; of a coroutine function, what its coroutine returns."""
        value = self.function(*args, **kwargs)
        if not inspect.iscoroutine(value):
            return value
        # asyncio takes longer to import than all the rest.
        from . import coroutines

        return coroutines.run(value)


registered: dict[str, Task] = {}
"""The tasks of this program, by their names."""


@overload
def task(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def task(
    *, name: str | None = None, retry_for: type[BaseException] | Failures = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry_for: type[BaseException] | Failures = (),
) -> Any:
    """Makes a task of a function, which stays as it is and can be called as before.

    `name` is how messages call it: by default, as with Celery, its module and its name. `retry_for` has the exceptions
    after which another run may succeed; a failure with any other is final.
    """
    failures = (retry_for,) if isinstance(retry_for, type) else tuple(retry_for)

    def register(function: Callable[P, R]) -> Callable[P, R]:
        known = name or f"{module_name(function.__module__)}.{function.__name__}"
        about = Task(function, known, name is not None, failures)
        function.__crewjob__ = about  # type: ignore[attr-defined]
        registered[known] = about
        return function

    return register if function is None else register(function)


def task_of(function: Callable[..., Any]) -> Task:
    """The task that was made of this function."""
    about = getattr(function, "__crewjob__", None)
    if not isinstance(about, Task):
        raise TypeError(f"{function!r} is no task: decorate it with crewjob.task")
    return about
