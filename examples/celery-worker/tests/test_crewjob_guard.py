"""The guard on real workers: what Celery does without it, and what it promises."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import redis
from conftest import PACKAGE, eventually, free_port, running_redis

PORT = free_port()
PREFIX = "guard:"
os.environ.update(
    GUARD_TESTS_BROKER=f"redis://127.0.0.1:{PORT}/0",
    GUARD_TESTS_BACKEND=f"redis://127.0.0.1:{PORT}/1",
    GUARD_TESTS_NOTES=f"redis://127.0.0.1:{PORT}/2",
    GUARD_TESTS_OPTIONS=json.dumps({"global_keyprefix": PREFIX}),
)

import guard_app  # noqa: E402

PATH = os.pathsep.join([str(PACKAGE), str(Path(__file__).parent)])
ONCE = ["begin", "end"]


class Jobs:
    """What there is of tasks in Redis."""

    def __init__(self, port):
        self.broker, self.results, self.noted = (redis.Redis(port=port, db=db) for db in range(3))

    def send(self, name, *args, task_id=None, **kwargs):
        # Not as an attribute of the module: a shared task would go to whichever application is the current one.
        return guard_app.app.tasks[f"guard_app.{name}"].apply_async(args, kwargs, task_id=task_id).id

    def lease(self, task):
        return self.broker.get(f"{PREFIX}crewjob-lease:{task}")

    def lease_milliseconds(self, task):
        return self.broker.pttl(f"{PREFIX}crewjob-lease:{task}")

    def notes(self, task):
        """What the runs of a task have written down: what, the number of the retry, and the node's name."""
        return [tuple(note.decode().split()) for note in self.noted.lrange(f"notes:{task}", 0, -1)]

    def runs(self, task):
        return [what for what, _, _ in self.notes(task)]

    def begun(self, task):
        eventually(lambda: self.runs(task), what=f"{task} running")

    def document(self, task):
        return json.loads(self.results.get(f"celery-task-meta-{task}") or b"{}")

    def ended(self, task, state="SUCCESS", timeout=30):
        eventually(lambda: self.document(task).get("status") == state, timeout, f"{task} in state {state}")

    def message(self, task):
        """The message of a task that is not acknowledged yet, as it is in Redis."""
        delivered = [json.loads(entry)[0] for entry in self.broker.hvals(f"{PREFIX}unacked")]
        return next(message for message in delivered if message["headers"]["id"] == task)

    def deliver(self, message):
        """Puts a message in the queue once more, as kombu does when it restores one."""
        self.broker.rpush(f"{PREFIX}celery", json.dumps(message))

    def settled(self):
        """Waits until no message is left, neither in the queue nor unacknowledged."""
        keys = [f"{PREFIX}{name}" for name in ("celery", "unacked", "unacked_index")]
        eventually(lambda: not self.broker.exists(*keys), 15, "an empty queue with nothing unacknowledged")

    def break_connections(self):
        """Every connection but the tests' own breaks, as when a proxy or Redis itself is restarted."""
        for kind in ("normal", "pubsub"):
            self.broker.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    with running_redis(PORT, tmp_path_factory.mktemp("guard-redis")):
        yield Jobs(PORT)


class Worker:
    def __init__(self, process, log):
        self.process, self.log = process, log

    def kill(self):
        """Kills the worker with all its processes, as the loss of a node does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def says(self, text):
        return text in self.log.read_text()

    def has_received(self, task):
        return self.log.read_text().count(f"[{task}] received")


@contextlib.contextmanager
def running(name, directory, *options, **environment):
    log = directory / f"{name}.log"
    command = [sys.executable, "-m", "celery", "-A", "guard_app", "worker", "-l", "INFO", "-n", f"{name}@tests"]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [*command, *options],
            env={**os.environ, "PYTHONPATH": PATH, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    worker = Worker(process, log)
    try:
        eventually(lambda: worker.says(f"{name}@tests ready"), what=f"worker {name} ready (see {log})")
        yield worker
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        worker.kill()


@pytest.fixture(scope="module")
def prefork(jobs, tmp_path_factory):
    with running("prefork", tmp_path_factory.mktemp("guard"), "-c", "2") as worker:
        yield worker


@pytest.fixture(params=["prefork", "threads", "solo"])
def any_pool(request, jobs, tmp_path):
    if request.param == "prefork":
        yield request.getfixturevalue("prefork")
        return
    with (
        paused(request.getfixturevalue("prefork")),
        running(request.param, tmp_path, "-P", request.param, "-c", "2") as worker,
    ):
        yield worker


@contextlib.contextmanager
def paused(worker):
    """Another worker's turn: this one takes nothing from the queue."""
    node = f"{worker.log.stem}@tests"
    control("cancel_consumer", "celery", destination=[node], reply=True)
    try:
        yield
    finally:
        control("add_consumer", "celery", destination=[node], reply=True)


def control(command, *args, **kwargs):
    """Sends a remote control command, on a connection that nothing has broken before."""
    with guard_app.app.connection_for_write() as connection:
        getattr(guard_app.app.control, command)(*args, connection=connection, **kwargs)


def test_without_the_guard_a_broken_connection_runs_a_task_twice(jobs, tmp_path):
    with running("unguarded", tmp_path, "-c", "2", CREWJOB_GUARD="0"):
        task = jobs.send("work", 3)
        jobs.begun(task)
        jobs.break_connections()
        eventually(lambda: jobs.runs(task).count("end") == 2, what="a second run")
        jobs.settled()
    assert jobs.runs(task).count("begin") == 2


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_with_the_guard_a_broken_connection_runs_each_task_once(jobs, tmp_path, pool):
    with running(pool, tmp_path, "-P", pool, "-c", "6") as worker:
        tasks = [jobs.send(name, 3) for name in ("work", "based", "shared")]
        for task in tasks:
            jobs.begun(task)
        jobs.break_connections()
        for task in tasks:
            eventually(lambda task=task: worker.has_received(task) > 1, what="a copy")
            jobs.ended(task)
        jobs.settled()
        for task in tasks:
            assert jobs.runs(task) == ONCE
            assert jobs.document(task)["result"] == "done"
            assert jobs.lease(task) is None


@pytest.mark.parametrize("how", ["the file alone", "the package"])
def test_the_guard_works_under_the_name_of_a_copied_file(jobs, prefork, tmp_path, how):
    path = PATH
    if how == "the file alone":
        shutil.copy(PACKAGE / "crewjob/guard.py", tmp_path / "crewjob_guard.py")
        path = PATH.replace(str(PACKAGE), str(tmp_path))
    environment = {"GUARD_TESTS_NAME": "crewjob_guard", "PYTHONPATH": path}
    with paused(prefork), running("copied", tmp_path, "-c", "1", **environment) as worker:
        task = jobs.send("work", 2)
        jobs.begun(task)
        assert jobs.lease(task).startswith(b"copied@tests/")
        jobs.ended(task)
        jobs.settled()
        assert worker.says("crewjob_guard is on")


def test_a_copy_of_a_running_task_is_not_run(jobs, any_pool):
    task = jobs.send("work", 2)
    jobs.begun(task)
    jobs.deliver(jobs.message(task))
    # Sent twice by its sender: another message with the same task id.
    jobs.send("work", 2, task_id=task)
    eventually(lambda: any_pool.log.read_text().count(f"[{task}] is not run again") == 2, what="two copies refused")
    jobs.settled()
    assert jobs.runs(task) == ONCE
    assert jobs.document(task)["status"] == "SUCCESS"


def test_a_copy_leaves_the_message_of_the_running_task_in_redis(jobs, prefork):
    task = jobs.send("work", 4)
    jobs.begun(task)
    jobs.deliver(jobs.message(task))
    eventually(lambda: prefork.says(f"[{task}] is put aside"), what="a copy")
    assert jobs.message(task)
    jobs.ended(task)
    jobs.settled()
    assert jobs.runs(task) == ONCE


@pytest.mark.parametrize(("name", "state"), [("work", "SUCCESS"), ("failing", "FAILURE")])
def test_a_copy_of_an_ended_task_is_not_run_and_its_result_stays(jobs, prefork, name, state):
    task = jobs.send(name, 1)
    jobs.begun(task)
    message = jobs.message(task)
    jobs.ended(task, state)
    jobs.settled()
    document = jobs.document(task)
    jobs.deliver(message)
    eventually(lambda: prefork.says(f"[{task}] is not run again: it has ended before ({state})"), what="refusal")
    jobs.settled()
    assert jobs.runs(task) == ONCE
    assert jobs.document(task) == document


def test_a_copy_is_not_announced_as_started(jobs, prefork):
    announced = Counter()

    def count(event):
        announced.update([(event["uuid"], event["type"])])

    with guard_app.app.connection_for_read() as connection:
        receiver = guard_app.app.events.Receiver(connection, handlers={"task-started": count, "task-succeeded": count})
        subscribers = lambda: len(jobs.broker.client_list(_type="pubsub"))  # noqa: E731
        before = subscribers()
        thread = threading.Thread(target=receiver.capture, daemon=True)
        thread.start()
        # Kombu subscribes with its first look for an event, which is after its consumer is ready.
        eventually(lambda: subscribers() > before, what="a subscription")
        task = jobs.send("work", 2)
        jobs.begun(task)
        jobs.deliver(jobs.message(task))
        jobs.ended(task)
        eventually(lambda: prefork.says(f"[{task}] is not run again"), what="refusal")
        eventually(lambda: announced[task, "task-succeeded"], what="the events")
        receiver.should_stop = True
        thread.join(5)
    assert announced == {(task, "task-started"): 1, (task, "task-succeeded"): 1}


@pytest.mark.parametrize("copy_first", [True, False], ids=["put aside before", "delivered after"])
def test_the_task_of_a_killed_worker_runs_elsewhere_within_seconds(jobs, prefork, tmp_path, copy_first):
    with (
        paused(prefork),
        running("killed", tmp_path, "-c", "1") as killed,
    ):
        # For longer than the other worker takes to start.
        task = jobs.send("work", 8)
        jobs.begun(task)
        message = jobs.message(task)
        with running("heir", tmp_path, "-c", "1") as heir:
            if copy_first:
                jobs.deliver(message)
                eventually(lambda: heir.says(f"[{task}] is put aside"), what="a copy")
            killed.kill()
            began = time.monotonic()
            if not copy_first:
                jobs.deliver(message)
            eventually(lambda: jobs.runs(task).count("begin") == 2, 10, "a second run")
            assert time.monotonic() - began < 8
            jobs.ended(task)
            jobs.settled()
    assert jobs.notes(task) == [
        ("begin", "0", "killed@tests"),
        ("begin", "0", "heir@tests"),
        ("end", "0", "heir@tests"),
    ]


def test_a_run_whose_worker_was_cut_off_for_long_gets_its_lease_back_before_its_copy_runs(jobs, prefork, tmp_path):
    with paused(prefork), running("cut", tmp_path, "-c", "1") as cut:
        task = jobs.send("work", 15)
        jobs.begun(task)
        message = redelivered(jobs.message(task))
        with running("other", tmp_path, "-c", "1") as other:
            os.killpg(cut.process.pid, signal.SIGSTOP)
            eventually(lambda: jobs.lease(task) is None, 8, "the end of the lease")
            jobs.deliver(message)
            eventually(lambda: other.says(f"[{task}] is put aside"), what="a copy")
            os.killpg(cut.process.pid, signal.SIGCONT)
            jobs.ended(task)
            eventually(lambda: other.says(f"[{task}] is not run again"), what="refusal")
    assert jobs.runs(task) == ONCE


def test_a_copy_that_has_waited_waits_anew_once_it_has_seen_a_lease(jobs, prefork):
    task = guard_app.app.tasks["guard_app.work"].apply_async([0], queue="unserved").id
    jobs.deliver(redelivered(json.loads(jobs.broker.lpop(f"{PREFIX}unserved"))))
    eventually(lambda: prefork.says(f"[{task}] is put aside"), what="a copy")
    # The worker that runs it renews its lease in time, and is disconnected again.
    jobs.broker.set(f"{PREFIX}crewjob-lease:{task}", "other@node/1/0", px=8000)
    eventually(lambda: jobs.lease(task) is None, 10, "the end of the lease")
    free = time.monotonic()
    jobs.ended(task)
    assert time.monotonic() - free > 5
    assert jobs.runs(task) == ONCE


def redelivered(message):
    """The same message, marked as kombu marks what it puts back."""
    properties = message["properties"]
    return message | {
        "headers": message["headers"] | {"redelivered": True},
        "properties": properties | {"delivery_info": properties["delivery_info"] | {"redelivered": True}},
    }


@pytest.mark.parametrize("name", ["retried", "autoretried"])
def test_retries_run_without_delay(jobs, prefork, name):
    task = jobs.send(name, 0.2, failures=2)
    jobs.ended(task, timeout=6)
    jobs.settled()
    assert [(what, retry) for what, retry, _ in jobs.notes(task)] == [(what, retry) for retry in "012" for what in ONCE]


def test_a_copy_of_an_attempt_that_retried_is_not_run(jobs, prefork):
    task = jobs.send("retried", 2, failures=1, countdown=4)
    jobs.begun(task)
    jobs.break_connections()
    eventually(lambda: prefork.has_received(task) > 1, what="a copy")
    jobs.ended(task)
    jobs.settled()
    assert [(what, retry) for what, retry, _ in jobs.notes(task)] == [(what, retry) for retry in "01" for what in ONCE]


def test_a_task_that_is_cancelled_for_its_lost_connection_runs_again(jobs, tmp_path, prefork):
    with paused(prefork), running("cancelling", tmp_path, "-c", "2", GUARD_TESTS_CANCEL="1"):
        task = jobs.send("work", 2)
        jobs.begun(task)
        jobs.break_connections()
        jobs.ended(task)
        jobs.settled()
    assert jobs.runs(task) == ["begin", "begin", "end"]


def test_a_running_task_with_a_copy_can_be_terminated(jobs, prefork):
    task = jobs.send("work", 30)
    jobs.begun(task)
    jobs.break_connections()
    eventually(lambda: prefork.has_received(task) > 1, what="a copy")
    control("revoke", task, terminate=True)
    jobs.ended(task, "REVOKED")
    jobs.settled()
    assert jobs.runs(task) == ["begin"]
    assert jobs.document(task)["status"] == "REVOKED"


def test_a_soft_time_limit_ends_the_task_and_its_lease(jobs, prefork):
    task = jobs.send("limited", 20)
    jobs.ended(task, "FAILURE", timeout=15)
    assert jobs.document(task)["result"]["exc_type"] == "SoftTimeLimitExceeded"
    eventually(lambda: jobs.lease(task) is None, 1, "no lease")


def test_a_task_that_takes_longer_than_a_lease_keeps_it(jobs, prefork):
    task = jobs.send("work", 8)
    jobs.begun(task)
    leases, lowest = set(), 6000
    while jobs.runs(task) != ONCE:
        lowest = min(lowest, jobs.lease_milliseconds(task))
        leases.add(jobs.lease(task))
        assert lowest > 0 or jobs.runs(task) == ONCE
        time.sleep(0.1)
    assert lowest > 3000
    assert len(leases - {None}) == 1
    assert re.fullmatch(r"prefork@tests/\d+/[0-9a-f-]{36}", leases.pop().decode())
    eventually(lambda: jobs.lease(task) is None, 1, "no lease")


def test_a_lease_that_redis_has_lost_is_taken_again(jobs, prefork):
    task = jobs.send("work", 5)
    jobs.begun(task)
    lease = jobs.lease(task)
    jobs.broker.delete(f"{PREFIX}crewjob-lease:{task}")
    eventually(lambda: jobs.lease(task) == lease, 3, "the same lease again")
    jobs.ended(task)


def test_a_task_waits_while_another_run_holds_its_lease(jobs, prefork):
    jobs.broker.set(f"{PREFIX}crewjob-lease:held", "other@node/1/0", px=6000)
    task = jobs.send("work", 0, task_id="held")
    eventually(lambda: prefork.says("[held] is put aside"), what="the task put aside")
    assert has(prefork, task)["held"][1]["time_start"] is None, "the worker has it, and does not run it"
    for _ in range(4):
        time.sleep(1)
        assert jobs.broker.pexpire(f"{PREFIX}crewjob-lease:held", 6000)
    assert jobs.runs(task) == []
    jobs.ended(task, timeout=9)
    assert jobs.runs(task) == ONCE


def test_a_worker_denies_a_message_that_went_back_with_its_connection(jobs, prefork):
    jobs.broker.set(f"{PREFIX}crewjob-lease:went-back", "other@node/1/0", px=6000)
    task = jobs.send("work", 0, task_id="went-back")
    eventually(lambda: prefork.says("[went-back] is put aside"), what="the task put aside")
    with paused(prefork):
        jobs.break_connections()
        eventually(lambda: jobs.broker.llen(f"{PREFIX}celery"), what="the message back in the queue")
        eventually(lambda: has(prefork, task) == {}, what="a worker that knows that it does not have it")
    jobs.ended(task)
    jobs.settled()
    assert jobs.runs(task) == ONCE


def test_a_message_that_comes_when_a_countdown_has_taken_the_last_place_is_not_lost_with_its_worker(jobs, prefork, tmp_path):
    with paused(prefork), running("full", tmp_path, "-c", "1") as full:
        long = guard_app.app.tasks["guard_app.work"].apply_async((20,), countdown=2.4).id
        eventually(lambda: full.has_received(long), what="the message with its countdown")
        jobs.begun(long)
        # When the worker was free it has asked Redis for a message, and one is handed out now.
        sent = [jobs.send("work", 0) for _ in range(3)]
        in_redis = lambda: jobs.broker.llen(f"{PREFIX}celery") + jobs.broker.hlen(f"{PREFIX}unacked")  # noqa: E731
        eventually(lambda: in_redis() == 1 + len(sent), 3, "all messages in Redis")
        assert jobs.broker.llen(f"{PREFIX}celery") == len(sent), "any other worker can take them"
        full.kill()
    for task in sent:
        jobs.ended(task)
        assert jobs.runs(task) == ONCE
    jobs.ended(jobs.send("work", 0))
    jobs.broker.delete(f"{PREFIX}unacked", f"{PREFIX}unacked_index")  # the long one's


def has(worker, task):
    """The worker's answer to the question whether it has a task; None if it does not answer."""
    node = f"{worker.log.stem}@tests"
    with guard_app.app.connection_for_write() as connection:
        answers = guard_app.app.control.inspect([node], connection=connection).query_task([task])
    return (answers or {}).get(node)


def test_a_server_that_refuses_leases_does_not_stop_the_work(jobs, prefork):
    jobs.broker.acl_setuser("default", enabled=True, nopass=True, commands=["-eval"])
    try:
        task = jobs.send("work", 0)
        jobs.ended(task)
    finally:
        jobs.broker.acl_setuser("default", enabled=True, nopass=True, commands=["+eval"])
    assert prefork.says(f"[{task}] runs without a lease: ")


@pytest.mark.parametrize("always_retry", ["0", "1"])
def test_a_task_waits_for_a_result_backend_that_does_not_answer(jobs, prefork, tmp_path, always_retry):
    port = free_port()
    environment = {"GUARD_TESTS_BACKEND": f"redis://127.0.0.1:{port}/0", "GUARD_TESTS_ALWAYS_RETRY": always_retry}
    with paused(prefork), running("waiting", tmp_path, "-c", "1", **environment) as worker:
        task = jobs.send("work", 0)
        eventually(lambda: worker.says(f"[{task}] is put aside: nothing from the result backend"), what="put aside")
        assert jobs.runs(task) == []
        with running_redis(port, tmp_path) as results:
            eventually(lambda: results.exists(f"celery-task-meta-{task}"), what="a result")
            jobs.settled()
    assert jobs.runs(task) == ONCE


def test_with_another_broker_than_redis_the_guard_is_off(jobs, tmp_path):
    folder = str(tmp_path / "messages")
    options = {name: folder for name in ("data_folder_in", "data_folder_out", "control_folder")}
    environment = {"GUARD_TESTS_BROKER": "filesystem://", "GUARD_TESTS_OPTIONS": json.dumps(options)}
    os.mkdir(folder)
    send = "import guard_app; guard_app.work.apply_async([0], task_id='filed')"
    with running("filing", tmp_path, "-c", "1", **environment) as worker:
        subprocess.run([sys.executable, "-c", send], env={**os.environ, "PYTHONPATH": PATH, **environment}, check=True)
        eventually(lambda: jobs.results.exists("celery-task-meta-filed"), what="a result")
    assert worker.says("crewjob_guard is off: the broker is not Redis but filesystem://")
