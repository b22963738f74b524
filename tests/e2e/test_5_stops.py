"""A job whose worker hears nothing can be stopped, too, and a finished one goes when its time is over."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

import crew
import kube
import workers

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def expired(installation):
    """A finished job that gets a time to live which passed an hour ago."""
    crew.start(crew.job("expired", inputs={"seconds": 0}, ttlAfterFinished="1h"))
    bucket = crew.in_phase("expired", "Succeeded")["expiryBucket"]
    assert bucket == f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H}"
    past = {"status": {"finishedAt": f"{datetime.now(UTC) - timedelta(hours=3):%Y-%m-%dT%H:%M:%SZ}"}}
    patch = ["--subresource=status", "--type=merge", "--patch", json.dumps(past)]
    kube.kubectl("patch", "crewjob", "expired", *patch)
    kube.patch("crewjob", "expired", {"spec": {"ttlAfterFinished": "2h"}})
    return time.monotonic()


def test_a_worker_that_does_not_hear_that_its_job_is_cancelled_is_replaced(expired, figure):
    """A solo pool runs the task in its main loop: while it does, it hears nothing."""
    crew.no_workers()
    kube.patch("crewworkerpool", "default", {"spec": {"concurrency": 1}})
    try:
        with workers.started_with(["--pool", "solo"]):
            crew.start(crew.job("unheard", inputs={"seconds": 600}))
            pod = crew.in_phase("unheard", "Running")["worker"]["podName"]
            began = time.monotonic()
            crew.cancel("unheard")
            crew.in_phase("unheard", "Cancelled", seconds=90)
            figure(f"a job on a deaf worker was Cancelled after {time.monotonic() - began:.1f} s")
            kube.until("its Pod is gone", lambda: kube.find("pod", pod) is None)
    finally:
        kube.patch("crewworkerpool", "default", {"spec": {"concurrency": 4}})


def test_a_job_whose_time_to_live_has_passed_is_deleted(expired, figure):
    kube.until("it is deleted", lambda: kube.find("crewjob", "expired") is None, seconds=90)
    figure(f"an expired job was deleted within {time.monotonic() - expired:.0f} s")
