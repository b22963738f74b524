"""A task and a command that take too much memory. Workers load it with `--include`."""

from backend.celery_app import app
from backend.connection import broker_redis
from celery.worker.control import control_command

CHUNK = 16 * 1024 * 1024
# More than the workers' memory limit.
CHUNKS = 128


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
