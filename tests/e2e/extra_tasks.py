"""Tasks that the example does not have, but other applications do, and a command. Workers load it with `--include`."""

import time

from backend.celery_app import app
from backend.connection import broker_redis
from celery.exceptions import Ignore
from celery.worker.control import control_command

CHUNK = 16 * 1024 * 1024
# More than the workers' memory limit.
CHUNKS = 128


@app.task(bind=True, max_retries=None)
def retries_by_itself(self, job_id, inputs, bypass_cache=False):
    """Retries until as many runs as `inputs.own_retries` are behind it; then fails if `inputs.fails`."""
    run = self.request.retries
    if run < inputs["own_retries"]:
        raise self.retry(exc=ConnectionError("not yet"), countdown=0.5)
    if inputs.get("fails"):
        raise ValueError("not ever")
    return run


@app.task
def ends_without_a_word(job_id, inputs, bypass_cache=False):
    """Ends as a task does that wants to leave no result."""
    time.sleep(inputs["seconds"])
    raise Ignore()


@app.task
def takes_too_much_memory_once(job_id, inputs, bypass_cache=False):
    """Takes more memory than its container may have, unless it has done so before."""
    if not broker_redis().set(f"took-too-much:{job_id}", 1, nx=True, ex=600):
        return "modest"
    return f"{hoard()} bytes and still alive"


@control_command()
def take_too_much_memory(state):
    """Has the worker's main process take more memory than its container may have."""
    return {"ok": hoard()}


def hoard() -> int:
    return sum(map(len, [b"x" * CHUNK for _ in range(CHUNKS)]))
