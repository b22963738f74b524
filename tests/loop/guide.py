"""The commands and manifests of a document, and what runs them: a shell with kubectl, Helm and `kubectl crewjob`, and in place of
Pods a process for each Deployment of workers that is there."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from servers import CREWJOB, EXAMPLE, HERE, PACKAGE, ControlPlane, NativeWorker, Operator

from waiting import until

PROJECT = HERE.parents[1]
NAMESPACES = ("crewjob", "research")
FENCE = re.compile(r"^```(\S*) *(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
# Nothing waits for Pods here, and the CRDs are there.
HELM = """#!/bin/bash
case $1 in install | upgrade) set -- "$@" --no-hooks --skip-crds ;; esac
exec {helm} "$@"
"""


@dataclass(frozen=True)
class Block:
    """What stands between fences: `run` is for these tests, `pods` needs Pods, `text` is no command."""

    document: str
    line: int
    language: str
    use: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: str) -> list[Block]:
    text = (PROJECT / document).read_text()
    found = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(document, line, match[1], match[2], match[3]))
    return found


class Workers(NativeWorker):
    """A worker as the Pod of a Deployment would start it."""

    def __init__(self, folder: Path, name: str, deployment: dict, env: dict[str, str], tasks: str | None):
        container = next(it for it in deployment["spec"]["template"]["spec"]["containers"] if it["name"] == "worker")
        arguments = [text.replace("$(POD_NAME)", f"{name}.elsewhere") for text in container["args"]]
        if container["command"] == ["celery"]:
            command = [sys.executable, "-m", "celery", *arguments]
            python = [str(PACKAGE), str(folder), str(EXAMPLE)]
        else:
            (folder / "mounted-tasks.yaml").write_text(tasks)
            replaced = {"/etc/crewjob/tasks/tasks.yaml": str(folder / "mounted-tasks.yaml"), "[::]:8081": "127.0.0.1:0"}
            command = [str(CREWJOB), "worker", *(replaced.get(text, text) for text in arguments)]
            python = []
        plain = {it["name"]: it["value"] for it in container["env"] if "value" in it and it["name"] != "HOME"}
        variables = os.environ | plain | env | {"PYTHONPATH": ":".join(python)}
        self.log = folder / f"{name}.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Reader:
    """A person that follows documents, in a folder of their own, with a cluster and a Redis."""

    def __init__(self, control_plane: ControlPlane, folder: Path, redis_url: str):
        self.control_plane, self.folder = control_plane, folder
        self.operator: Operator | None = None
        self.workers: dict[str, tuple[str, Workers]] = {}
        programs = folder / "bin"
        programs.mkdir()
        found = re.search(r"PATH=['\"]?([^:'\"]+)", control_plane.run("env"))[1]
        (programs / "helm").write_text(HELM.format(helm=f"{found}/helm"))
        (programs / "helm").chmod(0o755)
        for name, program in {"kubectl": f"{found}/kubectl", "crewjob": CREWJOB, "kubectl-crewjob": CREWJOB}.items():
            (programs / name).symlink_to(program)
        for name in ("charts", "examples"):
            (folder / name).symlink_to(PROJECT / name)
        # Of its own, since documents set the namespace.
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(control_plane.kubeconfig.read_text())
        path = f"{programs}:{os.environ['PATH']}"
        self.env = os.environ | {"PATH": path, "KUBECONFIG": str(kubeconfig), "REDIS_URL": redis_url}

    def follow(self, document: str) -> None:
        """Does what the document says, block by block."""
        for block in blocks(document):
            use, _, name = block.use.partition(" ")
            if use == "run" and name:
                (self.folder / name).write_text(block.text)
            elif use == "run":
                self.run(block)
                self.bring_up()

    def run(self, block: Block) -> None:
        command = ["timeout", "--verbose", "60", "bash", "-euo", "pipefail", "-c", block.text]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True)
        logs = [worker.log.read_text()[-2000:] for _, worker in self.workers.values()]
        operator = self.operator.said(20) if self.operator else ""
        assert done.returncode == 0, "\n".join([block.place, done.stdout, done.stderr, operator, *logs])

    def bring_up(self) -> None:
        """Starts what the cluster's Deployments name by now, each as one process."""
        if self.operator is None and self.deployments("crewjob").get("crewjob-operator"):
            self.operator = Operator(self.folder, self.control_plane.kubeconfig, "crewjob", list(NAMESPACES))
            self.operator.start()
        for namespace in NAMESPACES:
            for name, deployment in self.deployments(namespace).items():
                template = json.dumps(deployment["spec"]["template"])
                started, worker = self.workers.get(f"{namespace}-{name}", (None, None))
                if name == "crewjob-operator" or started == template:
                    continue
                if worker:
                    worker.stop()
                self.workers[f"{namespace}-{name}"] = template, self.started(namespace, name, deployment)

    def started(self, namespace: str, name: str, deployment: dict) -> Workers:
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        env = {}
        for variable in container["env"]:
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                value = self.get(namespace, "secret", reference["name"])["data"].get(reference["key"])
                env |= {variable["name"]: base64.b64decode(value).decode()} if value else {}
        tasks = self.get(namespace, "configmap", f"{name}-tasks")
        return Workers(self.folder, f"{namespace}-{name}", deployment, env, tasks and tasks["data"]["tasks.yaml"])

    def deployments(self, namespace: str) -> dict[str, dict]:
        listed = json.loads(self.control_plane.kubectl("get", "deployments", "-n", namespace, "-o", "json"))
        return {it["metadata"]["name"]: it for it in listed["items"]}

    def get(self, namespace: str, kind: str, name: str) -> dict | None:
        text = self.control_plane.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def leave(self) -> None:
        """Removes all that was made."""
        for _, worker in self.workers.values():
            worker.stop()
        for namespace in NAMESPACES:
            made = "crewjobs,crewworkerpools,deployments,secrets,configmaps,serviceaccounts,roles,rolebindings"
            if self.get("", "namespace", namespace):
                self.control_plane.kubectl("-n", namespace, "delete", made, "--all")
        if self.operator:
            until("no job is left", lambda: '"items": []' in self.control_plane.kubectl("get", "crewjobs", "-A", "-o", "json"))
            self.operator.stop()
        self.control_plane.run("helm", "uninstall", "crewjob", "-n", "crewjob", "--ignore-not-found", "--no-hooks")
        for namespace in NAMESPACES:
            self.control_plane.kubectl("-n", namespace, "delete", "leases,poddisruptionbudgets,services,events", "--all")
            self.control_plane.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
            finalize = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}, "spec": {}}
            if self.get("", "namespace", namespace):
                path = f"/api/v1/namespaces/{namespace}/finalize"
                self.control_plane.kubectl("replace", "--raw", path, "-f", "-", given=json.dumps(finalize))


