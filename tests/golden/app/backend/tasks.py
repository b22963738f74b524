"""Tasks under the names of the reference application whose behaviour `inputs["mode"]` chooses."""

import os
import signal
import time
from datetime import UTC, date, datetime
from datetime import time as clock_time
from decimal import Decimal
from uuid import UUID

from celery.exceptions import Reject, SoftTimeLimitExceeded

from backend.celery_app import app

RESULTS = {
    "integer-beyond-64-bit": 2**70,
    "float-large": 1e22,
    "float-whole": 1.0,
    "nan": [float("nan"), float("inf"), float("-inf")],
    "null": None,
    "string": "plain text",
    "unicode": {"é": "naïve 日本語 😀"},
    "lone-surrogate": "\ud83d alone",
    "non-string-keys": {7: "int", None: "null", True: "true", 2.5: "float"},
    "typed-datetime": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    "typed-datetime-naive": datetime(2026, 1, 2, 3, 4, 5),
    "typed-date": date(2026, 1, 2),
    "typed-time": clock_time(1, 2, 3),
    "typed-uuid": UUID(int=5),
    "typed-bytes": b"abc",
    "typed-base64": b"\xff\xfe",
    "typed-decimal": Decimal("1.10"),
    "typed-nested": {"when": [datetime(2026, 1, 2, tzinfo=UTC)], "id": UUID(int=7)},
}


class CrewError(Exception):
    """An exception that readers without this module cannot import."""


@app.task(bind=True, max_retries=3)
def run_crew_task(self, job_id, inputs=None, bypass_cache=False):
    mode = (inputs or {}).get("mode", "complete")
    seconds = (inputs or {}).get("seconds", 0)
    if mode in RESULTS:
        return RESULTS[mode]
    if mode == "complete":
        return {"job_id": job_id, "status": "completed", "retries": self.request.retries}
    if mode == "progress":
        self.update_state(state="PROGRESS", meta={"percent": 40, "message": "writer is drafting"})
        return {"job_id": job_id, "status": "completed"}
    if mode == "sleep":
        time.sleep(seconds)
        return {"job_id": job_id, "status": "completed"}
    if mode == "stubborn":
        try:
            time.sleep(seconds)
        except SoftTimeLimitExceeded:
            time.sleep(seconds)
    if mode == "retry":
        time.sleep(seconds)
        raise self.retry(exc=ConnectionError("upstream unavailable"), countdown=inputs["countdown"])
    if mode == "fail":
        raise ValueError(f"bad input: {job_id}")
    if mode == "fail-unknown-type":
        raise CrewError("no quota", 429)
    if mode == "fail-chained":
        try:
            raise KeyError("model")
        except KeyError as cause:
            raise RuntimeError("crew could not start: é😀") from cause
    if mode == "reject":
        raise Reject("no thanks", requeue=False)
    if mode == "lost":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError(f"unknown mode {mode!r}")


@app.task(bind=True)
def health_check(self):
    return {"status": "healthy", "worker_id": self.request.hostname, "task_id": self.request.id}


@app.task
def cleanup_old_results():
    return {"deleted": 0}


@app.task
def parent():
    health_check.apply_async(task_id="00000000-0000-5000-8000-00000000c41d")
    return "spawned"


@app.task
def old_errback(task_id):
    return task_id
