"""Messages that are lost are found by looking for them: no event tells of them."""

from waiting import until


def test_a_message_that_a_worker_popped_and_lost_is_published_again_though_the_queues_look_as_before(bed):
    """A worker that dies between the pop and the note of it leaves the queues as they were before the job came."""
    bed.a.pool(bed.redis)
    bed.a.job("crew")
    task = bed.a.task("crew")
    until("its message waits", lambda: bed.redis.queued(task))
    bed.a.in_phase("crew", "Queued")
    bed.redis.acknowledge(bed.redis.take(task))
    until("it waits again", lambda: bed.redis.queued(task), seconds=12)


def test_a_message_that_a_silent_worker_may_have_popped_stalls_its_pool_and_is_not_published_again(bed):
    """A worker that hangs while it waits for a message may have been given one: no queue holds it then, and it may still run."""
    pod = "worker-7d4b9c5f6d-x2x7q"
    bed.a.deployment(replicas=1)
    bed.a.pod(pod)
    bed.a.runs(pod)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"}, minReplicas=1)
    bed.a.job("crew")
    task = bed.a.task("crew")
    until("its message waits", lambda: bed.redis.queued(task))
    bed.a.in_phase("crew", "Queued")
    bed.redis.acknowledge(bed.redis.take(task))
    until("it is said", lambda: bed.a.pool_condition("WorkersStalled").get("status") == "True", seconds=60)
    assert not bed.redis.queued(task)
    bed.redis.store(task, "SUCCESS", "done")
    bed.a.in_phase("crew", "Succeeded")
    until("it is over", lambda: bed.a.pool_condition("WorkersStalled").get("status") == "False")
