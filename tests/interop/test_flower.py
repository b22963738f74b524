"""Flower shows workers of both kinds alike."""

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.request

import pytest
from conftest import HERE, eventually, free_port, running
from tasks import echo, fail


@pytest.fixture(scope="module")
def fleet(server, tmp_path_factory):
    """A worker of each kind, and Flower; gives a way to ask it."""
    server.flushall()
    folder, port = tmp_path_factory.mktemp("flower"), free_port()
    command = [sys.executable, "-m", "celery", "-A", "tasks", "flower", f"--port={port}", "--address=127.0.0.1"]
    env = os.environ | {"FLOWER_UNAUTHENTICATED_API": "1"}
    with (folder / "flower.log").open("w") as log:
        flower = subprocess.Popen(command, cwd=HERE, env=env, stdout=log, stderr=subprocess.STDOUT)

    def get(path):
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10).read().decode()

    try:
        eventually(lambda: get("/healthcheck"), 30, "an answer of Flower")
        with running("python", folder) as python, running("native", folder) as native:
            yield get, python.node, native.node
    finally:
        flower.terminate()
        flower.wait()


def workers(get):
    return json.loads(get("/api/workers?refresh=1") or "{}")


def test_the_dashboard_and_the_worker_page_have_all_of_both(fleet):
    get, python, native = fleet
    known = eventually(lambda: found if {python, native} <= (found := workers(get)).keys() else None, 30, "both")
    assert known[python].keys() <= known[native].keys()
    for part, value in known[python].items():
        assert type(known[native][part]) is type(value), part
    assert known[python]["stats"].keys() <= known[native]["stats"].keys()
    assert known[python]["stats"]["pool"].keys() <= known[native]["stats"]["pool"].keys()
    assert {queue["name"] for queue in known[native]["active_queues"]} == {"default"}
    status = json.loads(get("/api/workers?status=1"))
    assert status[native] is True
    page = {node: get(f"/worker/{node}") for node in (python, native)}
    assert "CommandPool" in page[native]
    label = re.compile(r"<t[dh][^>]*>\s*([A-Z][A-Za-z -]+?)\s*</t[dh]>")
    assert len(label.findall(page[python])) > 20
    assert set(label.findall(page[python])) - set(label.findall(page[native])) <= {"False", "True"}


def test_the_task_page_has_the_fields_that_a_python_worker_gives(fleet):
    get, python, native = fleet
    results = [call() for _ in range(60) for call in (lambda: echo.delay("x", key=1), fail.delay)]
    for result in results:
        result.get(timeout=30, propagate=False)
    asked = lambda: json.loads(get("/api/tasks") or "{}")
    ids = {result.id for result in results}
    done = ("SUCCESS", "FAILURE")

    def all_told():
        told = asked()
        return told if ids <= {uuid for uuid, task in told.items() if task["state"] in done} else None

    told = eventually(all_told, 30, "every task")
    by_kind = {}
    for uuid in ids:
        by_kind.setdefault((told[uuid]["worker"], told[uuid]["name"]), told[uuid])
    for name in ("echo", "fail"):
        ours, theirs = by_kind.get((native, name)), by_kind.get((python, name))
        assert ours and theirs, "both kinds have served it"
        given = lambda task: {key for key, value in task.items() if value is not None}
        missing = given(theirs) - given(ours) - {"traceback"}
        assert not missing, (name, missing)
        assert (ours["args"], ours["kwargs"], ours["state"]) == (theirs["args"], theirs["kwargs"], theirs["state"])
    assert "echo" in get(f"/task/{next(iter(ids))}") or "fail" in get(f"/task/{next(iter(ids))}")
