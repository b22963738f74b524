"""The operator is killed in the middle of its work."""

import random
import threading
import time

import pytest

import crew
import kube
import operators

pytestmark = pytest.mark.usefixtures("clean")

JOBS = 200
KILLS = 2
FAILOVER_LIMIT = 10


class Burst:
    """Many short jobs, created while the test goes on."""

    def __init__(self, label: str):
        self.label = label
        self.began = time.monotonic()
        self.creation = threading.Thread(target=self.create, daemon=True)
        self.creation.start()

    def create(self) -> None:
        jobs = crew.batch(self.label, JOBS, inputs={"seconds": 0.05}, bypassCache=True)
        for start in range(0, JOBS, 40):
            crew.start(*jobs[start : start + 40])

    def finished(self) -> int:
        return crew.phases(self.label).get("Succeeded", 0)

    def succeed_once_each(self, executions, seconds: float) -> float:
        """Every job ends well, and the workers began each once; returns how long all of it took."""
        self.creation.join(60)
        crew.all_in_phase(self.label, "Succeeded", JOBS, seconds)
        took = time.monotonic() - self.began
        ids = crew.task_ids(self.label)
        assert len(set(ids)) == JOBS
        assert {task: count for task, count in executions.of(ids).items() if count != 1} == {}
        assert [found["status"]["attempts"] for found in kube.items("crewjobs", f"test={self.label}")] == [1] * JOBS
        return took


def chance(seed: int | None = None) -> random.Random:
    seed = random.randrange(10**6) if seed is None else seed
    print(f"seed {seed}")
    return random.Random(seed)


def test_an_operator_killed_at_random_loses_and_repeats_nothing(executions, figure):
    dice = chance()
    (pod,) = operators.pods()
    burst = Burst("killed")
    for _ in range(KILLS):
        time.sleep(dice.uniform(0.3, 2.0))
        operators.kill(pod)
    before = burst.finished()
    took = burst.succeed_once_each(executions, 150)
    figure(f"{JOBS} jobs with {KILLS} kill -9: {JOBS} Succeeded, {JOBS} executions, {took:.1f} s")
    assert before < JOBS, "the last kill came too late to mean anything"
    assert operators.restarts()[pod["metadata"]["name"]] == KILLS


def test_a_second_replica_takes_over_from_a_killed_leader(executions, figure):
    dice = chance()
    operators.renew()
    operators.scale(2)
    try:
        pods = {pod["metadata"]["name"]: pod for pod in operators.pods()}
        leading = kube.until("one of the two leads", lambda: next(iter({operators.leader()} & set(pods)), None))
        burst = Burst("failover")
        time.sleep(dice.uniform(0.5, 2.0))
        killed_at = operators.kill_for_good(pods[leading])
        assert burst.finished() < JOBS
        kube.until("another leads", lambda: operators.leader() not in ("", leading), seconds=30, every=0.05)
        failover = time.monotonic() - killed_at
        took = burst.succeed_once_each(executions, 150)
        figure(f"leader of two killed: another led after {failover:.1f} s; {JOBS} executions, {took:.1f} s")
        assert failover < FAILOVER_LIMIT
    finally:
        operators.scale(1)
