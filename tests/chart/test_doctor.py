"""`helm test`: the operator's program looks at the installation with rights of its own."""

from chart import BUNDLED, find, hook, render


def tested(*sets, **where) -> list[dict]:
    return [item for item in render(BUNDLED, *sets, **where) if hook(item) == "test"]


def test_a_job_looks_for_what_is_wrong_and_lets_a_job_come_back():
    container = find(tested(), "Pod", "crewjob-doctor")["spec"]["containers"][0]
    assert container["args"] == ["ctl", "doctor", "--enqueue"]


def test_it_exists_during_the_test_only_and_its_rights_before_it():
    found = tested()
    kinds = sorted(item["kind"] for item in found)
    assert kinds == ["ClusterRole", "ClusterRoleBinding", "Pod", "Role", "RoleBinding", "ServiceAccount"]
    for item in found:
        annotations = item["metadata"]["annotations"]
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        assert annotations["helm.sh/hook-weight"] == ("0" if item["kind"] == "Pod" else "-10")


def test_it_reads_one_namespace_and_the_crds_asks_for_rights_and_changes_jobs_only():
    rules = {item["kind"]: item["rules"] for item in tested() if "rules" in item}
    crds, rights = rules["ClusterRole"]
    assert rights == {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]}
    kinds = ("crewjobs", "crewschedules", "crewworkerpools")
    assert crds["verbs"] == ["get"] and crds["resourceNames"] == [f"{kind}.crewjob.dev" for kind in kinds]
    granted = {resource: set(rule["verbs"]) for rule in rules["Role"] for resource in rule["resources"]}
    assert granted.pop("crewjobs") == {"create", "delete", "get", "list", "watch"}
    assert granted == {"crewworkerpools": {"list"}, "deployments": {"get", "list"}, "leases": {"get"}}


def test_where_roles_are_the_administrators_there_is_none():
    assert tested("rbac.create=false") == []
