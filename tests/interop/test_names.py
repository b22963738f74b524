"""A broker whose keys are not called what kombu calls them by default."""

import json

import pytest
from celery import VERSION, Celery, chain, signature
from conftest import PORT, eventually, start, url
from redis import Redis

DATABASE = 3
URL = url("worker", DATABASE)
PREFIX = "app1:"
BROKER_OPTIONS = {
    "global_keyprefix": PREFIX,
    "priority_steps": [0, 5],
    "sep": ":p",
    "unacked_key": "held",
    "unacked_index_key": "held_index",
    "unacked_mutex_key": "held_mutex",
}
RESULTS = "results:"
RESULT_OPTIONS = {"global_keyprefix": RESULTS}
# The first five are for the native worker, the last two for the Python workers of these tests.
ENVIRONMENT = {
    "GLOBAL_KEYPREFIX": PREFIX,
    # Celery before 5.5 puts an underscore behind every prefix.
    "RESULT_KEYPREFIX": RESULTS if VERSION >= (5, 5) else f"{RESULTS}_",
    "PRIORITY_STEPS": "0,5",
    "PRIORITY_SEPARATOR": ":p",
    "UNACKED_KEY": "held",
    "REDIS_URL": URL,
    "BROKER_OPTIONS": json.dumps(BROKER_OPTIONS),
    "RESULT_OPTIONS": json.dumps(RESULT_OPTIONS),
}


@pytest.fixture
def other():
    app = Celery("other", broker=URL, backend=URL, set_as_current=False)
    app.conf.update(
        task_default_queue="default",
        broker_transport_options=BROKER_OPTIONS,
        result_backend_transport_options=RESULT_OPTIONS,
    )
    with app:
        yield app


@pytest.mark.parametrize("kind", ["python", "native"])
def test_a_worker_uses_the_names_that_it_is_told(kind, server, other, tmp_path):
    redis = Redis(port=PORT, db=DATABASE)
    redis.flushdb()
    # Before a worker takes them: those of the second band are taken after those of the first.
    late = [other.send_task("total", [1, 1], priority=9)]
    early = [other.send_task("total", [2, number], priority=4) for number in range(3)]
    assert (redis.llen("app1:default"), redis.llen("app1:default:p5")) == (3, 1)
    worker = start(kind, tmp_path, environment=ENVIRONMENT)
    try:
        assert [result.get(timeout=30) for result in early + late] == [2, 3, 4, 2]
        ended = [result.date_done for result in early + late]
        assert ended == sorted(ended)

        added = [signature("total", args, app=other) for args in ((1, 2), (3,), (4,))]
        assert chain(*added).apply_async().get(timeout=30) == 10

        naps = [other.send_task("nap", [60])]
        eventually(lambda: redis.hlen("app1:held") == 1 and redis.zcard("app1:held_index") == 1, 20, "a task held")
        inspect = other.control.inspect(timeout=0.5, destination=[worker.node])
        eventually(lambda: naps[0].id in str((inspect.active() or {}).get(worker.node)), 20, "the task at work")
        naps[0].revoke(terminate=True)
        naps[0].get(timeout=30, propagate=False)
        assert naps[0].state == "REVOKED"
        eventually(lambda: redis.hlen("app1:held") == 0, 20, "the acknowledgement")

        # A task whose worker went away long ago comes back, under kombu's own lock.
        other.send_task("total", [5, 5], task_id="left", queue="elsewhere")
        envelope = redis.rpop("app1:elsewhere")
        redis.hset("app1:held", "tag-of-it", json.dumps([json.loads(envelope), "", "default"]))
        redis.zadd("app1:held_index", {"tag-of-it": 1})
        worker.stop()
        worker = start(kind, tmp_path, environment=ENVIRONMENT, number=2)
        assert other.AsyncResult("left").get(timeout=60) == 10
    finally:
        worker.stop()
    eventually(lambda: redis.hlen("app1:held") == 0, 10, "the acknowledgement")
    assert {key.decode() for key in redis.keys("*") if not key.startswith((PREFIX.encode(), RESULTS.encode()))} == set()
    assert redis.keys(f"{RESULTS}*celery-task-meta-*") and not redis.keys(f"{PREFIX}*celery-task-meta-*")
