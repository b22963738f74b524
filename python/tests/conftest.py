"""Programs that serve, as processes of their own."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(PACKAGE), "PYTHONDONTWRITEBYTECODE": "1"}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)
# As long as a program may be kept from the processors by what runs beside it.
PATIENCE = 120


@dataclass
class Ended:
    """What a program that has ended wrote, and its exit status."""

    status: int
    output: str
    log: str

    @property
    def lines(self):
        """What the worker would read: it ignores empty lines."""
        return [json.loads(line) for line in self.output.splitlines() if line]

    @property
    def results(self):
        return [line["result"] for line in self.lines]


def a_call(*args, task="program.work", **kwargs):
    return {"task": task, "id": "c0ffee", "args": args, "kwargs": kwargs}


def ask(process, call):
    """The next line that a program says to this call."""
    process.stdin.write(json.dumps(call) + "\n")
    process.stdin.flush()
    # The worker ignores empty lines.
    return json.loads(next(line for line in process.stdout if line.strip()))


@pytest.fixture
def start(tmp_path):
    """Starts a program that imports crewjob, from its source."""
    started = []

    def start(source):
        file = tmp_path / "program.py"
        file.write_text("import crewjob\n" + textwrap.dedent(source) + "\ncrewjob.serve()\n")
        pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
        process = subprocess.Popen([sys.executable, file], cwd=tmp_path, env=ENVIRONMENT, text=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def serve(start):
    """Has a program serve these calls, and waits for its end."""

    def serve(source, *calls):
        process = start(source)
        given = "".join(call if isinstance(call, str) else json.dumps(call) + "\n" for call in calls)
        output, log = process.communicate(given, timeout=PATIENCE)
        return Ended(process.returncode, output, log)

    return serve
