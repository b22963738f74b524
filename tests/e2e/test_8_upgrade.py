"""An upgrade from the earliest chart, with its values and with a changed CRD; an uninstall leaves nothing that hangs. Comes last:
nothing is installed afterwards. tests/loop/test_chart.py upgrades from every earlier chart, without nodes."""

import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import conftest
import crew
import kube
from waiting import until

# A chart of an earlier commit as `helm package` makes it: before workers could be native, and before they had a Redis user.
EARLIER = crew.PROJECT / "tests/chart/earlier/before-native.tgz"
CRDS = ("crewjobs.crewjob.dev", "crewschedules.crewjob.dev", "crewworkerpools.crewjob.dev")
UPGRADE_SECONDS = 30
WAITING = 6


@dataclass(frozen=True)
class Before:
    """What there was under the earlier chart."""

    password: str
    done: dict


@pytest.fixture(scope="module")
def upgraded(installation, tmp_path_factory, request) -> Before:
    """As the upgrade notes say: the values of before, one changed. Redis restarts, with new users, while jobs run and wait."""
    kube.helm("uninstall", kube.RELEASE, "--wait", "--timeout", "3m")
    kube.kubectl("delete", "pods", "-l", "app.kubernetes.io/component=worker", "--grace-period=0", "--force")
    # The operator that starts next takes the CRDs of its chart for its own: the newest come with the upgrade.
    image = f"redis.bundled.image.tag={redis_tag()}"
    values = [*conftest.settings(), "--set", image, "--set", "operator.podLabels.kept=as-it-was"]
    kube.helm("install", kube.RELEASE, str(EARLIER), "--wait", "--timeout", "3m", *values)
    until("the pool is ready", lambda: crew.ready("default"), seconds=90)
    password = kube.get("secret", crew.SECRET)["data"]["password"]
    assert not kube.find("secret", crew.WORKER_SECRET), "the earlier chart has one user"

    crew.start(crew.job("done-before"), crew.job("runs-on", inputs={"seconds": UPGRADE_SECONDS}))
    crew.in_phase("done-before", "Succeeded", seconds=90)
    crew.in_phase("runs-on", "Running", seconds=90)
    crew.start(*crew.batch("waits", WAITING, inputs={"seconds": UPGRADE_SECONDS / 3}))
    before = Before(password, kube.get("crewjob", "done-before")["status"])

    began = time.monotonic()
    chart = with_a_changed_crd(tmp_path_factory.mktemp("upgrade"))
    pools = f"poolNamespaces={{{kube.NAMESPACE}}}"
    kube.helm("upgrade", kube.RELEASE, str(chart), "--reuse-values", "--set", pools, "--wait", "--timeout", "3m")
    until("the pool is ready again", lambda: crew.ready("default"), seconds=90)
    note = request.config.stash[conftest.FIGURES].append
    note(f"upgraded from an earlier chart in {time.monotonic() - began:.1f} s")
    return before


def redis_tag() -> str:
    """Of the image that is on this cluster."""
    return re.search(r"repository: redis\n +tag: (\S+)", (conftest.CHART / "values.yaml").read_text())[1]


def with_a_changed_crd(folder: Path) -> Path:
    """A copy of the chart whose CrewJobs have a field more."""
    chart = folder / "chart"
    shutil.copytree(conftest.CHART, chart)
    file = chart / "crds/crewjobs.crewjob.dev.yaml"
    field = "              colour:\n                description: Of the cover.\n                type: string\n"
    marker = "              topic:\n"
    text = file.read_text()
    assert text.count(marker) == 1, "where the fields of the spec are has changed"
    file.write_text(text.replace(marker, field + marker))
    return chart


def test_an_upgrade_keeps_the_values_and_the_password_of_an_earlier_chart(upgraded):
    assert kube.get("secret", crew.SECRET)["data"]["password"] == upgraded.password, "the old workers need it until they are done"
    operator = kube.get("deployment", kube.OPERATOR)["spec"]["template"]["metadata"]["labels"]
    assert operator["kept"] == "as-it-was"


def test_jobs_that_run_and_wait_during_an_upgrade_end_once(upgraded):
    crew.in_phase("runs-on", "Succeeded", seconds=180)
    crew.all_in_phase("waits", "Succeeded", WAITING, seconds=180)
    for found in kube.items("crewjobs", "test in (runs-on,waits)"):
        status = found["status"]
        assert (status["attempts"], status.get("workerLosses", 0)) == (1, 0), status
    assert kube.get("crewjob", "done-before")["status"]["result"] == upgraded.done["result"]


def test_an_upgrade_with_a_changed_crd_applies_it_and_new_jobs_run_on_workers_with_the_new_user(upgraded):
    assert "Of the cover." in kube.kubectl("explain", "crewjob.spec.colour")
    crew.start(crew.job("after-upgrade", colour="green"))
    status = crew.in_phase("after-upgrade", "Succeeded", seconds=90)
    assert kube.get("crewjob", "after-upgrade")["spec"]["colour"] == "green"
    pod = kube.find("pod", status["worker"]["podName"])
    assert pod is None or crew.WORKER_SECRET in str(pod["spec"]["containers"][0]["env"])


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
    until("the namespace is gone", namespace_is_gone, seconds=60)
    left = json.loads(kube.kubectl("get", "clusterroles,clusterrolebindings", "-o", "json"))["items"]
    assert [found["metadata"]["name"] for found in left if "crewjob" in found["metadata"]["name"]] == []


def namespace_is_gone() -> bool:
    return not kube.kubectl("get", "namespace", kube.NAMESPACE, "--ignore-not-found", "-o", "name")
