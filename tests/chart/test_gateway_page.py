"""The gateway's page: the rights and settings that it adds, and that without it nothing of them is there."""

import pytest
from chart import BUNDLED, find, refusal, render
from test_rbac import granted

ON = (BUNDLED, "gateway.enabled=true", "gateway.page.enabled=true")
LIST = ("crewjob.dev", "crewjobs", "", "list watch")


def gateway(*sets: str) -> tuple[dict, dict]:
    """The Pod of the gateway, and its settings."""
    pod = find(render(*sets), "Deployment", "crewjob-gateway")["spec"]["template"]["spec"]
    env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
    return pod, {name.removeprefix("CREWJOB_GATEWAY_"): value for name, value in env.items()}


def test_with_the_callers_tokens_it_may_list_jobs_and_nothing_else():
    pod, env = gateway(*ON)
    assert env["PAGE"] == "true" and env["PAGE_MAX_JOBS"] == "20000" and "PAGE_NAMESPACES" not in env
    assert "automountServiceAccountToken" not in pod and "volumes" not in pod
    assert granted(render(*ON), "crewjob-gateway") == {"*": {LIST}}
    assert granted(render(*ON, "rbac.create=false"), "crewjob-gateway") == {}


def test_named_namespaces_are_all_that_it_reads():
    sets = (*ON, 'gateway.page.namespaces=["a","b"]')
    assert granted(render(*sets), "crewjob-gateway") == {"a": {LIST}, "b": {LIST}}
    assert gateway(*sets)[1]["PAGE_NAMESPACES"] == "a,b"


def test_with_an_account_of_its_own_it_lists_the_namespaces_of_that():
    sets = (*ON, "gateway.mode=fixed", 'gateway.namespaces=["a"]', "gateway.readResults=false")
    rights = granted(render(*sets), "crewjob-gateway")
    assert set(rights) == {"a"} and gateway(*sets)[1]["PAGE_NAMESPACES"] == "a"
    assert {LIST, ("crewjob.dev", "crewschedules", "", "get list patch"), ("", "pods/log", "", "get")} <= rights["a"]
    assert gateway(*ON, "gateway.mode=fixed")[1]["PAGE_NAMESPACES"] == "crewjob"


def test_without_it_nothing_is_set_and_nothing_granted():
    _, env = gateway(BUNDLED, "gateway.enabled=true")
    assert not any(name.startswith("PAGE") for name in env)
    assert granted(render(BUNDLED, "gateway.enabled=true"), "crewjob-gateway") == {}


IMPERSONATE = (BUNDLED, "gateway.enabled=true", "gateway.mode=impersonate", "gateway.userHeader=X-User", 'gateway.trustedProxies=["10.0.0.0/8"]')


def test_only_where_it_is_asked_for_it_may_act_as_users_and_only_with_their_groups_as_groups():
    users = {("", "users", "", "impersonate")}
    assert granted(render(*IMPERSONATE), "crewjob-gateway") == {"*": users}
    groups = users | {("", "groups", "", "impersonate")}
    assert granted(render(*IMPERSONATE, "gateway.groupsHeader=X-Groups"), "crewjob-gateway") == {"*": groups}
    assert granted(render(*IMPERSONATE, "gateway.page.enabled=true"), "crewjob-gateway") == {"*": users | {LIST}}
    assert gateway(*IMPERSONATE, "gateway.groupsHeader=X-Groups")[1]["GROUPS_HEADER"] == "X-Groups"
    assert "gateway.userHeader" in refusal(BUNDLED, "gateway.enabled=true", "gateway.mode=impersonate")
    assert "gateway.mode=impersonate" in refusal(*ON, "gateway.groupsHeader=X-Groups")
    assert "gateway.mode=fixed" in refusal(*IMPERSONATE, 'gateway.namespaces=["a"]')


@pytest.mark.parametrize(("setting", "named"), [("gateway.page.maxJobs=1", "maxJobs"), ('gateway.page.namespaces=["A"]', "namespaces")])
def test_values_that_are_wrong_are_refused_by_their_names(setting, named):
    assert named in refusal(*ON, setting)
