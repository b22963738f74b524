"""What is wrong is said on the job, in words that tell how to mend it, and is picked up when it is mended."""

import base64
import json

import pytest
from celery import Celery

from servers import Redis, Refused, free_port
from waiting import until

GOOD_TASK = "backend.tasks.run_crew_task"


@pytest.fixture(autouse=True)
def unharmed(bed):
    """The operator has not crashed."""
    yield
    assert bed.operator.is_running()


def held_back(tenant, name: str, reason: str, *words: str) -> None:
    """The job is Pending for this reason, its condition says these words, and so does a Warning Event."""
    message = until(f"{name} is held back by {reason}", lambda: (c := tenant.condition(name)).get("reason") == reason and c)["message"]
    assert tenant.status(name)["phase"] == "Pending"
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"
    notes = lambda: [event["message"] for event in tenant.warnings("crewjobs", name) if event["reason"] == reason]  # noqa: E731
    assert message in until(f"a Warning about {name}", notes, 15)


def test_a_pool_that_cannot_serve_the_job_is_named_until_it_can(bed):
    slow, express = ({"name": name, "routingKey": name} for name in ("slow", "express"))
    bed.a.pool(bed.redis)
    bed.a.pool(bed.redis, "narrow", queues=[slow])
    bed.a.pool(bed.redis, "strict", allowedTasks=["my.task"])
    bed.a.job("pool-missing", poolRef={"name": "nowhere"})
    bed.a.job("queue-missing", poolRef={"name": "narrow"}, queue="express")
    bed.a.job("task-refused", poolRef={"name": "strict"})
    held_back(bed.a, "pool-missing", "PoolNotFound", '"nowhere"', "default, narrow, strict")
    held_back(bed.a, "queue-missing", "QueueNotInPool", '"express"', "slow")
    held_back(bed.a, "task-refused", "TaskNotAllowed", GOOD_TASK, "my.task")

    bed.a.pool(bed.redis, "nowhere")
    bed.a.patch("crewworkerpools", "narrow", {"spec": {"queues": [slow, express]}})
    bed.a.patch("crewworkerpools", "strict", {"spec": {"allowedTasks": [GOOD_TASK]}})
    for name in ("pool-missing", "queue-missing", "task-refused"):
        bed.a.in_phase(name, "Queued", seconds=15)


@pytest.fixture
def locked(bed, tmp_path):
    redis = Redis(tmp_path / "locked")
    yield redis
    bed.a.delete("crewworkerpools")
    redis.stop()


def test_a_redis_that_cannot_be_used_is_explained_until_it_can(bed, locked):
    locked.client.execute_command("ACL", "SETUSER", "operator", "on", ">the-password", "~*", "&*", "+@all")
    at = f"127.0.0.1:{locked.port}"
    good, wrong = (f"redis://operator:{password}@{at}/0" for password in ("the-password", "not-the-one"))
    bed.a.secret("plain", labelled=False, REDIS_URL=good)
    bed.a.secret("empty", OTHER="x")
    bed.a.secret("wrong", REDIS_URL=wrong)
    bed.a.secret("away", REDIS_URL="redis://127.0.0.1:1/0")
    names = ("absent", "plain", "empty", "wrong", "away")
    for name in names:
        bed.a.pool_with(name, f"on-{name}")
        bed.a.job(f"job-{name}", poolRef={"name": f"on-{name}"})

    held_back(bed.a, "job-absent", "SecretNotFound", '"absent"', "REDIS_URL")
    held_back(bed.a, "job-plain", "SecretNotLabelled", '"plain"', "crewjob.dev/redis=true")
    held_back(bed.a, "job-empty", "SecretInvalid", '"empty"', "REDIS_URL")
    held_back(bed.a, "job-wrong", "BrokerAuthenticationFailed", at)
    held_back(bed.a, "job-away", "BrokerUnreachable", "127.0.0.1:1")
    shown = "".join(str(bed.a.items(kind)) for kind in ("crewjobs", "crewworkerpools", "events")) + bed.operator.log.read_text()
    for password in ("the-password", "not-the-one"):
        assert password not in shown

    for name in names:
        bed.a.secret(name, REDIS_URL=good)
    for name in names:
        bed.a.in_phase(f"job-{name}", "Queued", seconds=40)


def test_inputs_that_celery_could_not_take_fail_for_good(bed):
    deep: dict = {}
    for _ in range(40):
        deep = {"a": deep}
    bed.a.pool(bed.redis)
    bed.a.job("too-deep", inputs=deep)
    bed.a.job("too-large", inputs={"text": "x" * 70_000})
    bed.a.job("decoded", inputs={"when": {"__type__": "datetime", "__value__": "now"}})
    for name, words in (("too-deep", "32"), ("too-large", "65536"), ("decoded", "__type__")):
        status = bed.a.in_phase(name, "Failed", seconds=15)
        failed = bed.a.condition(name, "Failed")
        assert failed["reason"] == "InvalidSpec" and failed["status"] == "True"
        assert words in failed["message"] and "inputs" in failed["message"]
        assert status["attempts"] == 0


@pytest.mark.parametrize("bad", [{"priority": 11}, {"topic": ""}, {"task": "celery.backend_cleanup"}], ids=lambda bad: next(iter(bad)))
def test_an_invalid_job_is_refused_with_the_name_of_the_field(bed, bad):
    with pytest.raises(Refused, match=rf"spec\.{next(iter(bad))}"):
        bed.a.job("bad", **bad)


def test_odd_messages_on_the_queue_are_put_aside_and_the_job_among_them_runs_on_a_celery_worker(bed, example_worker):
    redis = bed.redis.client
    bed.a.pool(bed.redis)
    odd = ["no JSON", "{}", "[1]", '{"body": 1, "properties": 2}', '{"body": "!", "headers": null}', "\u0000"]
    odd.append(json.dumps({"body": base64.b64encode(b"\xff").decode(), "headers": {"id": 7}, "properties": {}}))
    redis.lpush("crew_jobs", *odd)
    bed.a.job("among-odd", inputs={"seconds": 0})
    bed.a.in_phase("among-odd", "Queued")
    # A Celery worker ends with an error when it takes one of these. An audit takes them first.
    until("only the job is left", lambda: redis.llen("crew_jobs") == 0)
    assert bed.a.pool_condition("Ready")["status"] == "True"
    (stream,) = redis.keys("crewjob:*:quarantine")
    assert {fields[b"element"].decode() for _, fields in redis.xrange(stream)} == set(odd)
    Celery("producer", broker=bed.redis.url).send_task("unknown.task", queue="crew_jobs")
    example_worker()
    bed.a.in_phase("among-odd", "Succeeded")


def test_a_result_of_an_unknown_state_is_passed_over_and_an_unreadable_one_is_said(bed):
    bed.a.pool(bed.redis)
    tasks = {}
    for name in ("sideways", "unreadable"):
        bed.a.job(name)
        tasks[name] = bed.a.task(name)
        until("its message waits", lambda name=name: bed.redis.queued(tasks[name]))
    taken = {name: bed.redis.take(task) for name, task in tasks.items()}
    for name, task in tasks.items():
        bed.redis.event("task-started", "crew@elsewhere", uuid=task)
        bed.a.in_phase(name, "Running")
    bed.redis.store(tasks["sideways"], "SIDEWAYS", {"percent": "much"})
    key = f"celery-task-meta-{tasks['unreadable']}"
    bed.redis.client.set(key, "no JSON")
    bed.redis.client.publish(key, "no JSON")
    bed.redis.acknowledge(taken["unreadable"])
    bed.a.in_phase("unreadable", "Failed")
    failed = bed.a.condition("unreadable", "Failed")
    assert failed["reason"] == "NoResult" and "cannot be read" in failed["message"]
    bed.redis.store(tasks["sideways"], "SUCCESS", 1)
    bed.redis.acknowledge(taken["sideways"])
    bed.a.in_phase("sideways", "Succeeded")


def test_a_redis_cluster_is_not_supported_which_the_pool_and_its_jobs_say(bed, tmp_path):
    cluster = Redis(tmp_path / "cluster", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    try:
        bed.a.pool(cluster, "clustered", ready=False)
        bed.a.job("clustered", poolRef={"name": "clustered"})
        held_back(bed.a, "clustered", "BrokerUnsupported", "Redis Cluster is not supported", "cluster mode disabled")
        assert bed.a.pool_condition("BrokerReachable", "clustered")["reason"] == "BrokerUnsupported"
    finally:
        cluster.stop()
