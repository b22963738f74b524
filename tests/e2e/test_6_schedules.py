"""Schedules on a whole cluster: through the end of a leader each time makes its one job, jobs run, a later time ends an earlier
job, and what is beyond the history is deleted."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

import crew
import kube
import operators
from waiting import until

LABEL = "crewjob.dev/schedule"
PLANNED = "crewjob.dev/planned-at"
# How many times pass, at least, while a leader is killed and another's Pod is deleted.
MINUTES = int(os.environ.get("E2E_SCHEDULE_MINUTES", "3"))


@contextmanager
def schedule(name: str, seconds: int, **spec) -> Iterator[None]:
    template = {"spec": {"topic": "bees", "inputs": {"seconds": seconds}}}
    metadata = {"name": name, "namespace": kube.NAMESPACE}
    spec |= {"schedules": ["* * * * *"], "template": template}
    kube.apply({"apiVersion": crew.API_VERSION, "kind": "CrewSchedule", "metadata": metadata, "spec": spec})
    yield
    kube.kubectl("delete", "crewschedule", name, "--wait=true", "--timeout=60s")


@pytest.fixture(scope="module")
def steady(installation):
    """Its times pass while the other is tried."""
    with schedule("steady", 0, history={"succeeded": 100}):
        yield


@pytest.fixture
def overtaking():
    history = {"succeeded": 0, "failed": 0, "cancelled": 0}
    with schedule("overtaking", 300, overlap="CancelRunning", history=history):
        yield


def jobs(schedule: str) -> list[dict]:
    found = [job for job in kube.items("crewjobs", LABEL) if job["metadata"]["labels"][LABEL] == schedule]
    return sorted(found, key=lambda job: job["metadata"]["name"])


def names(schedule: str) -> list[str]:
    return [job["metadata"]["name"] for job in jobs(schedule)]


def times(schedule: str) -> list[datetime]:
    return sorted(datetime.fromisoformat(job["metadata"]["annotations"][PLANNED]) for job in jobs(schedule))


@pytest.mark.usefixtures("steady")
def test_its_jobs_run_and_a_later_one_replaces_an_earlier_one(overtaking):
    first = until("a minute begins", lambda: next(iter(names("overtaking")), None), seconds=90)
    crew.in_phase(first, "Running", seconds=90)
    until("a second minute begins", lambda: len(names("overtaking")) == 2, seconds=90)
    crew.in_phase(first, "Cancelled", seconds=30)
    made = json.loads(kube.kubectl("get", "crewjob", first, "-o", "json"))
    assert made["metadata"]["labels"][LABEL] == "overtaking"
    until("the earlier one is deleted, two minutes after it was made", lambda: first not in names("overtaking"), seconds=150)


def another_leads(before: str) -> None:
    until("another operator leads", lambda: operators.holder() not in {"", before}, seconds=60)


@pytest.mark.usefixtures("clean")
def test_through_a_killed_leader_and_a_deleted_pod_each_minute_makes_one_job(steady, figure):
    began = until("a time has come", lambda: next(iter(times("steady")), None), seconds=90)
    third = timedelta(minutes=MINUTES) / 3
    until("a third is over", lambda: datetime.now(UTC) > began + third, seconds=third.seconds + 60)
    first = operators.holder()
    os.kill(operators.process_of(kube.get("pod", operators.leader())["metadata"]["uid"]), signal.SIGKILL)
    another_leads(first)
    until("two thirds are over", lambda: datetime.now(UTC) > began + 2 * third, seconds=third.seconds + 60)
    second = operators.holder()
    kube.kubectl("delete", "pod", operators.leader(), "--grace-period=0", "--force")
    another_leads(second)
    last = began + timedelta(minutes=MINUTES)
    until("the last minute has its job", lambda: times("steady")[-1] >= last, seconds=third.seconds + 120)
    made = times("steady")
    assert made == [began + timedelta(minutes=number) for number in range(len(made))]
    until("all have succeeded", lambda: {job.get("status", {}).get("phase") for job in jobs("steady")} == {"Succeeded"}, seconds=60)
    figure(f"a schedule made {len(made)} jobs in {len(made)} minutes, through a killed leader and a deleted Pod")
