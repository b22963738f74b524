"""Celery's own tools beside the operator: producers, `celery inspect`, and Flower."""

import json
import os
import socket
import subprocess
import sys
import urllib.request

import pytest

import celery_side
import crew
from waiting import until

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture
def flower(app):
    """Reads Flower's HTTP API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--address=127.0.0.1", f"--port={port}", "--logging=warning"]
    env = os.environ | {"FLOWER_UNAUTHENTICATED_API": "true", "PYTHONPATH": os.pathsep.join(celery_side.PATH)}
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "flower", *options]

    def ask(path: str):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return None

    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until("Flower answers", lambda: ask("/api/tasks") is not None)
            yield ask
        finally:
            process.kill()


def test_python_and_crewjob_share_queue_scaling_workers_and_tools(app, flower, executions, figure):
    from backend.tasks import health_check, run_crew_task

    crew.no_workers()
    # Neither part alone is worth a second worker of four.
    inputs = {"topic": "sent by Python", "seconds": 4}
    sent = [run_crew_task.apply_async((f"from-python-{number}", inputs, True)) for number in range(3)]
    until("the operator has counted the producer's messages", lambda: crew.replicas() == 1)
    crew.start(*crew.batch("beside-python", 2, inputs={"seconds": 4}))
    until("five tasks have two workers", lambda: crew.replicas() == 2, seconds=15)

    running = crew.in_phase("beside-python-000", "Running")
    assert running["taskID"] in active_tasks(app, running["worker"]["name"])
    until("Flower shows the task", lambda: running["taskID"] in flower("/api/tasks"))
    assert flower("/api/workers?status=1")[running["worker"]["name"]], "Flower takes the worker for dead"

    other = health_check.delay()
    crew.all_in_phase("beside-python", "Succeeded", 2)
    assert other.get(timeout=30)["status"] == "healthy"
    assert [task.get(timeout=30)["status"] for task in sent] == ["completed"] * 3
    ids = [task.id for task in sent] + crew.task_ids("beside-python")
    assert executions.of(ids) == dict.fromkeys(ids, 1)
    ended = until("Flower shows the end", lambda: succeeded(flower(f"/api/task/info/{running['taskID']}")))
    assert ended["name"] == "backend.tasks.run_crew_task" and "beside-python-000" in ended["args"]


def active_tasks(app, worker: str) -> set[str]:
    """What `celery inspect active` says of one worker. It would wait for the whole timeout for any others."""
    answers = app.control.inspect(destination=[worker], limit=1, timeout=10).active() or {}
    return {task["id"] for task in answers.get(worker, [])}


def succeeded(task: dict | None) -> dict | None:
    return task if task and task["state"] == "SUCCESS" else None
