"""CrewJobs and pools: making them, and waiting for them."""

import json
import time
from collections import Counter
from pathlib import Path

from kube import NAMESPACE, WORKER, create, get, items, kubectl, patch
from waiting import until

PROJECT = Path(__file__).resolve().parents[2]
API_VERSION = "crewjob.dev/v1alpha1"
SECRET = "crewjob-redis"
WORKER_SECRET = "crewjob-redis-worker"
FINAL = ("Succeeded", "Failed", "Cancelled")
# Within so many seconds a job of a killed worker runs again.
TAKEOVER_LIMIT = 10
# The label of jobs that outlive the test that is under way.
KEPT = "kept"


def job(name: str, label: str = "", **spec) -> dict:
    """A CrewJob; its own topic keeps the worker's cache out of it."""
    inputs = {"seconds": 0.2} | spec.pop("inputs", {})
    spec = {"topic": f"topic of {name}", "inputs": inputs, **spec}
    metadata = {"name": name, "labels": {"test": label or name}}
    return {"apiVersion": API_VERSION, "kind": "CrewJob", "metadata": metadata, "spec": spec}


def batch(label: str, size: int, **spec) -> list[dict]:
    return [job(f"{label}-{number:03}", label, **json.loads(json.dumps(spec))) for number in range(size)]


def pool(name: str, secret: str = SECRET, **spec) -> dict:
    """A pool without workers of its own."""
    metadata = {"name": name, "labels": {"test": "pools"}}
    spec = {"redis": {"secretName": secret}, **spec}
    return {"apiVersion": API_VERSION, "kind": "CrewWorkerPool", "metadata": metadata, "spec": spec}


def secret(name: str, labelled: bool = True, **data: str) -> dict:
    labels = {"test": "pools"} | ({"crewjob.dev/redis": "true"} if labelled else {})
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def start(*jobs: dict) -> None:
    create(*jobs)


def cancel(label: str) -> dict[str, str]:
    """Cancels a whole batch; returns the phase that each job had at that moment."""
    names = [found["metadata"]["name"] for found in items("crewjobs", f"test={label}")]
    change = ["--type=merge", "--patch", json.dumps({"spec": {"cancel": True}})]
    shown = ["-o", "jsonpath={.metadata.name}={.status.phase}{'\\n'}"]
    return dict(line.split("=") for line in kubectl("patch", "crewjob", *names, *change, *shown).split())


def remove_all() -> None:
    """Deletes all jobs in one request, but those that outlive tests."""
    path = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/crewjobs"
    kubectl("delete", "--raw", f"{path}?labelSelector=test!%3D{KEPT}")


def status(name: str) -> dict:
    return get("crewjob", name)["status"]


def condition(name: str, type_: str, kind: str = "crewjob") -> dict:
    conditions = get(kind, name).get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == type_), {})


def in_phase(name: str, *phases: str, seconds: float = 60) -> dict:
    """Waits for one of the phases, and returns the status."""

    def reached():
        now = status(name)
        phase = now.get("phase")
        assert phase in phases or phase not in FINAL, f"{name} is {phase}: {now}"
        return now if phase in phases else None

    return until(f"{name} is {' or '.join(phases)}", reached, seconds)


def phases(label: str) -> dict[str, int]:
    """How many jobs of a batch are in which phase."""
    found = (job.get("status", {}).get("phase") for job in items("crewjobs", f"test={label}"))
    return dict(Counter(phase for phase in found if phase))


def all_in_phase(label: str, phase: str, count: int, seconds: float = 90) -> float:
    """Waits for a whole batch, and returns for how long."""
    began = time.monotonic()
    until(f"{count} jobs of {label} are {phase}", lambda: phases(label) == {phase: count}, seconds, every=0.5)
    return time.monotonic() - began


def task_ids(label: str) -> list[str]:
    return [found["status"]["taskID"] for found in items("crewjobs", f"test={label}")]


def workers_at_most(count: int) -> None:
    patch("crewworkerpool", "default", {"spec": {"maxReplicas": count}})


def replicas() -> int:
    return get("deployment", WORKER)["spec"]["replicas"]


def worker_pods() -> list[dict]:
    return items("pods", "app.kubernetes.io/component=worker")


def no_workers(seconds: float = 60) -> None:
    until("all workers are gone", lambda: replicas() == 0 and not worker_pods(), seconds)


def ready(name: str, namespace: str = NAMESPACE) -> bool:
    return condition(name, "Ready", "crewworkerpool").get("status") == "True"


def status_of_pool(name: str = "default") -> dict:
    return get("crewworkerpool", name)["status"]
