"""Finished jobs are archived before they are deleted: in files, or in a server that speaks S3."""

import contextlib
import json
import os
import subprocess
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bed as environment
import pytest

from servers import CREWJOB, Refused, end, free_port
from waiting import holds, until

HERE = Path(__file__).parent
PASSWORD = "hunter2"
AGAIN = 75
"""Seconds in which a failed archive is tried again: a minute, and a bit."""


def expires(bed, *names: str) -> None:
    """Jobs that end, and whose time is over."""
    for name in names:
        bed.a.job(name, inputs={"password": PASSWORD})
    for name in names:
        task = bed.a.task(name)
        until("its message waits", lambda task=task: bed.redis.queued(task))
        message = bed.redis.take(task)
        bed.redis.store(task, "SUCCESS", {"answer": 42})
        bed.redis.acknowledge(message)
    at = datetime.now(UTC) - timedelta(days=3)
    for name in names:
        bed.a.in_phase(name, "Succeeded")
        bed.a.patch("crewjobs", name, {"status": {"finishedAt": f"{at:%Y-%m-%dT%H:%M:%SZ}"}}, "status")
        bed.a.change(name, ttlAfterFinished="24h")


def gone(bed, *names: str, seconds: float = 30) -> None:
    until("they are deleted", lambda: not any(bed.a.get("crewjobs", name) for name in names), seconds)


def lines(folder: Path) -> list[dict]:
    texts = [file.read_text() for file in sorted(folder.glob("crewjobs-*.jsonl")) if file.is_file()]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def names(jobs: list[dict]) -> list[str]:
    return sorted(job["metadata"]["name"] for job in jobs)


def listed(bed, *options: str, namespace: str = "", given: str | None = None, **env: str) -> str:
    """What `list --archived` prints, without a cluster."""
    command = [str(CREWJOB), "ctl", "list", "-n", namespace or bed.a.namespace, *options]
    env = os.environ | {"KUBECONFIG": "/nothing"} | env
    done = subprocess.run(command, env=env, input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(bed, tmp_path):
    """An empty folder, in which the operator archives."""
    bed.a.pool(bed.redis)
    folder = tmp_path / "archive"
    bed.operator.restart("--archive-dir", str(folder))
    yield folder
    bed.operator.restart()


def test_a_job_is_archived_as_a_line_without_its_inputs_and_then_deleted(bed, folder):
    expires(bed, "one", "two")
    gone(bed, "one", "two")
    archived = lines(folder)
    assert names(archived) == ["one", "two"]
    for job in archived:
        assert (job["kind"], job["metadata"]["namespace"], job["spec"]["topic"]) == (
            "CrewJob",
            bed.a.namespace,
            f"topic of {job['metadata']['name']}",
        )
        assert job["status"]["phase"] == "Succeeded" and job["status"]["result"]["value"] == {"answer": 42}
        assert "managedFields" not in job["metadata"] and PASSWORD not in json.dumps(job)
    assert bed.operator.metric("crewjob_archived_total") == 2


def test_archived_jobs_are_listed_from_a_folder_a_file_and_standard_input(bed, folder):
    expires(bed, "one", "two")
    gone(bed, "one", "two")
    [file] = folder.glob("*.jsonl")
    for source in (folder, file):
        assert {line.split()[0] for line in listed(bed, "--no-headers", "--archived", str(source)).splitlines()} == {"one", "two"}
    text = file.read_text()
    twice = text + text + "cut o"
    assert sorted(listed(bed, "--archived", "-", "-o", "name", given=twice).split()) == [
        "crewjob.crewjob.dev/one",
        "crewjob.crewjob.dev/two",
    ]
    assert names(json.loads(listed(bed, "--archived", "-", "-o", "json", given=text))["items"]) == ["one", "two"]
    labelled = text.replace('"name":"one"', '"labels":{"team":"tea"},"name":"one"')
    assert listed(bed, "--archived", "-", "-o", "name", "-l", "team in (tea)", given=labelled).split() == ["crewjob.crewjob.dev/one"]
    for none in (["--phase", "Failed"], ["-l", "team"], ["--pool", "other"], ["--since", "1ms"]):
        assert listed(bed, "--archived", "-", "-o", "name", *none, given=text) == "", none
    assert listed(bed, "--archived", "-", "-o", "name", namespace="other", given=text) == ""
    assert "two" in listed(bed, "-A", "--archived", "-", "-o", "wide", given=text)


def test_inputs_are_archived_where_that_is_asked_for(bed, folder):
    bed.operator.restart("--archive-dir", str(folder), "--archive-inputs")
    expires(bed, "one")
    gone(bed, "one")
    assert [job["spec"]["inputs"] for job in lines(folder)] == [{"password": PASSWORD}]


def test_on_a_full_disk_expired_jobs_stay_until_there_is_room_and_everything_else_goes_on(bed, folder):
    folder.mkdir()
    today = lambda days: f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}"  # noqa: E731
    full = [folder / f"crewjobs-{today(days)}-operator.jsonl" for days in (0, 1)]
    for file in full:
        file.symlink_to("/dev/full")
    expires(bed, "one", "two")
    until("the failure is counted", lambda: bed.operator.metric("crewjob_archive_failures_total") > 0)
    assert bed.operator.metric("crewjob_archive_failing") == 1
    assert "No space left on device" in bed.operator.said()
    bed.a.job("meanwhile")
    until("another job is published", lambda: bed.redis.queued(bed.a.task("meanwhile")))
    told = [event for name in ("one", "two") for event in bed.a.warnings("crewjobs", name) if event["reason"] == "ArchiveFailed"]
    assert len(told) == 1 and "No space left on device" in told[0]["message"]
    assert bed.a.get("crewjobs", "one") and bed.a.get("crewjobs", "two")
    for file in full:
        file.unlink()
    gone(bed, "one", "two", seconds=AGAIN)
    assert names(lines(folder)) == ["one", "two"]
    assert bed.operator.metric("crewjob_archive_failing") == 0


def test_an_operator_that_dies_between_line_and_deletion_loses_no_job(bed, folder):
    with undeletable(bed):
        expires(bed, "one", "two")
        until("their lines are there", lambda: names(lines(folder)) == ["one", "two"])
        assert bed.a.get("crewjobs", "one") and bed.a.get("crewjobs", "two")
        bed.operator.kill()
    bed.operator.start("--archive-dir", str(folder))
    gone(bed, "one", "two")
    assert names(lines(folder)) == ["one", "one", "two", "two"]
    assert len(listed(bed, "--archived", str(folder), "-o", "name").split()) == 2


@contextlib.contextmanager
def undeletable(bed):
    """While no CrewJob of the namespace may be deleted."""
    api, name = "/apis/admissionregistration.k8s.io/v1", f"keep-{bed.a.namespace}"
    version = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    rule = {"apiGroups": ["crewjob.dev"], "apiVersions": ["*"], "resources": ["crewjobs"], "operations": ["DELETE"]}
    policy = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false", "message": "keep"}]}
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": bed.a.namespace}}}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": where}
    request = bed.control_plane.request
    kinds = {"validatingadmissionpolicies": policy, "validatingadmissionpolicybindings": binding}
    for kind, spec in kinds.items():
        request("POST", f"{api}/{kind}", version | {"spec": spec})

    tried = {"apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob", "metadata": {"name": "tried"}, "spec": {"topic": "t", "suspend": True}}

    def is_refused():
        if not bed.a.get("crewjobs", "tried"):
            bed.a.create("crewjobs", tried)
        try:
            bed.a.delete("crewjobs", "tried")
        except Refused:
            return True
        return False

    try:
        until("deleting is refused", is_refused)
        yield
    finally:
        for kind in kinds:
            request("DELETE", f"{api}/{kind}/{name}")
        until("it is not any more", lambda: not is_refused())


class Store:
    """A server that speaks S3, with a bucket `jobs`. What it has is lost with it."""

    def __init__(self, folder: Path):
        self.python = environment.python(HERE / "store/requirements.txt", "a server that speaks S3")
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self) -> None:
        command = [self.python.parent / "moto_server", "-H", "127.0.0.1", "-p", str(self.port)]
        with (self.folder / "store.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        until("the bucket is there", lambda: self.call("PUT", "/jobs") is not None)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            end(self.process)

    def call(self, method: str, path: str) -> str | None:
        request = urllib.request.Request(f"{self.url}{path}", method=method, headers={"Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return None


@pytest.fixture
def store(bed, tmp_path):
    """A store in which the operator archives; not started."""
    bed.a.pool(bed.redis)
    store = Store(tmp_path)
    bed.operator.stop()
    yield store
    store.stop()
    bed.operator.restart()


def test_jobs_are_archived_as_objects_also_after_the_store_was_away_and_are_listed_from_there(bed, store):
    options = ["--archive-s3-bucket", "jobs", "--archive-s3-endpoint", store.url]
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret-of-the-store"}
    bed.operator.start(*options, **{name.lower(): value for name, value in keys.items()})
    expires(bed, "one", "two")
    until("the failure is counted", lambda: bed.operator.metric("crewjob_archive_failures_total") > 0)
    holds("they stay", lambda: bed.a.get("crewjobs", "one") and bed.a.get("crewjobs", "two"), seconds=2)
    store.start()
    gone(bed, "one", "two", seconds=AGAIN)
    assert sorted(listed(bed, "--archived", "-o", "name", *options, **keys).split()) == [
        "crewjob.crewjob.dev/one",
        "crewjob.crewjob.dev/two",
    ]
    found = store.call("GET", "/jobs?list-type=2&prefix=crewjobs/")
    assert found.count("<Key>") >= 1 and ".jsonl</Key>" in found
    said = bed.operator.log.read_text()
    assert "secret-of-the-store" not in said and "X-Amz" not in said


def test_an_operator_without_the_credentials_of_its_archive_says_which_are_missing_and_does_not_start(bed, store):
    command = [str(CREWJOB), "operator", "--archive-s3-bucket", "jobs", "--archive-s3-endpoint", store.url]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"KUBECONFIG": str(bed.operator.kubeconfig)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "AWS_SECRET_ACCESS_KEY" in done.stderr
