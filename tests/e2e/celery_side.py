"""The other side: the example's own Celery application as a producer, and what the workers tell everybody."""

import base64
import os
import sys
import threading
from collections import Counter

from crew import PROJECT, SECRET
from kube import get

EXAMPLE = PROJECT / "examples/celery-worker"
sys.path.insert(0, str(EXAMPLE))


def redis_url() -> str:
    return base64.b64decode(get("secret", SECRET)["data"]["REDIS_URL"]).decode()


def application():
    """The Celery application that the workers run, connected to the same Redis."""
    os.environ["REDIS_URL"] = redis_url()
    from backend import tasks

    return tasks.app


class Executions:
    """Counts how often each task was begun, by the events of the workers and of nobody else."""

    def __init__(self, app):
        self.begun: Counter[str] = Counter()
        self.revoked: set[str] = set()
        handlers = {
            "task-started": lambda event: self.begun.update([event["uuid"]]),
            "task-revoked": lambda event: self.revoked.add(event["uuid"]),
        }
        self.connection = app.connection_for_read()
        self.receiver = app.events.Receiver(self.connection, handlers=handlers)
        listening = threading.Event()
        self.receiver.on_iteration = listening.set
        self.thread = threading.Thread(target=self.receiver.capture, daemon=True)
        self.thread.start()
        assert listening.wait(10), "nobody can listen to the workers' events"

    def stop(self) -> None:
        self.receiver.should_stop = True
        self.thread.join(5)

    def of(self, tasks: list[str]) -> dict[str, int]:
        return {task: self.begun[task] for task in tasks}
