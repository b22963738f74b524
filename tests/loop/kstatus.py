"""What kstatus, the library that Flux waits with, makes of an object: a Go program that is built once per machine."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SOURCE = TESTS / "kstatus"
sys.path.append(str(TESTS / "e2e"))

import bed  # noqa: E402


@cache
def program() -> Path:
    sources = [SOURCE / name for name in ("go.mod", "go.sum", "main.go")]
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    path = bed.cache_dir() / f"kstatus-{key}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "kstatus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_suffix(".part")
            command = ["go", "build", "-buildvcs=false", "-trimpath", "-o", str(part), "."]
            try:
                subprocess.run(command, cwd=SOURCE, env=os.environ | {"CGO_ENABLED": "0"}, check=True)
            except FileNotFoundError:
                raise AssertionError("go 1.26 or newer is needed to build tests/kstatus (https://go.dev/dl)") from None
            part.rename(path)
    return path


def verdict(item: dict | None) -> str:
    """`InProgress`, `Current`, `Failed`, `Terminating`, or `NotFound` of an object that is not there."""
    if item is None:
        return "NotFound"
    done = subprocess.run([program()], input=json.dumps(item), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["status"]
