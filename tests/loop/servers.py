"""What the operator needs around it: an API server, Redis servers and workers, each a real process."""

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections import Counter
from pathlib import Path

import redis

from waiting import until

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "examples/celery-worker"
PACKAGE = HERE.parents[1] / "python"
CLUSTER = HERE.parent / "cluster/cluster"
BUILT = Path(json.loads(os.environ["CARGO_METADATA"])["target_directory"]) / "debug/crewjob"
CREWJOB = Path(os.environ.get("CREWJOB_PROGRAM") or BUILT)

def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process: subprocess.Popen) -> None:
    """Asks a process to end, and kills it if it does not within 15 s."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Refused(Exception):
    """The API server said no."""

    def __init__(self, status: int, message: str):
        super().__init__(f"{status}: {message}")
        self.status = status


class ControlPlane:
    """An API server with etcd and nothing else, and a client of it."""

    def __init__(self, name: str):
        self.command = [str(CLUSTER), "--name", name]
        subprocess.run([*self.command, "control-plane", "up"], check=True, stdout=subprocess.DEVNULL)
        self.kubeconfig = Path(self.run("kubeconfig").strip())
        text = self.kubeconfig.read_text()
        field = lambda name: re.search(rf"{name}: *([^\s}}]+)", text)[1]  # noqa: E731
        self.address, self.token = urllib.parse.urlsplit(field("server")), field("token")
        self.authority = field("certificate-authority")
        self.context = ssl.create_default_context(cafile=self.authority)
        self.connection: http.client.HTTPSConnection | None = None

    def run(self, *arguments: str, given: str | None = None) -> str:
        done = subprocess.run([*self.command, *arguments], input=given, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr.strip()}"
        return done.stdout

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        return self.run("kubectl", *arguments, given=given)

    def down(self) -> None:
        subprocess.run([*self.command, "down"], check=True, stdout=subprocess.DEVNULL)

    def request(self, method: str, path: str, body=None, kind: str = "application/json"):
        """What the API server answers, as JSON; raises Refused."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind, "Accept": "application/json"}
        data = None if body is None else json.dumps(body)
        for last in (False, True):
            if self.connection is None:
                self.connection = http.client.HTTPSConnection(
                    self.address.hostname, self.address.port, context=self.context, timeout=30
                )
            try:
                self.connection.request(method, path, data, headers)
                answer = self.connection.getresponse()
                text = answer.read()
                break
            except (OSError, http.client.HTTPException):
                self.connection.close()
                self.connection = None
                if last:
                    raise
        if answer.status >= 300:
            with contextlib.suppress(ValueError):
                text = json.loads(text)["message"]
            raise Refused(answer.status, text)
        return json.loads(text)


class Redis:
    """A redis-server of its own; `options` are arguments of redis-server."""

    def __init__(self, folder: Path, *options: str, password: str | None = None):
        self.folder, self.options, self.port = folder, options, free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, password=password, socket_timeout=60)
        self.process = None
        self.start()

    def ports(self) -> list[str]:
        return ["--port", str(self.port)]

    def start(self) -> None:
        command = ["redis-server", *self.ports(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self.folder / "redis.log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, *self.options], cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
            )

        self.await_answer()

    def await_answer(self) -> None:
        def answers():
            with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError):
                return self.client.ping()
            return False

        until("redis-server answers", answers, 10)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()

    def messages(self, *queues: str) -> list[dict]:
        """The messages that wait in these queues, or in the default ones, in all bands."""
        names = [name + band for name in queues or ("crew_jobs", "default") for band in ("", *(f"\x06\x16{n}" for n in (3, 6, 9)))]
        return [json.loads(element) for name in names for element in self.client.lrange(name, 0, -1)]

    def queued(self, task: str) -> list[dict]:
        """The messages of one task that wait."""
        return [message for message in self.messages() if message["headers"]["id"] == task]

    def take(self, task: str) -> dict:
        """Takes the message of a task off its queue and into flight, as a worker does that acknowledges late."""
        for name in self.client.keys("*"):
            if self.client.type(name) != b"list":
                continue
            for element in self.client.lrange(name, 0, -1):
                message = json.loads(element)
                if message.get("headers", {}).get("id") == task:
                    tag = message["properties"]["delivery_tag"]
                    delivery = message["properties"]["delivery_info"]
                    value = json.dumps([message, delivery.get("exchange", ""), delivery["routing_key"]])
                    self.client.lrem(name, 1, element)
                    self.client.hset("unacked", tag, value)
                    self.client.zadd("unacked_index", {tag: time.time()})
                    return message
        raise AssertionError(f"no message of task {task} waits")

    def acknowledge(self, message: dict) -> None:
        tag = message["properties"]["delivery_tag"]
        self.client.hdel("unacked", tag)
        self.client.zrem("unacked_index", tag)

    def store(self, task: str, status: str, result=None, publish: bool = True, expires: int = 3600, **fields) -> None:
        """Stores a result document as Celery does, and publishes it unless told otherwise."""
        document = {"status": status, "result": result, "traceback": None, "children": [], "task_id": task, **fields}
        text = json.dumps(document)
        self.client.set(f"celery-task-meta-{task}", text, ex=expires)
        if publish:
            self.client.publish(f"celery-task-meta-{task}", text)

    def event(self, kind: str, hostname: str, **fields) -> None:
        """Publishes an event as a worker does."""
        group = kind.split("-")[0]
        event = {"type": kind, "hostname": hostname, "timestamp": time.time(), "utcoffset": 0, "pid": 1, "clock": 1, **fields}
        body = json.dumps([event] if group == "task" else event)
        routing_key = "task.multi" if group == "task" else kind.replace("-", ".", 1)
        message = {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": hostname},
            "properties": {"delivery_mode": 1, "delivery_info": {"exchange": "celeryev", "routing_key": routing_key}, "priority": 0, "delivery_tag": "t"},
        }
        self.client.publish(f"/0.celeryev/{routing_key}", json.dumps(message))


class Sentinel(Redis):
    """A sentinel of the primary `name`; with two others it decides that the primary is gone after a second."""

    def __init__(self, folder: Path, primary: Redis, name: str, password: str, own_password: str):
        self.configuration = f"""
sentinel monitor {name} 127.0.0.1 {primary.port} 2
sentinel auth-pass {name} "{password}"
sentinel down-after-milliseconds {name} 1000
sentinel failover-timeout {name} 6000
requirepass "{own_password}"
"""
        super().__init__(folder, password=own_password)

    def start(self) -> None:
        file = self.folder / "sentinel.conf"
        # A sentinel writes what it has learnt into its file.
        if not file.exists():
            file.write_text(f"port {self.port}\nbind 127.0.0.1\n{self.configuration}")
        with (self.folder / "redis.log").open("a") as log:
            self.process = subprocess.Popen(["redis-server", str(file), "--sentinel"], stdout=log, stderr=subprocess.STDOUT)
        self.await_answer()


class Events:
    """What workers tell of their tasks, from when this was made: how often each was begun, and which were stopped."""

    def __init__(self, redis: Redis):
        self.redis = redis.client
        self.begun: Counter[str] = Counter()
        self.stopped: set[str] = set()
        self.listener = self.redis.pubsub(ignore_subscribe_messages=True)
        self.listener.psubscribe("/0.celeryev/*")

    def read(self) -> "Events":
        """Takes in all that was published before."""
        last = f"until {time.monotonic_ns()}"
        until("the subscription stands", lambda: self.redis.publish("/0.celeryev/read", last))
        while True:
            message = self.listener.get_message(timeout=1)
            if message and message["data"].decode() == last:
                return self
            if message and message["channel"] != b"/0.celeryev/read":
                self.take(json.loads(message["data"]))

    def take(self, message: dict) -> None:
        body = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        events = json.loads(body)
        for event in events if isinstance(events, list) else [events]:
            if event["type"] == "task-started":
                self.begun.update([event["uuid"]])
            if event["type"] == "task-revoked":
                self.stopped.add(event["uuid"])

    def runs(self, task: str) -> int:
        return self.read().begun[task]


class Operator:
    """The operator as a process. `wrap` is a command to run it under."""

    def __init__(self, folder: Path, kubeconfig: Path, lease_namespace: str, pool_namespaces: list[str]):
        self.folder, self.kubeconfig = folder, kubeconfig
        self.lease_namespace, self.pool_namespaces = lease_namespace, pool_namespaces
        self.log = folder / "operator.log"
        self.process: subprocess.Popen | None = None
        self.port = 0

    def start(self, *options: str, wrap: tuple[str, ...] = (), leading: bool = True, **env: str) -> "Operator":
        """Starts it, and waits until it leads. Environment variables in lower case are written in upper case."""
        self.port = free_port()
        command = [*wrap, str(CREWJOB), "operator", "--lease-namespace", self.lease_namespace]
        command += ["--admin-address", f"127.0.0.1:{self.port}", "--log-format", "text", *options]
        variables = os.environ | {
            "KUBECONFIG": str(self.kubeconfig),
            "POD_NAME": "operator",
            "CREWJOB_POOL_NAMESPACES": ",".join(self.pool_namespaces),
            "CREWJOB_AUDIT_EVERY": "2",
            # As in the image.
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "65536",
        }
        variables |= {name.upper(): value for name, value in env.items()}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)
        if leading:
            until("the operator leads", lambda: self.metric("crewjob_leading") == 1)
        return self

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            end(self.process)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self, *options: str, **env: str) -> None:
        self.stop()
        self.start(*options, **env)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def get(self, path: str) -> tuple[int, str]:
        """Status and text that the admin server answers; (0, "") while it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all series with these labels."""
        _, text = self.get("/metrics")
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if re.match(rf"{name}[{{ ]", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))

    def memory(self, figure: str = "VmHWM") -> float:
        """Megabytes in memory: at most so far, or now (VmRSS)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{figure}:\s+(\d+) kB", status)[1]) / 1024

    def said(self, last: int = 60) -> str:
        return "\n".join(self.log.read_text().splitlines()[-last:])


class NativeWorker:
    """`crewjob worker` on a Redis, with the tasks of a YAML file."""

    def __init__(self, folder: Path, url: str, tasks: str, node: str, *options: str, **env: str):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tasks.yaml").write_text(tasks)
        command = [str(CREWJOB), "worker", "--tasks", str(folder / "tasks.yaml"), "-n", node, *options]
        variables = os.environ | {"REDIS_URL": url} | {name.upper(): value for name, value in env.items()}
        self.log = folder / f"{node}.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        if self.process.poll() is None:
            end(self.process)


# Runs for `inputs.seconds`, and fails `inputs.fails` times in a way that is worth a retry.
CREW = r"""
call=$(cat)
number() { printf %s "$call" | sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"; }
sleep "$(number seconds | grep . || echo 0)"
exits=$(number exits | grep . || echo 0)
[ "$exits" = 0 ] || exit "$exits"
[ "$CREWJOB_RETRIES" -ge "$(number fails | grep . || echo 0)" ] || { echo "$CREWJOB_IDEMPOTENCY_KEY" >&2; exit 75; }
echo "done for $CREWJOB_NAMESPACE/$CREWJOB_NAME $CREWJOB_UID under $CREWJOB_IDEMPOTENCY_KEY"
"""


class CrewWorker(NativeWorker):
    """`crewjob worker` whose crew is a shell script."""

    def __init__(self, folder: Path, url: str, node: str, *options: str, **env: str):
        run = {"command": ["/bin/sh", "-c", CREW], "output": "text"}
        super().__init__(folder, url, json.dumps({"crew": {"cache": 0, "run": run}}), node, *options, **env)


class PythonWorker(NativeWorker):
    """A Celery worker as a process, which consumes once it is made."""

    def __init__(self, log: Path, command: list[str], **how):
        self.log = log
        with log.open("a") as out:
            before = out.tell()
            self.process = subprocess.Popen([sys.executable, "-m", *command], stdout=out, stderr=subprocess.STDOUT, **how)
        # Seconds of computing, many times as long beside other tests, which is no part of a job's time.
        try:
            until(f"{log.stem} is ready", lambda: self.is_ready(before), 120)
        except BaseException:
            self.stop()
            raise

    def is_ready(self, before: int) -> bool:
        said = self.log.read_text()[before:]
        assert self.process.poll() is None, said
        return f"{self.log.stem} ready." in said


class ExampleWorker(PythonWorker):
    """A Celery worker of the example's application."""

    def __init__(self, folder: Path, url: str, node: str, *options: str, **env: str):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["celery", "-A", "backend.celery_app", "worker", "-l", "INFO", "-n", node, *options]
        variables = os.environ | {"REDIS_URL": url, "PYTHONPATH": f"{PACKAGE}:{HERE}"}
        variables |= {name.upper(): value for name, value in env.items()}
        super().__init__(folder / f"{node}.log", command, cwd=EXAMPLE, env=variables, start_new_session=True)

    def kill(self) -> None:
        """Ends it with signal 9, with the processes that run its tasks."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        # Asked to stop, it would finish its tasks.
        if self.process.poll() is None:
            self.kill()


class CeleryWorker(PythonWorker):
    """A stock Celery worker with an application given as Python source that defines `app`."""

    def __init__(self, folder: Path, url: str, source: str, node: str, *options: str, **env: str):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "application.py").write_text(source)
        command = ["celery", "-A", "application", "worker", "-l", "INFO", "-n", node, *options]
        variables = os.environ | {"REDIS_URL": url} | {name.upper(): value for name, value in env.items()}
        super().__init__(folder / f"{node}.log", command, cwd=folder, env=variables)
