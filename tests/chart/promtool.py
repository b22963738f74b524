"""Prometheus' own promtool, which is built once per machine, and what it makes of the chart's alerts."""

import fcntl
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import yaml

VERSION = "v0.316.0"
PACKAGE = "github.com/prometheus/prometheus/cmd/promtool"


@cache
def program() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("CREWJOB_CACHE") or Path(base) / "crewjob") / f"promtool-{VERSION}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "promtool.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            build(path)
    return path


def build(path: Path) -> None:
    # Without service discovery, which has the client of every cloud.
    command = ["nice", "go", "install", "-trimpath", "-tags", "remove_all_sd", "-ldflags=-s -w", f"{PACKAGE}@{VERSION}"]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        try:
            subprocess.run(command, env=os.environ | {"CGO_ENABLED": "0", "GOBIN": folder}, check=True)
        except FileNotFoundError:
            raise AssertionError("go 1.26 or newer is needed to build promtool (https://go.dev/dl)") from None
        (Path(folder) / "promtool").rename(path)


def promtool(*arguments: str, rules: dict, **files: dict) -> subprocess.CompletedProcess:
    """Runs it beside `rules.yaml` and these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {"rules": rules, **files}.items():
            (Path(folder) / f"{name}.yaml").write_text(yaml.safe_dump(content))
        # A second of a processor, which it may have to wait for: what runs beside it comes first.
        return subprocess.run([program(), *arguments], cwd=folder, capture_output=True, text=True, timeout=300)


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """One that Prometheus reads of a replica, once a minute."""
    of = {"job": "crewjob-operator", "pod": "operator-a", "namespace": "crewjob"} | labels
    return {"series": name + "{" + ",".join(f'{key}="{value}"' for key, value in of.items()) + "}", "values": values}


def expect(rules: dict, given: list[dict], alerts: dict[str, dict[str, list]]) -> None:
    """What alerts there are at which time, given what Prometheus has read."""
    tests = [
        {"eval_time": at, "alertname": name, "exp_alerts": found} for at, named in alerts.items() for name, found in named.items()
    ]
    one = {"interval": "1m", "input_series": given, "alert_rule_test": tests}
    test = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [one]}
    done = promtool("test", "rules", "test.yaml", rules=rules, test=test)
    assert done.returncode == 0, done.stdout + done.stderr
