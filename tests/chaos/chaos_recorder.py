"""What a worker really did, written to a folder of the node: it outlives Redis, the process, its container and its Pod.

Workers load this with `--include`. A run of the crew is one file: a line for its beginning, one for its end, one when
its outcome has reached the result backend. A thread touches the file as long as the process lives, so that the last
touch says until when a run without an end was alive: a killed process can say nothing. A worker is such a file too.
"""

import json
import os
import threading
import time
from pathlib import Path

from backend import crew
from celery import current_task, signals

FOLDER = Path(os.environ["CHAOS_FOLDER"])
POD = os.environ["POD_NAME"]
BEAT_SECONDS = 0.05
CHUNK = 16 * 1024 * 1024


class Record:
    """A file of one line per event. A line is one write: what is killed in between has written none of it."""

    def __init__(self, kind: str, **facts):
        name = f"{kind}-{POD}-{os.getpid()}-{time.time_ns()}"
        self.file = os.open(FOLDER / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
        self.closed = threading.Event()
        self.write("begin", pod=POD, pid=os.getpid(), **facts)
        threading.Thread(target=self.beat, daemon=True).start()

    def write(self, event: str, **facts) -> None:
        os.write(self.file, json.dumps({"event": event, "at": time.time(), **facts}).encode() + b"\n")

    def beat(self) -> None:
        while not self.closed.wait(BEAT_SECONDS):
            os.utime(self.file)
        os.close(self.file)


class Run(Record):
    """The run that this process is at; it has one at a time."""

    current: "Run | None" = None

    def __init__(self, inputs: dict):
        request = current_task.request
        self.task = request.id
        self.job = request.args[0]
        super().__init__("run", task=self.task, job=self.job, retries=request.retries)
        Run.current = self
        if inputs.get("allocate"):
            self.allocate_once(inputs["allocate"])

    def allocate_once(self, mebibytes: int) -> None:
        """Takes more memory than there is, in the first run of a job only."""
        try:
            (FOLDER / f"allocated-{self.job}").touch(exist_ok=False)
        except FileExistsError:
            return
        self.write("allocate")
        hoard = []
        while len(hoard) * CHUNK < mebibytes * 1024 * 1024:
            hoard.append(b"x" * CHUNK)


run_offline = crew.run_offline


async def recorded(reason: str, inputs: dict, report, retries: int) -> dict:
    run = Run(inputs)
    try:
        output = await run_offline(reason, inputs, report, retries)
    except BaseException as error:
        run.write("end", how=type(error).__name__)
        raise
    run.write("end", how="ok")
    return output


crew.run_offline = recorded


@signals.task_success.connect
@signals.task_failure.connect
def stored(sender=None, task_id=None, exception=None, **_):
    """Celery says so after the result backend has taken the outcome."""
    run = Run.current
    if run is not None and run.task == (task_id or sender.request.id):
        run.write("stored", state="SUCCESS" if exception is None else "FAILURE")


@signals.task_postrun.connect
def over(**_):
    if Run.current is not None:
        Run.current.closed.set()
        Run.current = None


class Worker(Record):
    """The worker's main process, from when it takes tasks."""

    current: "Worker | None" = None


@signals.worker_ready.connect
def ready(sender, **_):
    Worker.current = Worker("worker", slots=sender.controller.concurrency)


@signals.worker_shutting_down.connect
def draining(**_):
    if Worker.current is not None:
        Worker.current.write("draining")
