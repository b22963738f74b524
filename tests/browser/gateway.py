"""The gateway with its page, and callers of it that may do things in all namespaces."""

from pathlib import Path

import gateways
from gateways import RBAC, Account, Answered
from tenant import Tenant
from waiting import until

GROUP = "crewjob.dev"
READ = ["get", "list", "watch"]
WRITE = [*READ, "create", "patch", "update", "delete"]


class Gateway(gateways.Gateway):
    """A gateway with the page, below a path or at the root."""

    def __init__(self, folder: Path, kubeconfig: Path, namespace: str, *options: str, prefix: str = ""):
        self.prefix = prefix
        super().__init__(folder, kubeconfig, namespace, "--page", "--path-prefix", prefix, "--rate-limit", "off", *options)
        self.address = f"http://127.0.0.1:{self.port}{prefix}/"

    def get(self, path: str, token: str | None = None, **headers: str) -> Answered:
        return self.request("GET", f"{self.prefix}/{path}", token, **headers)

    def act(self, token: str | None, body: dict, **headers: str) -> Answered:
        """Asks for an action on jobs."""
        return self.request("POST", f"{self.prefix}/api/jobs/actions", token, body, **headers)

    def jobs(self, token: str, query: str = "") -> dict:
        answer = self.get(f"api/jobs{query}", token)
        assert answer.status == 200, answer
        return answer.json

    def memory(self) -> int:
        """What of it is in memory and no other process shares, in bytes."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        lines = [line.split() for line in rollup.splitlines() if line.startswith("Private_")]
        return sum(int(line[1]) for line in lines) * 1024


def rules(verbs: list[str]) -> list[dict]:
    """Rights on all of this project's kinds, and on what `explain` and `log` read."""
    own = {"apiGroups": [GROUP], "resources": ["crewjobs", "crewschedules", "crewworkerpools"], "verbs": verbs}
    core = {"apiGroups": [""], "resources": ["pods", "pods/log", "configmaps"], "verbs": READ}
    return [own, core]


def everywhere(tenant: Tenant, name: str, *given: dict) -> str:
    """The token of an account with these rights in all namespaces."""
    plane, full = tenant.control_plane, f"{tenant.namespace}-{name}"
    account = Account(tenant, name)
    plane.request("POST", f"{RBAC}/clusterroles", {"metadata": {"name": full}, "rules": list(given)})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": tenant.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": full}
    binding = {"metadata": {"name": full}, "roleRef": reference, "subjects": [subject]}
    plane.request("POST", f"{RBAC}/clusterrolebindings", binding)
    verb = given[0]["verbs"][0]
    until(f"{name} may {verb}", lambda: may(tenant, name, verb, given[0]["resources"][0]))
    return account.token


def may(tenant: Tenant, name: str, verb: str, resource: str) -> bool:
    """Whether the authorizer knows of the right."""
    attributes = {"verb": verb, "group": GROUP, "resource": resource}
    spec = {"user": f"system:serviceaccount:{tenant.namespace}:{name}", "groups": ["system:serviceaccounts"], "resourceAttributes": attributes}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return tenant.control_plane.request("POST", path, review)["status"]["allowed"]
