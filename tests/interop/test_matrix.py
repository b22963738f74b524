"""The same calls, by Python producers and `celery call`, on a Python and on a native worker, with the same results.

Every case notes what was left in Redis; the native worker's is compared with the Python worker's field by field.
"""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import celery
import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError
from celery.result import AsyncResult
from celery.utils import uuid
from conftest import HERE, PORT, eventually
from tasks import app, echo, fail, flaky, nap, old_errback, stubborn, total

# By case and kind of worker: what was stored.
SEEN: dict[tuple[str, str], list[dict]] = {}

# Different from run to run, or written differently on purpose: a command has no Python traceback.
OWN = {"date_done", "worker", "traceback", "task_id", "parent_id", "group_id"}


def document(server, result):
    return json.loads(server.get(f"celery-task-meta-{result.id}"))


def finished(result, timeout=30):
    result.get(timeout=timeout, propagate=False)
    return result


def stored(server, *results):
    """What is stored of these tasks, without what cannot be the same twice."""
    names = {result.id: f"task-{number}" for number, result in enumerate(results)}

    def comparable(value):
        if isinstance(value, dict):
            return {key: present(item) if key in OWN else comparable(item) for key, item in value.items()}
        if isinstance(value, list):
            return [comparable(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    def present(item):
        if isinstance(item, str) and item in names:
            return names[item]
        return "text" if item is not None else None

    documents = [document(server, result) for result in results]
    for found in documents:
        if found["status"] != "REVOKED":
            # A Python traceback is always there; a command may have said nothing.
            found.pop("traceback")
        # Only a command's is known, and only a native worker says whether another run is worth trying.
        found.pop("memory", None)
        found.pop("retryable", None)
    return [comparable(found) for found in documents]


def call(*arguments):
    """Calls a task with `celery call`; returns its result."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "call", *arguments]
    done = subprocess.run(command, cwd=HERE, env=os.environ, stdout=subprocess.PIPE, text=True, check=True)
    return AsyncResult(done.stdout.split()[-1], app=app)


def by_countdown():
    began = time.time()
    result = finished(echo.apply_async(["later"], countdown=1.5))
    assert 1.4 <= time.time() - began < 6
    return [result]


def by_eta():
    return [finished(echo.apply_async(["then"], eta=datetime.now(UTC) + timedelta(seconds=1)))]


def expired():
    return [finished(echo.apply_async(["late"], expires=datetime.now(UTC) - timedelta(seconds=1)))]


def revoked_while_it_runs():
    result = nap.delay(60)
    eventually(
        lambda: any(result.id in str(tasks) for tasks in (app.control.inspect(timeout=0.5).active() or {}).values())
    )
    result.revoke(terminate=True, signal="SIGTERM")
    return [finished(result)]


def revoked_before_it_arrives():
    result = echo.apply_async(["never"], countdown=4)
    eventually(lambda: result.id in str(app.control.inspect(timeout=0.5).scheduled()))
    result.revoke()
    return [finished(result)]


def linked():
    follower = total.s(1).set(task_id=uuid())
    result = finished(total.apply_async([2, 3], link=follower))
    return [result, finished(AsyncResult(follower.options["task_id"], app=app))]


def linked_without_the_result():
    follower = total.si(1).set(task_id=uuid())
    result = finished(total.apply_async([2, 3], link=follower))
    return [result, finished(AsyncResult(follower.options["task_id"], app=app))]


def chained():
    last = finished(chain(total.s(1, 2), total.s(3), total.s(4))())
    return [last.parent.parent, last.parent, last]


def chain_that_breaks():
    last = chain(fail.s(), total.s(3))()
    return [finished(last.parent)]


def grouped():
    results = group(total.s(number, 1) for number in range(3))()
    return [finished(result) for result in results]


def chorded():
    parts = [total.s(1, 2), chain(total.s(2, 2), total.s(3)), echo.si("x", flag=True)]
    body = finished(chord(parts)(echo.s("after")))
    assert body.result["args"] == [[3, 7, {"args": ["x"], "kwargs": {"flag": True}}], "after"]
    # The parent of the body is the part that happened to end last.
    return [finished(part) for part in body.parent.results]


def failed_with_errback():
    return [finished(fail.apply_async(link_error=old_errback.s()))]


CASES = {
    "success": lambda: [finished(echo.delay("job-1", {"topic": "AI"}, flag=True, nothing=None))],
    "success with numbers and other scripts": lambda: [finished(echo.delay(2**70, 1e22, -0.5, "\u00e9\U0001f600"))],
    "failure": lambda: [finished(fail.delay("bad input: job-2"))],
    "retry that succeeds": lambda: [finished(flaky.delay(2))],
    "retries exhausted": lambda: [finished(flaky.delay(9))],
    "soft limit": lambda: [finished(nap.apply_async([60], soft_time_limit=1))],
    "hard limit": lambda: [finished(stubborn.apply_async(time_limit=2, soft_time_limit=1))],
    "not registered": lambda: [finished(app.send_task("no.such.task", ["x"]))],
    "by name": lambda: [finished(app.send_task("echo", ["by", "name"], {"a": 1}))],
    "celery call": lambda: [finished(call("echo", "--args", '["called"]'))],
    "celery call that fails": lambda: [finished(call("fail", "--kwargs", '{"message": "called"}'))],
    "countdown": by_countdown,
    "eta": by_eta,
    "expires": expired,
    "revoked while it runs": revoked_while_it_runs,
    "revoked before it arrives": revoked_before_it_arrives,
    "link": linked,
    "link, immutable": linked_without_the_result,
    "chain": chained,
    "chain that breaks": chain_that_breaks,
    "group": grouped,
    "chord": chorded,
    "link_error": failed_with_errback,
}


@pytest.mark.parametrize("case", CASES)
def test_a_native_worker_leaves_the_same_keys_as_a_python_worker(case, worker, server):
    results = CASES[case]()
    eventually(lambda: server.hlen("unacked") == 0, 10, "the acknowledgement")
    SEEN[case, worker.kind] = stored(server, *results)
    if worker.kind == "native":
        assert SEEN[case, "native"] == SEEN[case, "python"]


def test_an_errback_of_another_worker_is_called_with_the_id_of_the_failed_task(worker, server, tmp_path):
    errback = old_errback.s().set(task_id=uuid())
    failed = finished(fail.apply_async(link_error=errback))
    called = eventually(
        lambda: [
            key
            for key in server.keys("celery-task-meta-*")
            if failed.id.encode() in server.get(key) and failed.id.encode() not in key
        ]
    )
    assert json.loads(server.get(called[0]))["result"] == failed.id


@pytest.mark.parametrize("part", ["fail", "no.such.task"])
def test_a_chord_with_a_part_that_fails_or_is_not_known_fails_for_every_client(part, worker, server):
    if (part, worker.kind) == ("no.such.task", "python"):
        pytest.skip("a Python worker of Celery 5.7 does not count a part that it does not know")
    errback = old_errback.s().set(task_id=uuid())
    body = echo.s().on_error(errback)
    result = chord([total.s(1, 2), app.signature(part)])(body)
    # By its ID only: a client that knows the parts looks at these, too.
    found = AsyncResult(result.id, app=app)
    with pytest.raises(ChordError, match="Dependency .* raised"):
        found.get(timeout=20)
    if worker.kind == "python" and celery.__version__ < "5.4":
        return  # such a worker calls no errback of a chord's body
    assert finished(AsyncResult(errback.options["task_id"], app=app)).result == result.id
    eventually(lambda: server.hlen("unacked") == 0, 10, "the acknowledgement")


def test_a_client_of_celery_finds_the_memory_of_a_command_beside_its_result(worker):
    found = app.backend.get_task_meta(finished(nap.delay(0.3)).id)
    assert found["result"] == "rested"
    memory = found.get("memory")
    assert memory is None if worker.kind == "python" else memory["peak"] > 1 << 20 and memory["oom_killed"] is False


def test_results_reach_a_waiting_producer_at_once(worker, server):
    began = time.time()
    echo.delay().get(timeout=10)
    assert time.time() - began < 5
    assert f":{PORT}/" in app.conf.broker_url
