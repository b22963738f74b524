"""How tests wait: for what comes to be, and for what stays."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SECONDS = 60
"""How long `until` waits unless told otherwise; a suite without nodes sets less."""


def until(what: str, probe: Callable[[], T], seconds: float | None = None, every: float | None = None) -> T:
    """Asks again and again until the answer is true, and returns it: the longer it takes, the less often, unless told how."""
    seconds, began = seconds or SECONDS, time.monotonic()
    while True:
        answer = probe()
        if answer:
            return answer
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(every or min(0.02 + waited / 10, 0.3))


def holds(what: str, probe: Callable[[], T], seconds: float, every: float = 0.1) -> None:
    """Asks again and again whether something stays as it is for so long."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        assert probe(), f"not any more after {time.monotonic() - began:.1f} s: {what}"
        time.sleep(every)


def settles(what: str, probe: Callable[[], T], seconds: float) -> None:
    """Waits until something is so, and then asks whether it stays so for so long."""
    until(what, probe)
    holds(what, probe, seconds)


def unchanged(probe: Callable[[], T], seconds: float) -> T:
    """What the answer is once it has been the same for so long."""
    answer, since = probe(), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.1)
        if (now := probe()) != answer:
            answer, since = now, time.monotonic()
    return answer
