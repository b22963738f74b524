"""What arrives does not decide how much memory the operator takes: it stays within the chart's limit, and other jobs go on.

The limit is set as a memory cgroup where one can be made, as a kubelet does; the peak is watched in either case.
"""

import contextlib
import json
import os
import time
import uuid
from pathlib import Path

import pytest

from waiting import until

pytestmark = pytest.mark.alone

# The chart's limit, and the most that the operator may have taken at any time.
LIMIT, PEAK = 128, 96
# The most seconds that a job of another tenant takes meanwhile, from its creation to its end.
OTHER = 60
# How much of everything: 1 is what the operator is made for, and takes minutes.
SHARE = float(os.environ.get("CREWJOB_MEMORY_SHARE", "0.1"))


def share(number: int) -> int:
    return max(1, round(number * SHARE))


class Confined:
    """A memory cgroup with the chart's limit."""

    def __init__(self, name: str):
        self.group = None
        for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
            group = Path(root, f"crewjob-{name}-{os.getpid()}")
            with contextlib.suppress(OSError):
                if Path(root, "cgroup.procs").exists():
                    group.mkdir()
                    (group / limit).write_text(str(LIMIT << 20))
                    self.group = group
                    return

    def take(self, pid: int) -> None:
        if self.group:
            (self.group / "cgroup.procs").write_text(str(pid))

    def end(self) -> None:
        if self.group:
            with contextlib.suppress(OSError):
                self.group.rmdir()


class Guarded:
    """The operator under the limit, with a tenant whose jobs must go on."""

    def __init__(self, bed, confined: Confined):
        self.bed, self.confined, self.jobs, self.peaks, self.waits = bed, confined, 0, [], []
        bed.operator.stop()
        bed.b.pool(bed.other, ready=False)

    def start(self) -> None:
        self.bed.operator.start(leading=False)
        self.confined.take(self.bed.operator.process.pid)
        until("the operator leads", lambda: self.bed.operator.metric("crewjob_leading") == 1, 60)

    def restart(self) -> None:
        self.check()
        self.bed.operator.stop()
        self.start()

    def other_job_ends(self) -> None:
        """A job of the other tenant is published, and its result recorded."""
        self.jobs += 1
        began = time.monotonic()
        name = f"other-{self.jobs}"
        self.bed.b.job(name)
        task = self.bed.b.task(name)
        until("the other tenant's job is published", lambda: self.bed.other.queued(task), 60)
        message = self.bed.other.take(task)
        self.bed.other.store(task, "SUCCESS", 42)
        self.bed.other.acknowledge(message)
        self.bed.b.in_phase(name, "Succeeded", seconds=OTHER)
        self.waits.append(time.monotonic() - began)

    def report(self, scenario: str) -> None:
        """Adds what was measured to the file that asks for it; `make bench` does."""
        if path := os.environ.get("CREWJOB_MEMORY_REPORT"):
            figures = {"scenario": scenario, "peak": max(self.peaks, default=0), "peak_limit": PEAK}
            figures |= {"other_job": max(self.waits, default=0), "other_job_limit": OTHER}
            with Path(path).open("a") as report:
                print(json.dumps(figures), file=report)

    def check(self) -> None:
        assert self.bed.operator.is_running(), f"the operator ended: {self.bed.operator.said()}"
        self.peaks.append(self.bed.operator.memory())
        print(f"peak {self.peaks[-1]:.1f} MiB, now {self.bed.operator.memory('VmRSS'):.1f} MiB")
        assert self.peaks[-1] <= PEAK, f"{self.peaks[-1]:.1f} MiB"


@pytest.fixture
def guarded(bed, request):
    confined = Confined(request.node.name[:40])
    guarded = Guarded(bed, confined)
    yield guarded
    guarded.report(request.node.name.removeprefix("test_"))
    bed.operator.stop()
    confined.end()
    bed.clear()
    bed.operator.start()


def jobs(bed, count: int, inputs=None) -> list[str]:
    """So many jobs whose messages are published."""
    names = [f"job-{number}" for number in range(count)]
    for name in names:
        bed.a.job(name, **({"inputs": inputs} if inputs else {}))
    return names


def tasks_of(bed, names: list[str]) -> dict[str, str]:
    uids = {item["metadata"]["name"]: item["metadata"]["uid"] for item in bed.a.items("crewjobs")}
    return {name: str(uuid.uuid5(uuid.UUID(uids[name]), "1")) for name in names}


def finish(bed, tasks: dict[str, str], size: int) -> None:
    """All tasks end with a result of this size, and their messages are acknowledged, with no operator there."""
    bed.redis.client.delete(*(key for key in bed.redis.client.keys("*") if bed.redis.client.type(key) == b"list"))
    text = "x" * (size - 2)
    for task in tasks.values():
        document = f'{{"status": "SUCCESS", "result": "{text}", "traceback": null, "children": [], "task_id": "{task}"}}'
        bed.redis.client.set(f"celery-task-meta-{task}", document, ex=3600)


def phases(bed) -> list[str]:
    return sorted({(item.get("status") or {}).get("phase", "") for item in bed.a.items("crewjobs")})


@pytest.mark.parametrize(("count", "size"), [(100, 30_000_000), (1000, 60_000)], ids=["large", "many"])
def test_results_that_came_while_no_operator_was_there_are_recorded_within_the_limit(bed, guarded, count, size):
    count = share(count)
    guarded.start()
    bed.a.pool(bed.redis)
    names = jobs(bed, count)
    tasks = tasks_of(bed, names)
    until("all are published", lambda: sum(bed.redis.client.llen(key) for key in bed.redis.client.keys("crew_jobs*")) == count, 120)
    guarded.check()
    bed.operator.stop()
    finish(bed, tasks, size)
    guarded.start()
    guarded.other_job_ends()
    until("all have ended", lambda: phases(bed) == ["Succeeded"], 60 + count * size / 5e6, every=1)
    guarded.other_job_ends()
    result = bed.a.status(names[-1])["result"]
    assert result["sizeBytes"] == size
    assert ("redisKey" if size > 1_032_192 else "configMapName") in result, result
    guarded.restart()
    guarded.other_job_ends()
    guarded.check()


def test_objects_that_are_too_large_are_refused_without_their_pool_and_never_kept(bed, guarded):
    guarded.start()
    # The API server takes seconds for each of them.
    count = max(4, share(20))
    for number in range(count):
        bed.a.job(f"large-{number}", poolRef={"name": "nowhere"}, inputs={"v": [0] * 700_000})
    guarded.other_job_ends()
    for number in range(count):
        status = bed.a.in_phase(f"large-{number}", "Failed", seconds=60)
        failed = next(it for it in status["conditions"] if it["type"] == "Failed")
        assert failed["reason"] == "InvalidSpec" and "spec.inputs has more than 65536 bytes" in failed["message"]
    guarded.check()
    # A new operator meets them before anything is recorded of them.
    bed.operator.stop()
    bed.a.delete("crewjobs")
    for number in range(count):
        bed.a.job(f"large-{number}", poolRef={"name": "nowhere"}, inputs={"v": [0] * 700_000})
    guarded.start()
    for number in range(count):
        bed.a.in_phase(f"large-{number}", "Failed", seconds=60)
    guarded.other_job_ends()
    guarded.check()


def test_jobs_with_inputs_of_60_kb_wait_and_are_published_within_the_limit(bed, guarded):
    # Numbers take the most memory of all JSON, also in an API server: 10,000 such lists take it more than 20 GB.
    count, inputs = (10_000, {"v": "0" * 60_000}) if SHARE == 1 else (share(1500), {"v": [0] * 30_000})
    guarded.start()
    # Without a pool, so that all of them wait in the operator.
    jobs(bed, count, inputs)
    guarded.other_job_ends()
    guarded.restart()
    guarded.other_job_ends()
    bed.a.pool(bed.redis)
    waiting = lambda: sum(bed.redis.client.llen(key) for key in bed.redis.client.keys("crew_jobs*"))  # noqa: E731
    until("all are published", lambda: waiting() == count, 120 + count / 10, every=0.5)
    guarded.restart()
    guarded.other_job_ends()
    time.sleep(5)  # An audit, which reads all messages, comes every two seconds.
    guarded.check()


def test_large_messages_that_are_published_or_planted_slow_down_their_own_tenant_only(bed, guarded):
    guarded.start()
    bed.a.pool(bed.redis)
    bed.redis.client.config_set("client-output-buffer-limit", "pubsub 0 0 0")
    bed.a.job("crew")
    task = bed.a.task("crew")
    until("its message waits", lambda: bed.redis.queued(task))
    taken = bed.redis.take(task)
    bed.redis.client.lpush("crew_jobs", b"x" * 100_000_000)
    for _ in range(3):
        bed.redis.client.publish(f"celery-task-meta-{task}", b"x" * 40_000_000)
        bed.redis.client.publish("/0.celeryev/task.multi", b"x" * 40_000_000)
    guarded.other_job_ends()
    until("the element is taken off the queue", lambda: bed.redis.client.llen("crew_jobs") == 0, 60)
    bed.redis.store(task, "SUCCESS", "y" * 40_000_000)
    bed.redis.acknowledge(taken)
    result = bed.a.in_phase("crew", "Succeeded", seconds=60)["result"]
    assert result["sizeBytes"] == 40_000_002 and result["redisKey"] == f"celery-task-meta-{task}"
    guarded.other_job_ends()
    guarded.check()


def test_a_failure_with_a_message_of_megabytes_is_known_by_its_type(bed, guarded):
    guarded.start()
    bed.a.pool(bed.redis)
    bed.a.job("crew", retryPolicy={"nonRetryable": ["TooMuch"]})
    task = bed.a.task("crew")
    until("its message waits", lambda: bed.redis.queued(task))
    taken = bed.redis.take(task)
    error = {"exc_type": "TooMuch", "exc_message": ["z" * 30_000_000], "exc_module": "crews"}
    bed.redis.store(task, "FAILURE", error)
    bed.redis.acknowledge(taken)
    status = bed.a.in_phase("crew", "Failed", seconds=60)
    assert status["error"]["type"] == "TooMuch" and status["error"]["message"].startswith("zzz"), json.dumps(status)[:2000]
    guarded.check()
