"""The operator is killed in the middle of its work, or Redis forgets everything: each job runs once.

The guard of the example is off: it would keep a task that was published twice from running twice.
"""

import copy
import os
import random
import threading
import time

import pytest

from servers import Operator
from tenant import Tenant
from waiting import until

SEEDS = int(os.environ.get("LOOP_SEEDS") or 4)
KILLS = 3
# Jobs of a wave, and the seconds that each takes on one of four processes: together longer than the operator lives on.
WAVE, LASTING = 20, 0.2
FAILOVER_LIMIT = 10
FLUSHED = 50


class Jobs:
    """Many short jobs, created in waves while the test goes on."""

    def __init__(self, bed, events):
        self.bed, self.events = bed, events
        self.count = 0
        self.waves: list[threading.Thread] = []

    def create_wave(self) -> None:
        """Begins to create some more."""
        numbers = range(self.count, self.count + WAVE)
        self.count += WAVE
        self.waves.append(threading.Thread(target=self.create, args=(numbers,), daemon=True))
        self.waves[-1].start()

    def create(self, numbers: range) -> None:
        control_plane = copy.copy(self.bed.control_plane)
        control_plane.connection = None
        tenant = Tenant(control_plane, self.bed.a.namespace)
        for number in numbers:
            tenant.job(f"crew-{number}", inputs={"seconds": LASTING})

    def statuses(self) -> list[dict]:
        return [item.get("status", {}) for item in self.bed.a.items("crewjobs")]

    def succeeded(self) -> int:
        return sum(status.get("phase") == "Succeeded" for status in self.statuses())

    def succeed_once_each(self) -> None:
        """Every job ends well, and the workers began each once."""
        for wave in self.waves:
            wave.join(60)
        until("all have succeeded", lambda: self.succeeded() == self.count, 90, 0.2)
        tasks = [status["taskID"] for status in self.statuses()]
        assert len(set(tasks)) == self.count
        begun = self.events.read().begun
        assert {task: begun[task] for task in tasks if begun[task] != 1} == {}
        assert [status["attempts"] for status in self.statuses()] == [1] * self.count


@pytest.mark.parametrize("seed", range(SEEDS))
def test_an_operator_killed_at_random_loses_and_repeats_nothing(bed, example_worker, events, seed):
    dice = random.Random(seed)
    bed.a.pool(bed.redis)
    worker = example_worker("crew@first", "-c", "4", crewjob_guard="0")
    until("the worker is ready", lambda: "crew@first ready" in worker.log.read_text(), every=0.2)
    jobs = Jobs(bed, events)
    for _ in range(KILLS):
        jobs.create_wave()
        time.sleep(dice.uniform(0, WAVE * LASTING / 5))
        bed.operator.kill()
        assert jobs.succeeded() < jobs.count, "the kill came too late to mean anything"
        bed.operator.start()
    jobs.succeed_once_each()


def test_a_second_operator_takes_over_from_a_killed_leader(bed, example_worker, events):
    bed.a.pool(bed.redis)
    second = Operator(bed.folder / "second", bed.operator.kubeconfig, bed.a.namespace, bed.operator.pool_namespaces)
    second.folder.mkdir(exist_ok=True)
    second.start(leading=False, pod_name="second")
    until("it waits", lambda: second.get("/livez")[0] == 200)
    try:
        example_worker("crew@first", "-c", "4", crewjob_guard="0")
        jobs = Jobs(bed, events)
        for _ in range(KILLS):
            jobs.create_wave()
        until("some jobs have ended", lambda: jobs.succeeded() >= 5, 60, 0.02)
        assert second.metric("crewjob_leading") == 0
        bed.operator.kill()
        killed_at = time.monotonic()
        assert jobs.succeeded() < jobs.count
        until("the other leads", lambda: second.metric("crewjob_leading") == 1, 30)
        assert time.monotonic() - killed_at < FAILOVER_LIMIT
        jobs.succeed_once_each()
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
