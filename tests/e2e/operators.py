"""The operator's processes: which there are, who leads, and killing one."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kube import OPERATOR, get, items, kubectl, until

PODS = "app.kubernetes.io/component=operator"


def pods() -> list[dict]:
    return items("pods", PODS)


def leader() -> str:
    """Name of the Pod that holds the Lease."""
    return (get("lease", OPERATOR)["spec"].get("holderIdentity") or "").rsplit("_", 1)[0]


def process_of(uid: str) -> int | None:
    """The process of a Pod with this UID: the node's processes are seen from here, and a cgroup names the Pod."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            if command[1:2] == [b"operator"] and uid in (folder / "cgroup").read_text():
                return int(folder.name)
        except OSError:
            continue
    return None


def kill(pod: dict) -> float:
    """Ends the operator's process with signal 9 as soon as there is one; returns when."""
    uid = pod["metadata"]["uid"]
    pid = until(f"{pod['metadata']['name']} runs", lambda: process_of(uid), every=0.02)
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def kill_for_good(pod: dict) -> float:
    """Kills the process and removes its Pod, so that no new process takes the old one's place."""
    killed_at = kill(pod)
    kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    return killed_at


def restarts() -> dict[str, int]:
    """Crashes by Pod."""
    return {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods()}


def scale(replicas: int) -> None:
    kubectl("scale", "deployment", OPERATOR, f"--replicas={replicas}")
    kubectl("rollout", "status", f"deployment/{OPERATOR}", "--timeout=60s")
    until("no other operator is left", lambda: len(pods()) == replicas)


def renew() -> None:
    """A new Pod, whose crashes are counted from none."""
    kubectl("rollout", "restart", f"deployment/{OPERATOR}")
    settle()


def settle() -> None:
    """Waits until a rollout is over."""
    kubectl("rollout", "status", f"deployment/{OPERATOR}", "--timeout=60s")
    until("the old operator is gone", lambda: len(pods()) == get("deployment", OPERATOR)["spec"]["replicas"])


@contextmanager
def auditing_every(seconds: int) -> Iterator[None]:
    """An operator that reads everything more often than every minute, for tests that cannot wait so long."""
    kubectl("set", "env", f"deployment/{OPERATOR}", f"CREWJOB_AUDIT_EVERY={seconds}")
    settle()
    try:
        yield
    finally:
        kubectl("set", "env", f"deployment/{OPERATOR}", "CREWJOB_AUDIT_EVERY-")
        settle()
