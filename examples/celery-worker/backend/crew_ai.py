"""The crew of agents that ask a model, for any endpoint that speaks OpenAI's API.

CrewAI is large: it is imported when the first job needs it.
"""

import asyncio
import os
import tempfile
from pathlib import Path

from backend.crew import Report

QUIET = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
    # The worker's root file system may be read-only.
    "CREWAI_STORAGE_DIR": str(Path(tempfile.gettempdir()) / "crewai"),
}


async def run(inputs: dict, report: Report, retries: int) -> dict:
    crewai, openai = import_crewai()
    loop = asyncio.get_running_loop()
    finished = 0

    def task_finished(_output):
        nonlocal finished
        finished += 1
        # CrewAI may call from one of its threads; Celery's current task belongs to ours.
        if finished < len(crew.tasks):
            loop.call_soon_threadsafe(report, 100 * finished // len(crew.tasks), activity(crew, finished))

    crew = build(crewai, task_finished)
    report(0, activity(crew, 0))
    wishes = [f"{name}: {value}" for name, value in sorted(inputs.items()) if name != "topic"]
    try:
        output = await crew.akickoff(inputs={"topic": inputs["topic"], "wishes": "; ".join(wishes) or "none"})
    except openai.APITimeoutError as error:
        raise TimeoutError(f"the model's endpoint took too long: {error}") from error
    except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
        raise ConnectionError(f"the model's endpoint is not available: {error}") from error
    return {"text": output.raw, "offline": False, "model": os.environ["CREW_MODEL"]}


def import_crewai():
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # CrewAI takes its locks on the server that REDIS_URL names: not on the one that holds our jobs.
    redis_url = os.environ.pop("REDIS_URL", None)
    try:
        import crewai
        import openai
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"CREW_MODEL is set but {error.name} is not installed; run pip install -r requirements-crewai.txt"
        ) from error
    finally:
        if redis_url is not None:
            os.environ["REDIS_URL"] = redis_url
    return crewai, openai


def activity(crew, index: int) -> str:
    return f"{crew.tasks[index].agent.role}: at work"


def build(crewai, task_finished):
    llm = crewai.LLM(
        model=os.environ["CREW_MODEL"],
        provider="openai",
        base_url=os.environ.get("OPENAI_BASE_URL") or None,
        api_key=os.environ.get("OPENAI_API_KEY") or "none",
    )

    def agent(role, goal, backstory):
        return crewai.Agent(role=role, goal=goal, backstory=backstory, llm=llm, allow_delegation=False)

    researcher = agent("researcher", "Find what matters about {topic}", "You know where to look and what to leave out.")
    writer = agent("writer", "Write clearly about {topic}", "You explain hard things in plain words.")
    editor = agent("editor", "Make the text on {topic} shorter and right", "You cut what does not help the reader.")
    wishes = "What was asked for besides: {wishes}."
    research = crewai.Task(
        description=f"Collect the facts that a text on {{topic}} needs. {wishes}",
        expected_output="A list of facts, each in one sentence.",
        agent=researcher,
    )
    draft = crewai.Task(
        description=f"Write a text on {{topic}} from these facts. {wishes}",
        expected_output="A text in Markdown, or JSON where that was asked for.",
        agent=writer,
        context=[research],
    )
    edit = crewai.Task(
        description=f"Edit the draft on {{topic}}: correct it, shorten it, keep its form. {wishes}",
        expected_output="The finished text and nothing else.",
        agent=editor,
        context=[draft],
    )
    return crewai.Crew(
        agents=[researcher, writer, editor], tasks=[research, draft, edit], task_callback=task_finished, verbose=False
    )
