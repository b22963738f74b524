"""Deletion cancels: nothing of a deleted job stays on Redis, wherever its message is and whichever process is away."""

import base64
import json
import uuid

from waiting import holds, until


def restored(redis, task: str) -> None:
    """Puts a queued message back as kombu does: with other bytes."""
    [message] = redis.queued(task)
    for name in redis.client.keys("crew_jobs*"):
        for element in redis.client.lrange(name, 0, -1):
            if json.loads(element)["headers"]["id"] == task:
                redis.client.lrem(name, 1, element)
    message["headers"]["redelivered"] = True
    redis.client.rpush("crew_jobs\x06\x163", json.dumps(message))


def copy(redis, message: dict) -> None:
    """Puts a copy of a message that a worker has on the queue, as kombu does after its visibility timeout."""
    redis.client.rpush("crew_jobs\x06\x163", json.dumps({**message, "redelivered": True}))


def markers(redis) -> list:
    return [key for key in redis.client.keys("crewjob:*") if b":epoch:" not in key]


def is_clean(redis) -> bool:
    return not redis.messages() and not markers(redis)


def queued(bed, name: str, **spec) -> str:
    bed.a.job(name, **spec)
    task = bed.a.task(name)
    until("its message waits", lambda: bed.redis.queued(task))
    return task


def test_deleting_a_queued_job_takes_a_restored_copy_off_too(bed):
    bed.a.pool(bed.redis)
    restored(bed.redis, queued(bed, "plain"))
    restored(bed.redis, queued(bed, "large", inputs={"text": "x" * 20_000}))
    bed.a.delete("crewjobs", "plain")
    bed.a.delete("crewjobs", "large")
    until("nothing is left of them", lambda: is_clean(bed.redis))


def test_deleting_a_running_job_revokes_it_until_its_worker_says_so_and_leaves_no_copy(bed):
    bed.a.pool(bed.redis)
    task = queued(bed, "crew")
    message = bed.redis.take(task)
    bed.redis.event("task-started", "crew@elsewhere", uuid=task)
    bed.a.in_phase("crew", "Running")
    copy(bed.redis, message)
    heard = bed.redis.client.pubsub()
    heard.subscribe("/0.celery.pidbox")
    bed.a.delete("crewjobs", "crew")
    revokes = 0

    def revoked():
        nonlocal revokes
        while said := heard.get_message(ignore_subscribe_messages=True, timeout=0.05):
            order = base64.b64decode(json.loads(said["data"])["body"]).decode()
            revokes += '"revoke"' in order and task in order
        return revokes

    until("it is revoked", revoked)
    until("it is revoked again", lambda: revoked() >= 2, 30)
    assert markers(bed.redis), "the marker stays until the worker has let go"
    bed.redis.store(task, "REVOKED", {"exc_type": "TaskRevokedError"}, worker="crew@elsewhere")
    bed.redis.acknowledge(message)
    until("nothing is left of it", lambda: is_clean(bed.redis))


def test_cancelling_a_running_job_leaves_no_copy_for_workers_that_start_later(bed):
    bed.a.pool(bed.redis)
    task = queued(bed, "crew")
    message = bed.redis.take(task)
    bed.redis.event("task-started", "crew@elsewhere", uuid=task)
    bed.a.in_phase("crew", "Running")
    copy(bed.redis, message)
    bed.a.change("crew", cancel=True)
    bed.redis.store(task, "REVOKED", {"exc_type": "TaskRevokedError"}, worker="crew@elsewhere")
    bed.redis.acknowledge(message)
    bed.a.in_phase("crew", "Cancelled")
    until("nothing is left of it", lambda: is_clean(bed.redis))


def test_another_job_of_a_deleted_jobs_name_is_a_job_of_its_own(bed):
    bed.a.pool(bed.redis)
    first = queued(bed, "crew")
    restored(bed.redis, first)
    bed.a.delete("crewjobs", "crew")
    second = queued(bed, "crew")
    until("the first is gone", lambda: [m["headers"]["id"] for m in bed.redis.messages()] == [second])
    message = bed.redis.take(second)
    bed.redis.store(second, "SUCCESS", 1)
    bed.redis.acknowledge(message)
    bed.a.in_phase("crew", "Succeeded")


def test_jobs_deleted_while_no_operator_runs_are_taken_off_however_many_they_are(bed):
    bed.a.pool(bed.redis)
    for number in range(30):
        queued(bed, f"crew-{number}")
    bed.operator.stop()
    try:
        bed.a.delete("crewjobs")
    finally:
        bed.operator.start()
    until("nothing is left of them", lambda: is_clean(bed.redis))
    assert bed.operator.metric("crewjob_strays_total") >= 30


def reads(bed) -> float:
    """CrewJobs that were read one by one, of the API server's own count."""
    lines = bed.control_plane.kubectl("get", "--raw", "/metrics").splitlines()
    wanted = [it for it in lines if it.startswith("apiserver_request_total{") and 'resource="crewjobs"' in it and 'verb="GET"' in it]
    return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)


def test_10_000_planted_markers_cost_no_read_of_the_api_server_and_hide_none_that_was_left_behind(bed):
    bed.a.pool(bed.redis)
    task = queued(bed, "crew")
    [marker] = [key for key in markers(bed.redis) if key.endswith(task.encode())]
    fields = bed.redis.client.hgetall(marker)
    bed.operator.stop()
    try:
        bed.a.delete("crewjobs")
        plant = bed.redis.client.pipeline(transaction=False)
        for number in range(10_000):
            other = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))
            plant.hset(marker.replace(task.encode(), other.encode()), mapping=fields)
        plant.execute()
        before = reads(bed)
    finally:
        bed.operator.start()
    until("some wait for their turn", lambda: bed.operator.metric("crewjob_strays_put_off") > 0)
    until("what was left behind is taken off", lambda: not bed.redis.messages() and not bed.redis.client.exists(marker), 180)
    assert reads(bed) - before < 100


def test_jobs_deleted_while_their_pool_is_away_are_taken_off_when_it_returns(bed):
    bed.a.pool(bed.redis)
    for number in range(3):
        restored(bed.redis, queued(bed, f"crew-{number}"))
        bed.a.in_phase(f"crew-{number}", "Queued")
    bed.a.delete("crewworkerpools", "default")
    until("they say so", lambda: bed.a.condition("crew-0")["reason"] == "PoolNotFound")
    bed.a.delete("crewjobs")
    holds("nothing can be done without the pool", lambda: len(bed.redis.messages()) == 3, seconds=1)
    bed.a.pool(bed.redis)
    until("nothing is left of them", lambda: is_clean(bed.redis))


def test_jobs_of_a_deleted_pool_say_so_and_go_on_when_it_returns(bed):
    bed.a.pool(bed.redis)
    task, other = queued(bed, "waits"), queued(bed, "runs")
    message = bed.redis.take(other)
    bed.redis.event("task-started", "crew@elsewhere", uuid=other)
    bed.a.in_phase("waits", "Queued")
    bed.a.in_phase("runs", "Running")
    bed.a.delete("crewworkerpools", "default")
    for name, phase in (("waits", "Queued"), ("runs", "Running")):
        until(f"{name} says so", lambda name=name: bed.a.condition(name)["reason"] == "PoolNotFound")
        assert bed.a.status(name)["phase"] == phase
        assert "create it again" in bed.a.condition(name)["message"]
    # Its worker finishes meanwhile.
    bed.redis.store(other, "SUCCESS", {"answer": 42}, publish=False)
    bed.redis.acknowledge(message)
    bed.a.pool(bed.redis)
    assert bed.a.in_phase("runs", "Succeeded")["result"]["value"] == {"answer": 42}
    until("the other waits as before", lambda: bed.a.condition("waits")["reason"] == "Enqueued")
    assert len(bed.redis.queued(task)) == 1


def test_a_job_of_a_deleted_pool_can_be_cancelled_and_its_message_goes_when_the_pool_returns(bed):
    bed.a.pool(bed.redis)
    task = queued(bed, "crew")
    bed.a.in_phase("crew", "Queued")
    bed.a.delete("crewworkerpools", "default")
    until("it says so", lambda: bed.a.condition("crew")["reason"] == "PoolNotFound")
    bed.a.change("crew", cancel=True)
    bed.a.in_phase("crew", "Cancelled")
    unstopped = bed.a.condition("crew", "CancelUnsupported")
    assert (unstopped["status"], unstopped["reason"]) == ("True", "PoolNotFound")
    assert len(bed.redis.queued(task)) == 1
    bed.a.pool(bed.redis)
    until("nothing is left of it", lambda: is_clean(bed.redis))


def is_gone_at_once(bed, name: str) -> dict:
    """Deletes a job, which no finalizer holds, and returns its last status."""
    last = bed.a.status(name)
    bed.a.delete("crewjobs", name)
    assert bed.a.get("crewjobs", name) is None
    return last


def test_jobs_that_no_worker_has_begun_go_at_once_and_never_run(bed, crew_worker, events):
    bed.a.pool(bed.redis)
    bed.a.job("held", poolRef={"name": "nowhere"})
    bed.a.job("suspended", suspend=True)
    bed.a.job("queued")
    bed.a.job("queued-too")
    bed.a.in_phase("queued", "Queued")
    bed.a.in_phase("queued-too", "Queued")
    for name, reason in (("held", "PoolNotFound"), ("suspended", "Suspended")):
        until(f"{name} says why it waits", lambda name=name, reason=reason: bed.a.condition(name).get("reason") == reason)
    deleted = [is_gone_at_once(bed, name) for name in ("held", "suspended", "queued")]
    assert [last["phase"] for last in deleted] == ["Pending", "Pending", "Queued"]
    until("only one message is left", lambda: len(bed.redis.messages()) == 1)
    crew_worker()
    bed.a.in_phase("queued-too", "Succeeded")
    assert events.runs(deleted[-1]["taskID"]) == 0


def test_a_job_that_is_deleted_while_no_operator_runs_never_runs(bed, crew_worker, events):
    bed.a.pool(bed.redis)
    bed.a.job("kept")
    bed.a.job("deleted-meanwhile")
    bed.a.in_phase("kept", "Queued")
    bed.a.in_phase("deleted-meanwhile", "Queued")
    bed.operator.stop()
    try:
        task = is_gone_at_once(bed, "deleted-meanwhile")["taskID"]
    finally:
        bed.operator.start()
    until("only one message is left", lambda: len(bed.redis.messages()) == 1)
    crew_worker()
    bed.a.in_phase("kept", "Succeeded")
    assert events.runs(task) == 0


def test_a_running_job_goes_at_once_and_its_celery_worker_stops_the_task(bed, example_worker, events):
    bed.a.pool(bed.redis)
    example_worker()
    bed.a.job("running", inputs={"seconds": 600})
    bed.a.in_phase("running", "Running")
    task = is_gone_at_once(bed, "running")["taskID"]
    until("the worker has stopped the task", lambda: task in events.read().stopped, 20)
    assert events.runs(task) == 1
    until("nothing is left of it", lambda: is_clean(bed.redis))


def test_a_job_that_waits_for_its_next_attempt_goes_at_once(bed, crew_worker, events):
    bed.a.pool(bed.redis)
    crew_worker()
    later = {"maxRetries": 3, "backoff": {"initial": "9m", "max": "10m"}}
    bed.a.job("retrying", inputs={"fails": 9}, retryPolicy=later)
    bed.a.in_phase("retrying", "Retrying")
    task = is_gone_at_once(bed, "retrying")["taskID"]
    until("nothing is left of it", lambda: is_clean(bed.redis))
    assert events.runs(task) == 1
