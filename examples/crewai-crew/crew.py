#!/usr/bin/env python3
"""Three CrewAI agents. CREW_MODEL, OPENAI_BASE_URL and OPENAI_API_KEY say which model they ask."""

import os

import crewjob.crewai
import openai
from crewai import LLM, Agent, Crew, Task

# A server inside one's own network often takes no key, but the client wants one.
os.environ.setdefault("OPENAI_API_KEY", "none")
MODEL = LLM(model=os.environ["CREW_MODEL"], provider="openai")
STEPS = {
    "researcher": "Collect the facts that a text on {topic} needs. What was asked for: {inputs}.",
    "writer": "Write a text on {topic} from these facts. What was asked for: {inputs}.",
    "editor": "Edit the draft on {topic}: correct it, shorten it, keep its form.",
}


@crewjob.task(retry_for=(ConnectionError, openai.RateLimitError, openai.InternalServerError))
def crew(job_id, inputs, bypass_cache=False):
    agents = [Agent(role=role, goal=STEPS[role], backstory="", llm=MODEL, max_retry_limit=0) for role in STEPS]
    tasks = [Task(description=STEPS[a.role], expected_output="Text in Markdown.", agent=a) for a in agents]
    asked = {"topic": inputs["topic"], "inputs": str(inputs)}
    output = Crew(agents=agents, tasks=tasks).kickoff(asked, from_checkpoint=crewjob.crewai.checkpoints())
    return {"text": output.raw, "model": MODEL.model}


if __name__ == "__main__":
    crewjob.serve()
