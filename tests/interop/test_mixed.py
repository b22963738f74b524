"""Tasks of every kind on two Python workers with the guard and two native ones, of which one is killed every few seconds:
each is done as it was declared, and none is run again that has ended."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

from celery import states
from celery.utils import uuid
from conftest import CREWJOB, HERE, Worker, eventually
from tasks import app

# 10,000 are the whole form; fewer than 2,000 leave out the tasks that take long.
TASKS = int(os.environ.get("INTEROP_MIXED_TASKS") or 500)
KILL_SECONDS = 5
VISIBILITY_SECONDS = 10
# Without the guard kombu's second copy of such a message would be run beside the first one.
LONG_SECONDS = 14
PACKAGE = HERE.parents[1] / "python"
# A worker that was killed while it stored a result may have done its work and not have said so.
STORING_SECONDS = 0.25


def declared(path):
    """What is sent: the kind of each, and its signature."""
    for number in range(TASKS):
        here = (path, number)
        match number % 100:
            # If the worker of one is killed, kombu gives it to another one after up to 100 seconds.
            case _ if number % 250 == 117 and TASKS >= 2000:
                yield "long", app.signature("mixed.once", (*here, LONG_SECONDS))
            case 0 | 1 | 2 | 3:
                yield "again", app.signature("mixed.again", (*here, 2))
            case 4 | 5 | 6:
                yield "later", app.signature("mixed.once", here, countdown=random.Random(number).choice((1, 2, 5)))
            case 7 | 8 | 9:
                yield "limited", app.signature("mixed.limited", here)
            case 10 | 11:
                yield "replaced", app.signature("mixed.replaced", here, queue="python")
            case 12:
                yield "revoked", app.signature("mixed.once", here, task_id=uuid())
            case 13 | 14:
                yield "fails", app.signature("mixed.fails", here)
            case 15 | 16:
                yield "slow", app.signature("mixed.once", (*here, 0.5))
            case _:
                yield "quick", app.signature("mixed.once", here)


WANTED = {"revoked": states.REVOKED, "fails": states.FAILURE}


class Fleet:
    """Four workers. One that is killed gets a successor under another name at once."""

    def __init__(self, folder):
        self.folder, self.workers, self.killed = folder, [], {}
        # Only its own processes have this, also those that no process knows any more.
        self.mark = f"MIXED={os.getpid()}"

    def start(self, kind):
        node = f"{kind}{len(self.workers) + len(self.killed)}@mixed"
        native = [str(CREWJOB), "worker", "--tasks", str(self.folder / "tasks.yaml"), "-Q", "default"]
        python = [sys.executable, "-m", "celery", "-A", "mixed", "worker", "-l", "INFO", "-Q", "default,python"]
        log = self.folder / f"{node}.log"
        name, value = self.mark.split("=")
        env = os.environ | {
            "PYTHONPATH": str(PACKAGE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "VISIBILITY_TIMEOUT": str(VISIBILITY_SECONDS),
            name: f"{value}-{node}",
        }
        with log.open("w") as output:
            process = subprocess.Popen(
                [*({"python": python, "native": native}[kind]), "-n", node, "-c", "1"],
                cwd=HERE,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.workers.append(Worker(kind, node, process, log))

    def kill(self, worker):
        """As a container dies: all its processes at one moment."""
        os.kill(worker.process.pid, signal.SIGSTOP)
        for pid in processes_with(f"{self.mark}-{worker.node}"):
            os.kill(pid, signal.SIGKILL)
        worker.process.wait()
        self.killed[worker.node] = time.time()
        self.workers.remove(worker)
        self.start(worker.kind)

    def stop(self):
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.stop()


def processes_with(variable):
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
        except OSError:
            pass  # it has ended


def test_tasks_of_every_kind_are_each_done_as_declared_while_workers_are_killed(server, tmp_path):
    server.flushall()
    path = tmp_path / "runs"
    path.touch()
    program = {"command": [sys.executable, str(HERE / "mixed_command.py")], "server": True, "maxRetries": 3}
    known = {f"mixed.{name}": program for name in ("once", "again", "fails", "limited", "step")}
    (tmp_path / "tasks.yaml").write_text(json.dumps({"tasks": known}))
    calls = list(declared(str(path)))
    random.Random(5).shuffle(calls)
    fleet = Fleet(tmp_path)
    try:
        for kind in ("python", "python", "native", "native"):
            fleet.start(kind)
        for worker in fleet.workers:
            eventually(worker.answers, 30, f"an answer of {worker.node}")
        revoked = {call.options["task_id"] for kind, call in calls if kind == "revoked"}
        app.control.revoke(list(revoked))
        eventually(lambda: all(revoked <= set(known) for known in app.control.inspect().revoked().values()), 30)
        sent = {}
        for number, (kind, call) in enumerate(calls):
            result = call.apply_async(priority=random.Random(number).randrange(10))
            sent[result.id] = (kind, call.args[1], result, time.time(), call.options.get("countdown", 0))
        began = time.monotonic()
        finish(fleet, [(kind, result) for kind, _, result, _, _ in sent.values()])
        took = time.monotonic() - began
        eventually(lambda: server.hlen("unacked") == 0, 60, "the acknowledgements")
    finally:
        fleet.stop()
    judge(Runs.read(path), sent, fleet.killed)
    served = Counter(line.split()[3].split("@")[0].rstrip("0123456789") for line in path.read_text().splitlines())
    print(f"{TASKS} tasks in {took:.0f} s, {len(fleet.killed)} workers killed, runs {dict(served)}")
    assert fleet.killed
    assert min(served["python"], served["native"]) > TASKS / 20
    assert not server.keys("crewjob-lease:*")


def finish(fleet, waited):
    """Kills a worker every few seconds until all have ended but those that take long, which might never get to their end.
    Workers keep in memory what is revoked: it is told again."""
    left, next_kill, dice = waited, time.monotonic() + 1, random.Random(7)
    deadline = time.monotonic() + 120 + TASKS / 10
    while left:
        assert time.monotonic() < deadline, f"not ended: {[(kind, result.id, result.state) for kind, result in left[:20]]}"
        revoked = [result.id for kind, result in left if kind == "revoked"]
        if revoked:
            app.control.revoke(revoked)
        if time.monotonic() >= next_kill and any(kind != "long" for kind, _ in left):
            next_kill += KILL_SECONDS
            fleet.kill(dice.choice(fleet.workers))
        left = [(kind, result) for kind, result in left if not result.ready()]
        time.sleep(0.5)


class Runs(defaultdict):
    """The runs of each attempt of each task: when and where each began and ended."""

    @classmethod
    def read(cls, path):
        runs, open_runs = cls(list), {}
        for line in path.read_text().splitlines():
            what, number, attempt, worker, at = line.split()
            key = (int(number), attempt)
            if what == "begins":
                open_runs[key, worker] = run = [float(at), None, worker.split(":")[0]]
                runs[key].append(run)
            else:
                open_runs.pop((key, worker))[1] = float(at)
        return runs


def judge(runs, sent, killed):
    wrong, of_number = [], defaultdict(dict)
    for (number, attempt), each in runs.items():
        of_number[number][attempt] = each
    for kind, number, result, sent_at, countdown in sent.values():
        if result.state != WANTED.get(kind, states.SUCCESS):
            wrong.append(f"{kind} {number} is {result.state}: {result.result}")
        attempts = of_number[number]
        expected = {
            "again": {"0", "1", "2"},
            "replaced": {"replaced", "first", "second"},
            "revoked": set(),
        }.get(kind, {"0"})
        if set(attempts) != expected:
            wrong.append(f"{kind} {number} ran as {set(attempts)}")
        if countdown and any(began < sent_at + countdown - 0.05 for each in attempts.values() for began, _, _ in each):
            wrong.append(f"{kind} {number} began too early")
        wrong += [f"{kind} {number} {why}" for each in attempts.values() for why in repeated(each, killed)]
    assert not wrong, "\n".join(wrong[:40])
    limits = defaultdict(list)
    for kind, number, _, _, _ in sent.values():
        for began, _, worker in runs[number, "0"] if kind == "limited" else []:
            limits[worker].append(began)
    python = [sorted(times) for worker, times in limits.items() if worker.startswith("python")]
    for times in python:
        assert all(later - sooner > 0.9 for sooner, later in zip(times, times[12:], strict=False)), "faster than the limit"


def repeated(attempt, killed):
    """What is wrong with the runs of one attempt, where there are several."""
    for (began, ended, worker), (again, _, other) in pairwise(sorted(attempt, key=lambda run: run[0])):
        died = killed.get(worker, math.inf)
        if again < min(ended or math.inf, died):
            yield f"runs at once on {worker} and {other}"
        elif ended and ended <= died - STORING_SECONDS:
            yield f"ended on {worker} after {ended - began:.1f} s and began again on {other} {again - ended:.1f} s later"
    if all(ended is None for _, ended, _ in attempt):
        yield "has not ended"
