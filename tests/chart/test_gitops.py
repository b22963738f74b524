"""The health checks for Argo CD in docs/gitops.md, run by a Lua interpreter."""

import re
from pathlib import Path

import lupa
import pytest
import yaml

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/gitops.md"


def health(kind: str, generation: int = 1, spec: dict | None = None, **status) -> tuple[str, str]:
    snippet = re.search(r"```yaml\n(data:.*?)```", DOCUMENT.read_text(), re.S)[1]
    source = yaml.safe_load(snippet)["data"][f"resource.customizations.health.crewjob.dev_{kind}"]
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from({"metadata": {"generation": generation}, "spec": spec or {}, "status": status}, recursive=True)
    found = lua.execute(source)
    return found["status"], found["message"]


def condition(type_: str, status: str, reason: str) -> list[dict]:
    return [{"type": "Other", "status": "True", "reason": "Other", "message": ""}, {"type": type_, "status": status, "reason": reason, "message": "why"}]


@pytest.mark.parametrize("kind", ["CrewJob", "CrewWorkerPool"])
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
