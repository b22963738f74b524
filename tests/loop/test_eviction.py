"""A Redis that drops keys when it is full loses jobs: the pool says so."""

import pytest

from waiting import holds, until


@pytest.fixture
def full(bed):
    """Sets what both Redis servers do when they are full; afterwards they keep everything, as before."""

    def set_(redis, policy: str, maxmemory: str = "100mb") -> None:
        redis.client.config_set("maxmemory", maxmemory)
        redis.client.config_set("maxmemory-policy", policy)

    yield set_
    for redis in (bed.redis, bed.other):
        set_(redis, "noeviction", "0")


def said(bed, status: str, *words: str) -> dict:
    def found():
        condition = bed.a.pool_condition("BrokerEvictsKeys")
        as_said = condition.get("status") == status and all(word in condition["message"] for word in words)
        return condition if as_said else None

    return until(f"BrokerEvictsKeys is {status}: {words}", found, 15)


def test_a_pool_whose_redis_evicts_keys_says_so_with_the_policy_and_the_command_and_works_on(bed, full):
    full(bed.redis, "allkeys-lru")
    bed.a.pool(bed.redis)
    condition = said(bed, "True", "allkeys-lru", "104857600")
    assert condition["reason"] == "AllKeysEvictable"
    assert bed.a.pool_condition("Ready")["status"] == "True"
    bed.a.job("crew")
    until("jobs are published as before", lambda: bed.redis.queued(bed.a.task("crew")))
    full(bed.redis, "volatile-ttl")
    assert said(bed, "True", "volatile-ttl", "results")["reason"] == "ExpiringKeysEvictable"
    command = condition["message"].split(": CONFIG SET ")[1].split(",")[0]
    bed.redis.client.config_set(*command.split())
    said(bed, "False")
    full(bed.redis, "allkeys-random", "0")
    holds("nothing is evicted without a bound", lambda: bed.a.pool_condition("BrokerEvictsKeys")["status"] == "False", 5)


def test_a_redis_that_evicts_keys_is_one_event_however_long_it_lasts_also_after_a_restart_of_the_operator(bed, full):
    full(bed.redis, "allkeys-lru")
    bed.a.pool(bed.redis)
    said(bed, "True")
    events = lambda: [event["reason"] for event in bed.a.warnings("crewworkerpools", "default")]  # noqa: E731
    until("an Event says so", events)
    bed.operator.restart()
    until("the pool is looked at", lambda: bed.operator.metric("crewjob_broker_up", namespace=bed.a.namespace) == 1)
    holds("it is said once", lambda: events() == ["AllKeysEvictable"], 5)


def test_a_result_backend_of_its_own_that_evicts_results_is_said_too(bed, full):
    full(bed.other, "volatile-lru")
    bed.a.secret("redis-default", RESULT_BACKEND_URL=bed.other.url)
    bed.a.pool(bed.redis)
    assert said(bed, "True", "RESULT_BACKEND_URL", "volatile-lru")["reason"] == "ExpiringKeysEvictable"
