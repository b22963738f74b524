"""A pool whose broker calls its keys something else than kombu does; the chart tells operator and workers."""

import pytest

import conftest
import crew
import kube
from waiting import until

pytestmark = pytest.mark.usefixtures("clean")

CELERY = {"globalKeyPrefix": "app1:", "resultKeyPrefix": "results:", "prioritySteps": [0, 5], "separator": ":p", "unackedKey": "held"}


@pytest.fixture(scope="module", autouse=True)
def other_names(installation, tmp_path_factory):
    """The default pool and its workers have other names for a while."""
    with conftest.installed_with({"defaultPool": {"celery": CELERY}}, tmp_path_factory.mktemp("names")):
        yield


def test_jobs_run_wait_and_are_cancelled_under_other_names(app):
    redis = app.backend.client
    crew.workers_at_most(0)
    crew.no_workers()
    crew.start(crew.job("runs", priority=8, inputs={"seconds": 600}), crew.job("waits", priority=2))
    crew.in_phase("runs", "Queued")
    crew.in_phase("waits", "Queued")
    assert (redis.llen("app1:crew_jobs"), redis.llen("app1:crew_jobs:p5")) == (1, 1)
    kube.patch("crewjob", "waits", {"spec": {"cancel": True}})
    crew.in_phase("waits", "Cancelled")
    assert redis.llen("app1:crew_jobs:p5") == 0

    crew.workers_at_most(2)
    task = crew.in_phase("runs", "Running", seconds=90)["taskID"]
    until("it is in flight", lambda: redis.hlen("app1:held") == redis.zcard("app1:held_index") == 1)
    kube.patch("crewjob", "runs", {"spec": {"cancel": True}})
    crew.in_phase("runs", "Cancelled", seconds=15)
    assert redis.exists(f"results:celery-task-meta-{task}")

    crew.start(crew.job("succeeds"))
    done = crew.in_phase("succeeds", "Succeeded")
    assert done["worker"]["podName"] in done["worker"]["name"]
    # Markers are the operator's own. What tests before this one have left under the usual names is not in the way.
    named = [key for key in redis.keys("*") if done["taskID"].encode() in key]
    assert named and all(key.startswith((b"app1:", b"results:", b"crewjob:")) for key in named), named
