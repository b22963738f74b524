"""CrewJobs as producers: an operator on a real API server sends them, workers of both kinds run them, and what the status
says in the end is the same."""

import json
import os
import subprocess

import pytest
from conftest import CREWJOB, HERE, eventually, free_port, url

CLUSTER = HERE.parent / "cluster/cluster"
NAME = f"interop-{os.getpid()}"
NAMESPACE = "interop"

# By case and kind of worker: what the status says.
SEEN: dict[tuple[str, str], dict] = {}


def manifest(kind, name, **fields):
    versions = {"Namespace": "v1", "Secret": "v1"}
    version = versions.get(kind, "crewjob.dev/v1alpha1")
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **fields.pop("metadata", {})}, **fields}


class Api:
    """An API server, without anything else of Kubernetes."""

    def __init__(self):
        subprocess.run([CLUSTER, "--name", NAME, "control-plane", "up"], check=True, stdout=subprocess.DEVNULL)
        self.kubeconfig = self.cluster("kubeconfig").strip()

    def cluster(self, *arguments, **options):
        command = [CLUSTER, "--name", NAME, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout

    def kubectl(self, *arguments, **options):
        return self.cluster("kubectl", "--namespace", NAMESPACE, *arguments, **options)

    def create(self, *objects):
        self.kubectl("create", "-f", "-", input="\n---\n".join(map(json.dumps, objects)))

    def status(self, job):
        return json.loads(self.kubectl("get", "crewjob", job, "-o", "json")).get("status", {})


@pytest.fixture(scope="module")
def api(server, tmp_path_factory):
    """An operator that leads, and its pool on the Redis of these tests."""
    api = Api()
    try:
        env = os.environ | {"KUBECONFIG": api.kubeconfig, "POD_NAME": "interop"}
        subprocess.run([CREWJOB, "crds", "apply"], env=env, check=True, stdout=subprocess.DEVNULL)
        labels = {"crewjob.dev/redis": "true"}
        api.create(manifest("Namespace", NAMESPACE))
        api.create(
            manifest(
                "Secret", "redis", metadata={"labels": labels}, stringData={"REDIS_URL": url("operator")}
            ),
            manifest(
                "CrewWorkerPool",
                "default",
                spec={
                    "redis": {"secretName": "redis"},
                    "queues": [{"name": "default", "routingKey": "default"}],
                    "allowedTasks": ["echo", "fail", "nap", "stubborn"],
                },
            ),
        )
        command = [CREWJOB, "operator", "--lease-namespace", NAMESPACE, "--admin-address", f"127.0.0.1:{free_port()}"]
        with (tmp_path_factory.mktemp("operator") / "log").open("w") as log:
            operator = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield api
        finally:
            operator.terminate()
            operator.wait()
    finally:
        api.cluster("down")


class Job:
    """A CrewJob that runs one of the tasks of these tests."""

    number = 0

    def __init__(self, api, task, *args, kwargs=None, **spec):
        Job.number += 1
        self.api, self.name = api, f"job-{Job.number}"
        spec = {"topic": "t", "task": task, "args": list(args), "kwargs": kwargs or {}, **spec}
        api.create(manifest("CrewJob", self.name, spec=spec))

    def until(self, *phases):
        def reached():
            status = self.api.status(self.name)
            return status if status.get("phase") in phases else None

        return eventually(reached, 60, f"{self.name} {' or '.join(phases)}")

    def ended(self):
        return self.until("Succeeded", "Failed", "Cancelled")

    def cancel(self):
        self.api.kubectl("patch", "crewjob", self.name, "--type=merge", "-p", '{"spec": {"cancel": true}}')
        return self.ended()


def once():
    return {"retryPolicy": {"maxRetries": 0}}


def cancelled_while_it_runs(api):
    job = Job(api, "nap", 60)
    job.until("Running")
    return job.cancel()


def cancelled_in_its_queue(api):
    busy = [Job(api, "nap", 60) for _ in range(2)]
    for job in busy:
        job.until("Running")
    status = Job(api, "nap", 1).cancel()
    for job in busy:
        job.cancel()
    return status


CASES = {
    "success": lambda api: Job(api, "echo", "job-1", {"topic": "AI"}, kwargs={"flag": True, "nothing": None}).ended(),
    "numbers and other scripts": lambda api: Job(api, "echo", 2**53 + 1, -0.5, "\u00e9\U0001f600").ended(),
    "failure": lambda api: Job(api, "fail", "bad input", **once()).ended(),
    "retries exhausted": lambda api: Job(
        api, "fail", "again", retryPolicy={"maxRetries": 2, "backoff": {"initial": "10ms", "max": "20ms"}}
    ).ended(),
    "not worth a retry": lambda api: Job(api, "fail", "no", retryPolicy={"nonRetryable": ["ValueError"]}).ended(),
    "soft limit": lambda api: Job(api, "nap", 60, timeouts={"soft": "1s", "hard": "60s"}, **once()).ended(),
    "hard limit": lambda api: Job(api, "stubborn", timeouts={"soft": "1s", "hard": "2s"}, **once()).ended(),
    "cancelled while it runs": cancelled_while_it_runs,
    "cancelled in its queue": cancelled_in_its_queue,
}


def comparable(status):
    """The fields that must not depend on the kind of worker."""
    history = [(attempt["outcome"], attempt.get("errorType")) for attempt in status.get("attemptHistory", [])]
    conditions = {condition["type"]: (condition["status"], condition["reason"]) for condition in status["conditions"]}
    return {
        "history": history,
        "conditions": conditions,
        "result": status.get("result", {}).get("value"),
        **{key: status.get(key) for key in ("phase", "reason", "attempts", "workerLosses", "priority")},
    }


@pytest.mark.parametrize("case", CASES)
def test_a_job_ends_as_well_on_a_native_worker_as_on_a_python_worker(case, worker, api, server):
    SEEN[case, worker.kind] = comparable(CASES[case](api))
    eventually(lambda: server.hlen("unacked") == 0, 30, "the acknowledgement")
    if worker.kind == "native":
        assert SEEN[case, "native"] == SEEN[case, "python"]
