"""What really happened: the workers' records, the Pods' processes, and the logs, none of which a fault takes away."""

import glob
import json
import os
import re
import threading
import time
from datetime import datetime
from pathlib import Path

from verdict import Run, Worker

LINE = re.compile(r"^(\S+) (stdout|stderr) ([FP]) (.*)$")


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def runs(folder: Path) -> list[Run]:
    """All runs so far. A run that is at work has no end yet."""
    found = []
    for path in folder.glob("run-*"):
        last_beat = path.stat().st_mtime
        events = {event["event"]: event for event in lines_of(path)}
        if "begin" not in events:
            continue
        begin, end, stored = events["begin"], events.get("end", {}), events.get("stored", {})
        found.append(
            Run(
                job=begin["job"],
                task=begin["task"],
                pod=begin["pod"],
                pid=begin["pid"],
                begin=begin["at"],
                last_beat=last_beat,
                end=end.get("at"),
                how=outcome(end.get("how"), stored.get("state")),
                stored=stored.get("at"),
            )
        )
    return sorted(found, key=lambda run: run.begin)


def outcome(how: str | None, state: str | None) -> str | None:
    """How a run ended. Celery says that a run failed whose result it could not store; that is then how it ended."""
    return "ResultNotStored" if how == "ok" and state == "FAILURE" else how


def workers(folder: Path) -> list[Worker]:
    found = []
    for path in folder.glob("worker-*"):
        last_beat = path.stat().st_mtime
        events = {event["event"]: event for event in lines_of(path)}
        if "begin" not in events:
            continue
        begin = events["begin"]
        until = events.get("draining", {}).get("at", last_beat)
        found.append(Worker(begin["pod"], begin["pid"], begin["at"], until, begin["slots"]))
    return found


def is_at_work(run: Run, within: float = 0.5) -> bool:
    return run.end is None and time.time() - run.last_beat < within


def takes_tasks(worker: Worker, within: float = 1.0) -> bool:
    return time.time() - worker.until < within


# === Processes ===


def processes(pod_uid: str) -> dict[int, tuple[int, int, list[str]]]:
    """The processes of a Pod by their number here: the parent's, the number within the Pod, the command."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if pod_uid not in (folder / "cgroup").read_text():
                continue
            lines = (folder / "status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            command = (folder / "cmdline").read_bytes().decode().split("\0")
            found[int(folder.name)] = (int(status["PPid"]), int(status["NSpid"].split()[-1]), command)
        except (OSError, KeyError, ValueError):
            continue
    return found


def pid_within(pod_uid: str, inner: int) -> int | None:
    """The number here of the process with this number in the Pod."""
    return next((pid for pid, (_, within, _) in processes(pod_uid).items() if within == inner), None)


def main_process(pod_uid: str, program: str) -> int | None:
    """The oldest process of a program in a Pod: the one whose parent is another program."""
    of_program = {pid: facts for pid, facts in processes(pod_uid).items() if any(program in word for word in facts[2])}
    return next((pid for pid, (parent, _, _) in sorted(of_program.items()) if parent not in of_program), None)


def process_with(program: str, argument: str) -> int | None:
    """A process of this machine that runs a program with an argument that contains this text."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
        except (OSError, ValueError):
            continue
        if command[0].endswith(program) and any(argument in word for word in command[1:]):
            return int(folder.name)
    return None


# === Logs ===


class Logs:
    """Follows the log files of all containers on the node, and keeps what they said after their Pods have gone."""

    def __init__(self, state_dir: Path, namespace: str):
        self.pattern = f"{glob.escape(str(state_dir))}/pod-logs/{namespace}_*/*/*.log"
        self.open: dict[str, tuple[object, str]] = {}
        self.lines: list[tuple[float, str, str]] = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self) -> None:
        while not self.stopped.wait(0.3):
            self.read()

    def read(self) -> None:
        # Not `Path.glob`, which fails when the kubelet deletes a Pod's folder while it is listed.
        for path in map(Path, glob.iglob(self.pattern)):
            if str(path) not in self.open:
                try:
                    file = path.open()
                except OSError:
                    continue
                pod = path.parts[-3].split("_")[1]
                self.open[str(path)] = (file, f"{pod}/{path.stem}")
        for file, source in self.open.values():
            for line in self.whole_lines(file):
                if match := LINE.match(line):
                    self.lines.append((datetime.fromisoformat(match[1]).timestamp(), source, match[4]))

    @staticmethod
    def whole_lines(file):
        while True:
            at = file.tell()
            line = file.readline()
            if not line.endswith("\n"):
                file.seek(at)
                return
            yield line

    def stop(self) -> None:
        self.stopped.set()
        self.thread.join()
        self.read()

    def about(self, words: list[str], since: float, until: float) -> list[tuple[float, str, str]]:
        return [
            (at, source, text)
            for at, source, text in list(self.lines)
            if since <= at <= until and any(word in text for word in words)
        ]


def state_dir() -> Path:
    """Where the cluster keeps its files: its kubeconfig is one of them."""
    return Path(os.environ["KUBECONFIG"]).parent
