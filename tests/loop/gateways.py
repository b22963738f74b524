"""The gateway as a process, and what callers of it need: tokens of service accounts with rights of their own."""

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from servers import CREWJOB, ControlPlane, end, free_port
from tenant import GROUP, Tenant
from waiting import until

RBAC = "/apis/rbac.authorization.k8s.io/v1"
JOBS = {"apiGroups": ["crewjob.dev"], "resources": ["crewjobs"], "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]}
OTHERS = {"apiGroups": ["crewjob.dev"], "resources": ["crewworkerpools", "crewschedules"], "verbs": ["get", "list"]}
RESULTS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
PROBLEMS = "https://crewjob.dev/problems/"


@dataclass(frozen=True)
class Answered:
    """An answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self):
        return json.loads(self.text)

    @property
    def problem(self) -> str:
        """The kind of a problem."""
        assert self.headers.get("content-type") == "application/problem+json", (self.status, self.headers, self.text)
        assert self.json["status"] == self.status, self.text
        return self.json["type"].removeprefix(PROBLEMS)


class Gateway:
    """The gateway as a process. Environment variables in lower case are written in upper case."""

    def __init__(self, folder: Path, kubeconfig: Path, namespace: str, *options: str, **env: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.admin_port = free_port(), free_port()
        self.log = folder / f"gateway-{self.port}.log"
        command = [str(CREWJOB), "gateway", "--address", f"127.0.0.1:{self.port}", "--admin-address", f"127.0.0.1:{self.admin_port}"]
        command += ["--namespace", namespace, *options]
        variables = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_")}
        variables |= {"KUBECONFIG": str(kubeconfig)} | {name.upper(): value for name, value in env.items()}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)
        until("the gateway listens", self.listens, 10)

    def listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            end(self.process)

    def request(self, method: str, path: str, token: str | None = None, body=None, **headers: str) -> Answered:
        """One request on a connection of its own. Headers in lower case with underscores for dashes; a body that is no text is JSON."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent |= {"authorization": f"Bearer {token}"}
        if body is not None and not isinstance(body, str | bytes):
            body = json.dumps(body)
        if method in ("POST", "PUT"):
            sent = {"content-type": "application/json"} | sent
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
            return Answered(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)
        finally:
            connection.close()

    def submit(self, token: str | None, key: str | None = None, **body) -> Answered:
        headers = {"idempotency_key": key} if key else {}
        return self.request("POST", "/api/submit", token, {"topic": "bees", **body}, **headers)

    def metric(self, name: str) -> float:
        """The sum of a metric over all its series."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line))


class Events:
    """A stream of events that is read as it comes."""

    def __init__(self, gateway: Gateway, token: str, job: str, last: str | None = None):
        self.connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        headers = {"authorization": f"Bearer {token}"} | ({"last-event-id": last} if last else {})
        self.connection.request("GET", f"/api/events/{job}", headers=headers)
        self.answer = self.connection.getresponse()

    def __iter__(self) -> Iterator[tuple[str, str, dict]]:
        """Name, id and data of each event, until the stream ends."""
        event: dict[str, str] = {}
        while line := self.answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name in ("event", "id", "data"):
                event[name] = value
            elif not name and "data" in event:
                yield event["event"], event.get("id", ""), json.loads(event["data"])
                event = {}

    def close(self) -> None:
        self.connection.close()


class Account:
    """A service account of a tenant with a role of its own, and a token of it."""

    def __init__(self, tenant: Tenant, name: str, *rules: dict):
        self.tenant, self.name = tenant, name
        control_plane, namespace = tenant.control_plane, tenant.namespace
        tenant.create("serviceaccounts", {"metadata": {"name": name}})
        roles = f"{RBAC}/namespaces/{namespace}"
        if rules:
            control_plane.request("POST", f"{roles}/roles", {"metadata": {"name": name}, "rules": list(rules)})
            subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
            binding = {"metadata": {"name": name}, "subjects": [subject], "roleRef": reference}
            control_plane.request("POST", f"{roles}/rolebindings", binding)
        self.token = self.another_token()
        if rules:
            # The authorizer learns of a new role by a watch.
            until(f"{name} may read jobs", lambda: self.may_read_jobs())

    def another_token(self) -> str:
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
        path = self.tenant.path("serviceaccounts", self.name, "token")
        return self.tenant.control_plane.request("POST", path, request)["status"]["token"]

    def may_read_jobs(self) -> bool:
        user = f"system:serviceaccount:{self.tenant.namespace}:{self.name}"
        attributes = {"namespace": self.tenant.namespace, "verb": "get", "group": "crewjob.dev", "resource": "crewjobs"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": ["system:serviceaccounts"], "resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return self.tenant.control_plane.request("POST", path, review)["status"]["allowed"]

    def expired_token(self) -> str:
        """A token as the API server has made one, with its own key, that was valid until a minute ago."""
        head, payload, _ = self.token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        now = int(time.time())
        claims |= {"iat": now - 700, "nbf": now - 700, "exp": now - 60}
        text = f"{head}.{encoded(json.dumps(claims).encode())}"
        return f"{text}.{encoded(signature(self.tenant.control_plane, text.encode()))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signature(control_plane: ControlPlane, text: bytes) -> bytes:
    """ES256: two numbers of 32 bytes, which openssl writes as DER."""
    key = control_plane.kubeconfig.parent / "pki/service-accounts.key"
    command = ["openssl", "dgst", "-sha256", "-sign", str(key)]
    der = subprocess.run(command, input=text, capture_output=True, check=True).stdout
    numbers, rest = b"", der[2:]
    for _ in range(2):
        length = rest[1]
        numbers += rest[2 : 2 + length].lstrip(b"\0").rjust(32, b"\0")
        rest = rest[2 + length :]
    return numbers


def crewjobs(namespace: str, name: str = "") -> str:
    """The path of Kubernetes for the jobs of a namespace, or one of them."""
    return f"{GROUP}/namespaces/{namespace}/crewjobs" + (f"/{name}" if name else "")
