"""A tenant: one namespace with its pools, jobs, Deployments and Pods, as its people would make them."""

import uuid
from datetime import UTC, datetime

from servers import ControlPlane, Redis, Refused
from waiting import until

GROUP = "/apis/crewjob.dev/v1alpha1"
FINAL = ("Succeeded", "Failed", "Cancelled")
WORKER_LABELS = {"app": "worker"}
PATHS = {
    "crewjobs": GROUP,
    "crewschedules": GROUP,
    "crewworkerpools": GROUP,
    "deployments": "/apis/apps/v1",
    "replicasets": "/apis/apps/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "resourcequotas": "/api/v1",
    "pods": "/api/v1",
    "secrets": "/api/v1",
    "serviceaccounts": "/api/v1",
    "configmaps": "/api/v1",
    "events": "/api/v1",
}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Tenant:
    """The resources of one namespace."""

    def __init__(self, control_plane: ControlPlane, namespace: str):
        self.control_plane, self.namespace = control_plane, namespace

    # === any resource ===

    def path(self, kind: str, name: str = "", subresource: str = "") -> str:
        return "/".join(part for part in (f"{PATHS[kind]}/namespaces/{self.namespace}/{kind}", name, subresource) if part)

    def create(self, kind: str, body: dict) -> dict:
        return self.control_plane.request("POST", self.path(kind), body)

    def get(self, kind: str, name: str) -> dict | None:
        try:
            return self.control_plane.request("GET", self.path(kind, name))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def items(self, kind: str, selector: str = "") -> list[dict]:
        return self.control_plane.request("GET", self.path(kind) + selector)["items"]

    def patch(self, kind: str, name: str, change: dict, subresource: str = "") -> dict:
        path = self.path(kind, name, subresource)
        return self.control_plane.request("PATCH", path, change, "application/merge-patch+json")

    def delete(self, kind: str, name: str = "", **options) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options} if options else None
        self.control_plane.request("DELETE", self.path(kind, name), body)

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        return self.control_plane.kubectl("-n", self.namespace, *arguments, given=given)

    # === pools and jobs ===

    def secret(self, name: str, labelled: bool = True, **data: str) -> None:
        labels = {"crewjob.dev/redis": "true"} if labelled else {}
        body = {"metadata": {"name": name, "labels": labels}, "stringData": data}
        if self.get("secrets", name):
            self.patch("secrets", name, body)
        else:
            self.create("secrets", body)

    def pool(self, redis: Redis, name: str = "default", ready: bool = True, **spec) -> None:
        """A pool on this Redis, without a Deployment unless the spec names one; waits until it is ready."""
        self.secret(f"redis-{name}", REDIS_URL=redis.url)
        self.pool_with(f"redis-{name}", name, **spec)
        if ready:
            until(f"pool {name} is ready", lambda: self.pool_condition("BrokerReachable", name).get("status") == "True")

    def pool_with(self, secret: str, name: str, **spec) -> None:
        """A pool that names a Secret, which need not be there."""
        api = {"apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewWorkerPool"}
        self.create("crewworkerpools", {**api, "metadata": {"name": name}, "spec": {"redis": {"secretName": secret}, **spec}})

    def pool_status(self, name: str = "default") -> dict:
        return (self.get("crewworkerpools", name) or {}).get("status", {})

    def pool_condition(self, type_: str, name: str = "default") -> dict:
        conditions = self.pool_status(name).get("conditions", [])
        return next((found for found in conditions if found["type"] == type_), {})

    def job(self, name: str, labels: dict[str, str] | None = None, **spec) -> dict:
        spec = {"topic": f"topic of {name}", **spec}
        api = {"apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob"}
        return self.create("crewjobs", {**api, "metadata": {"name": name, "labels": labels or {}}, "spec": spec})

    def task(self, name: str, attempt: int = 1) -> str:
        """The Celery task id of an attempt, as the operator derives it: known before it is recorded."""
        return str(uuid.uuid5(uuid.UUID(self.get("crewjobs", name)["metadata"]["uid"]), str(attempt)))

    def status(self, name: str) -> dict:
        return (self.get("crewjobs", name) or {}).get("status", {})

    def condition(self, name: str, type_: str = "Reconciling") -> dict:
        return next((found for found in self.status(name).get("conditions", []) if found["type"] == type_), {})

    def in_phase(self, name: str, *phases: str, seconds: float = 30) -> dict:
        """Waits for one of the phases, and returns the status."""

        def reached():
            status = self.status(name)
            phase = status.get("phase")
            assert phase in phases or phase not in FINAL, f"{name} is {phase}: {status}"
            return status if phase in phases else None

        return until(f"{name} is {' or '.join(phases)}", reached, seconds)

    def change(self, name: str, **spec) -> None:
        self.patch("crewjobs", name, {"spec": spec})

    def warnings(self, kind: str, name: str) -> list[dict]:
        uid = self.get(kind, name)["metadata"]["uid"]
        return self.items("events", f"?fieldSelector=type=Warning,involvedObject.uid={uid}")

    # === workers, as objects ===

    def deployment(self, name: str = "worker", grace: int = 3660, replicas: int | None = 0, selector=None, **pod_spec) -> dict:
        """A Deployment with a ReplicaSet, as the controllers of a cluster would have it. Without replicas no client owns them."""
        containers = pod_spec.pop("containers", [{"name": "worker", "image": "worker"}])
        template = {
            "metadata": {"labels": WORKER_LABELS | {"pod-template-hash": "7d4b9c5f6d"}},
            "spec": {"terminationGracePeriodSeconds": grace, "containers": containers, **pod_spec},
        }
        selector = selector or {"matchLabels": WORKER_LABELS}
        spec = {"selector": selector, "template": template} | ({} if replicas is None else {"replicas": replicas})
        made = self.create("deployments", {"metadata": {"name": name}, "spec": spec})
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": made["metadata"]["uid"], "controller": True}
        metadata = {"name": f"{name}-7d4b9c5f6d", "ownerReferences": [owner]}
        self.create("replicasets", {"metadata": metadata, "spec": spec})
        return made

    def pod(self, name: str = "worker-7d4b9c5f6d-x2x7q", deployment: str | None = "worker", labels=None, **spec) -> dict:
        """A Pod of a Deployment, or of none; not running yet: see `runs`."""
        metadata = {"name": name, "labels": labels or WORKER_LABELS | {"pod-template-hash": "7d4b9c5f6d"}}
        metadata |= {"annotations": spec.pop("annotations", {})}
        if deployment:
            owner = self.get("replicasets", f"{deployment}-7d4b9c5f6d")
            reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner["metadata"]["name"]}
            metadata["ownerReferences"] = [reference | {"uid": owner["metadata"]["uid"], "controller": True}]
        spec = {"containers": [{"name": "worker", "image": "worker"}], "terminationGracePeriodSeconds": 3660, **spec}
        spec = {"automountServiceAccountToken": False, "nodeName": "node", **spec}
        return self.create("pods", {"metadata": metadata, "spec": spec})

    def runs(self, name: str = "worker-7d4b9c5f6d-x2x7q", ready: bool = True, **states: dict) -> None:
        """Writes the status of a Pod as its kubelet would. `states` by container: a container's `state` and what goes with it."""
        pod = self.get("pods", name)
        containers = [container["name"] for container in pod["spec"]["containers"]]
        running = {"state": {"running": {"startedAt": now()}}, "restartCount": 0}

        def status(container: str) -> dict:
            found = {"containerID": f"containerd://{container}-{uuid.uuid4().hex}", **running, **states.get(container, {})}
            return {"name": container, "image": "worker", "imageID": "", "ready": ready, **found}

        conditions = [{"type": kind, "status": str(ready)} for kind in ("Ready", "ContainersReady")]
        change = {"phase": "Running", "conditions": conditions, "containerStatuses": [status(name) for name in sorted(containers)]}
        self.patch("pods", name, {"status": change}, "status")

    def terminates(self, name: str, container: str = "worker", exit_code: int = 137) -> None:
        """A container of a Pod ends, and is not started again yet."""
        statuses = self.get("pods", name)["status"]["containerStatuses"]
        for status in statuses:
            if status["name"] == container:
                began = status["state"]["running"]["startedAt"]
                over = {"exitCode": exit_code, "startedAt": began, "finishedAt": now(), "containerID": status["containerID"]}
                status |= {"state": {"terminated": over}, "ready": False}
        self.patch("pods", name, {"status": {"containerStatuses": statuses}}, "status")

    def is_leaving(self, name: str) -> bool:
        """Whether a Pod was deleted, or is being."""
        pod = self.get("pods", name)
        return not pod or "deletionTimestamp" in pod["metadata"]

    def vanishes(self, name: str) -> None:
        """A Pod is deleted by force."""
        self.delete("pods", name, gracePeriodSeconds=0)
