#!/usr/bin/env python3
"""A CrewAI crew that stays: CrewAI takes seconds to load, so one program serves many calls.

CREW_MODEL, OPENAI_BASE_URL and OPENAI_API_KEY say which model it asks.
"""

import json
import os
import sys

import openai
from crewai import LLM, Agent, Crew, Task

# A server inside one's own network often takes no key, but the client wants one.
MODEL = LLM(model=os.environ["CREW_MODEL"], provider="openai", api_key=os.environ.get("OPENAI_API_KEY") or "none")

# The model is out of reach or busy. CrewAI and its client have asked it again for some seconds.
TRANSIENT = (ConnectionError, openai.RateLimitError, openai.InternalServerError)


def build():
    def step(role, goal, backstory, description, expected_output):
        # What fails for good need not fail three times.
        agent = Agent(role=role, goal=goal, backstory=backstory, llm=MODEL, max_retry_limit=0)
        return Task(description=description, expected_output=expected_output, agent=agent)

    # Each is shown what those before it have written.
    steps = [
        step(
            role="researcher",
            goal="Find what matters about {topic}",
            backstory="You know where to look and what to leave out.",
            description="Collect the facts that a text on {topic} needs. What was asked for besides: {wishes}.",
            expected_output="A list of facts, each in one sentence.",
        ),
        step(
            role="writer",
            goal="Write clearly about {topic}",
            backstory="You explain hard things in plain words.",
            description="Write a text on {topic} from these facts. What was asked for besides: {wishes}.",
            expected_output="A text in Markdown, or JSON where that was asked for.",
        ),
        step(
            role="editor",
            goal="Make the text on {topic} shorter and right",
            backstory="You cut what does not help the reader.",
            description="Edit the draft on {topic}: correct it, shorten it, keep its form.",
            expected_output="The finished text and nothing else.",
        ),
    ]
    return Crew(agents=[step.agent for step in steps], tasks=steps)


def run(inputs, report):
    topic = inputs.get("topic")
    if not isinstance(topic, str) or not topic.strip():
        raise ValueError("inputs.topic must be a non-empty string")
    crew = build()
    reports = iter(
        {"percent": 100 * number // len(crew.agents), "message": f"{agent.role}: at work"}
        for number, agent in enumerate(crew.agents)
    )

    def announce(_finished=None):
        if progress := next(reports, None):
            report(progress)

    announce()
    crew.task_callback = announce
    wishes = "; ".join(f"{name}: {value}" for name, value in sorted(inputs.items()) if name != "topic")
    output = crew.kickoff(inputs={"topic": topic, "wishes": wishes or "none"})
    return {"text": output.raw, "model": MODEL.model}


def main():
    # Whatever else is printed, by libraries and child processes, too, is no answer and goes to the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**line):
        print(json.dumps(line), file=answers, flush=True)

    for line in sys.stdin:
        try:
            call = json.loads(line)
            say(result=run(call["kwargs"]["inputs"], lambda progress: say(progress=progress)))
        except Exception as error:
            described = {"type": type(error).__name__, "message": str(error)}
            say(error=described, retry=isinstance(error, TRANSIENT))


if __name__ == "__main__":
    main()
