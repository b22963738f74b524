"""The health checks and actions for Argo CD in examples/gitops, run by a Lua interpreter."""

from pathlib import Path

import lupa
import pytest
import yaml

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/gitops/argo-cd"
SETTINGS = yaml.safe_load((EXAMPLE / "argocd-cm.yaml").read_text())["data"]
ACTIONS = yaml.safe_load(SETTINGS["resource.customizations.actions.crewjob.dev_CrewJob"])


def run(source: str, obj: dict):
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from(obj, recursive=True)
    return lua.execute(source)


def plain(value):
    """A table of Lua as Python has it."""
    if lupa.lua_type(value) != "table":
        return value
    items = {key: plain(item) for key, item in value.items()}
    return list(items.values()) if set(items) == set(range(1, len(items) + 1)) and items else items


def job(phase: str, **spec) -> dict:
    metadata = {"name": "tides", "namespace": "team", "uid": "u", "resourceVersion": "7"}
    api = {"apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob"}
    return {**api, "metadata": metadata, "spec": {"topic": "Tides", **spec}, "status": {"phase": phase}}


def enabled(obj: dict) -> set[str]:
    found = plain(run(ACTIONS["discovery.lua"], obj))
    assert set(found) == {definition["name"] for definition in ACTIONS["definitions"]}
    return {name for name, action in found.items() if not action["disabled"]}


def act(name: str, obj: dict):
    return plain(run(next(it["action.lua"] for it in ACTIONS["definitions"] if it["name"] == name), obj))


def health(kind: str, generation: int = 1, spec: dict | None = None, **status) -> tuple[str, str]:
    obj = {"metadata": {"generation": generation}, "spec": spec or {}, "status": status}
    found = run(SETTINGS[f"resource.customizations.health.crewjob.dev_{kind}"], obj)
    return found["status"], found["message"]


def condition(type_: str, status: str, reason: str) -> list[dict]:
    return [{"type": "Other", "status": "True", "reason": "Other", "message": ""}, {"type": type_, "status": status, "reason": reason, "message": "why"}]


@pytest.mark.parametrize("kind", ["CrewJob", "CrewWorkerPool", "CrewSchedule"])
def test_argo_cd_waits_for_an_object_that_no_operator_has_seen(kind):
    assert health(kind, phase="Pending", observedGeneration=0)[0] == "Progressing"


@pytest.mark.parametrize(
    ("phase", "expected"),
    [("Pending", "Progressing"), ("Queued", "Progressing"), ("Running", "Progressing"), ("Retrying", "Progressing")]
    + [("Succeeded", "Healthy"), ("Failed", "Degraded"), ("Cancelled", "Degraded")],
)
def test_argo_cd_waits_until_a_job_has_ended_and_says_why_it_is_where_it_is(phase, expected):
    conditions = condition("Reconciling", "True", "BrokerRefused")
    assert health("CrewJob", phase=phase, observedGeneration=1, conditions=conditions) == (expected, "BrokerRefused: why")


def test_argo_cd_shows_a_suspended_job_as_suspended():
    assert health("CrewJob", spec={"suspend": True}, phase="Pending", observedGeneration=1)[0] == "Suspended"


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [("True", "AsExpected", "Healthy"), ("False", "SecretNotFound", "Degraded"), ("False", "Connecting", "Progressing")],
)
def test_argo_cd_shows_whether_a_pool_works(status, reason, expected):
    assert health("CrewWorkerPool", observedGeneration=1, conditions=condition("Ready", status, reason))[0] == expected


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("True", "AsExpected", "Healthy"),
        ("True", "Suspended", "Suspended"),
        ("True", "ScheduleEnded", "Healthy"),
        ("False", "ScheduleInvalid", "Degraded"),
        ("False", "SchedulePaused", "Degraded"),
    ],
)
def test_argo_cd_shows_whether_a_schedule_makes_its_jobs(status, reason, expected):
    assert health("CrewSchedule", observedGeneration=1, conditions=condition("Ready", status, reason))[0] == expected


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (job("Running"), {"cancel", "suspend"}),
        (job("Pending", suspend=True), {"cancel", "resume"}),
        (job("Queued", cancel=True), {"suspend"}),
        (job("Failed"), {"retry"}),
        (job("Cancelled", cancel=True), {"retry"}),
        (job("Succeeded"), set()),
    ],
)
def test_argo_cd_offers_the_actions_that_make_sense(obj, expected):
    assert enabled(obj) == expected


def test_an_action_changes_the_field_that_it_is_about_and_nothing_else():
    for name, field, value in [("cancel", "cancel", True), ("suspend", "suspend", True), ("resume", "suspend", False)]:
        before = job("Running", suspend=name == "resume")
        after = act(name, before)
        assert after == before | {"spec": before["spec"] | {field: value}}, name


def test_a_retry_is_a_new_job_without_what_stopped_the_first_one_or_would_keep_this_one_from_running():
    [made] = act("retry", job("Failed", cancel=True, suspend=True, runOnce="k", priority=9, inputs={"a": [1, 2]}))
    assert made["operation"] == "create"
    resource = made["resource"]
    assert resource["spec"] == {"topic": "Tides", "priority": 9, "inputs": {"a": [1, 2]}}
    assert resource["metadata"]["name"].startswith("tides-20") and resource["metadata"]["namespace"] == "team"
    assert resource["metadata"]["annotations"] == {"crewjob.dev/origin": "tides"}
    assert set(resource) == {"apiVersion", "kind", "metadata", "spec"}


def test_an_application_leaves_alone_what_people_and_the_operator_change():
    application = yaml.safe_load((EXAMPLE / "application.yaml").read_text())["spec"]
    ignored = {(it["kind"], pointer) for it in application["ignoreDifferences"] for pointer in it["jsonPointers"]}
    assert {("CrewJob", "/spec/cancel"), ("CrewJob", "/spec/suspend"), ("Deployment", "/spec/replicas")} <= ignored
    assert {"ServerSideApply=true", "RespectIgnoreDifferences=true"} <= set(application["syncPolicy"]["syncOptions"])
