"""What the tasks of test_mixed.py do, and the Celery application that has them, with the guard of the package."""

import os
import time

from celery import chain
from tasks import app

app.conf.include = ["crewjob.guard"]


def leave(path, *words):
    """Leaves a line, in one write."""
    with open(path, "a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def run(path, number, attempt, worker, seconds):
    """One run: it says when it begins and when it ends, and where."""
    leave(path, "begins", number, attempt, worker, time.time())
    time.sleep(seconds)
    leave(path, "ends", number, attempt, worker, time.time())


def where(task):
    return f"{task.request.hostname}:{os.getpid()}"


@app.task(name="mixed.once", bind=True)
def once(self, path, number, seconds=0.0):
    run(path, number, 0, where(self), seconds)
    return number


@app.task(name="mixed.again", bind=True, max_retries=3)
def again(self, path, number, good_after):
    """Succeeds once it has run so often before."""
    run(path, number, self.request.retries, where(self), 0)
    if self.request.retries < good_after:
        raise self.retry(exc=ConnectionError("upstream unavailable"), countdown=0.5)
    return number


@app.task(name="mixed.fails", bind=True)
def fails(self, path, number):
    run(path, number, 0, where(self), 0)
    raise ValueError(number)


@app.task(name="mixed.limited", bind=True, rate_limit="10/s")
def limited(self, path, number):
    run(path, number, 0, where(self), 0)
    return number


@app.task(name="mixed.replaced", bind=True)
def replaced(self, path, number):
    """Replaces itself by two steps, which any worker may do."""
    run(path, number, "replaced", where(self), 0)
    step = lambda name: app.signature("mixed.step", (path, number, name), queue="default", immutable=True)
    raise self.replace(chain(step("first"), step("second")))


@app.task(name="mixed.step", bind=True)
def step(self, path, number, name):
    run(path, number, name, where(self), 0)
    return number
