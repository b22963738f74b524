"""A job's life as operator, workers and Redis recorded it, in the order of time: enough to find a bug from."""

import json
import re
import subprocess
import threading
import time
from datetime import datetime

import kube
import verdict

AROUND = 3.0
LINES = 140
# When the operator looks again is of no interest where it decides the same as before.
LATER = re.compile(r"; (look again at \S+|wait for a hint)$")
# What an operator says of everything at once.
GENERAL = ("leading", "leadership lost", "operator started", "Redis was emptied", "pool connected", "cannot be used")
SHOWN = "{.metadata.name} {.status.phase} attempt={.status.attempts} generation={.status.deliveryGeneration}"


class History:
    """What a watch on all CrewJobs shows, with the time."""

    def __init__(self):
        self.changes: list[tuple[float, str, str]] = []
        self.stopped = False
        self.process: subprocess.Popen | None = None
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self) -> None:
        shown = ["-o", f"jsonpath={SHOWN}{{'\\n'}}"]
        command = ["kubectl", "-n", kube.NAMESPACE, "get", "crewjobs", "--watch", *shown]
        last: dict[str, str] = {}
        # The watch ends with the API server that it talks to.
        while not self.stopped:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for line in self.process.stdout:
                name, _, text = line.strip().partition(" ")
                if last.get(name) != text:
                    last[name] = text
                    self.changes.append((time.time(), name, text))
            self.process.wait()
            time.sleep(0.3)

    def stop(self) -> None:
        self.stopped = True
        if self.process:
            self.process.kill()
        self.thread.join(5)


class Teller:
    """Tells the stories of jobs."""

    def __init__(self, items: dict[str, dict], runs: dict[str, list[verdict.Run]], faults, logs, history, redis):
        self.items, self.runs, self.faults, self.logs, self.history = items, runs, faults, logs, history
        self.redis = redis

    def said(self, words: list[str], runs: list[verdict.Run], first: float, last: float):
        """Lines about the job, general ones of the operator, and complaints of the workers that had the job."""
        pods = {run.pod for run in runs}
        previous: dict[str, str] = {}
        for at, source, text in self.logs.about([*words, *GENERAL, "MainProcess] "], first, last):
            of_worker = text.startswith("[") and source.partition("/")[0] in pods
            complaint = of_worker and re.search(
                r": ((ERROR|CRITICAL)/MainProcess\] |.*Connection to broker lost)", text
            )
            general = text.startswith("{") and '"job"' not in text and any(word in text for word in GENERAL)
            if not complaint and not general and not any(word in text for word in words):
                continue
            if not text.startswith(("{", "[")):
                # The rest of a worker's line, which holds the result.
                continue
            told = readable(text)
            same = LATER.sub("", told)
            if "decided" in told and previous.get(source) == same:
                continue
            previous[source] = same
            yield at, source, told

    def tell(self, job: verdict.Job, what: list[str]) -> str:
        item = self.items.get(job.name, {})
        status, runs = item.get("status", {}), self.runs.get(job.name, [])
        events = [(job.created_at, "created")]
        if job.cancelled_at:
            events.append((job.cancelled_at, "to be cancelled"))
        for number, run in enumerate(runs, 1):
            at = f"run {number}, task {run.task[:8]} in process {run.pid} of {run.pod}"
            events.append((run.begin, f"{at}: BEGINS"))
            if run.end:
                events.append((run.end, f"{at}: ends, {run.how}"))
            events.append((run.stored, f"{at}: outcome stored") if run.stored else (run.last_beat, f"{at}: last alive"))
        events += [(at, f"status: {text}") for at, name, text in list(self.history.changes) if name == job.name]
        last = max(at for at, _ in events)
        if finished := status.get("finishedAt"):
            last = max(last, datetime.fromisoformat(finished).timestamp())
        if status.get("phase") not in verdict.FINAL:
            # Whatever should have brought it forward did not happen until now.
            last = time.time()
        first, last = job.created_at - AROUND, last + AROUND
        for fault in self.faults:
            if fault.began <= last and fault.ended >= first:
                until = f", until +{fault.ended - job.created_at:.3f}" if fault.ended - fault.began > 0.5 else ""
                events.append((fault.began, f"FAULT {fault.kind}: {fault.target}{until}"))
        words = [job.name, *{run.task for run in runs}, status.get("taskID") or job.name]
        events += [(at, f"log of {source}: {text}") for at, source, text in self.said(words, runs, first, last)]
        events.sort(key=lambda event: event[0])
        shown = [f"  {clock(at)} {at - job.created_at:+9.3f}  {text[:400]}" for at, text in events]
        if len(shown) > LINES:
            left_out = f"  ... {len(shown) - LINES} lines left out ..."
            shown = [*shown[: LINES // 2], left_out, *shown[-LINES // 2 :]]
        head = [f"=== {job.name}", *(f"  {text}" for text in what)]
        spec = {key: item.get("spec", {}).get(key) for key in ("inputs", "priority", "retryPolicy", "cancel")}
        ended = {key: value for key, value in status.items() if key not in ("result", "conditions")}
        reasons = {found["type"]: f"{found['status']} {found['reason']}" for found in status.get("conditions", [])}
        facts = [f"  {name}: {json.dumps(value)}" for name, value in (("spec", spec), ("status", ended))]
        if status.get("phase") not in verdict.FINAL:
            known = redis_holds(self.redis, status.get("taskID") or (runs[-1].task if runs else job.name))
            facts += [f"  Redis: {text}" for text in known]
        return "\n".join([*head, *facts, f"  conditions: {json.dumps(reasons)}", *shown])


def redis_holds(redis, task: str) -> list[str]:
    """All that Redis knows of a task."""
    held = []
    for key in redis.scan_iter(count=1000):
        kind, name = redis.type(key), key.decode(errors="replace")
        if kind == b"string" and task in name:
            held.append(f"{name} = {redis.get(key).decode(errors='replace')[:600]}")
        elif kind == b"hash":
            fields = redis.hgetall(key)
            if task in name:
                held.append(f"{name} = {fields}")
            else:
                found = [field for field, value in fields.items() if task.encode() in field + value]
                held += [f"{name} has {field.decode(errors='replace')}" for field in found]
        elif kind == b"list":
            count = sum(task.encode() in item for item in redis.lrange(key, 0, -1))
            held += [f"{name} has it {count} times"] if count else []
        elif kind == b"zset":
            found = [member for member, _ in redis.zscan_iter(key) if task.encode() in member]
            held += [f"{name} has {member.decode(errors='replace')}" for member in found]
    return held or ["nothing"]


def readable(text: str) -> str:
    """A line of the operator's JSON as text; other lines as they are."""
    try:
        entry = json.loads(text)
    except ValueError:
        return text
    if not isinstance(entry, dict):
        return text
    fields = entry.get("fields", entry)
    rest = {
        key: value
        for key, value in fields.items()
        if key not in ("message", "timestamp", "level", "target", "span", "spans")
    }
    told = " ".join(f"{key}={value}" for key, value in rest.items())
    return f"{entry.get('level', '')} {fields.get('message', '')} {told}".strip()


def clock(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%H:%M:%S.%f")[:-3]
