"""`kubectl crewjob`: the program of the operator's image as a plugin of kubectl, and as what `helm test` runs."""

import io
import json
import os
import subprocess
import tarfile
import time

import pytest

import crew
import kube

pytestmark = pytest.mark.usefixtures("clean")


def program(archives: list[str]) -> bytes:
    """The program in the layers of an image."""
    for archive in archives:
        with tarfile.open(archive) as image:
            for layer in image:
                if layer.isfile() and layer.name.endswith(".tar"):
                    with tarfile.open(fileobj=io.BytesIO(image.extractfile(layer).read())) as files:
                        found = next((file for file in files if file.isfile() and file.name.split("/")[-1] == "crewjob"), None)
                        if found:
                            return files.extractfile(found).read()
    raise AssertionError(f"no image has the program: {archives}")


@pytest.fixture(scope="module")
def plugin(installation, tmp_path_factory):
    """Runs `kubectl crewjob`, which kubectl finds on the PATH."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "kubectl-crewjob").write_bytes(program(os.environ["E2E_IMAGES"].split()))
    (folder / "kubectl-crewjob").chmod(0o755)
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}

    def plugin(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["kubectl", "crewjob", *arguments, "-n", kube.NAMESPACE], env=env, capture_output=True, text=True, timeout=120)

    return plugin


@pytest.fixture
def staying_worker(installation):
    """A worker that is there afterwards: its log goes with its Pod."""
    kube.patch("crewworkerpool", "default", {"spec": {"minReplicas": 1}})
    yield
    kube.patch("crewworkerpool", "default", {"spec": {"minReplicas": 0}})


def test_a_job_is_run_and_followed_and_its_result_and_log_are_printed(staying_worker, plugin):
    run = plugin("run", "--topic", "Tides", "--name", "tides", "--input", "seconds=4", "--follow")
    assert run.returncode == 0 and run.stdout == "crewjob.crewjob.dev/tides created\n", run
    assert "tides is Running on crew@crewjob-worker-" in run.stderr and "tides is Succeeded" in run.stderr
    assert json.loads(plugin("result", "tides").stdout)
    time.sleep(3)  # times in a status are in whole seconds, and the next attempt is to have seconds of its own
    assert plugin("run", "--topic", "Winds", "--name", "winds", "--input", "seconds=4", "--wait").returncode == 0
    tides, winds = (kube.get("crewjob", name)["status"]["taskID"] for name in ("tides", "winds"))
    log = plugin("logs", "tides")
    assert log.returncode == 0 and tides in log.stdout and winds not in log.stdout, log
    assert winds in plugin("logs", "winds", "--tail", "50", "--grep", winds[:8]).stdout


def test_logs_are_followed_from_before_a_worker_begins_until_the_end(plugin):
    crew.no_workers()
    crew.start(crew.job("slow", inputs={"seconds": 5}))
    log = plugin("logs", "slow", "--follow")
    assert log.returncode == 0 and "waiting for a worker: slow is" in log.stderr, log
    assert kube.get("crewjob", "slow")["status"]["taskID"] in log.stdout


def test_explain_and_version_know_the_installation(plugin):
    crew.start(crew.job("held", suspend=True), crew.job("lost", poolRef={"name": "nowhere"}))
    crew.in_phase("lost", "Pending")
    reasons = [json.loads(plugin("explain", name, "-o", "json").stdout)["reason"] for name in ("held", "lost")]
    assert reasons == ["Suspended", "PoolNotFound"]
    version = plugin("version")
    assert version.returncode == 0 and f"operator {kube.NAMESPACE}/{kube.OPERATOR}: " in version.stdout, version


def test_helm_test_lets_a_job_come_back_and_finds_nothing(figure):
    began = time.monotonic()
    said = kube.helm("test", kube.RELEASE, "--logs", "--timeout", "4m")
    assert "Phase:          Succeeded" in said and "nothing is wrong with the" in said, said
    figure(f"helm test: {time.monotonic() - began:.1f} s")
    assert [job["metadata"]["name"] for job in kube.items("crewjobs") if job["metadata"]["name"].startswith("doctor-")] == []
