"""The operator is killed in the middle of its work, or Redis forgets everything: each job runs once.

The guard of the example is off: it would keep a task that was published twice from running twice.
"""

import copy
import random
import threading
import time

import pytest
from servers import Operator, until
from tenant import Tenant

JOBS = 60
KILLS = 3
FAILOVER_LIMIT = 10
FLUSHED = 50


class Burst:
    """Many short jobs, created while the test goes on."""

    def __init__(self, bed, events):
        self.bed, self.events = bed, events
        self.creation = threading.Thread(target=self.create, daemon=True)
        self.creation.start()

    def create(self) -> None:
        control_plane = copy.copy(self.bed.control_plane)
        control_plane.connection = None
        tenant = Tenant(control_plane, self.bed.a.namespace)
        for number in range(JOBS):
            tenant.job(f"crew-{number}", inputs={"seconds": 0.05})

    def statuses(self) -> list[dict]:
        return [item.get("status", {}) for item in self.bed.a.items("crewjobs")]

    def succeeded(self) -> int:
        return sum(status.get("phase") == "Succeeded" for status in self.statuses())

    def succeed_once_each(self) -> None:
        """Every job ends well, and the workers began each once."""
        self.creation.join(60)
        until("all have succeeded", lambda: self.succeeded() == JOBS, 90, 0.2)
        tasks = [status["taskID"] for status in self.statuses()]
        assert len(set(tasks)) == JOBS
        begun = self.events.read().begun
        assert {task: begun[task] for task in tasks if begun[task] != 1} == {}
        assert [status["attempts"] for status in self.statuses()] == [1] * JOBS


@pytest.mark.parametrize("seed", range(4))
def test_an_operator_killed_at_random_loses_and_repeats_nothing(bed, example_worker, events, seed):
    dice = random.Random(seed)
    bed.a.pool(bed.redis)
    example_worker("crew@first", "-c", "4", crewjob_guard="0")
    burst = Burst(bed, events)
    for number in range(KILLS):
        # When it is killed is drawn, also by how much was done.
        until("some jobs have ended", lambda number=number: burst.succeeded() >= number * JOBS // 5, 60, 0.02)
        time.sleep(dice.uniform(0, 0.3))
        bed.operator.kill()
        before = burst.succeeded()
        bed.operator.start()
    assert before < JOBS, "the last kill came too late to mean anything"
    burst.succeed_once_each()


def test_a_second_operator_takes_over_from_a_killed_leader(bed, example_worker, events):
    bed.a.pool(bed.redis)
    second = Operator(bed.folder / "second", bed.operator.kubeconfig, bed.a.namespace, bed.operator.pool_namespaces)
    second.folder.mkdir(exist_ok=True)
    second.start(leading=False, pod_name="second")
    until("it waits", lambda: second.get("/livez")[0] == 200)
    try:
        example_worker("crew@first", "-c", "4", crewjob_guard="0")
        burst = Burst(bed, events)
        until("some jobs have ended", lambda: burst.succeeded() >= JOBS // 5, 60, 0.02)
        assert second.metric("crewjob_leading") == 0
        bed.operator.kill()
        killed_at = time.monotonic()
        assert burst.succeeded() < JOBS
        until("the other leads", lambda: second.metric("crewjob_leading") == 1, 30)
        assert time.monotonic() - killed_at < FAILOVER_LIMIT
        burst.succeed_once_each()
    finally:
        second.stop()
        bed.operator.start()


def test_jobs_queued_without_a_worker_survive_flushall_and_run_once_each(bed, example_worker, events):
    bed.a.pool(bed.redis)
    names = [f"crew-{number}" for number in range(FLUSHED)]
    for name in names:
        bed.a.job(name, inputs={"seconds": 0.05})
    tasks = {bed.a.in_phase(name, "Queued")["taskID"] for name in names}
    bed.redis.client.flushall()
    example_worker("crew@first", "-c", "4", crewjob_guard="0")
    for name in names:
        bed.a.in_phase(name, "Succeeded", seconds=60)
    assert len(tasks) == FLUSHED
    assert events.read().begun == dict.fromkeys(tasks, 1)
