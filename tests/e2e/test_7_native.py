"""Workers that run commands: the operator's binary in an image that knows neither Python nor Celery."""

import json
import time

import pytest

import conftest
import crew
import kube
import workers
from waiting import until

pytestmark = pytest.mark.usefixtures("clean")

# The image of Redis is a small Debian: it has a shell, and is there.
CREW = """
call=$(cat)
echo '{"progress": {"percent": 40, "message": "at work"}}'
echo "run $CREWJOB_RETRIES" >&2
case $call in
  *'"fail":"transient"'*) [ "$CREWJOB_RETRIES" -gt 0 ] || exit 75 ;;
  *'"drained":true'*)
    cd "$CREWJOB_STATE_DIR"
    if [ ! -e first ]; then
      echo 1 > new && mv new first
      echo '{"checkpoint": true}'
      sleep 600
    fi ;;
  *'"seconds":600'*) sleep 600 ;;
  *'"seconds":8'*) sleep 8 ;;
esac
echo "written by a shell"
"""
VALUES = {
    "worker": {
        "image": {"repository": "redis", "tag": "7.2.12-bookworm"},
        "native": {
            "enabled": True,
            "onDrain": "Checkpoint",
            "tasks": {"crew": {"cache": 0, "run": {"command": ["/bin/sh", "-c", CREW], "output": "text"}}},
        },
    }
}


@pytest.fixture(scope="module", autouse=True)
def native_workers(installation, tmp_path_factory):
    """The default pool has native workers for a while."""
    with conftest.installed_with(VALUES, tmp_path_factory.mktemp("native")):
        yield


def test_a_job_runs_as_a_command_from_zero_workers_to_its_result():
    crew.no_workers()
    # For longer than the kubelet takes to tell that the container runs: only then is the worker's Pod known.
    crew.start(crew.job("shell", inputs={"seconds": 8}))
    status = crew.in_phase("shell", "Succeeded", seconds=90)
    assert status["result"]["value"]["result"] == "written by a shell"
    assert status["worker"]["name"].startswith("crew@crewjob-worker-")
    assert status["worker"]["podName"] in status["worker"]["name"]
    assert (status["attempts"], status["attemptHistory"][0]["outcome"]) == (1, "Succeeded")
    crew.no_workers()


def test_retries_belong_to_the_operator_and_the_exit_status_says_that_there_may_be_one():
    retry = {"backoff": {"initial": "200ms", "max": "1s"}}
    crew.start(crew.job("retried", inputs={"fail": "transient"}, retryPolicy=retry))
    status = crew.in_phase("retried", "Succeeded", seconds=90)
    assert [attempt["outcome"] for attempt in status["attemptHistory"]] == ["Failed", "Succeeded"]


def test_a_running_command_is_cancelled_within_seconds():
    crew.start(crew.job("cancelled", inputs={"seconds": 600}))
    crew.in_phase("cancelled", "Running", seconds=90)
    until("its progress", lambda: crew.status("cancelled").get("progress", {}).get("percent") == 40)
    kube.patch("crewjob", "cancelled", {"spec": {"cancel": True}})
    crew.in_phase("cancelled", "Cancelled", seconds=15)


def test_the_job_of_a_killed_worker_runs_again(figure):
    with workers.at_least(2):
        crew.start(crew.job("killed", inputs={"seconds": 8}))
        status = crew.in_phase("killed", "Running", seconds=90)
        until("it has begun", lambda: crew.status("killed").get("progress"))
        began = workers.kill(workers.pod_of(status["worker"]["name"]), program=b"crewjob")
        until("it is published again", lambda: crew.status("killed").get("workerLosses") == 1, seconds=30)
        figure(f"the job of a killed native worker was published again after {time.monotonic() - began:.1f} s")
        done = crew.in_phase("killed", "Succeeded", seconds=60)
        assert [attempt["outcome"] for attempt in done["attemptHistory"]] == ["WorkerLost", "Succeeded"]


def test_a_drained_worker_is_gone_within_15_s_and_its_job_goes_on_elsewhere_from_its_checkpoint(figure):
    with workers.at_least(2):
        crew.start(crew.job("drained", inputs={"drained": True}))
        status = crew.in_phase("drained", "Running", seconds=90)
        until("its state is saved", lambda: "savedAt" in crew.status("drained").get("state", {}))
        pod = workers.pod_of(status["worker"]["name"])["metadata"]["name"]
        began = time.monotonic()
        # As the eviction of a drain does; the grace period is an hour.
        kube.kubectl("delete", "pod", pod, "--timeout=60s")
        took = time.monotonic() - began
        figure(f"a drained native worker with a saved state was gone after {took:.1f} s")
        assert took < 15
        done = crew.in_phase("drained", "Succeeded", seconds=60)
        assert (done["attempts"], done.get("workerLosses", 0), done["state"]["resumed"]) == (1, 0, True)
        assert done["worker"]["podName"] != pod


def test_inspect_sees_a_native_worker_like_any_other(app):
    with workers.at_least(1):
        (node,) = until("it answers", lambda: app.control.inspect(timeout=1).stats())
        described = app.control.inspect(timeout=1, destination=[node])
        assert "backend.tasks.run_crew_task" in described.registered()[node]
        assert {queue["name"] for queue in described.active_queues()[node]} == {"crew_jobs", "default"}
        assert described.conf()[node]["task_acks_late"] is True


def test_the_image_of_the_native_worker_needs_no_more_than_its_tasks(app):
    # It holds one program, which is the only command that there is.
    tasks = {"tasks": {"version": {"command": ["/crewjob", "--version"], "output": "text"}}}
    metadata = {"name": "bare-worker"}
    operator = kube.get("deployment", kube.OPERATOR)["spec"]["template"]["spec"]["containers"][0]["image"]
    worker = {
        "name": "worker",
        "image": operator.replace("crewjob/crewjob", "crewjob/worker"),
        "args": ["--tasks", "/tasks/tasks.json", "--queues", "bare", "--hostname", "bare@worker"],
        "env": [{"name": "REDIS_URL", "valueFrom": {"secretKeyRef": {"name": crew.WORKER_SECRET, "key": "REDIS_URL"}}}],
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tasks", "mountPath": "/tasks", "readOnly": True}],
    }
    volumes = [{"name": "tasks", "configMap": metadata}]
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"tasks.json": json.dumps(tasks)}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [worker], "volumes": volumes}},
    )
    try:
        version = operator.rsplit(":", 1)[1]
        assert app.send_task("version", queue="bare").get(timeout=60) == f"crewjob {version}\n"
    finally:
        kube.kubectl("delete", "pod,configmap", "bare-worker")
