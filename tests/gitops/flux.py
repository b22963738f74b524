"""Flux's controllers, built once per machine from their Go modules and run as processes beside the API server."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "e2e"))

import bed  # noqa: E402
from servers import ControlPlane, end, free_port  # noqa: E402
from waiting import until  # noqa: E402

# Those of Flux 2.9.
# What a controller asks for and the Go module proxies do not all have, and what takes its place.
INSTEAD = {"source-controller": ["github.com/fluxcd/pkg/artifact@v0.18.0"]}
VERSIONS = {"source-controller": "v1.9.6", "kustomize-controller": "v1.9.6", "helm-controller": "v1.6.1"}
APIS = {
    "gitrepositories": "/apis/source.toolkit.fluxcd.io/v1",
    "kustomizations": "/apis/kustomize.toolkit.fluxcd.io/v1",
    "helmreleases": "/apis/helm.toolkit.fluxcd.io/v2",
}


def built(name: str) -> Path:
    """The folder with the program and the CRDs of a controller."""
    folder = bed.cache_dir() / f"flux-{name}-{VERSIONS[name]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "flux.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            print(f"building Flux's {name} {VERSIONS[name]} (some minutes) ...", file=sys.stderr, flush=True)
            build(name, folder)
    return folder


def build(name: str, folder: Path) -> None:
    module = f"github.com/fluxcd/{name}"
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source"
        go = lambda *arguments, **options: subprocess.run(["go", *arguments], check=True, text=True, **options)  # noqa: E731
        told = go("mod", "download", "-json", f"{module}@{VERSIONS[name]}", cwd=temporary, stdout=subprocess.PIPE)
        shutil.copytree(json.loads(told.stdout)["Dir"], source)
        for path in [source, *source.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)
        # Its API is a module of its own, which the archive of this one does not have.
        go("mod", "edit", f"-dropreplace={module}/api", cwd=source)
        for other in INSTEAD.get(name, []):
            go("mod", "edit", f"-require={other}", cwd=source)
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        command = ["nice", "go", "build", "-mod=mod", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", str(part / name), "."]
        subprocess.run(command, cwd=source, env=os.environ | {"CGO_ENABLED": "0"}, check=True)
        shutil.copytree(source / "config/crd/bases", part / "crds")
        part.rename(folder)


class Flux:
    """The controllers, and what tests ask of them."""

    def __init__(self, control_plane: ControlPlane, folder: Path):
        self.control_plane, self.folder = control_plane, folder
        self.processes: list[subprocess.Popen] = []
        programs = {name: built(name) for name in VERSIONS}
        for program in programs.values():
            control_plane.kubectl("apply", "--server-side", "-f", str(program / "crds"))
        artifacts = f"127.0.0.1:{free_port()}"
        (folder / "storage").mkdir()
        storage = ["--storage-path", str(folder / "storage"), "--storage-addr", artifacts, "--storage-adv-addr", artifacts]
        # As docs/gitops.md advises: else a commit waits for the jobs of the commit before it.
        options = {"source-controller": storage, "kustomize-controller": ["--feature-gates=CancelHealthCheckOnNewRevision=true"]}
        for name, program in programs.items():
            self.start(name, program / name, *options.get(name, []))

    def start(self, name: str, program: Path, *options: str) -> None:
        command = [str(program), "--watch-all-namespaces", "--enable-leader-election=false", "--log-level=info", *options]
        command += [f"--metrics-addr=127.0.0.1:{free_port()}", f"--health-addr=127.0.0.1:{free_port()}", "--events-addr="]
        env = os.environ | {"KUBECONFIG": str(self.control_plane.kubeconfig), "RUNTIME_NAMESPACE": "default"}
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes.append(subprocess.Popen(command, env=env, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT))

    def stop(self) -> None:
        for process in self.processes:
            end(process)

    def path(self, kind: str, namespace: str, name: str = "") -> str:
        return f"{APIS[kind]}/namespaces/{namespace}/{kind}/{name}".rstrip("/")

    def ready(self, kind: str, namespace: str, name: str) -> tuple[str, str]:
        """What the condition Ready says of the object as it is now: status and message."""
        item = self.control_plane.request("GET", self.path(kind, namespace, name))
        conditions = item.get("status", {}).get("conditions", [])
        found = next((it for it in conditions if it["type"] == "Ready"), {})
        is_new = item["metadata"]["generation"] != found.get("observedGeneration")
        return ("Unknown", "not looked at") if is_new else (found["status"], found.get("message", ""))

    def is_ready(self, kind: str, namespace: str, name: str, seconds: float = 60) -> None:
        until(f"{kind} {name} is ready", lambda: self.ready(kind, namespace, name)[0] == "True", seconds)

    def sync(self, kind: str, namespace: str, name: str) -> str:
        """Asks for a sync as `flux reconcile` does."""
        token = str(time.time_ns())
        change = {"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": token}}}
        self.control_plane.request("PATCH", self.path(kind, namespace, name), change, "application/merge-patch+json")
        return token

    def synced(self, kind: str, namespace: str, name: str, seconds: float = 60) -> None:
        """Asks for a sync and waits until it was done."""
        token = self.sync(kind, namespace, name)
        look = lambda: self.control_plane.request("GET", self.path(kind, namespace, name))["status"]  # noqa: E731
        until(f"{kind} {name} is synced", lambda: look().get("lastHandledReconcileAt") == token, seconds)

    def said(self, name: str, last: int = 20) -> str:
        return "\n".join((self.folder / f"{name}.log").read_text().splitlines()[-last:])
