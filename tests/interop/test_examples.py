"""The crews of `examples/`, run by a native worker as their READMEs say. The shell crew has its test in `tests/it`."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

from conftest import CREWJOB, HERE, Worker, eventually
from tasks import app

EXAMPLES = HERE.parents[1] / "examples"
TOPIC = 'Café "noir"'


@contextlib.contextmanager
def worker_of(example, folder, tasks="tasks.yaml", **env):
    """A worker that was started in the folder of an example."""
    node = f"{example}@examples"
    command = [CREWJOB, "worker", "--tasks", tasks, "-n", node, "-c", "1", "-Q", "crew_jobs:crew.jobs"]
    log = folder / "worker.log"
    with log.open("w") as output:
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | env
        process = subprocess.Popen(command, cwd=EXAMPLES / example, env=env, stdout=output, stderr=subprocess.STDOUT)
    worker = Worker("native", node, process, log)
    try:
        eventually(worker.answers, 30, f"an answer of {node}")
        yield worker
    finally:
        worker.stop()


def send(inputs):
    return app.send_task("backend.tasks.run_crew_task", ["job-1", inputs], queue="crew_jobs", routing_key="crew.jobs")


def children(process):
    """The processes that it has started and that still run."""
    of_its_threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    return {int(number) for found in of_its_threads for number in found.read_text().split()}


def answers(command, *inputs):
    """What a crew in server mode answers to calls with these inputs, without a worker."""
    calls = "".join(json.dumps({"kwargs": {"job_id": "job-1", "inputs": each}}) + "\n" for each in inputs)
    done = subprocess.run(command, input=calls, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


REPORTS = [
    {"percent": 0, "message": "researcher: at work"},
    {"percent": 33, "message": "writer: at work"},
    {"percent": 66, "message": "editor: at work"},
]
NO_TOPIC = {"error": {"type": "ValueError", "message": "inputs.topic must be a non-empty string"}, "retry": False}


def test_the_python_crew_stays_for_one_call_after_the_other(server, tmp_path):
    server.flushall()
    with worker_of("python-crew", tmp_path) as worker:
        result = send({"topic": TOPIC}).get(timeout=20)
        assert result["result"].splitlines() == [
            f"# {TOPIC}",
            "",
            "1. What it is, in one paragraph.",
            "2. Three questions that somebody new to it asks first.",
            "3. One worked example, with numbers.",
        ]
        assert (result["job_id"], result["format"], result["cached"]) == ("job-1", "text", False)
        assert send({"topic": TOPIC}).get(timeout=20)["cached"] is True
        crew = children(worker.process)
        assert len(crew) == 1
        assert send({"topic": "Tides"}).get(timeout=20)["result"].startswith("# Tides\n")
        assert children(worker.process) == crew
        worker.process.terminate()
        assert worker.process.wait(20) == 0
    assert not any(Path(f"/proc/{number}").exists() for number in crew)


def test_the_python_crew_says_who_is_at_work_and_what_is_missing():
    crew = EXAMPLES / "python-crew/crew.py"
    *reports, result, missing, blank = answers([crew], {"topic": "Tides"}, {}, {"topic": " "})
    assert [report["progress"] for report in reports] == REPORTS
    assert result["result"]["text"].startswith("# Tides\n")
    assert missing == blank == NO_TOPIC


def test_the_python_crew_is_tried_again_when_something_is_out_of_reach(server, tmp_path):
    server.flushall()
    program = """
import crew
failures = [ConnectionError("no answer")]
def researcher(topic, _):
    if failures:
        raise failures.pop()
    return [topic]
crew.STEPS[0] = researcher
crew.main()
"""
    tasks = (EXAMPLES / "python-crew/tasks.yaml").read_text()
    command = "[python3, crew.py]"
    assert command in tasks
    file = tmp_path / "tasks.yaml"
    file.write_text(tasks.replace(command, json.dumps(["python3", "-c", program])))
    with worker_of("python-crew", tmp_path, file):
        assert send({"topic": "Tides"}).get(timeout=20)["celery"]["retries"] == 1
