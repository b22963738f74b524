"""The permissions of each service account and role: exactly these, and no others."""

import re

import pytest
from chart import BUNDLED, CHART, PROJECT, SCENARIOS, find, hook, names, of_kind, render

CRDS = "crewjobs.crewjob.dev,crewschedules.crewjob.dev,crewworkerpools.crewjob.dev"

EVERYWHERE = {
    ("crewjob.dev", "crewjobs", "", "create delete get list patch watch"),
    ("crewjob.dev", "crewschedules", "", "get list watch"),
    ("crewjob.dev", "crewworkerpools", "", "list watch"),
    ("crewjob.dev", "crewjobs/status", "", "patch"),
    ("crewjob.dev", "crewschedules/status", "", "patch"),
    ("crewjob.dev", "crewworkerpools/status", "", "patch"),
    ("events.k8s.io", "events", "", "create patch"),
    ("", "namespaces", "kube-system", "get"),
    ("apiextensions.k8s.io", "customresourcedefinitions", CRDS, "get"),
}
OWN_NAMESPACE = {
    ("coordination.k8s.io", "leases", "", "create"),
    ("coordination.k8s.io", "leases", "crewjob-operator", "delete get update"),
}
POOL_NAMESPACE = {
    ("", "pods", "", "delete list patch watch"),
    ("apps", "deployments", "", "list watch"),
    ("apps", "deployments/scale", "", "patch"),
    ("", "configmaps", "", "create delete get list update"),
    ("", "secrets", "", "get"),
}


def rules(role: dict) -> set[tuple[str, str, str, str]]:
    return {
        (group, resource, ",".join(sorted(rule.get("resourceNames", []))), " ".join(sorted(rule["verbs"])))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def granted(objects: list[dict], account: str) -> dict[str, set]:
    """What a ServiceAccount may do, by namespace; "*" is everywhere."""
    result = {}
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        if {"kind": "ServiceAccount", "name": account, "namespace": "crewjob"} in binding["subjects"]:
            namespace = binding["metadata"].get("namespace", "*")
            roles = of_kind(objects, binding["roleRef"]["kind"])
            role = next(
                role
                for role in roles
                if role["metadata"]["name"] == binding["roleRef"]["name"]
                and role["metadata"].get("namespace", "*") == ("*" if role["kind"] == "ClusterRole" else namespace)
            )
            result[namespace] = result.get(namespace, set()) | rules(role)
    return result


def test_the_operator_has_the_permissions_that_its_calls_need_and_no_more():
    assert granted(render(BUNDLED), "crewjob-operator") == {"*": EVERYWHERE, "crewjob": OWN_NAMESPACE | POOL_NAMESPACE}


def test_doctor_asks_for_the_rights_that_the_chart_grants():
    text = (PROJECT / "src/ctl/doctor/rights.rs").read_text()
    asked = lambda name: {  # noqa: E731
        found for found in re.findall(r'\(\s*"([^"]*)",\s*"([^"]+)",\s*"([^"]*)",\s*"([^"]+)",?\s*\)', text.split(f"const {name}:")[1].split(";")[0])
    }
    lease, secret = ("LEASE", "crewjob-operator"), ("SECRET", "")
    named = lambda rules: {tuple(part.replace(*lease).replace(*secret) for part in rule) for rule in rules}  # noqa: E731
    granted_rules = (EVERYWHERE, OWN_NAMESPACE, POOL_NAMESPACE)
    assert tuple(named(asked(name)) for name in ("EVERYWHERE", "LEASES", "POOLS")) == granted_rules


def test_pools_elsewhere_are_granted_by_roles_in_their_namespaces():
    objects = render(BUNDLED, 'poolNamespaces=["research","crewjob"]')
    assert granted(objects, "crewjob-operator") == {
        "*": EVERYWHERE,
        "crewjob": OWN_NAMESPACE | POOL_NAMESPACE,
        "research": POOL_NAMESPACE,
    }


def test_without_the_default_pool_the_operator_reads_no_secret_of_its_own_namespace():
    objects = render(scenario="operator-only")
    assert granted(objects, "crewjob-operator") == {
        "*": EVERYWHERE,
        "crewjob": OWN_NAMESPACE,
        "research": POOL_NAMESPACE,
    }


def test_the_operator_is_told_the_namespaces_it_may_use():
    for sets, expected in [([], "crewjob"), (['poolNamespaces=["research"]'], "crewjob,research")]:
        objects = render(BUNDLED, *sets)
        container = find(objects, "Deployment", "crewjob-operator")["spec"]["template"]["spec"]["containers"][0]
        said = {item["name"]: item.get("value") for item in container["env"]}["CREWJOB_POOL_NAMESPACES"]
        assert said == expected
        with_secrets = {name for name, verbs in granted(objects, "crewjob-operator").items() if POOL_NAMESPACE <= verbs}
        assert with_secrets == set(said.split(","))


SELECTED = ("poolNamespaceSelector=crewjob.dev/pools=true",)


def test_namespaces_found_by_a_label_need_a_binding_each_and_no_restart():
    objects = render(BUNDLED, *SELECTED)
    container = find(objects, "Deployment", "crewjob-operator")["spec"]["template"]["spec"]["containers"][0]
    env = {item["name"]: item.get("value") for item in container["env"]}
    assert env["CREWJOB_POOL_NAMESPACE_SELECTOR"] == "crewjob.dev/pools=true"
    # The label grants nothing.
    watched = {("", "namespaces", "", "list watch")}
    expected = {"*": EVERYWHERE | watched, "crewjob": OWN_NAMESPACE | POOL_NAMESPACE}
    assert granted(objects, "crewjob-operator") == expected
    assert rules(find(objects, "ClusterRole", "crewjob-operator-pools")) == POOL_NAMESPACE


def test_the_documented_binding_is_of_the_role_that_the_chart_makes():
    readme = (CHART / "README.md").read_text()
    assert "--clusterrole=crewjob-operator-pools --serviceaccount=crewjob:crewjob-operator" in readme
    objects = render(BUNDLED, *SELECTED)
    find(objects, "ClusterRole", "crewjob-operator-pools")
    find(objects, "ServiceAccount", "crewjob-operator")


def test_without_a_selector_namespaces_are_not_watched():
    objects = render(BUNDLED)
    assert "ClusterRole/crewjob-operator-pools" not in names(objects)
    container = find(objects, "Deployment", "crewjob-operator")["spec"]["template"]["spec"]["containers"][0]
    assert "CREWJOB_POOL_NAMESPACE_SELECTOR" not in str(container)


def test_the_secrets_that_the_operator_reads_may_be_named():
    named = (BUNDLED, *SELECTED, 'rbac.secretNames=["theirs"]', 'poolNamespaces=["research"]')
    objects = render(*named)

    def readable(role):
        (found,) = [names for _, resource, names, verbs in rules(role) if resource == "secrets" and verbs == "get"]
        return set(found.split(","))

    in_namespaces = {role["metadata"]["namespace"]: role for role in of_kind(objects, "Role") if "pods" in str(role)}
    assert readable(in_namespaces["crewjob"]) == {"theirs", "crewjob-redis"}
    assert readable(in_namespaces["research"]) == {"theirs"}
    assert readable(find(objects, "ClusterRole", "crewjob-operator-pools")) == {"theirs"}


def test_the_lease_is_the_one_that_may_be_updated():
    objects = render(BUNDLED, release="other")
    container = find(objects, "Deployment", "other-operator")["spec"]["template"]["spec"]["containers"][0]
    lease = {item["name"]: item.get("value") for item in container["env"]}["CREWJOB_LEASE_NAME"]
    assert ("coordination.k8s.io", "leases", lease, "delete get update") in rules(find(objects, "Role", "other-operator"))


def test_the_crd_job_may_touch_the_two_crds_only():
    expected = {("apiextensions.k8s.io", "customresourcedefinitions", CRDS, "create get patch")}
    assert granted(render(BUNDLED), "crewjob-crds") == {"*": expected}


def test_the_clusters_roles_are_extended():
    objects = render(BUNDLED)
    write = "create delete deletecollection patch update"
    expected = {
        "view": {
            ("crewjob.dev", "crewjobs", "", "get list watch"),
            ("crewjob.dev", "crewschedules", "", "get list watch"),
            ("crewjob.dev", "crewworkerpools", "", "get list watch"),
        },
        "edit": {("crewjob.dev", "crewjobs", "", write), ("crewjob.dev", "crewschedules", "", write)},
        "admin": {("crewjob.dev", "crewworkerpools", "", write)},
    }
    for target, verbs in expected.items():
        role = find(objects, "ClusterRole", f"crewjob-{target}")
        aggregated = {key for key in role["metadata"]["labels"] if "aggregate-to" in key}
        assert aggregated == {f"rbac.authorization.k8s.io/aggregate-to-{target}"}
        assert rules(role) == verbs


def test_a_second_release_in_the_cluster_would_meet_the_first():
    shared = set(names(render(BUNDLED))) & set(names(render(BUNDLED, release="other", namespace="other")))
    assert {"ClusterRole/crewjob-view", "ClusterRole/crewjob-edit", "ClusterRole/crewjob-admin"} <= shared


def test_roles_can_be_left_to_the_administrator():
    left = render(BUNDLED, "rbac.create=false", "rbac.aggregateRoles=false", "crds.upgrade=false")
    assert of_kind(left, "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding") == []


def test_an_existing_service_account_can_be_used():
    sets = [BUNDLED, "operator.serviceAccount.create=false", "operator.serviceAccount.name=theirs"]
    objects = render(*sets)
    assert [item for item in of_kind(objects, "ServiceAccount") if not hook(item)] == []
    assert find(objects, "Deployment", "crewjob-operator")["spec"]["template"]["spec"]["serviceAccountName"] == "theirs"
    assert granted(objects, "theirs")["*"] == EVERYWHERE


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_role_has_a_wildcard(scenario):
    for role in of_kind(render(scenario=scenario), "Role", "ClusterRole"):
        assert "*" not in str(rules(role)), role["metadata"]["name"]
