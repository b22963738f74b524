"""What workers and tenants write on Redis is a claim: it can hurt the jobs of that pool, within bounds, and nothing else."""

import json
import subprocess
import time
from datetime import UTC, datetime

import pytest

from waiting import holds, until

LEASE = "crewjob-operator"


def fence(bed, redis):
    """The key of the fence on a Redis."""
    (key,) = redis.client.keys("crewjob:*:epoch:*")
    return key.decode()


def queued(bed, tenant, redis, name, **spec):
    """A job whose message waits; returns its task."""
    tenant.job(name, **spec)
    task = tenant.task(name)
    until("its message waits", lambda: redis.queued(task))
    return task


def succeeds(bed, tenant, redis, name):
    """A new job of the tenant goes through."""
    task = queued(bed, tenant, redis, name)
    message = redis.take(task)
    redis.store(task, "SUCCESS", "done")
    redis.acknowledge(message)
    tenant.in_phase(name, "Succeeded")


# === jobs of other pools ===


def test_a_result_on_another_pools_redis_changes_nothing_and_is_counted(bed):
    bed.a.pool(bed.redis)
    bed.b.pool(bed.other)
    task = queued(bed, bed.a, bed.redis, "crew")
    forged = json.dumps({"status": "SUCCESS", "result": "forged", "traceback": None, "children": [], "task_id": task})
    until("the operator listens", lambda: bed.other.client.publish(f"celery-task-meta-{task}", forged))
    labels = {"namespace": bed.b.namespace}
    until("it is counted", lambda: bed.operator.metric("crewjob_foreign_claims_total", **labels))
    for status in ("FAILURE", "REVOKED", "STARTED"):
        bed.other.store(task, status, {"exc_type": "E", "exc_message": ["forged"]}, worker="crew@forger")
    bed.other.event("task-started", "crew@forger", uuid=task)
    until("they are counted", lambda: bed.operator.metric("crewjob_foreign_claims_total", **labels) >= 5)
    holds("the job waits", lambda: bed.a.status("crew").get("phase") in (None, "Pending", "Queued"), 2)
    assert bed.operator.metric("crewjob_foreign_claims_total", namespace=bed.a.namespace) == 0
    message = bed.redis.take(task)
    bed.redis.store(task, "SUCCESS", "real")
    bed.redis.acknowledge(message)
    assert bed.a.in_phase("crew", "Succeeded")["result"]["value"] == "real"


def test_a_late_result_on_another_pools_redis_is_not_noted(bed):
    bed.a.pool(bed.redis)
    bed.b.pool(bed.other)
    task = queued(bed, bed.a, bed.redis, "crew")
    bed.a.change("crew", cancel=True)
    bed.a.in_phase("crew", "Cancelled")
    before = bed.operator.metric("crewjob_foreign_claims_total", namespace=bed.b.namespace)
    bed.other.store(task, "SUCCESS", "forged")
    until("it is counted", lambda: bed.operator.metric("crewjob_foreign_claims_total", namespace=bed.b.namespace) > before)
    assert not bed.a.condition("crew", "LateResult")
    bed.redis.store(task, "SUCCESS", "real")
    until("it is noted", lambda: bed.a.condition("crew", "LateResult").get("status") == "True")


# === the fence ===


PLANTED = {
    "almost the largest": ("HSET", "epoch", "2147483646"),
    "the largest": ("HSET", "epoch", "2147483647"),
    "beyond all integers": ("HSET", "epoch", "18446744073709551615"),
    "text": ("HSET", "epoch", "text"),
    "a fraction": ("HSET", "epoch", "1e300"),
    "negative": ("HSET", "epoch", "-1"),
    "a Lease of the future": ("HSET", "created", "99999999999"),
    "another type": ("SET", "2147483646"),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_fence_stops_its_own_pool_only_until_the_command_in_the_condition_clears_it(bed, planted):
    bed.a.pool(bed.redis)
    bed.b.pool(bed.other)
    lease = bed.a.get("leases", LEASE)["spec"]["leaseTransitions"]
    key = fence(bed, bed.other)
    if planted[0] == "SET":
        bed.other.client.delete(key)
    bed.other.client.execute_command(planted[0], key, *planted[1:])
    bed.operator.restart()
    condition = until("it is said", lambda: (c := bed.b.pool_condition("Ready")).get("reason") == "FenceNotOurs" and c)
    assert bed.b.pool_condition("BrokerReachable")["status"] == "False"
    assert key in condition["message"]
    bed.b.job("waits")
    succeeds(bed, bed.a, bed.redis, "goes-on")
    assert bed.a.pool_condition("Ready")["status"] == "True"
    until("the job says why it waits", lambda: bed.b.condition("waits").get("reason") == "FenceNotOurs")
    assert bed.a.get("leases", LEASE)["spec"]["leaseTransitions"] == lease + 1, "it is not followed"
    command = condition["message"][condition["message"].index("redis-cli ") :]
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
    until("the pool works again", lambda: bed.b.pool_condition("Ready").get("status") == "True", 10)
    until("the job goes on", lambda: bed.other.queued(bed.b.task("waits")), 10)


def test_a_fence_that_is_planted_while_the_operator_works_is_told_at_once(bed):
    bed.a.pool(bed.redis)
    bed.b.pool(bed.other)
    key = fence(bed, bed.other)
    bed.other.client.hset(key, "epoch", 2147483646)
    until("it is said", lambda: bed.b.pool_condition("Ready").get("reason") == "FenceNotOurs", 10)
    assert bed.operator.metric("crewjob_leading") == 1
    succeeds(bed, bed.a, bed.redis, "goes-on")
    bed.other.client.delete(key)
    until("the pool works again", lambda: bed.b.pool_condition("Ready").get("status") == "True", 10)


def test_a_lease_that_is_deleted_and_created_anew_keeps_all_pools_working(bed):
    bed.a.pool(bed.redis)
    bed.b.pool(bed.other)
    for _ in range(3):
        bed.operator.restart()
    assert bed.a.get("leases", LEASE)["spec"]["leaseTransitions"] > 3
    bed.operator.stop()
    bed.a.delete("leases", LEASE)
    bed.operator.start()
    assert bed.a.get("leases", LEASE)["spec"]["leaseTransitions"] == 1
    for tenant, redis in ((bed.a, bed.redis), (bed.b, bed.other)):
        succeeds(bed, tenant, redis, "after")
        assert redis.client.hget(fence(bed, redis), "epoch") == b"1"


@pytest.mark.parametrize("transitions", [2147483647, -5])
def test_a_count_of_leaders_at_its_end_makes_the_lease_anew_and_keeps_all_pools_working(bed, transitions):
    bed.a.pool(bed.redis)
    bed.operator.stop()
    before = bed.a.get("leases", LEASE)["metadata"]["uid"]
    if transitions < 0:
        before = None  # the API server refuses a negative count, and no operator writes one
        with pytest.raises(Exception, match="leaseTransitions"):
            bed.a.patch("leases", LEASE, {"spec": {"leaseTransitions": transitions}})
    else:
        bed.a.patch("leases", LEASE, {"spec": {"leaseTransitions": transitions}})
    bed.operator.start()
    succeeds(bed, bed.a, bed.redis, "after")
    lease = bed.a.get("leases", LEASE)
    assert lease["metadata"]["uid"] != before and lease["spec"]["leaseTransitions"] < 1000


# === numbers and names ===


@pytest.mark.parametrize("retries", [2_000_000_000, 4_294_967_295, 2**63 - 1, 2**70, -7])
def test_retries_that_no_worker_can_have_made_end_the_job_and_cost_nothing(bed, retries):
    bed.a.pool(bed.redis)
    task = queued(bed, bed.a, bed.redis, "crew", retryPolicy={"maxRetries": 1})
    message = bed.redis.take(task)
    bed.redis.store(task, "FAILURE", {"exc_type": "ValueError", "exc_message": ["no"]}, retries=retries)
    bed.redis.acknowledge(message)
    if 1 < retries < 2**64:
        assert 1 < bed.a.in_phase("crew", "Failed")["attempts"] <= 1001
    else:
        until("it is tried again", lambda: bed.a.status("crew").get("attempts") == 1)
    bed.operator.restart()
    succeeds(bed, bed.a, bed.redis, "next")


NAMES = {"long": "crew@" + "x" * 10_000, "control": "crew@a\x1b[31m\n\0b", "empty": "", "direction": "crew@\u202eb"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_hostname_or_exception_that_no_worker_has_never_keeps_a_job_from_ending(bed, name):
    bed.a.pool(bed.redis)
    task = queued(bed, bed.a, bed.redis, "crew", retryPolicy={"maxRetries": 0})
    message = bed.redis.take(task)
    bed.redis.event("task-received", name, uuid=task, name="t", args="", kwargs="", retries=0)
    bed.redis.event("task-started", name, uuid=task)
    bed.redis.store(task, "STARTED", {"hostname": name, "pid": 1}, worker=name)
    until("it runs", lambda: bed.a.status("crew").get("phase") == "Running", 20)
    assert "worker" not in bed.a.status("crew")
    bed.redis.store(task, "FAILURE", {"exc_type": name, "exc_message": [name]}, worker=name, traceback=name)
    bed.redis.acknowledge(message)
    status = bed.a.in_phase("crew", "Failed")
    assert len(status["error"]["type"]) <= 64 and status["error"]["type"].isprintable()


def test_a_planted_marker_holds_up_no_other_job_of_its_pool(bed):
    bed.a.pool(bed.redis)
    task = queued(bed, bed.a, bed.redis, "planted")
    (key,) = [key for key in bed.redis.client.keys(f"crewjob:*:{task}")]
    bed.redis.client.hset(key, mapping={"gen": "4294967295", "attempt": "x", "priority": "99", "at": "1e300"})
    succeeds(bed, bed.a, bed.redis, "other")
    bed.operator.restart()
    succeeds(bed, bed.a, bed.redis, "another")
    bed.redis.client.delete(key)
    bed.redis.client.set(key, "no hash")
    bed.operator.restart()
    succeeds(bed, bed.a, bed.redis, "third")


# === clocks ===


def hears(bed, redis, node, offset):
    """Heartbeats of a worker whose clock differs by so many seconds."""
    redis.event("worker-heartbeat", node, freq=2, active=0, processed=0, timestamp=time.time() + offset)


@pytest.mark.parametrize("offset", [-600, 600])
def test_a_worker_whose_clock_is_off_by_minutes_is_named_and_its_run_is_recorded_in_time(bed, offset):
    bed.a.pool(bed.redis)
    task = queued(bed, bed.a, bed.redis, "crew", timeouts={"soft": "60s", "hard": "90s"})
    node = "crew@skewed"
    hears(bed, bed.redis, node, offset)
    message = bed.redis.take(task)
    bed.redis.client.zadd("unacked_index", {message["properties"]["delivery_tag"]: time.time() + offset})
    began = time.time()
    bed.redis.event("task-started", node, uuid=task, timestamp=began + offset)
    status = bed.a.in_phase("crew", "Running", seconds=10)
    recorded = datetime.fromisoformat(status["startedAt"]).timestamp()
    assert abs(recorded - began) < 5, status["startedAt"]

    def complaint():
        hears(bed, bed.redis, node, offset)
        condition = bed.a.pool_condition("WorkerClocksSkewed")
        return condition if condition.get("status") == "True" else None

    condition = until("the clock is complained about", complaint)
    assert node in condition["message"] and f"600 s {'ahead of' if offset > 0 else 'behind'}" in condition["message"]
    holds("it runs on", lambda: bed.a.status("crew")["phase"] == "Running", 3)

    def well():
        hears(bed, bed.redis, node, 0)
        return bed.a.pool_condition("WorkerClocksSkewed").get("status") == "False"

    until("the clock was set", well)
    bed.redis.store(task, "SUCCESS", 1, worker=node)
    bed.redis.acknowledge(message)
    bed.a.in_phase("crew", "Succeeded")


@pytest.mark.parametrize("offset", [-600, 600])
def test_the_death_of_a_worker_whose_node_has_another_time_is_noticed_and_its_life_too(bed, offset):
    """A kubelet tells times by the clock that its workers go by."""
    pod, node = "worker-7d4b9c5f6d-x2x7q", "crew@worker-7d4b9c5f6d-x2x7q"
    stamp = lambda at: datetime.fromtimestamp(at + offset, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: E731
    bed.a.deployment()
    bed.a.pod()
    began = time.time() - 5
    container = {"containerID": "containerd://one", "restartCount": 0}
    bed.a.runs(pod, worker={**container, "state": {"running": {"startedAt": stamp(began)}}})
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    task = queued(bed, bed.a, bed.redis, "crew")
    hears(bed, bed.redis, node, offset)
    bed.redis.take(task)
    bed.redis.event("task-started", node, uuid=task, timestamp=time.time() + offset)
    bed.redis.store(task, "STARTED", {"hostname": node, "pid": 1}, worker=node)
    assert bed.a.in_phase("crew", "Running")["worker"]["podName"] == pod
    holds("it is alive", lambda: not bed.a.status("crew").get("workerLosses"), 3)
    over = {"exitCode": 137, "startedAt": stamp(began), "finishedAt": stamp(time.time()), "containerID": "containerd://one"}
    bed.a.runs(pod, ready=False, worker={**container, "state": {"terminated": over}})
    until("the loss is recorded", lambda: bed.a.status("crew").get("workerLosses") == 1, 10)
    assert len(bed.redis.queued(task)) == 1
