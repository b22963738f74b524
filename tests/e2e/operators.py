"""The operator's processes, and which of them leads."""

from pathlib import Path

from kube import OPERATOR, get


def holder() -> str:
    """What holds the Lease: a Pod, and which of its processes."""
    return get("lease", OPERATOR)["spec"].get("holderIdentity") or ""


def leader() -> str:
    """Name of the Pod that holds the Lease."""
    return holder().rsplit("_", 1)[0]


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
