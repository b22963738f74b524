"""A worker that hangs: it has room, and takes nothing."""

import os
import signal

import pytest

import crew
import kube
import workers

pytestmark = pytest.mark.usefixtures("clean")


def stalled() -> dict:
    return crew.condition("default", "WorkersStalled", "crewworkerpool")


def is_one(pods: list[dict]) -> list[dict]:
    return pods if len(pods) == 1 else []


def test_workers_that_hang_are_told_of_and_left_alone():
    crew.workers_at_most(1)
    with workers.at_least(1):
        (pod,) = kube.until("no other worker is left", lambda: is_one(crew.worker_pods()))
        kube.until("nothing stalls", lambda: stalled().get("status") == "False")
        main = kube.until("it runs", lambda: workers.main_process(pod))
        os.kill(main, signal.SIGSTOP)
        try:
            crew.start(crew.job("unheeded"))
            kube.until("it is said", lambda: stalled().get("status") == "True", seconds=75)
            assert (stalled()["reason"], "crew_jobs,default" in stalled()["message"]) == ("NothingTaken", True)
        finally:
            os.kill(main, signal.SIGCONT)
        crew.in_phase("unheeded", "Succeeded")
        kube.until("it is over", lambda: stalled().get("status") == "False", seconds=30)
        assert [found["metadata"]["uid"] for found in crew.worker_pods()] == [pod["metadata"]["uid"]]
