"""The workers: how many there are, how they are started, and their processes."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import crew
import kube
from waiting import until

# === How many, and how they are started ===


@contextmanager
def at_least(count: int) -> Iterator[None]:
    """So many workers, with or without work."""
    kube.patch("crewworkerpool", "default", {"spec": {"minReplicas": count}})
    try:
        ready = lambda: crew.status_of_pool().get("replicas", {}).get("ready") == count
        until(f"{count} workers are ready", ready, 60)
        yield
    finally:
        kube.patch("crewworkerpool", "default", {"spec": {"minReplicas": 0}})


def container() -> dict:
    (found,) = kube.get("deployment", kube.WORKER)["spec"]["template"]["spec"]["containers"]
    return found


@contextmanager
def none() -> Iterator[None]:
    """No worker for a while: what changes meanwhile needs no rollout, in which each worker takes ten seconds."""
    most = kube.get("crewworkerpool", "default")["spec"]["maxReplicas"]
    crew.workers_at_most(0)
    crew.no_workers()
    try:
        yield
    finally:
        crew.workers_at_most(most)


@contextmanager
def started_with(args: list[str] = (), **container_and_pod) -> Iterator[None]:
    """Workers whose template differs for a while: further arguments, `env` and `volumeMounts`, and the Pod's `volumes`."""
    before = kube.get("deployment", kube.WORKER)["spec"]["template"]
    volumes = container_and_pod.pop("volumes", [])
    # Of several options of one name, Celery takes the last.
    change = {"name": "worker", "args": [*container()["args"], *args], **container_and_pod}
    template = {"spec": {"containers": [change], "volumes": volumes}}
    with none():
        kube.kubectl("patch", "deployment", kube.WORKER, "--patch", json.dumps({"spec": {"template": template}}))
    try:
        yield
    finally:
        back = [{"op": "replace", "path": "/spec/template", "value": before}]
        with none():
            kube.kubectl("patch", "deployment", kube.WORKER, "--type=json", "--patch", json.dumps(back))


def deploy(name: str, args: list[str], command: list[str] | None = None, **env: str) -> None:
    """Another Deployment of the same worker, or of another command in its image, which no test counts among the workers."""
    template = kube.get("deployment", kube.WORKER)["spec"]["template"]
    template["metadata"] = {"labels": {"app": name}}
    worker = template["spec"]["containers"][0]
    if command:
        worker |= {"command": command, "args": []}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            worker.pop(probe, None)
    worker["args"] += args
    kept = [entry for entry in worker["env"] if entry["name"] not in env]
    worker["env"] = [*kept, *({"name": key, "value": value} for key, value in env.items())]
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
    kube.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})


@contextmanager
def replaced_as_soon_as_ready() -> Iterator[None]:
    """A rollout that does not watch each new worker for seconds before it takes the next one."""
    before = kube.get("deployment", kube.WORKER)["spec"]["minReadySeconds"]
    kube.patch("deployment", kube.WORKER, {"spec": {"minReadySeconds": 0}})
    try:
        yield
    finally:
        kube.patch("deployment", kube.WORKER, {"spec": {"minReadySeconds": before}})


# === One of them ===


def pod_of(node: str) -> dict:
    """The Pod of a Celery worker's node name."""
    return kube.get("pod", node.removeprefix("crew@"))


def processes_of(uid: str, program: bytes = b"celery_app") -> dict[int, int]:
    """The processes of a Pod's worker, each with its parent."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if uid in (folder / "cgroup").read_text() and program in (folder / "cmdline").read_bytes():
                found[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    return found


def main_process(pod: dict, program: bytes = b"celery_app") -> int:
    """The worker's main process, whose end is the end of its container."""
    processes = processes_of(pod["metadata"]["uid"], program)
    (main,) = [pid for pid, parent in processes.items() if parent not in processes]
    return main


def kill(pod: dict, program: bytes = b"celery_app") -> float:
    """Ends a worker's main process with signal 9, and so its container; returns when."""
    os.kill(main_process(pod, program), signal.SIGKILL)
    return time.monotonic()


def lost_container(name: str) -> dict:
    """How the last container of a Pod's worker has ended, if one has."""
    (status,) = kube.get("pod", name)["status"]["containerStatuses"]
    return status.get("lastState", {}).get("terminated", {})
