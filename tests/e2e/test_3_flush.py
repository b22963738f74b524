"""Redis forgets everything."""

import pytest

import crew
import kube

pytestmark = pytest.mark.usefixtures("clean")

JOBS = 50


def test_jobs_queued_without_a_worker_survive_flushall(executions, figure):
    crew.workers_at_most(0)
    crew.no_workers()
    crew.start(*crew.batch("flushed", JOBS, inputs={"seconds": 0.05}))
    crew.all_in_phase("flushed", "Queued", JOBS)
    kube.kubectl("exec", "statefulset/crewjob-redis", "--", "redis-cli", "FLUSHALL")
    crew.workers_at_most(3)
    seconds = crew.all_in_phase("flushed", "Succeeded", JOBS)
    figure(f"{JOBS} queued jobs succeeded {seconds:.1f} s after FLUSHALL")
    ids = crew.task_ids("flushed")
    assert len(set(ids)) == JOBS
    assert executions.of(ids) == dict.fromkeys(ids, 1)
