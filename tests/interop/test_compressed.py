"""Results that a Python worker has compressed (`result_compression`), for a native worker and for the operator."""

import random

import celery
import pytest
from celery.result import AsyncResult
from conftest import eventually, running
from tasks import app, echo, total
from test_crewjob import Job, api, once

__all__ = ["api"]

pytestmark = pytest.mark.skipif(celery.__version__ < "5.7", reason="Celery 5.7 was the first to compress results")

COMPRESSED = b"\0celery-compressed\0"


def test_what_a_python_worker_has_compressed_is_final_for_a_native_worker(server, tmp_path):
    """A copy of a message whose task has ended is not run again, and its result stays."""
    server.flushall()
    with running("python", tmp_path, environment={"RESULT_COMPRESSION": "gzip"}):
        result = echo.delay(random.random())
        value = result.get(timeout=30)
        eventually(lambda: server.hlen("unacked") == 0)
    key = f"celery-task-meta-{result.id}"
    before = server.get(key)
    assert before.startswith(COMPRESSED)
    total.apply_async([1, 2], task_id=result.id)
    with running("native", tmp_path) as native:
        eventually(lambda: "not run again" in native.log.read_text())
        eventually(lambda: server.hlen("unacked") == 0)
    assert server.get(key) == before
    assert AsyncResult(result.id, app=app).get() == value


@pytest.mark.parametrize("method", ["gzip", "bzip2"])
def test_a_job_succeeds_on_a_python_worker_that_compresses_its_results(method, api, server, tmp_path):
    with running("python", tmp_path, environment={"RESULT_COMPRESSION": method}):
        for argument in ("short", "long " * 10_000):
            status = Job(api, "echo", argument).ended()
            assert status["phase"] == "Succeeded", status
            stored = [server.get(key) for key in server.keys("celery-task-meta-*")]
            assert any(document and document.startswith(COMPRESSED) for document in stored)
        failed = Job(api, "fail", "bad input", **once()).ended()
        assert "ValueError" in str(failed["attemptHistory"])
