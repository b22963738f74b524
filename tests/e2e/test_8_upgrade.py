"""Upgrades from earlier charts, with their values, and of CRDs; an uninstall leaves nothing that hangs. Comes last: nothing is
installed afterwards."""

import json
import re
import shutil
import time

import pytest

import conftest
import crew
import kube

# Charts of earlier commits as `helm package` makes them: before workers could be native, and before workers had a Redis user.
EARLIER = crew.PROJECT / "tests/chart/earlier"
CRDS = ("crewjobs.crewjob.dev", "crewworkerpools.crewjob.dev")


@pytest.mark.parametrize("earlier", ["before-native", "before-worker-user"])
def test_an_upgrade_from_an_earlier_chart_keeps_its_values_and_ends_every_job_once(earlier, figure):
    """As the upgrade notes say: the values of before, one changed. Redis restarts, with new users."""
    kube.helm("uninstall", kube.RELEASE, "--wait", "--timeout", "3m")
    kube.kubectl("delete", "pods", "-l", "app.kubernetes.io/component=worker", "--grace-period=0", "--force")
    # The operator that starts next takes the CRDs of its chart for its own: the newest come with the upgrade.
    image = f"redis.bundled.image.tag={redis_tag()}"
    values = [*conftest.settings(), "--set", image, "--set", "operator.podLabels.kept=as-it-was"]
    package = str(EARLIER / f"{earlier}.tgz")
    kube.helm("install", kube.RELEASE, package, "--wait", "--timeout", "3m", *values)
    kube.until("the pool is ready", lambda: crew.ready("default"), seconds=90)
    password = kube.get("secret", crew.SECRET)["data"]["password"]
    assert not kube.find("secret", crew.WORKER_SECRET), "the earlier chart has one user"

    crew.start(crew.job(f"{earlier}-done"), crew.job(f"{earlier}-runs", inputs={"seconds": 60}))
    crew.in_phase(f"{earlier}-done", "Succeeded", seconds=90)
    crew.in_phase(f"{earlier}-runs", "Running", seconds=90)
    crew.start(*crew.batch(f"{earlier}-waits", 6, inputs={"seconds": 20}))
    done = kube.get("crewjob", f"{earlier}-done")["status"]

    began = time.monotonic()
    pools = f"poolNamespaces={{{kube.NAMESPACE}}}"
    kube.helm("upgrade", kube.RELEASE, str(conftest.CHART), "--reuse-values", "--set", pools, "--wait", "--timeout", "3m")
    kube.until("the pool is ready again", lambda: crew.ready("default"), seconds=90)
    figure(f"upgraded from the chart {earlier} in {time.monotonic() - began:.1f} s")

    assert kube.get("secret", crew.SECRET)["data"]["password"] == password, "the old workers need it until they are done"
    operator = kube.get("deployment", kube.OPERATOR)["spec"]["template"]["metadata"]["labels"]
    assert operator["kept"] == "as-it-was"
    crew.in_phase(f"{earlier}-runs", "Succeeded", seconds=180)
    crew.all_in_phase(f"{earlier}-waits", "Succeeded", 6, seconds=180)
    for found in kube.items("crewjobs", f"test in ({earlier}-runs,{earlier}-waits)"):
        status = found["status"]
        assert (status["attempts"], status.get("workerLosses", 0)) == (1, 0), status
    assert kube.get("crewjob", f"{earlier}-done")["status"]["result"] == done["result"]

    # What was enqueued after the upgrade runs on workers that are the new user.
    crew.start(crew.job(f"{earlier}-after"))
    status = crew.in_phase(f"{earlier}-after", "Succeeded", seconds=90)
    pod = kube.find("pod", status["worker"]["podName"])
    assert pod is None or crew.WORKER_SECRET in str(pod["spec"]["containers"][0]["env"])
    crew.remove_all()


def redis_tag() -> str:
    """Of the image that is on this cluster."""
    return re.search(r"repository: redis\n +tag: (\S+)", (conftest.CHART / "values.yaml").read_text())[1]


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
        assert kube.kubectl("get", "crd", crd, "--ignore-not-found", "-o", "name"), f"{crd} is gone"
    assert kube.get("crewjob", "finished")["status"]["phase"] == "Succeeded"
    assert kube.get("crewjob", "running")

    began = time.monotonic()
    kube.kubectl("delete", "crewjobs", "--all", "--timeout=10s")
    assert time.monotonic() - began < 3, "CrewJobs are hard to delete without the operator"
    # A worker finishes its task first; no other object keeps the namespace.
    kube.kubectl("delete", "pods", "-l", "app.kubernetes.io/component=worker", "--grace-period=0", "--force")
    kube.kubectl("delete", "namespace", kube.NAMESPACE, "--wait=false")
    kube.until("the namespace is gone", namespace_is_gone, seconds=60)
    left = json.loads(kube.kubectl("get", "clusterroles,clusterrolebindings", "-o", "json"))["items"]
    assert [found["metadata"]["name"] for found in left if "crewjob" in found["metadata"]["name"]] == []


def namespace_is_gone() -> bool:
    return not kube.kubectl("get", "namespace", kube.NAMESPACE, "--ignore-not-found", "-o", "name")
