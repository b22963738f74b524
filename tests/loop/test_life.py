"""The operator, alone with an API server and Redis: what the other files of this folder build on."""

from waiting import until


def test_a_job_is_published_taken_and_ended_by_its_result(bed):
    bed.a.pool(bed.redis)
    bed.a.job("crew")
    task = bed.a.task("crew")
    until("its message waits", lambda: bed.redis.queued(task))
    message = bed.redis.take(task)
    bed.redis.event("task-started", "crew@elsewhere", uuid=task)
    assert bed.a.in_phase("crew", "Running")["worker"]["name"] == "crew@elsewhere"
    bed.redis.store(task, "SUCCESS", {"answer": 42})
    bed.redis.acknowledge(message)
    assert bed.a.in_phase("crew", "Succeeded")["result"]["value"] == {"answer": 42}
    until("its marker goes", lambda: not bed.redis.client.keys("crewjob:*:*:" + task))


def test_the_pod_of_a_worker_is_known_and_its_death_is_noticed(bed):
    bed.a.deployment()
    bed.a.pod()
    bed.a.runs()
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    bed.a.job("crew")
    task = bed.a.task("crew")
    until("its message waits", lambda: bed.redis.queued(task))
    bed.redis.take(task)
    bed.redis.event("task-started", "crew@worker-7d4b9c5f6d-x2x7q", uuid=task)
    assert bed.a.in_phase("crew", "Running")["worker"]["podName"] == "worker-7d4b9c5f6d-x2x7q"
    bed.a.terminates("worker-7d4b9c5f6d-x2x7q")
    status = until("the loss is recorded", lambda: (s := bed.a.status("crew")).get("workerLosses") and s)
    assert status["phase"] == "Queued" and status["deliveryGeneration"] == 1
    assert len(bed.redis.queued(task)) == 1
