"""Calls `apply_async` as often as each line of input says; answers with the processor and clock time it took.

The Celery application and the environment are those of tests/golden, with the reference configuration.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/golden"))

import environment  # noqa: E402

environment.enter()

from backend.celery_app import app  # noqa: E402
from backend.tasks import run_crew_task  # noqa: E402

KWARGS = {
    "inputs": {"topic": "Introduction to machine learning", "level": "undergraduate", "pages": 12},
    "bypass_cache": False,
}

for line in sys.stdin:
    cpu, clock = time.process_time(), time.perf_counter()
    for number in range(int(line)):
        run_crew_task.apply_async(args=[f"job-{number}"], kwargs=KWARGS, priority=5)
    print(time.process_time() - cpu, time.perf_counter() - clock, flush=True)
    app.connection_for_write().default_channel.client.flushdb()
