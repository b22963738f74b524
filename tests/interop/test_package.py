"""The package `crewjob`: the same functions, once as a program that a native worker keeps, once in a Celery worker."""

import json
import os
import subprocess
import sys

import pytest
from conftest import CREWJOB, HERE, Worker, eventually
from tasks import app

PACKAGE = HERE.parents[1] / "python"
sys.path.append(str(PACKAGE))

import written_once  # noqa: E402

JOB = {"crewjob_uid": "u-1", "crewjob_namespace": "shop", "crewjob_name": "order-17"}


@pytest.fixture(scope="module", params=["python", "native"])
def worker(request, server, tmp_path_factory):
    """A worker of each kind in turn that has the functions."""
    server.flushall()
    folder = tmp_path_factory.mktemp(request.param)
    node = f"{request.param}@once"
    program = {"command": [sys.executable, str(HERE / "written_once.py")], "server": True, "maxRetries": 3}
    (folder / "tasks.yaml").write_text(json.dumps({"tasks": {"once.work": program, "once.count": program}}))
    command = {
        "python": [sys.executable, "-m", "celery", "-A", "written_once_app", "worker", "-l", "INFO", "-c", "2"],
        "native": [CREWJOB, "worker", "--tasks", str(folder / "tasks.yaml"), "-c", "2"],
    }[request.param]
    log = folder / "worker.log"
    env = os.environ | {"PYTHONPATH": str(PACKAGE), "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "-n", node, "-Q", "default"], cwd=HERE, env=env, stdout=output, stderr=subprocess.STDOUT
        )
    worker = Worker(request.param, node, process, log)
    try:
        eventually(worker.answers, 60, f"an answer of {node}")
        yield worker
    finally:
        worker.stop()


def send(*args, name="once.work", kwargs=None, **options):
    return app.send_task(name, args, kwargs, queue="default", **options)


def failed(result):
    """How a run failed, and its document."""
    error = result.get(timeout=30, propagate=False)
    return error, app.backend.get_task_meta(result.id)


def test_a_result_is_the_same_and_what_is_printed_spoils_nothing(worker):
    result = send("tea", time_limit=60, soft_time_limit=50)
    assert result.get(timeout=30) == {
        "what": "tea",
        "id": result.id,
        "retries": 0,
        "key": result.id,
        "job": None,
        "limits": [60, 50],
        "worker": worker.node,
    }
    assert send("milk").get(timeout=30)["what"] == "milk"


def test_a_function_knows_its_crewjob_and_what_is_the_same_for_all_its_attempts(worker):
    value = send("tea", headers=JOB, root_id="first").get(timeout=30)
    assert (value["job"], value["key"]) == (["order-17", "shop", "u-1"], "first")


def test_an_exception_keeps_its_type_and_is_final_unless_the_function_names_it(worker):
    error, document = failed(send("no stock"))
    assert isinstance(error, written_once.NoStock) and str(error) == "0 left"
    assert "NoStock: 0 left" in document["traceback"] and document["retries"] == 0
    error, document = failed(send("a set"))
    assert type(error).__name__ == "InvalidResult" and document["retries"] == 0
    error, document = failed(send("tea", kwargs={"unknown": 1}))
    assert isinstance(error, TypeError) and document["retries"] == 0


def test_a_failure_that_the_function_names_is_retried(worker):
    assert send("tea", kwargs={"good_after": 1}).get(timeout=30)["retries"] == 1


def test_the_result_of_a_crewjob_says_whether_another_run_would_not_help(worker):
    error, document = failed(send("gone", headers=JOB))
    assert isinstance(error, ConnectionResetError) and document["retries"] == 0
    assert document.get("retryable") is not False
    assert failed(send("no stock", headers=JOB))[1]["retryable"] is False


def test_progress_is_shown_and_the_soft_limit_is_an_exception_after_which_a_result_counts(worker):
    send("tea").get(timeout=30)  # the program has started, which the limit would count
    messages = []
    counting = send(name="once.count", soft_time_limit=2, time_limit=30)
    assert counting.get(timeout=30, on_message=messages.append) == {"complete": False, "counted": True}
    # Once or twice: a client that subscribes reads what is stored as well.
    shown = [message["result"] for message in messages if message["status"] == "PROGRESS"]
    assert shown in ([{"percent": 50}], [{"percent": 50}] * 2)
