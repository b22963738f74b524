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
