"""The tasks of mixed.py that native workers have: one program that stays, for all of them."""

import json
import os
import sys
import time

sys.dont_write_bytecode = True


def leave(path, *words):
    with open(path, "a") as file:
        file.write(" ".join(map(str, words)) + "\n")


for call in map(json.loads, sys.stdin):
    path, number, *rest = call["args"]
    kind, worker = call["task"].removeprefix("mixed."), f"{call['worker']}:{os.getpid()}"
    attempt = {"again": call["retries"], "step": rest[0] if rest else 0}.get(kind, 0)
    leave(path, "begins", number, attempt, worker, time.time())
    time.sleep(rest[0] if kind == "once" and rest else 0)
    leave(path, "ends", number, attempt, worker, time.time())
    if kind == "again" and attempt < rest[0]:
        answer = {"error": {"type": "ConnectionError", "message": "upstream unavailable"}, "retry": True}
    elif kind == "fails":
        answer = {"error": {"type": "ValueError", "message": str(number)}}
    else:
        answer = {"result": number}
    print(json.dumps(answer), flush=True)
