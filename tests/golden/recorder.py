"""A redis-server, workers, an ear on every channel, and the files that what they write ends up in."""

import base64
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import redis

from environment import WORK

SEPARATOR = "\x06\x16"
STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:5.1f} s] {text}", flush=True)


def task_id(name: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"golden/{name}"))


def bucket(queue: str, priority: int) -> str:
    step = max(step for step in (0, 3, 6, 9) if step <= min(max(priority, 0), 9))
    return queue if step == 0 else f"{queue}{SEPARATOR}{step}"


class Recording:
    """Collects the files and writes the index."""

    def __init__(self, target: Path):
        self.target = target
        self.cases = []

    def save(self, kind: str, name: str, source: str | bytes, about: str, data: bytes) -> None:
        source = source.decode() if isinstance(source, bytes) else source
        file = f"{kind}/{name}{'' if kind == 'binding' else '.json'}"
        path = self.target / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise ValueError(f"{file} is recorded twice; give the second case another name")
        path.write_bytes(data)
        self.cases.append({"file": file, "kind": kind, "source": source, "about": about})

    def finish(self, versions: dict) -> None:
        cases = sorted(self.cases, key=lambda case: case["file"])
        text = json.dumps({"versions": versions, "cases": cases}, indent=2, ensure_ascii=True)
        (self.target / "index.json").write_text(text + "\n")


class Tap:
    """Everything published on the server's channels, in order."""

    def __init__(self, client: redis.Redis):
        self.messages = []
        self.changed = threading.Condition()
        self.pubsub = client.pubsub(ignore_subscribe_messages=True)
        self.pubsub.psubscribe("*")
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        for message in self.pubsub.listen():
            with self.changed:
                self.messages.append((message["channel"].decode(), message["data"]))
                self.changed.notify_all()

    def wait(self, what: str, accept, timeout: float = 30, since: int = 0):
        deadline = time.monotonic() + timeout
        with self.changed:
            while True:
                for channel, data in self.messages[since:]:
                    if accept(channel, data):
                        return channel, data
                if not self.changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"nothing published {what} within {timeout:.0f} s; see {WORK}/worker-*.log")

    def result(self, id: str, status: str, timeout: float = 30):
        """The first result document of a task with that status."""
        wanted = f"celery-task-meta-{id}"
        return self.wait(
            f"result {status} of {id}",
            lambda channel, data: channel == wanted and json.loads(data)["status"] == status,
            timeout,
        )

    def events(self, what: str, accept, since: int = 0):
        """The first message whose list of events (one for a single event) is accepted."""

        def is_wanted(channel, data):
            if "celeryev" not in channel:
                return False
            events = body_of(data)
            return accept(events if isinstance(events, list) else [events])

        return self.wait(f"event {what}", is_wanted, since=since)

    def event(self, type: str, **fields):
        wanted = {"type": type, **fields}.items()
        return self.events(type, lambda events: any(wanted <= flat(event).items() for event in events))

    def request(self, method: str, since: int):
        def is_wanted(channel, data):
            return channel.endswith("celery.pidbox") and body_of(data)["method"] == method

        return self.wait(f"request {method}", is_wanted, since=since)


def flat(event: dict) -> dict:
    return {key: value for key, value in event.items() if isinstance(value, (str, int, float))}


def body_of(envelope: bytes):
    return json.loads(base64.b64decode(json.loads(envelope)["body"]))


def eventually(what: str, probe, timeout: float = 30):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{what} did not happen within {timeout:.0f} s; see {WORK}/worker-*.log")


@contextmanager
def redis_server():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(WORK)]
    with open(WORK / "redis.log", "wb") as log:
        process = subprocess.Popen(["redis-server", *options], stdout=log, stderr=log)
    client = redis.Redis(port=port)
    try:
        eventually("a redis-server answering", lambda: answers(client), 10)
        yield client, f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def answers(client: redis.Redis) -> bool:
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


@contextmanager
def worker(name: str, tap: Tap, *options: str):
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "worker", "-n", name, "-l", "INFO", *options]
    with open(WORK / f"worker-{name.split('@')[0]}.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=WORK / "app")
    try:
        tap.event("worker-online", hostname=name)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait()


class RemoteControl:
    """Records requests as Celery's own client sends them, and what a worker answers."""

    def __init__(self, client: redis.Redis, tap: Tap, recording: Recording):
        self.client, self.tap, self.recording = client, tap, recording

    def ask(self, name: str, about: str, command, method: str) -> None:
        since = len(self.tap.messages)
        command()
        channel, request = self.tap.request(method, since)
        self.recording.save("pidbox-request", name, channel, f"{about}: the request.", request)
        if body_of(request).get("reply_to"):
            key, reply = self.answer(request)
            self.recording.save("pidbox-reply", name, key, f"{about}: the worker's reply.", reply)

    def answer(self, request: bytes) -> tuple[str, bytes]:
        # Another address than the caller's: its client has a blocking pop left over that would take the reply.
        envelope, body, oid = json.loads(request), body_of(request), task_id(f"caller {len(self.recording.cases)}")
        body["reply_to"]["routing_key"] = oid
        envelope["body"] = base64.b64encode(json.dumps(body).encode()).decode()
        key, member = f"{oid}.reply.celery.pidbox", f"{oid}{SEPARATOR}{SEPARATOR}{oid}.reply.celery.pidbox"
        binding = "_kombu.binding.reply.celery.pidbox"
        self.client.sadd(binding, member)
        self.client.publish("/0.celery.pidbox", json.dumps(envelope))
        reply = eventually(f"a reply on {key}", lambda: self.client.rpop(key))
        self.client.srem(binding, member)
        return key, reply
