"""A schedule on a whole cluster: its jobs run, a later time ends an earlier job, and what is beyond the history is deleted."""

import json

import pytest

import crew
import kube
from waiting import until

pytestmark = pytest.mark.usefixtures("clean")

LABEL = "crewjob.dev/schedule"


@pytest.fixture
def schedule():
    spec = {
        "schedules": ["* * * * *"],
        "overlap": "CancelRunning",
        "history": {"succeeded": 0, "failed": 0, "cancelled": 0},
        "template": {"spec": {"topic": "bees", "inputs": {"seconds": 300}}},
    }
    metadata = {"name": "each-minute", "namespace": kube.NAMESPACE}
    kube.apply({"apiVersion": crew.API_VERSION, "kind": "CrewSchedule", "metadata": metadata, "spec": spec})
    yield
    kube.kubectl("delete", "crewschedule", "each-minute", "--wait=true", "--timeout=60s")


def names() -> list[str]:
    return sorted(job["metadata"]["name"] for job in kube.items("crewjobs", LABEL))


def test_its_jobs_run_and_a_later_one_replaces_an_earlier_one(schedule):
    first = until("a minute begins", lambda: next(iter(names()), None), seconds=90)
    crew.in_phase(first, "Running", seconds=90)
    until("a second minute begins", lambda: len(names()) == 2, seconds=90)
    crew.in_phase(first, "Cancelled", seconds=30)
    assert json.loads(kube.kubectl("get", "crewjob", first, "-o", "json"))["metadata"]["labels"][LABEL] == "each-minute"
    until("the earlier one is deleted, two minutes after it was made", lambda: first not in names(), seconds=150)
