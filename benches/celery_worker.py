"""`celery worker` with the arguments given, for the application of tests/golden."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/golden"))

import environment  # noqa: E402

environment.enter()

from backend.celery_app import app  # noqa: E402

app.worker_main(["worker", *sys.argv[1:]])
