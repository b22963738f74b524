"""`celery worker` with the arguments given, for the application of tests/golden.

With `BENCH_CELERY_AT_ITS_BEST` in the environment the application stores no `STARTED`, and keeps its child process.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/golden"))

import environment  # noqa: E402

environment.enter()

from backend.celery_app import app  # noqa: E402

if os.environ.get("BENCH_CELERY_AT_ITS_BEST"):
    app.conf.update(task_track_started=False, worker_max_tasks_per_child=None)

app.worker_main(["worker", *sys.argv[1:]])
