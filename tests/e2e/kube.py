"""The API server, kubectl and Helm, and waiting for what they show.

What is read again and again is read over a connection that stays: a kubectl for each look takes a third of a processor.
"""

import http.client
import json
import os
import re
import ssl
import subprocess
import threading
import urllib.parse
from functools import cache
from pathlib import Path

NAMESPACE = "crewjob"
RELEASE = "crewjob"
OPERATOR = "crewjob-operator"
WORKER = "crewjob-worker"


def run(command: list[str], given: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=240)


def kubectl(*arguments: str, given: str | None = None) -> str:
    done = run(["kubectl", "-n", NAMESPACE, *arguments], given)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout


def helm(*arguments: str) -> str:
    done = run(["helm", "-n", NAMESPACE, *arguments])
    assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout


def apply(*objects: dict) -> None:
    kubectl("apply", "-f", "-", given=as_list(objects))


def create(*objects: dict) -> None:
    kubectl("create", "-f", "-", given=as_list(objects))


def as_list(objects) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


GROUPS = {
    "crewjobs": "/apis/crewjob.dev/v1alpha1",
    "crewworkerpools": "/apis/crewjob.dev/v1alpha1",
    "deployments": "/apis/apps/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "configmaps": "/api/v1",
    "pods": "/api/v1",
    "secrets": "/api/v1",
}
KEPT = threading.local()


@cache
def server() -> tuple[urllib.parse.SplitResult, str, ssl.SSLContext]:
    """Address, token and certificate of the kubeconfig."""
    text = Path(os.environ["KUBECONFIG"]).read_text()
    field = lambda name: re.search(rf"{name}: *([^\s}}]+)", text)[1]
    authority = ssl.create_default_context(cafile=field("certificate-authority"))
    return urllib.parse.urlsplit(field("server")), field("token"), authority


def read(path: str) -> dict | None:
    """What the API server has under a path, if anything."""
    address, token, authority = server()
    for last in (False, True):
        connection = getattr(KEPT, "connection", None) or http.client.HTTPSConnection(
            address.hostname, address.port, context=authority, timeout=20
        )
        KEPT.connection = connection
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}", "Accept": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            break
        except (OSError, http.client.HTTPException) as error:
            # The server ends a connection that has been idle, or it was restarted.
            connection.close()
            KEPT.connection = None
            assert not last, f"GET {path}: {error}"
    assert answer.status in (200, 404), f"GET {path}: {answer.status} {text.decode()}"
    return json.loads(text) if answer.status == 200 else None


def path_of(kind: str) -> str:
    kind = kind if kind.endswith("s") else f"{kind}s"
    return f"{GROUPS[kind]}/namespaces/{NAMESPACE}/{kind}"


def find(kind: str, name: str) -> dict | None:
    return read(f"{path_of(kind)}/{name}")


def get(kind: str, name: str) -> dict:
    found = find(kind, name)
    assert found is not None, f"there is no {kind} {name}"
    return found


def items(kind: str, selector: str = "") -> list[dict]:
    found = read(f"{path_of(kind)}?labelSelector={urllib.parse.quote(selector)}")
    return found["items"] if found else []


def patch(kind: str, name: str, change: dict) -> None:
    kubectl("patch", kind, name, "--type", "merge", "--patch", json.dumps(change))


def warnings_about(kind: str, name: str) -> list[dict]:
    """The Warning Events about this very object, not about earlier ones of its name."""
    about = f"type=Warning,involvedObject.uid={get(kind, name)['metadata']['uid']}"
    return json.loads(kubectl("get", "events", "--field-selector", about, "-o", "json"))["items"]


class Watch:
    """What a watch on one CrewJob shows of its phase."""

    def __init__(self, name: str):
        shown = ["-o", "jsonpath={.status.phase}{'\\n'}", "--field-selector", f"metadata.name={name}"]
        command = ["kubectl", "-n", NAMESPACE, "get", "crewjobs", "--watch", *shown]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def phases_up_to(self, last: str) -> list[str]:
        """The phases in order, without repetitions."""
        phases: list[str] = []
        for line in self.process.stdout:
            if phases[-1:] != [line.strip()]:
                phases.append(line.strip())
            if phases[-1] == last:
                return phases
        raise AssertionError(f"the watch ended after {phases}")
