#!/usr/bin/env python3
"""A crew of three that needs no model. It stays, and works on one call after the other.

Replace the bodies of the three with whatever writes your text.
"""

import crewjob


def researcher(topic, _):
    return ["What it is, in one paragraph", "Three questions that a newcomer to it asks first", "One worked example"]


def writer(topic, facts):
    return "\n".join([f"# {topic}", "", *(f"{number}. {fact}." for number, fact in enumerate(facts, start=1))])


def editor(topic, draft):
    return draft.replace("One worked example", "One worked example, with numbers")


STEPS = [researcher, writer, editor]


@crewjob.task(retry_for=(ConnectionError, TimeoutError))
def crew(job_id, inputs, bypass_cache=False):
    work = None
    for number, step in enumerate(STEPS):
        crewjob.progress({"percent": 100 * number // len(STEPS), "message": f"{step.__name__}: at work"})
        work = step(inputs["topic"], work)
    return {"text": work}


if __name__ == "__main__":
    crewjob.serve()
