#!/usr/bin/env python3
"""A crew of three that needs nothing but Python. It stays, and works on one call after the other.

Replace the bodies of the three with whatever writes your text; one that raises ConnectionError or TimeoutError is tried
again.
"""

import json
import os
import sys


def researcher(topic, _):
    return ["What it is, in one paragraph", "Three questions that a newcomer to it asks first", "One worked example"]


def writer(topic, facts):
    return "\n".join([f"# {topic}", "", *(f"{number}. {fact}." for number, fact in enumerate(facts, start=1))])


def editor(topic, draft):
    return draft.replace("One worked example", "One worked example, with numbers")


STEPS = [researcher, writer, editor]


def run(inputs, report):
    topic = inputs.get("topic")
    if not isinstance(topic, str) or not topic.strip():
        raise ValueError("inputs.topic must be a non-empty string")
    work = None
    for number, step in enumerate(STEPS):
        report({"percent": 100 * number // len(STEPS), "message": f"{step.__name__}: at work"})
        work = step(topic, work)
    return {"text": work}


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
            say(error=described, retry=isinstance(error, (ConnectionError, TimeoutError)))


if __name__ == "__main__":
    main()
