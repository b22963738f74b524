"""Jobs, pools and schedules with the statuses that a test wants to see."""

from datetime import UTC, datetime, timedelta

from tenant import Tenant

VERSION = "crewjob.dev/v1alpha1"


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(type_: str, status: str, reason: str, message: str = "") -> dict:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": ago(60)}


class Objects:
    """Objects of a namespace that no operator looks into."""

    def __init__(self, tenant: Tenant):
        self.tenant, self.namespace = tenant, tenant.namespace

    def job(self, name: str, phase: str = "Pending", reason: str = "", labels=None, status=None, message: str = "", **spec) -> dict:
        metadata = {"name": name, "labels": labels or {}}
        spec = {"topic": f"topic of {name}", **spec}
        made = self.tenant.create("crewjobs", {"apiVersion": VERSION, "kind": "CrewJob", "metadata": metadata, "spec": spec})
        found = {"phase": phase, **(status or {})}
        if reason:
            found["conditions"] = [condition("Reconciling", str(phase not in ("Succeeded", "Failed", "Cancelled")), reason, message)]
        self.status(name, **found)
        return made

    def status(self, name: str, **status) -> None:
        self.tenant.patch("crewjobs", name, {"status": status}, "status")

    def pool(self, name: str = "default", status=None, **spec) -> None:
        spec = {"redis": {"secretName": "redis"}, **spec}
        self.tenant.create("crewworkerpools", {"apiVersion": VERSION, "kind": "CrewWorkerPool", "metadata": {"name": name}, "spec": spec})
        if status:
            self.tenant.patch("crewworkerpools", name, {"status": status}, "status")

    def schedule(self, name: str, lines: list[str], status=None, **spec) -> None:
        spec = {"schedules": lines, "template": {"spec": {"topic": f"made by {name}"}}, **spec}
        self.tenant.create("crewschedules", {"apiVersion": VERSION, "kind": "CrewSchedule", "metadata": {"name": name}, "spec": spec})
        if status:
            self.tenant.patch("crewschedules", name, {"status": status}, "status")

    def clear(self) -> None:
        for kind in ("crewjobs", "crewworkerpools", "crewschedules"):
            self.tenant.delete(kind)
