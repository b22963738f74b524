"""What the operator asked of the API server in all of these tests, against what the chart lets it do."""

import json
import os
from collections import Counter
from dataclasses import dataclass

import crew
import kube

USER = f"system:serviceaccount:{kube.NAMESPACE}:{kube.OPERATOR}"

# Granted, and rightly not used by these tests.
LISTED = "only where the API server does not stream the first list of a watch: then it is read page by page"
NOT_USED = {
    ("crewworkerpools", "list"): LISTED,
    ("crewschedules", "list"): LISTED,
    ("deployments", "list"): LISTED,
    ("pods", "list"): LISTED,
    ("leases", "delete"): "a Lease is made anew when its count of transitions is at its end",
    ("configmaps", "get"): "an operator that died between the result's ConfigMap and the status finds it again",
    ("events", "patch"): "an Event that is repeated within minutes is counted up",
    ("pods", "patch"): "for the deletion cost of busy Pods, when some of several workers go",
}


@dataclass(frozen=True)
class Rule:
    """One verb on one resource, in a ClusterRole or a Role."""

    group: str
    resource: str
    verb: str
    namespace: str = ""
    names: tuple[str, ...] = ()

    def allows(self, request: dict) -> bool:
        reference = request["objectRef"]
        resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
        return (
            (self.group, self.resource, self.verb) == (reference.get("apiGroup", ""), resource, request["verb"])
            and self.namespace in ("", reference.get("namespace"))
            and (not self.names or reference.get("name") in self.names)
        )


def requests(since: str) -> list[dict]:
    audit = crew.PROJECT / "tests/cluster/cluster"
    lines = kube.run([str(audit), "--name", os.environ["E2E_CLUSTER"], "audit"]).stdout.splitlines()
    entries = (json.loads(line) for line in lines)
    return [
        entry for entry in entries if entry["user"]["username"] == USER and entry["requestReceivedTimestamp"] > since
    ]


def granted() -> list[Rule]:
    roles = json.loads(
        kube.kubectl("get", "clusterroles,roles", "-l", "app.kubernetes.io/component=operator", "-o", "json")
    )
    return [
        Rule(group, resource, verb, role["metadata"].get("namespace", ""), tuple(rule.get("resourceNames", ())))
        for role in roles["items"]
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def describe(request: dict) -> str:
    reference = request.get("objectRef", {})
    what = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
    return f"{request['verb']} {what} {reference.get('namespace', '')}/{reference.get('name', '')}"


def test_every_right_is_used_and_none_is_missing(installation, figure):
    made = requests(installation)
    rules = granted()
    assert made and rules
    refused = [describe(request) for request in made if request.get("responseStatus", {}).get("code") == 403]
    assert refused == []
    # What every service account may do: API discovery has no object.
    on_objects = [request for request in made if "objectRef" in request]
    beyond = [describe(request) for request in on_objects if not any(rule.allows(request) for rule in rules)]
    assert beyond == []

    used = Counter({rule: sum(rule.allows(request) for request in on_objects) for rule in rules})
    figure("rights of the operator, and how often they were used:")
    for rule, count in sorted(used.items(), key=lambda item: (item[0].resource, item[0].verb)):
        reason = "" if count else NOT_USED.get((rule.resource, rule.verb), "")
        figure(f"  {rule.resource:28} {rule.verb:8} {count:6}  {reason}")
    unused = {(rule.resource, rule.verb) for rule, count in used.items() if not count}
    assert unused - set(NOT_USED) == set()
