"""The crews of `examples/`, run by a native worker as their READMEs say. The shell crew has its test in `tests/it`."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CREWJOB, HERE, Worker, eventually, free_port
from tasks import app

EXAMPLES = HERE.parents[1] / "examples"
PACKAGE = str(HERE.parents[1] / "python")
CREWAI = Path(os.environ["CREWAI_PYTHON"])
TOPIC = 'Café "noir"'


@contextlib.contextmanager
def worker_of(example, folder, tasks="tasks.yaml", **env):
    """A worker that was started in the folder of an example."""
    node = f"{example}@examples"
    command = [CREWJOB, "worker", "--tasks", tasks, "-n", node, "-c", "1", "-Q", "crew_jobs=crew.jobs"]
    log = folder / "worker.log"
    with log.open("w") as output:
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": PACKAGE} | env
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
    env = os.environ | {"PYTHONPATH": PACKAGE}
    done = subprocess.run(command, input=calls, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines() if line]


REPORTS = [
    {"percent": 0, "message": "researcher: at work"},
    {"percent": 33, "message": "writer: at work"},
    {"percent": 66, "message": "editor: at work"},
]

# === The Python crew ===


def test_the_python_crew_stays_for_one_call_after_the_other(server, tmp_path):
    server.flushall()
    with worker_of("python-crew", tmp_path) as worker:
        result = send({"topic": TOPIC}).get(timeout=20)
        assert result["result"].splitlines() == [
            f"# {TOPIC}",
            "",
            "1. What it is, in one paragraph.",
            "2. Three questions that a newcomer to it asks first.",
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


def test_the_python_crew_reports_each_agent():
    *reports, result = answers([EXAMPLES / "python-crew/crew.py"], {"topic": "Tides"})
    assert [report["progress"] for report in reports] == REPORTS
    assert result["result"]["text"].startswith("# Tides\n")


def test_a_crew_is_not_called_without_a_topic(server, tmp_path):
    server.flushall()
    with worker_of("python-crew", tmp_path):
        for inputs in ({}, {"topic": " "}, {"topic": 7}):
            with pytest.raises(ValueError, match="inputs.topic must be a non-empty string"):
                send(inputs).get(timeout=20)


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
crew.crewjob.serve()
"""
    tasks = (EXAMPLES / "python-crew/tasks.yaml").read_text()
    command = "[python3, crew.py]"
    assert command in tasks
    file = tmp_path / "tasks.yaml"
    file.write_text(tasks.replace(command, json.dumps(["python3", "-c", program])))
    with worker_of("python-crew", tmp_path, file):
        assert send({"topic": "Tides"}).get(timeout=20)["celery"]["retries"] == 1


# === The CrewAI crew ===


@contextlib.contextmanager
def stub(port, log, *options, key="secret"):
    """The example's stand-in for a model."""
    command = [sys.executable, EXAMPLES / "crewai-crew/stub.py", "--port", str(port), *options]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=os.environ | {"OPENAI_API_KEY": key}, stderr=output)
    try:
        eventually(lambda: listens(port), 10, "a stub that listens")
        yield log
    finally:
        process.kill()
        process.wait()


def listens(port):
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
        return True


@pytest.fixture
def port():
    return free_port()


def crewai_env(port, folder):
    """The environment of the crew's worker."""
    return {
        "PATH": f"{CREWAI.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": f"{HERE / 'watched'}:{PACKAGE}",
        "CONNECTIONS": str(folder / "connections"),
        "CREW_MODEL": "stub",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
        "OPENAI_API_KEY": "secret",
    }


@pytest.fixture
def crewai(server, port, tmp_path):
    """A file of what the crew of a worker connects to."""
    server.flushall()
    connections = tmp_path / "connections"
    with worker_of("crewai-crew", tmp_path, **crewai_env(port, tmp_path)):
        yield connections
    # It has connected to the model and to nothing else: neither to CrewAI's telemetry nor to the Redis of the jobs.
    assert set(connections.read_text().splitlines()) == {f"127.0.0.1:{port}"}


def test_the_crewai_crew_connects_to_its_model_and_to_no_other_server(crewai, port, tmp_path):
    with stub(port, tmp_path / "stub.log", "--seconds", "1") as log:
        messages = []
        result = send({"topic": TOPIC, "level": "school"}).get(timeout=60, on_message=messages.append)
        assert {"done": "writer"} in [message["result"] for message in messages if message["status"] == "PROGRESS"]
        assert result["result"] == f"Current Task: Edit the draft on {TOPIC}: correct it, shorten it, keep its form."
        assert (result["job_id"], result["model"], result["cached"]) == ("job-1", "stub", False)
        asked = [line.partition("Current Task: ")[2] for line in log.read_text().splitlines() if "Task" in line]
        assert [line.split()[0] for line in asked] == ["Collect", "Write", "Edit"]
        assert all(TOPIC in line for line in asked)
        assert all("'level': 'school'" in line for line in asked[:2])


@pytest.mark.parametrize(("at_first", "named"), [("busy", "RateLimitError"), ("down", "ConnectionError")])
def test_the_crewai_crew_is_tried_again_when_its_model_cannot_answer(crewai, port, tmp_path, at_first, named):
    # RETRY is followed as it is announced, not polled: with countdowns of 0 it lasts milliseconds.
    log = tmp_path / "stub.log"
    failures = []
    with contextlib.ExitStack() as model:
        if at_first == "busy":
            model.enter_context(stub(port, log, "--busy"))

        def recover(message):
            if message["status"] == "RETRY" and not failures:
                failures.append(type(message["result"]).__name__)
                model.close()
                model.enter_context(stub(port, log, "--seconds", "0"))

        assert send({"topic": "Tides"}).get(timeout=60, on_message=recover)["celery"]["retries"] >= 1
    assert failures == [named]


def test_the_crewai_crew_is_not_tried_again_with_a_wrong_key(crewai, port, tmp_path):
    with stub(port, tmp_path / "stub.log", key="another") as log:
        failed = send({"topic": "Tides"})
        error = failed.get(timeout=60, propagate=False)
        assert (failed.state, type(error).__name__) == ("FAILURE", "AuthenticationError")
        assert "the key is wrong" in str(error)
        assert log.read_text().count("POST") == 1


@pytest.mark.parametrize("step", [2, 3])
def test_the_crewai_crew_asks_again_for_no_text_but_that_of_the_step_in_which_its_worker_is_killed(server, port, tmp_path, step):
    server.flushall()
    env = crewai_env(port, tmp_path)
    saved = set()

    def is_saved():
        saved.update(filter(None, (server.hget(key, "saved") for key in server.keys("crewjob-state:*"))))
        return len(saved) == step - 1

    with stub(port, tmp_path / "stub.log", "--seconds", "1") as log:
        with worker_of("crewai-crew", tmp_path, **env) as worker:
            sent = send({"topic": TOPIC})
            eventually(is_saved, 60, f"the state after step {step - 1}")
            crew = children(worker.process)
            # As in a container, where the kernel does it.
            for process in (worker.process.pid, *crew):
                os.kill(process, signal.SIGKILL)
            worker.process.wait()
        with worker_of("crewai-crew", tmp_path, **env):
            result = sent.get(timeout=90)
        assert result["result"] == f"Current Task: Edit the draft on {TOPIC}: correct it, shorten it, keep its form."
        asked = [line.partition("Current Task: ")[2].split()[0] for line in log.read_text().splitlines() if "Task" in line]
    steps = ["Collect", "Write", "Edit"]
    # Killed before or after it had asked for it.
    assert asked in (steps, sorted([*steps, steps[step - 1]], key=steps.index))
    usage = app.backend.get_task_meta(sent.id)["usage"]["models"]["stub"]
    assert usage["requests"] == 3, "what the killed run had consumed counts, but for the text that it did not get"
    eventually(lambda: not server.keys("crewjob-state:*"), 10, "a state that is deleted")


def test_a_checkpoint_of_the_crewai_crew_holds_no_key(server, port, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    call = {"kwargs": {"job_id": "job-1", "inputs": {"topic": "Tides"}}, "state_dir": str(state)}
    env = os.environ | crewai_env(port, tmp_path)
    with stub(port, tmp_path / "stub.log", "--seconds", "0"):
        command = ["python3", EXAMPLES / "crewai-crew/crew.py"]
        done = subprocess.run(command, input=json.dumps(call) + "\n", env=env, stdout=subprocess.PIPE, text=True, timeout=60)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line]
    assert lines.count({"checkpoint": True}) == 3 and "result" in lines[-1]
    texts = [file.read_text() for file in state.glob("*/*.json")]
    assert texts and not any("secret" in text for text in texts)


FLOW = """
import os, time
import crewjob.crewai
from crewai.flow.flow import Flow, listen, start

class Story(Flow):
    @start()
    def first(self):
        return self.step("first")
    @listen(first)
    def second(self, text):
        return text + self.step("second")
    @listen(second)
    def third(self, text):
        return text + self.step("third")
    def step(self, name):
        with open(os.environ["STEPS"], "a") as steps:
            steps.write(name + "\\n")
        if name == os.environ.get("DIES"):
            # CrewAI writes the checkpoint in a thread of its own.
            while not any(file.stat().st_size for file in crewjob.state_dir().glob("*/*.json")):
                time.sleep(0.05)
            os._exit(1)
        return name + " "

@crewjob.task
def crew(job_id, inputs, bypass_cache=False):
    return {"text": str(Story().kickoff(from_checkpoint=crewjob.crewai.checkpoints()))}

crewjob.serve()
"""


def test_a_flow_goes_on_after_the_method_that_was_done_last(port, tmp_path):
    state, steps = tmp_path / "state", tmp_path / "steps"
    state.mkdir()
    call = json.dumps({"kwargs": {"job_id": "job-1", "inputs": {}}, "state_dir": str(state)}) + "\n"
    env = os.environ | crewai_env(port, tmp_path) | {"STEPS": str(steps)}
    for dies in ("second", ""):
        command = [str(CREWAI), "-c", FLOW]
        done = subprocess.run(command, input=call, env=env | {"DIES": dies}, stdout=subprocess.PIPE, text=True, timeout=60)
    assert json.loads(done.stdout.splitlines()[-1]) == {"result": {"text": "first second third "}}
    assert steps.read_text().split() == ["first", "second", "second", "third"]


def test_the_crewai_crew_has_at_most_30_lines():
    assert len((EXAMPLES / "crewai-crew/crew.py").read_text().splitlines()) <= 30
