"""Flux applies what is in Git, waits for jobs as long as they take, and makes none run twice."""

import json
import subprocess
from pathlib import Path

import pytest

from waiting import holds, until

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLE = PROJECT / "examples/gitops"
JOB = "tides-2026-11"


class Crews:
    """The example's folder `jobs` in a Git repository, and the objects by which Flux applies it."""

    def __init__(self, bed, flux, repository):
        self.bed, self.flux, self.repository = bed, flux, repository
        self.namespace = bed.a.namespace
        bed.a.secret("redis", REDIS_URL=bed.redis.url)
        bed.a.deployment(replicas=None)
        self.rolled_out()
        self.resources = ["pool.yaml", "tides.yaml"]
        self.commit({path.name: path.read_text() for path in (EXAMPLE / "jobs").iterdir()})
        apply(bed, "jobs", repository.url, ("targetNamespace: crewjob", f"targetNamespace: {self.namespace}"))

    def commit(self, files: dict[str, str | None]) -> None:
        self.repository.commit({f"jobs/{name}": text for name, text in files.items()})

    def add(self, item: dict) -> None:
        """One more object in Git."""
        name = f"{item['metadata']['name']}.yaml"
        self.resources.append(name)
        self.commit({name: json.dumps(item), "kustomization.yaml": json.dumps({"resources": self.resources})})
        self.fetch()

    def remove(self, name: str) -> None:
        self.resources.remove(f"{name}.yaml")
        self.commit({f"{name}.yaml": None, "kustomization.yaml": json.dumps({"resources": self.resources})})
        self.fetch()

    def fetch(self) -> None:
        """Flux has the newest commit, and applies it."""
        self.flux.synced("gitrepositories", self.namespace, "crews")

    def rolled_out(self) -> None:
        """Writes the status of the workers' Deployment as its controller would."""
        made = self.bed.a.get("deployments", "worker")
        count = made["spec"].get("replicas", 1)
        conditions = [{"type": "Available", "status": "True"}, {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count)
        status = {"observedGeneration": made["metadata"]["generation"], "conditions": conditions, **counts}
        self.bed.a.patch("deployments", "worker", {"status": status}, "status")

    def ready(self) -> tuple[str, str]:
        return self.flux.ready("kustomizations", self.namespace, "crews")

    def is_ready(self) -> None:
        until("the Kustomization is ready", lambda: self.ready()[0] == "True", 60)

    def sync(self) -> None:
        self.flux.synced("kustomizations", self.namespace, "crews")

    def end(self, name: str = JOB, state: str = "SUCCESS") -> None:
        """Lets the run of a job end."""
        until(f"{name} is there", lambda: self.bed.a.get("crewjobs", name), 60)
        task = self.bed.a.task(name)
        until("its message waits", lambda: self.bed.redis.queued(task))
        message = self.bed.redis.take(task)
        result = "done" if state == "SUCCESS" else {"exc_type": "ValueError", "exc_message": ["no"]}
        self.bed.redis.store(task, state, result)
        self.bed.redis.acknowledge(message)


def apply(bed, name: str, url: str, *changes: tuple[str, str]) -> None:
    """Creates the objects of Flux in a file of the example, for this repository."""
    text = (EXAMPLE / f"flux/{name}.yaml").read_text()
    for old, new in (f"https://git.example.com/{'crews' if name == 'jobs' else 'crewjob-operator'}.git", url), *changes:
        assert old in text, old
        text = text.replace(old, new)
    bed.a.kubectl("create", "-f", "-", given=text)


@pytest.fixture
def crews(bed, flux, repositories, request):
    made = []

    def make():
        made.append(Crews(bed, flux, repositories.new(f"{request.node.name[:40]}.git")))
        return made[-1]

    yield make
    for kind in ("kustomizations", "gitrepositories", "helmreleases"):
        items = bed.control_plane.request("GET", flux.path(kind, bed.a.namespace))["items"]
        for name in [item["metadata"]["name"] for item in items]:
            bed.control_plane.request("DELETE", flux.path(kind, bed.a.namespace, name))
        until(f"no {kind} are left", lambda kind=kind: not bed.control_plane.request("GET", flux.path(kind, bed.a.namespace))["items"], 60)


def test_a_kustomization_is_ready_when_its_jobs_have_succeeded_and_not_before(crews):
    crews = crews()
    until("the job is applied", lambda: crews.bed.a.get("crewjobs", JOB), 60)
    crews.bed.a.in_phase(JOB, "Queued")
    holds("it is not ready", lambda: crews.ready()[0] == "Unknown", 6)
    crews.end()
    crews.is_ready()
    assert crews.bed.a.status(JOB)["phase"] == "Succeeded"


def test_a_kustomization_says_which_job_has_failed(crews):
    crews = crews()
    crews.end()
    crews.is_ready()
    crews.add(job("broken", retryPolicy={"maxRetries": 0}))
    crews.end("broken", "FAILURE")
    until("it has failed", lambda: crews.ready()[0] == "False", 60)
    assert "CrewJob" in crews.ready()[1] and "broken" in crews.ready()[1]


def test_twenty_syncs_run_nothing_again_and_leave_the_replicas_of_workers_alone(crews):
    crews = crews()
    crews.end()
    crews.is_ready()
    crews.add(worker())
    applied = lambda: "kustomize.toolkit.fluxcd.io/name" in crews.bed.a.get("deployments", "worker")["metadata"].get("labels", {})  # noqa: E731
    until("the Deployment is applied", applied, 60)
    crews.bed.a.patch("deployments", "worker", {"spec": {"replicas": 3}}, "scale")
    crews.rolled_out()
    crews.is_ready()
    before = crews.bed.a.get("crewjobs", JOB)
    for _ in range(20):
        crews.sync()
        assert crews.bed.a.get("deployments", "worker")["spec"]["replicas"] == 3
    after = crews.bed.a.get("crewjobs", JOB)
    assert (after["metadata"]["uid"], after["status"]) == (before["metadata"]["uid"], before["status"])
    assert not crews.bed.redis.messages()
    crews.is_ready()


def test_a_job_that_was_deleted_is_created_by_the_next_sync_and_not_run_again(crews):
    crews = crews()
    crews.end()
    crews.is_ready()
    first = crews.bed.a.get("crewjobs", JOB)["metadata"]["uid"]
    crews.bed.a.delete("crewjobs", JOB)  # as `ttlAfterFinished` does
    until("it is gone", lambda: crews.bed.a.get("crewjobs", JOB) is None)
    crews.sync()
    crews.bed.a.in_phase(JOB, "Succeeded")
    job = crews.bed.a.get("crewjobs", JOB)
    assert job["metadata"]["uid"] != first and job["status"].get("attempts", 0) == 0
    assert crews.bed.a.condition(JOB)["reason"] == "AlreadyRan" and first in crews.bed.a.condition(JOB)["message"]
    assert not crews.bed.redis.messages()
    crews.is_ready()


def test_a_job_that_is_removed_from_git_is_deleted_and_taken_off_its_queue(crews):
    crews = crews()
    crews.end()
    crews.is_ready()
    crews.add(job("withdrawn"))
    until("its message waits", lambda: crews.bed.a.get("crewjobs", "withdrawn") and crews.bed.redis.queued(crews.bed.a.task("withdrawn")), 60)
    task = crews.bed.a.task("withdrawn")
    crews.remove("withdrawn")
    until("it is deleted", lambda: crews.bed.a.get("crewjobs", "withdrawn") is None, 60)
    until("its message is gone", lambda: not crews.bed.redis.queued(task))
    crews.is_ready()


def test_a_helm_release_installs_the_chart_and_changes_nothing_when_it_is_synced(crews, bed, flux, repositories):
    crews = crews()  # removes what is made here
    source = repositories.new("operator.git")
    tracked = subprocess.run(["git", "ls-files", "charts"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()
    source.commit({name: (PROJECT / name).read_text() for name in tracked})
    # Nothing starts a Pod here.
    apply(bed, "operator", source.url, ("  upgrade:\n", "  install:\n    disableWait: true\n  upgrade:\n"))
    flux.is_ready("helmreleases", bed.a.namespace, "crewjob-operator", 120)
    names = [item["metadata"]["name"] for item in bed.a.items("deployments")]
    assert any("operator" in name for name in names), names
    release = lambda: bed.control_plane.request("GET", flux.path("helmreleases", bed.a.namespace, "crewjob-operator"))["status"]["history"]  # noqa: E731
    before = release()
    for _ in range(3):
        flux.synced("helmreleases", bed.a.namespace, "crewjob-operator")
    assert release() == before and len(before) == 1


def job(name: str, **spec) -> dict:
    api = {"apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob"}
    return {**api, "metadata": {"name": name}, "spec": {"topic": name, **spec}}


def worker() -> dict:
    """The Deployment of workers as it should be in Git: without replicas."""
    labels = {"app": "worker"}
    template = {
        "metadata": {"labels": {**labels, "pod-template-hash": "7d4b9c5f6d"}},
        "spec": {"terminationGracePeriodSeconds": 3660, "containers": [{"name": "worker", "image": "worker"}]},
    }
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "worker"}, "spec": spec}
