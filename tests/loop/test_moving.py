"""A pool whose Secret changes while everything runs."""

from waiting import holds, until


def test_a_changed_secret_takes_effect_within_a_minute_while_the_old_redis_still_answers(bed):
    bed.a.pool(bed.redis)
    for name in ("waits", "runs", "ends"):
        bed.a.job(name)
    tasks = {name: bed.a.task(name) for name in ("waits", "runs", "ends")}
    until("all wait", lambda: all(bed.redis.queued(task) for task in tasks.values()))
    for name in ("runs", "ends"):
        bed.redis.take(tasks[name])
        bed.redis.event("task-started", "crew@elsewhere", uuid=tasks[name])
        bed.a.in_phase(name, "Running")
    before = bed.a.pool_status()["redis"]
    assert before["address"] == bed.redis.url and before["secretName"] == "redis-default"

    bed.a.secret("redis-default", REDIS_URL=bed.other.url)
    version = bed.a.get("secrets", "redis-default")["metadata"]["resourceVersion"]
    until("the new Redis is used", lambda: bed.a.pool_status()["redis"]["address"] == bed.other.url, 60)
    assert bed.a.pool_status()["redis"]["secretVersion"] == version

    until("what waited is published on the new one", lambda: bed.other.queued(tasks["waits"]))
    assert not bed.redis.queued(tasks["waits"]), "it waits in two places"
    bed.redis.store(tasks["ends"], "SUCCESS", {"answer": 42})
    assert bed.a.in_phase("ends", "Succeeded")["result"]["value"] == {"answer": 42}
    holds("what runs on the old one is left to it", lambda: not bed.other.queued(tasks["runs"]), 8)
    assert bed.a.status("runs")["phase"] == "Running"
    bed.redis.store(tasks["runs"], "SUCCESS", {"answer": 43})
    assert bed.a.in_phase("runs", "Succeeded")["attempts"] == 1

    bed.a.job("new")
    until("a new job is published on the new one", lambda: bed.other.queued(bed.a.task("new")))
    losses = [bed.a.status(name).get(kind, 0) for name in tasks for kind in ("messageLosses", "workerLosses")]
    assert not any(losses), losses


def test_a_secret_that_says_the_same_again_changes_its_version_only(bed):
    bed.a.pool(bed.redis)
    run = bed.redis.client.info("clients")["connected_clients"]
    bed.a.patch("secrets", "redis-default", {"metadata": {"annotations": {"touched": "yes"}}})
    version = bed.a.get("secrets", "redis-default")["metadata"]["resourceVersion"]
    until("its version is shown", lambda: bed.a.pool_status()["redis"]["secretVersion"] == version, 60)
    assert bed.a.pool_condition("BrokerReachable")["status"] == "True" and run
