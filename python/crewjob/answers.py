"""What a program says to the native worker: values and exceptions in, lines of JSON out. Pure."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from .worker import InvalidResult, ResultTooLarge

LARGEST_LINE = 16 * 1024 * 1024
"""The longest line that the native worker takes, in bytes."""
DEEPEST = 256
"""How deep objects and arrays may be nested."""
RESERVED = {"__type__", "__value__"}
"""The keys of what kombu writes for Python's own types; a client that does not know the type fails."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def encoded(value: object, most: int | None = LARGEST_LINE - 64) -> bytes:
    """The value as JSON that every client of Celery can read. Raises InvalidResult for any other value.

    Raises ResultTooLarge for more than `most` bytes: by default what the native worker takes. A Celery worker stores
    any number.
    """
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InvalidResult(f"it is no JSON that Celery can carry: {error}") from None
    if most is not None and len(text) > most:
        raise ResultTooLarge(f"it has {len(text)} bytes of JSON, and may have {most}")
    level = [value]
    for _ in range(DEEPEST + 1):
        if not level:
            return text
        level = list(members(level))
    raise InvalidResult(f"it is nested deeper than {DEEPEST} levels")


def members(values: Iterable[object]) -> Iterable[object]:
    """The members of those that are objects or arrays, and are no leaves."""
    for value in values:
        if isinstance(value, dict):
            if value.keys() == RESERVED:
                raise InvalidResult("it has an object of the reserved keys __type__ and __value__")
            yield from (member for member in value.values() if isinstance(member, (dict, list, tuple)))
        elif isinstance(value, (list, tuple)):
            yield from (member for member in value if isinstance(member, (dict, list, tuple)))


def result(value: bytes) -> bytes:
    """The line that ends a call with this value."""
    return b'{"result":%s}\n' % value


def progress(value: bytes) -> bytes:
    """The line that reports this value."""
    return b'{"progress":%s}\n' % value


CHECKPOINT = b'{"checkpoint":true}\n'
"""The line by which the state of a job is saved."""


def usage(value: bytes) -> bytes:
    """The line that reports this consumption."""
    return b'{"usage":%s}\n' % value


def error(exception: BaseException, retry: bool) -> bytes:
    """The line that ends a call with a failure, and says whether another run may succeed."""
    described = {"type": kind(type(exception)), "message": shortened(str(exception))}
    return json.dumps({"error": described, "retry": retry}).encode() + b"\n"


def shortened(text: str) -> str:
    """The first million characters of a message that may have been made of what a program was given."""
    return text if len(text) <= LARGEST_LINE // 16 else text[: LARGEST_LINE // 16] + "…"


def kind(cls: type[BaseException]) -> str:
    """Module and name by which a client of Celery finds the class. A class whose name is not ASCII goes by its base."""
    for base in cls.__mro__:
        if NAME.fullmatch(base.__name__):
            module = module_name(base.__module__)
            if module == "builtins" or not all(NAME.fullmatch(part) for part in module.split(".")):
                return base.__name__
            return f"{module}.{base.__name__}"
    return "Exception"


def module_name(module: str) -> str:
    """The name of a module as others import it: that of the file for a program's main module."""
    if module != "__main__":
        return module
    main = sys.modules[module]
    if spec := getattr(main, "__spec__", None):
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else module
