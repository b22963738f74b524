"""Every form in which Celery's producers send messages, on a Python and on a native worker, with the same results."""

import base64
import json

import pytest
from celery.result import AsyncResult
from celery.utils import uuid
from conftest import eventually
from kombu import compression
from tasks import app, echo, fail, flaky, old_errback, total

METHODS = [method for method in ("gzip", "zlib", "bzip2", "zstd") if method in compression._aliases]

# By case and kind of worker: what came of it.
SEEN: dict[tuple[str, str], object] = {}


def outcome(result, timeout=30):
    value = result.get(timeout=timeout, propagate=False)
    return result.state, value if result.state == "SUCCESS" else repr(value)


def compressed(method):
    return outcome(echo.apply_async(["x" * 5000], {"a": 1}, compression=method))


def compressed_and_followed(method):
    follower = total.s(1).set(task_id=uuid(), compression=method)
    errback = old_errback.s().set(task_id=uuid())
    first = outcome(total.apply_async([2, 3], link=follower, compression=method))
    failed = fail.apply_async(link_error=errback, compression=method)
    failure = outcome(failed)
    called = AsyncResult(errback.options["task_id"], app=app).get(timeout=30) == failed.id
    return first, outcome(AsyncResult(follower.options["task_id"], app=app)), failure, called


def compressed_and_tried_again(method):
    return outcome(flaky.apply_async([1], compression=method, countdown=0.5))


def of_protocol_1(send):
    app.conf.task_protocol = 1
    try:
        result = send()
    finally:
        app.conf.task_protocol = 2
    return outcome(result)


def by_a_client_in_go():
    """As gocelery sends it: protocol 1, without headers."""
    task, tag = uuid(), uuid()
    body = {"id": task, "task": "echo", "args": [1], "kwargs": {}, "retries": 0, "eta": None, "expires": None}
    properties = {
        "body_encoding": "base64",
        "correlation_id": task,
        "reply_to": uuid(),
        "delivery_info": {"priority": 0, "routing_key": "default", "exchange": "default"},
        "delivery_mode": 2,
        "delivery_tag": tag,
    }
    message = {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "headers": {},
        "content-type": "application/json",
        "properties": properties,
        "content-encoding": "utf-8",
    }
    with app.connection() as connection:
        connection.default_channel.client.lpush("default", json.dumps(message))
    return outcome(AsyncResult(task, app=app))


def with_lone_surrogates():
    name = "caf\udce9.pdf"
    result = echo.apply_async([1], headers={"file": name}, shadow=name, argsrepr=name)
    stamped = total.s(1, 2)
    stamped.stamp(file=name)
    return outcome(result), outcome(stamped.apply_async())


def with_many_values():
    numbers = [0.5] * 300_000
    chain = echo.s(numbers) | echo.s()
    state, value = outcome(chain.apply_async())
    return state, value["args"][0]["args"] == [numbers]


def with_deep_values():
    deep = []
    for _ in range(200):
        deep = [deep]
    return outcome(echo.delay(deep))


CASES = {
    **{f"compressed by {method}": lambda method=method: compressed(method) for method in METHODS},
    "compressed, with callbacks": lambda: compressed_and_followed("gzip"),
    "compressed, with errbacks, by bzip2": lambda: compressed_and_followed("bzip2"),
    "compressed, tried again": lambda: compressed_and_tried_again("gzip"),
    "protocol 1": lambda: of_protocol_1(lambda: echo.delay(1, b=2)),
    "protocol 1, compressed": lambda: of_protocol_1(lambda: echo.apply_async([1], compression="gzip")),
    "protocol 1, countdown and retry": lambda: of_protocol_1(lambda: flaky.apply_async([1], countdown=0.5)),
    "protocol 1, callback": lambda: of_protocol_1(lambda: total.apply_async([1, 2], link=total.s(3))),
    "protocol 1, unknown task": lambda: of_protocol_1(lambda: app.send_task("no.such.task")),
    "protocol 1, from Go": by_a_client_in_go,
    "lone surrogates": with_lone_surrogates,
    "many values": with_many_values,
    "deep values": with_deep_values,
}


@pytest.mark.parametrize("case", CASES)
def test_a_native_worker_takes_each_form_of_message_that_a_python_worker_takes(case, worker, server):
    SEEN[case, worker.kind] = CASES[case]()
    eventually(lambda: server.hlen("unacked") == 0, 10, "the acknowledgement")
    assert server.xlen("crewjob:quarantine") == 0
    if worker.kind == "native":
        assert SEEN[case, "native"] == SEEN[case, "python"]
