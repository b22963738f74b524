"""The other side: the example's own Celery application as a producer, and the events of the workers."""

import base64
import os
import sys
import threading
from collections import Counter
from dataclasses import dataclass

from crew import PROJECT, SECRET
from kube import NAMESPACE, get

# Where the example's application is, and the package that it needs.
PATH = [str(PROJECT / "examples/celery-worker"), str(PROJECT / "python")]
sys.path[:0] = PATH


def redis_url() -> str:
    """As the administrator, for the tests look at what no user of the chart may. Workers and operator are those users."""
    return f"redis://default:{of_the_secret('password')}@{SECRET}.{NAMESPACE}.svc:6379/0"


def operators_redis_url() -> str:
    return of_the_secret("REDIS_URL")


def of_the_secret(key: str, secret: str = SECRET) -> str:
    return base64.b64decode(get("secret", secret)["data"][key]).decode()


def application():
    """The Celery application that the workers run, connected to the same Redis.

    It keeps no connection from one test to the next: Redis may be replaced in between.
    """
    os.environ["REDIS_URL"] = redis_url()
    from backend import tasks

    tasks.app.conf.broker_pool_limit = 0
    tasks.app.backend.client.connection_pool.disconnect()
    return tasks.app


@dataclass(frozen=True)
class Begin:
    """Where and when a run of a task began."""

    node: str
    at: float


class Executions:
    """Counts how often each task was begun, by the events of the workers and nothing else."""

    def __init__(self, app):
        self.begun: Counter[str] = Counter()
        self.last_begin: dict[str, Begin] = {}
        self.revoked: set[str] = set()
        handlers = {
            "task-started": self.started,
            "task-revoked": lambda event: self.revoked.add(event["uuid"]),
        }
        self.connection = app.connection_for_read()
        self.receiver = app.events.Receiver(self.connection, handlers=handlers)
        listening = threading.Event()
        self.receiver.on_iteration = listening.set
        self.thread = threading.Thread(target=self.receiver.capture, daemon=True)
        self.thread.start()
        assert listening.wait(10), "no connection to the workers' events"

    def started(self, event: dict) -> None:
        self.last_begin[event["uuid"]] = Begin(event["hostname"], event["timestamp"])
        self.begun.update([event["uuid"]])

    def stop(self) -> None:
        self.receiver.should_stop = True
        self.thread.join(5)

    def of(self, tasks: list[str]) -> dict[str, int]:
        return {task: self.begun[task] for task in tasks}
