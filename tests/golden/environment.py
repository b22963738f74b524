"""The Python environment of the golden tools: Celery at the pinned version, in the cache directory."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = Path(tempfile.gettempdir()) / "crewjob-golden"
PINS = ["celery[redis]==5.7.0", "kombu[redis]==5.7.0", "redis==8.1.0"]


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CREWJOB_CACHE") or Path(base) / "crewjob")


def directory() -> Path:
    """Returns the virtual environment's directory, creating it when it is missing."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256("\n".join([version, *PINS]).encode()).hexdigest()[:12]
    path = cache_dir() / f"venv-golden-{key}"
    ready = path / "ready"
    if not ready.exists():
        started = time.monotonic()
        print(f"installing {', '.join(PINS)} into {path} ...", file=sys.stderr, flush=True)
        venv.create(path, with_pip=True, clear=True)
        install = [path / "bin/python", "-m", "pip", "install", "--quiet", *PINS]
        if subprocess.run(install, stdout=sys.stderr).returncode != 0:
            sys.exit("pip could not install the packages above; check the network and pip's configuration, then retry")
        ready.touch()
        print(f"installed in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return path


def enter(app: Path = HERE / "app", prefix: Path | None = None) -> None:
    """Restarts the running script inside the environment, with `app` importable."""
    if os.environ.get("CREWJOB_GOLDEN_ENVIRONMENT"):
        return
    python = (prefix or directory()) / "bin/python"
    env = os.environ | {
        "CREWJOB_GOLDEN_ENVIRONMENT": "1",
        "PYTHONPATH": str(app),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    os.execve(python, [str(python), *sys.argv], env)
