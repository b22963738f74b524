"""What runs on a cluster of its own needs: the cluster with the project's images, and Python with packages."""

import hashlib
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLUSTER = HERE.parent / "cluster/cluster"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CREWJOB_CACHE") or Path(base) / "crewjob")


def python(requirements: Path = HERE / "requirements.txt", what: str = "pytest, Celery, Flower and OpenTelemetry") -> Path:
    """The interpreter of a virtual environment of these requirements, named after where they are."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}\n".encode()
    key = hashlib.sha256(version + requirements.read_bytes()).hexdigest()[:12]
    path = cache_dir() / f"venv-{requirements.parent.name}-{key}"
    if not (path / "ready").exists():
        started = time.monotonic()
        say(f"installing {what} into {path} ...")
        venv.create(path, with_pip=True, clear=True)
        pip = [path / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, "-r", requirements], stdout=sys.stderr).returncode != 0:
            sys.exit(
                f"pip could not install {requirements}; check the network and pip's configuration, and run this again"
            )
        (path / "ready").touch()
        say(f"installed in {time.monotonic() - started:.0f} s")
    return path / "bin/python"


class Cluster:
    """A cluster of this name."""

    def __init__(self, name: str):
        self.command = [str(CLUSTER), "--name", name]
        self.archives: list[str] = []

    def ask(self, *arguments: str) -> str:
        done = subprocess.run([*self.command, *arguments], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(done.returncode)
        return done.stdout

    def run(self, *command: str, **env: str) -> int:
        """Runs a command in the cluster's network, and returns its exit status."""
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | env
        return subprocess.run([*self.command, "exec", "--", *command], env=env).returncode

    @contextmanager
    def up(self) -> Iterator[None]:
        """The cluster with the project's images, taken down at the end unless it is to be kept.

        IMAGES names archives to use instead of building from source.
        """
        started = time.monotonic()
        archives = self.archives = (os.environ.get("IMAGES") or self.ask("images")).split()
        try:
            self.ask("up")
            self.ask("load", *archives)
            say(f"the cluster is ready after {time.monotonic() - started:.0f} s")
            yield
        finally:
            if os.environ.get("KEEP") == "1":
                say(f"the cluster is kept; end it with: {' '.join(self.command)} down")
            else:
                self.ask("down")
