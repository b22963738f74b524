"""`kubectl crewjob explain` in situations as they occur: one reason, whether anything has to be done, and what."""

import json
import subprocess
import time

import pytest
from servers import CREWJOB

from waiting import until

POD = "worker-7d4b9c5f6d-x2x7q"


@pytest.fixture
def explain(bed):
    def explain(name: str) -> dict:
        command = [str(CREWJOB), "ctl", "explain", name, "-o", "json", "--kubeconfig", str(bed.control_plane.kubeconfig)]
        done = subprocess.run([*command, "-n", bed.a.namespace], capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)

    return explain


def says(explain, name: str, reason: str, blocked: bool, remedy: str) -> dict:
    """Waits until this is explained of a job."""

    said = []

    def found():
        said.append(explain(name))
        return said[-1]["reason"] == reason

    try:
        until(f"{name} is explained by {reason}", found, 75)
    except AssertionError as error:
        raise AssertionError(f"{error}, but by {said[-1]}") from None
    explained = said[-1]
    assert explained["blocked"] is blocked, explained
    assert remedy in f"{explained['message']} {explained['remedy']}", explained
    return explained


def workers(bed, **spec) -> None:
    bed.a.deployment(replicas=1)
    bed.a.pod()
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"}, scaleDownDelay="1h", **spec)


def waits(bed, **container) -> None:
    """The Pod has a node and its container waits for something."""
    status = {"name": "worker", "image": "worker:1", "imageID": "", "ready": False, "restartCount": 0, **container}
    change = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}], "containerStatuses": [status]}
    bed.a.patch("pods", POD, {"status": change}, "status")


def takes(bed, name: str) -> bytes:
    """A worker takes the message of a job, and says that it has begun."""
    task = bed.a.task(name)
    until("the message waits", lambda: bed.redis.queued(task))
    message = bed.redis.take(task)
    bed.redis.store(task, "STARTED", {"hostname": "crew@elsewhere", "pid": 7})
    return message


def test_what_is_wrong_with_what_a_job_names(bed, explain):
    bed.a.job("lost", poolRef={"name": "none"})
    says(explain, "lost", "PoolNotFound", True, "create the CrewWorkerPool none")
    bed.a.pool_with("no-secret", "bare")
    bed.a.job("bare", poolRef={"name": "bare"})
    says(explain, "bare", "SecretNotFound", True, "no-secret")
    bed.a.secret("unlabelled", labelled=False, REDIS_URL=bed.redis.url)
    bed.a.pool_with("unlabelled", "unlabelled")
    bed.a.job("unlabelled", poolRef={"name": "unlabelled"})
    says(explain, "unlabelled", "SecretNotLabelled", True, "crewjob.dev/redis")
    bed.a.pool(bed.redis)
    bed.a.job("queue", queue="elsewhere")
    says(explain, "queue", "QueueNotInPool", True, "spec.queues of the CrewWorkerPool default")
    bed.a.job("task", task="not.allowed")
    says(explain, "task", "TaskNotAllowed", True, "spec.allowedTasks")


def test_redis_is_down_or_refuses_the_password(bed, explain):
    bed.a.pool(bed.other)
    bed.other.stop()
    try:
        bed.a.job("waits")
        says(explain, "waits", "BrokerUnreachable", True, "Redis is not reachable")
    finally:
        bed.other.start()
    bed.a.in_phase("waits", "Queued")
    bed.other.client.config_set("requirepass", "right")
    try:
        bed.a.secret("refused", REDIS_URL=bed.other.url.replace("redis://", "redis://:wrong@"))
        bed.a.pool_with("refused", "refused")
        bed.a.job("refused", poolRef={"name": "refused"})
        explained = says(explain, "refused", "BrokerAuthenticationFailed", True, "")
        assert "wrong" not in json.dumps(explained)
    finally:
        bed.other.client.config_set("requirepass", "")


def test_a_job_rests_for_a_reason_of_its_own(bed, explain):
    bed.a.pool(bed.redis)
    bed.a.job("held", suspend=True)
    says(explain, "held", "Suspended", True, "kubectl crewjob resume held")
    bed.a.job("first", runOnce="k")
    bed.a.in_phase("first", "Queued")
    bed.a.job("second", runOnce="k")
    says(explain, "second", "RunOnceHeld", True, "first")
    backoff = {"initial": "1h", "max": "1h", "factor": 1}
    bed.a.job("again", retryPolicy={"maxRetries": 3, "backoff": backoff})
    message = takes(bed, "again")
    bed.redis.store(bed.a.task("again"), "FAILURE", {"exc_type": "ValueError", "exc_message": ["no"]})
    bed.redis.acknowledge(message)
    says(explain, "again", "Backoff", False, "the next attempt begins at")
    bed.a.job("over")
    message = takes(bed, "over")
    bed.redis.store(bed.a.task("over"), "SUCCESS", {"answer": 42})
    bed.redis.acknowledge(message)
    bed.a.in_phase("over", "Succeeded")
    says(explain, "over", "Succeeded", False, "it is over")
    says(explain, "first", "Enqueued", False, "a worker takes it when it is its turn")


def test_workers_do_not_start(bed, explain):
    workers(bed)
    bed.a.job("crew")
    says(explain, "crew", "WorkersStarting", False, "none is ready")
    waits(bed, state={"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}})
    says(explain, "crew", "ImageNotPulled", True, "worker:1")
    over = {"exitCode": 3, "reason": "Error", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:02Z"}
    waits(bed, state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, lastState={"terminated": over})
    says(explain, "crew", "CrashLoop", True, "--previous")


def test_a_pool_may_have_no_worker_or_no_more_of_them(bed, explain, crew_worker):
    workers(bed, maxReplicas=0)
    bed.a.job("crew", inputs={"seconds": 30})
    says(explain, "crew", "NoReplicasAllowed", True, "spec.maxReplicas")
    bed.a.patch("crewworkerpools", "default", {"spec": {"maxReplicas": 1}})
    bed.a.runs()
    bed.a.patch("deployments", "worker", {"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}}, "status")
    crew_worker(f"crew@{POD}")
    until("its worker is known to be busy", lambda: bed.a.status("crew").get("phase") == "Running")
    for number in range(3):
        bed.a.job(f"next-{number}")
    explained = says(explain, "next-2", "AtMaxReplicas", False, "raise spec.maxReplicas")
    assert explained["position"]["ahead"] == 2
    says(explain, "crew", "Running", False, "kubectl crewjob logs")


def test_a_queue_that_no_worker_consumes_stalls(bed, explain, crew_worker):
    workers(bed, minReplicas=1)
    bed.a.runs()
    bed.a.patch("deployments", "worker", {"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}}, "status")
    crew_worker(f"crew@{POD}", "--queues", "default")
    bed.a.job("unheeded")
    explained = says(explain, "unheeded", "WorkersStalled", True, "kubectl describe crewworkerpool default")
    assert "crew_jobs" in explained["message"]


@pytest.mark.alone
def test_when_a_job_begins_is_off_by_less_than_a_quarter(bed, explain, crew_worker):
    """Jobs of three seconds, one at a time."""
    workers(bed, maxReplicas=1)
    bed.a.runs()
    bed.a.patch("deployments", "worker", {"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}}, "status")
    names = [f"crew-{number}" for number in range(9)]
    crew_worker(f"crew@{POD}")
    for name in names:
        bed.a.job(name, inputs={"seconds": 3})
        bed.a.in_phase(name, "Queued", "Running", "Succeeded")
    until("some have ended", lambda: all(bed.a.status(name).get("phase") == "Succeeded" for name in names[:3]), 60)
    expected = until("it is forecast", lambda: explain(names[-1])["expected"])
    asked = time.monotonic()
    bed.a.in_phase(names[-1], "Running", seconds=60)
    took = time.monotonic() - asked
    assert abs(took - expected["startsInSeconds"]) < took / 4, (took, expected)
