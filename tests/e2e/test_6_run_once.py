"""What is remembered of a run-once key on a whole cluster, and how long."""

import pytest

import crew
import kube
from waiting import until

pytestmark = pytest.mark.usefixtures("clean")

RECORDS = "crewjob.dev/run-once"
EXPIRED = "2026-01-01T00:00:00Z"


def test_a_job_that_is_created_again_is_not_run_again_until_its_record_has_expired():
    crew.start(crew.job("once", runOnce="key"))
    first = crew.in_phase("once", "Succeeded")
    kube.kubectl("delete", "crewjob", "once", "--wait=true", "--timeout=10s")
    crew.start(crew.job("once", runOnce="key"))
    again = crew.in_phase("once", "Succeeded")
    assert (first["attempts"], again.get("attempts", 0)) == (1, 0)
    assert crew.condition("once", "Complete")["reason"] == "AlreadyRan"

    [record] = kube.items("configmap", RECORDS)
    change = {"metadata": {"annotations": {"crewjob.dev/expires-at": EXPIRED}}, "data": {"expiresAt": EXPIRED}}
    kube.patch("configmap", record["metadata"]["name"], change)
    # It is deleted within the hour, or by the next leader.
    kube.kubectl("delete", "pod", "-l", "app.kubernetes.io/component=operator", "--wait=true")
    until("the record is deleted", lambda: not kube.items("configmap", RECORDS))
    kube.kubectl("delete", "crewjob", "once", "--wait=true", "--timeout=10s")
    crew.start(crew.job("once", runOnce="key"))
    assert crew.in_phase("once", "Succeeded")["attempts"] == 1
