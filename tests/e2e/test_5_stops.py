"""A job whose worker hears nothing can be stopped, too, and a finished one goes when its time is over."""

import time

import pytest

import crew
import kube
from waiting import until

pytestmark = pytest.mark.usefixtures("clean")


def test_a_worker_that_does_not_hear_that_its_job_is_cancelled_is_replaced(unheard, figure):
    pod, began = unheard
    status = crew.in_phase("unheard", "Cancelled", seconds=90)
    figure(f"a job on a deaf worker was {status['phase']} within {time.monotonic() - began:.1f} s")
    until("its Pod is gone", lambda: kube.find("pod", pod) is None)


def test_a_job_whose_time_to_live_has_passed_is_deleted(expired, figure):
    until("it is deleted", lambda: kube.find("crewjob", "expired") is None, seconds=90)
    figure(f"an expired job was deleted within {time.monotonic() - expired:.0f} s")
