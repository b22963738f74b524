"""The crews: CrewAI when a model is configured, and otherwise one that works without a network.

A crew is an async function of the inputs. It reports how far it is and returns `{"text": ...}` with what there is to
say about how the text came to be.
"""

import asyncio
import builtins
import math
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

Report = Callable[[int, str], None]

OFFLINE_DEFAULT_SECONDS = 3
OFFLINE_MAX_SECONDS = 4 * 3600
OFFLINE_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Crew:
    """A crew and the name under which its outputs are cached."""

    name: str
    run: Callable[[dict, Report, int], Awaitable[dict]]


def configured() -> Crew:
    """Returns the crew that the environment asks for."""
    missing = missing_settings()
    if missing:
        reason = f"no model is configured: {' and '.join(missing)} not set"
        return Crew("offline", partial(run_offline, reason))

    from backend import crew_ai

    return Crew(f"crewai:{os.environ['CREW_MODEL']}", crew_ai.run)


def missing_settings() -> list[str]:
    needed = ["CREW_MODEL"]
    # A server inside one's own network often takes no key.
    if not os.environ.get("OPENAI_BASE_URL"):
        needed.insert(0, "OPENAI_API_KEY")
    return [name for name in needed if not os.environ.get(name)]


# === The offline crew ===

STEPS = (
    ("researcher", "collecting what matters about {topic}"),
    ("writer", "drafting the text on {topic}"),
    ("editor", "tightening the draft on {topic}"),
)


async def run_offline(reason: str, inputs: dict, report: Report, retries: int) -> dict:
    """Writes the same text for the same inputs.

    Three inputs are for trying things out: `seconds` to take, `result_bytes` to return, and `fail` with `fail_runs`.
    """
    seconds = number(inputs, "seconds", OFFLINE_DEFAULT_SECONDS, OFFLINE_MAX_SECONDS)
    result_bytes = number(inputs, "result_bytes", 0, OFFLINE_MAX_BYTES)
    fail_runs = number(inputs, "fail_runs", math.inf, math.inf)
    failure = inputs.get("fail")
    topic = inputs["topic"].strip()

    ticks = max(len(STEPS), min(100, math.ceil(seconds)))
    for tick in range(ticks):
        role, activity = STEPS[tick * len(STEPS) // ticks]
        report(100 * tick // ticks, f"{role}: {activity.format(topic=shorten(topic))}")
        await asyncio.sleep(seconds / ticks)
        if failure is not None and retries < fail_runs and tick == ticks // 2:
            fail(failure)

    text = write(topic, inputs)
    if result_bytes:
        text = (text + "\n" + "." * int(result_bytes))[: int(result_bytes)]
    return {"text": text, "offline": True, "offline_reason": reason}


def write(topic: str, inputs: dict) -> str:
    settings = {"topic", "seconds", "result_bytes", "fail", "fail_runs"}
    wishes = [f"{name}: {inputs[name]}" for name in sorted(inputs) if name not in settings]
    notes = [
        f"What {topic} is, in one paragraph, before anything else.",
        f"Three questions that a newcomer to {topic} asks first.",
        f"One worked example from {topic}, with numbers.",
    ]
    lines = [
        f"# {topic}",
        "",
        "An outline by the offline crew. No model has been asked.",
        "",
        "## Researcher's notes",
        *[f"{index}. {note}" for index, note in enumerate(notes, start=1)],
        "",
        "## Writer's plan",
        f"Open with the example, answer the three questions in order, end with where to read on about {topic}.",
        *(["", "Asked for:", *[f"- {wish}" for wish in wishes]] if wishes else []),
        "",
        "## Editor's remark",
        "Keep it short.",
    ]
    return "\n".join(lines)


def shorten(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def number(inputs: dict, name: str, default: float, maximum: float) -> float:
    value = inputs.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= maximum:
        raise ValueError(f"inputs.{name} must be a number from 0 to {maximum}, not {value!r}")
    return value


def fail(failure: object) -> None:
    """Fails as `inputs.fail` says: transient, permanent, crash, or the name of a built-in exception."""
    if failure == "transient":
        raise ConnectionError("the model's endpoint did not answer (inputs.fail is transient)")
    if failure == "permanent":
        raise ValueError("the crew cannot do this (inputs.fail is permanent)")
    if failure == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    exception = getattr(builtins, failure, None) if isinstance(failure, str) else None
    if isinstance(exception, type) and issubclass(exception, Exception):
        raise exception(f"inputs.fail is {failure}")
    raise ValueError(
        f"inputs.fail must be transient, permanent, crash or the name of a built-in exception, not {failure!r}"
    )
