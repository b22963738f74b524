"""CrewAI crews and flows that go on where the last attempt stopped, and that report what they consume.

    import crewjob.crewai

    @crewjob.task
    def crew(job_id, inputs, bypass_cache=False):
        team = Crew(agents=[...], tasks=[...])
        return {"text": team.kickoff(inputs, from_checkpoint=crewjob.crewai.checkpoints()).raw}

Importing it reports each call of a model as usage, and each task that is done as progress. It needs CrewAI 1.15 or
newer.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from crewai import CheckpointConfig
from crewai.events import (
    CheckpointCompletedEvent,
    LLMCallCompletedEvent,
    TaskCompletedEvent,
    crewai_event_bus,
)
from crewai.state.provider.json_provider import JsonProvider

from . import calls

SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
"""The names of environment variables, and of members of a checkpoint, that hold secrets."""
SHORTEST = 6
"""A shorter value is found where it is no secret."""
CHARACTERS = 4
"""About so many characters of English text are a token."""


def checkpoints(*on_events: str) -> CheckpointConfig | None:
    """What `kickoff` takes as `from_checkpoint`: the newest checkpoint in the state of the current call, if there is
    one, and the folder for further ones, which are saved with that state. None outside a call.

    By default one is written after each task of a crew and each method of a flow. CrewAI's checkpoints hold the keys of
    models in clear text; here they do not, and the models of a crew that goes on take theirs from the environment.
    """
    folder = calls.state_dir()
    if folder is None:
        return None
    # A program that serves one call after the other must not write what it knows of one into the state of the next.
    crewai_event_bus.reset_runtime_state()
    # CrewAI makes the file before there is something in it.
    written = [file for file in folder.glob("*/*.json") if file.stat().st_size]
    saved = sorted(written, key=lambda file: (file.stat().st_mtime_ns, file.name))
    return CheckpointConfig(
        location=str(folder),
        on_events=list(on_events or ("task_completed", "method_execution_finished")),
        provider=WithoutSecrets(),
        max_checkpoints=2,
        restore_from=str(saved[-1]) if saved else None,
    )


class WithoutSecrets(JsonProvider):
    """CrewAI's files of JSON, without the secrets of this process. None is there by halves."""

    def checkpoint(self, data: str, location: str, *, parent_id: str | None = None, branch: str = "main") -> str:
        path = Path(super().checkpoint("", location, parent_id=parent_id, branch=branch))
        new = path.with_suffix(".new")
        new.write_text(json.dumps(without_secrets(json.loads(data), secrets())))
        new.rename(path)
        return str(path)

    async def acheckpoint(self, data: str, location: str, *, parent_id: str | None = None, branch: str = "main") -> str:
        return self.checkpoint(data, location, parent_id=parent_id, branch=branch)


def secrets() -> set[str]:
    """The values of the environment variables that are named like secrets."""
    return {value for name, value in os.environ.items() if SECRET.search(name) and len(value) >= SHORTEST}


def without_secrets(value: Any, known: set[str]) -> Any:
    """The same value without the texts that are secrets; a member that is one, or that is named `api_key`, is null."""
    if isinstance(value, dict):
        return {
            name: None if name == "api_key" or (isinstance(it, str) and it in known) else without_secrets(it, known)
            for name, it in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(it, known) for it in value]
    if isinstance(value, str):
        for secret in known:
            value = value.replace(secret, "")
    return value


def consumed(event: Any) -> dict[str, int]:
    """What a call of a model consumed: as the model says, or about, where it says nothing or, of a stream, zero."""
    usage = event.usage or {}
    details = usage.get("prompt_tokens_details") or {}
    sent = usage.get("prompt_tokens") or usage.get("input_tokens") or 0
    received = usage.get("completion_tokens") or usage.get("output_tokens") or 0
    cached = usage.get("cached_prompt_tokens") or usage.get("cached_tokens") or details.get("cached_tokens") or 0
    if not sent and not received:
        messages = event.messages if isinstance(event.messages, str) else json.dumps(event.messages, default=str)
        sent, received = (-(-len(text) // CHARACTERS) for text in (messages or "", str(event.response or "")))
    return {"input_tokens": sent, "cached_tokens": cached, "output_tokens": received, "requests": 1}


@crewai_event_bus.on(LLMCallCompletedEvent)
def _reports_usage(_source: Any, event: Any) -> None:
    calls.report_usage(event.model or "", **consumed(event))


@crewai_event_bus.on(TaskCompletedEvent)
def _reports_progress(_source: Any, event: Any) -> None:
    agent = getattr(getattr(event, "task", None), "agent", None)
    calls.progress({"done": event.agent_role or getattr(agent, "role", None) or event.task_name})


@crewai_event_bus.on(CheckpointCompletedEvent)
def _saves(_source: Any, _event: Any) -> None:
    calls.checkpoint()


# They run in threads of CrewAI's own, and after the end of a call nothing is reported any more.
calls.before_end.append(lambda: crewai_event_bus.flush(10))
