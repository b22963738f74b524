"""The gateway as a process, and callers of it with rights of their own."""

import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from servers import CREWJOB, ControlPlane, end, free_port
from tenant import Tenant
from waiting import until

GROUP = "crewjob.dev"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
READ = ["get", "list", "watch"]
WRITE = [*READ, "create", "patch", "update", "delete"]


class Gateway:
    """A gateway with the page."""

    def __init__(self, folder: Path, kubeconfig: Path, *options: str, prefix: str = ""):
        self.port, self.admin, self.prefix = free_port(), free_port(), prefix
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "gateway.log"
        command = [str(CREWJOB), "gateway", "--page", "--address", f"127.0.0.1:{self.port}"]
        command += ["--admin-address", f"127.0.0.1:{self.admin}", "--path-prefix", prefix, "--rate-limit", "off", *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=os.environ | {"KUBECONFIG": str(kubeconfig)}, stdout=log, stderr=log)
        self.address = f"http://127.0.0.1:{self.port}{prefix}/"
        until("the gateway answers", self.answers)

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("")[0] == 200
        except OSError:
            return False

    def get(self, path: str, token: str | None = None, **headers: str) -> tuple[int, str]:
        return self.request("GET", path, token, **headers)

    def request(self, method: str, path: str, token: str | None = None, body=None, **headers: str) -> tuple[int, str]:
        """Status and text of an answer."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            given["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            given.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(self.address + path, data, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def jobs(self, token: str, query: str = "") -> dict:
        status, text = self.get(f"api/jobs{query}", token)
        assert status == 200, text
        return json.loads(text)

    def memory(self) -> int:
        """What of it is in memory and no other process shares, in bytes."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        lines = [line.split() for line in rollup.splitlines() if line.startswith("Private_")]
        return sum(int(line[1]) for line in lines) * 1024

    def stop(self) -> None:
        if self.process.poll() is None:
            end(self.process)


def token(tenant: Tenant, name: str) -> str:
    """A token of a ServiceAccount of the namespace."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
    return tenant.control_plane.request("POST", tenant.path("serviceaccounts", name, "token"), request)["status"]["token"]


def caller(tenant: Tenant, name: str, rules: list[dict], everywhere: bool = False) -> str:
    """A ServiceAccount with these rights in its namespace, or in all; its token."""
    plane: ControlPlane = tenant.control_plane
    tenant.create("serviceaccounts", {"metadata": {"name": name}})
    full = f"{tenant.namespace}-{name}"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": tenant.namespace}
    plane.request("POST", f"{RBAC}/clusterroles", {"metadata": {"name": full}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": full}
    binding = {"metadata": {"name": full}, "roleRef": reference, "subjects": [subject]}
    place = f"{RBAC}/clusterrolebindings" if everywhere else f"{RBAC}/namespaces/{tenant.namespace}/rolebindings"
    plane.request("POST", place, binding)
    return token(tenant, name)


def rules(verbs: list[str]) -> list[dict]:
    """Rights on all of this project's kinds, and on what `explain` and `log` read."""
    own = {"apiGroups": [GROUP], "resources": ["crewjobs", "crewschedules", "crewworkerpools"], "verbs": verbs}
    core = {"apiGroups": [""], "resources": ["pods", "pods/log", "configmaps"], "verbs": READ}
    return [own, core]
