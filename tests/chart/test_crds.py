"""The CRDs: installed with the chart, brought up to date before an upgrade, never deleted."""

import pytest
import yaml
from chart import BUNDLED, CHART, PROJECT, SCENARIOS, crds, find, hook, of_kind, render, template

HOOKED = ["ClusterRole", "ClusterRoleBinding", "ConfigMap", "Job", "ServiceAccount"]


def test_the_chart_carries_the_projects_crds():
    assert crds(CHART / "crds") == crds(PROJECT / "crds"), "run `make generate`"
    assert set(crds(CHART / "crds")) == {f"{kind}.crewjob.dev.yaml" for kind in ("crewjobs", "crewschedules", "crewworkerpools")}


def test_helm_finds_them():
    shown = template(BUNDLED, flags=["--include-crds"]).stdout
    found = of_kind(list(yaml.safe_load_all(shown)), "CustomResourceDefinition")
    assert [crd["metadata"]["name"] for crd in found] == ["crewjobs.crewjob.dev", "crewschedules.crewjob.dev", "crewworkerpools.crewjob.dev"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_crd_belongs_to_the_release_so_none_goes_with_it(scenario):
    assert of_kind(render(scenario=scenario), "CustomResourceDefinition") == []


def test_the_hook_runs_before_an_upgrade_and_leaves_nothing():
    hooked = [item for item in render(BUNDLED) if hook(item) not in (None, "test")]
    assert sorted(item["kind"] for item in hooked) == HOOKED
    for item in hooked:
        annotations = item["metadata"]["annotations"]
        assert item["metadata"]["name"] == "crewjob-crds"
        assert annotations["helm.sh/hook"] == "pre-upgrade"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


def test_the_objects_that_the_job_needs_exist_before_the_job():
    weights = {
        item["kind"]: int(item["metadata"]["annotations"]["helm.sh/hook-weight"])
        for item in render(BUNDLED)
        if hook(item) not in (None, "test")
    }
    assert all(weight < weights["Job"] for kind, weight in weights.items() if kind != "Job")
    assert weights["ClusterRole"] < weights["ClusterRoleBinding"]


def test_the_job_applies_the_charts_own_crds():
    objects = render(BUNDLED)
    pod = find(objects, "Job", "crewjob-crds")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["args"] == ["crds", "apply", "--field-manager", "helm", "--file", "/crds/crds.yaml"]
    assert container["volumeMounts"] == [{"name": "crds", "mountPath": "/crds", "readOnly": True}]
    assert pod["volumes"] == [{"name": "crds", "configMap": {"name": "crewjob-crds"}}]
    carried = find(objects, "ConfigMap", "crewjob-crds")["data"]["crds.yaml"]
    expected = [yaml.safe_load(text) for text in crds(CHART / "crds").values()]
    assert [crd for crd in yaml.safe_load_all(carried) if crd] == expected


def test_the_hook_can_be_turned_off():
    assert [item for item in render(BUNDLED, "crds.upgrade=false") if hook(item) not in (None, "test")] == []
