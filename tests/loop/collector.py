"""OpenTelemetry's collector as a process, a Go program that is built once per machine, and collectors that do not work."""

import fcntl
import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

from servers import end, free_port
from waiting import until

TESTS = Path(__file__).resolve().parents[1]
SOURCE = TESTS / "collector"
sys.path.append(str(TESTS / "e2e"))

import bed  # noqa: E402

CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{file: {{path: "{spans}", flush_interval: 100ms}}}}
service:
  pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}
  telemetry: {{metrics: {{level: none}}}}
"""


@cache
def program() -> Path:
    sources = [SOURCE / name for name in ("go.mod", "go.sum", "main.go")]
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    path = bed.cache_dir() / f"collector-{key}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "collector.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_suffix(".part")
            command = ["go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", str(part), "."]
            try:
                subprocess.run(command, cwd=SOURCE, env=os.environ | {"CGO_ENABLED": "0"}, check=True)
            except FileNotFoundError:
                raise AssertionError("go 1.26 or newer is needed to build tests/collector (https://go.dev/dl)") from None
            part.rename(path)
    return path


class Collector:
    """A collector that writes what it receives into a file."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.written = free_port(), folder / "spans.json"
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "collector.yaml").write_text(CONFIG.format(port=self.port, spans=self.written))
        with (folder / "collector.log").open("a") as log:
            command = [program(), "--config", str(folder / "collector.yaml")]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        until("the collector listens", self.listens)

    def listens(self) -> bool:
        assert self.process.poll() is None, "the collector has ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def spans(self, trace: str) -> list[dict]:
        """All spans of a trace, each with its `sender`; a span that was sent twice is there twice."""
        lines = self.written.read_text().splitlines() if self.written.exists() else []
        found = []
        for resource in (resource for line in lines for resource in json.loads(line)["resourceSpans"]):
            sender = attributes(resource["resource"])["service.name"]
            spans = [span for scope in resource["scopeSpans"] for span in scope["spans"]]
            found += [span | {"sender": sender} for span in spans if span["traceId"] == trace]
        return found

    def stop(self) -> None:
        end(self.process)


def attributes(part: dict) -> dict:
    """The attributes of a span or a resource, as Python has them."""
    return {entry["key"]: next(iter(entry["value"].values())) for entry in part.get("attributes", [])}


class Answering:
    """A collector that answers all requests with one status, or never when it has none."""

    def __init__(self, status: int | None):
        self.requests, silent = 0, threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(handler):  # noqa: N802, N805
                self.requests += 1
                handler.rfile.read(int(handler.headers["Content-Length"]))
                if status is None:
                    silent.wait()
                handler.send_response(status or 500)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            def log_message(handler, *_):  # noqa: N805
                pass

        self.silent, self.server = silent, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.silent.set()
        self.server.shutdown()
        self.server.server_close()
