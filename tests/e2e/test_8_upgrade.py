"""An upgrade changes the CRDs; an uninstall leaves nothing that hangs. Comes last: nothing is installed afterwards."""

import json
import shutil
import time

import conftest
import crew
import kube

CRDS = ("crewjobs.crewjob.dev", "crewworkerpools.crewjob.dev")


def test_an_upgrade_with_a_changed_crd_applies_it(tmp_path):
    chart = tmp_path / "chart"
    shutil.copytree(conftest.CHART, chart)
    file = chart / "crds/crewjobs.crewjob.dev.yaml"
    field = "              colour:\n                description: Of the cover.\n                type: string\n"
    marker = "              topic:\n"
    text = file.read_text()
    assert text.count(marker) == 1, "where the fields of the spec are has changed"
    file.write_text(text.replace(marker, field + marker))

    kube.helm("upgrade", kube.RELEASE, str(chart), "--wait", "--timeout", "3m", *conftest.settings())
    assert "Of the cover." in kube.kubectl("explain", "crewjob.spec.colour")
    crew.start(crew.job("after-upgrade", colour="green"))
    crew.in_phase("after-upgrade", "Succeeded")
    assert kube.get("crewjob", "after-upgrade")["spec"]["colour"] == "green"


def test_an_uninstall_keeps_crds_and_jobs_and_leaves_nothing_that_hangs(figure):
    crew.start(crew.job("finished"), crew.job("running", inputs={"seconds": 600}))
    crew.in_phase("finished", "Succeeded")
    crew.in_phase("running", "Running")

    began = time.monotonic()
    kube.helm("uninstall", kube.RELEASE, "--timeout", "60s")
    figure(f"uninstalled in {time.monotonic() - began:.1f} s")
    for crd in CRDS:
        assert kube.find("crd", crd), f"{crd} is gone"
    assert kube.get("crewjob", "finished")["status"]["phase"] == "Succeeded"
    assert kube.get("crewjob", "running")

    began = time.monotonic()
    kube.kubectl("delete", "crewjobs", "--all", "--timeout=10s")
    assert time.monotonic() - began < 3, "CrewJobs are hard to delete without the operator"
    # A worker finishes what it runs; nobody else holds the namespace.
    kube.kubectl("delete", "pods", "-l", "app.kubernetes.io/component=worker", "--grace-period=0", "--force")
    kube.kubectl("delete", "namespace", kube.NAMESPACE, "--wait=false")
    kube.until("the namespace is gone", namespace_is_gone, seconds=60)
    left = json.loads(kube.kubectl("get", "clusterroles,clusterrolebindings", "-o", "json"))["items"]
    assert [found["metadata"]["name"] for found in left if "crewjob" in found["metadata"]["name"]] == []


def namespace_is_gone() -> bool:
    return not kube.kubectl("get", "namespace", kube.NAMESPACE, "--ignore-not-found", "-o", "name")
