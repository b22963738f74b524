"""What the operator makes of stock Celery workers that run, and of where they say that they run.

Each worker is a process here; the Pod that it is named after is an object.
"""

import os
import signal
import time

import pytest
from celery import Celery

from servers import CeleryWorker
from test_pods import CONSIDERED, HASH, POD, fleet, restarts, since_long, started
from waiting import holds, until

# Longer than the operator waits before a worker named like a Pod that is not there is suspicious, and some audits.
SUSPICIOUS = 22
APPLICATION = """
import os, time
from celery import Celery

app = Celery("application", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    task_acks_late=True, task_track_started=True, worker_prefetch_multiplier=1, worker_send_task_events=True,
    broker_transport_options={"visibility_timeout": 3600}, result_backend_always_retry=True,
)

@app.task(name="backend.tasks.run_crew_task")
def run_crew_task(*args, **inputs):
    time.sleep(600)

@app.task(name="of.another.producer")
def of_another_producer():
    time.sleep(600)
"""


@pytest.fixture
def workers(bed, tmp_path):
    """Starts a worker that is named after a Pod."""
    running = []

    def start(pod: str, concurrency: int, queue: str = "crew_jobs") -> CeleryWorker:
        options = ("-P", "threads", "-c", str(concurrency), "-Q", queue)
        worker = CeleryWorker(tmp_path / pod, bed.redis.url, APPLICATION, f"crew@{pod}", *options)
        running.append(worker)
        return worker

    yield start
    for worker in running:
        # A thread that sleeps holds up a stop.
        worker.process.kill()
        worker.process.wait()


def said(bed, type_: str, reason: str) -> str:
    """Waits until the condition of the pool has this reason, and returns its message."""
    condition = lambda: bed.a.pool_condition(type_)
    return until(f"{reason} is said", lambda: condition().get("reason") == reason and condition()["message"])


def test_a_worker_that_runs_another_number_of_tasks_than_the_pool_says_is_named_until_one_is_changed(bed, workers):
    fleet(bed.a, POD)
    workers(POD, 4)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"}, concurrency=1)
    message = said(bed, "WorkersMisconfigured", "ConcurrencyDiffers")
    assert all(words in message for words in (f"crew@{POD}", "--concurrency 1", "spec.concurrency to 4")), message
    bed.a.patch("crewworkerpools", "default", {"spec": {"concurrency": 4}})
    until("nothing is wrong with it", lambda: bed.a.pool_condition("WorkersMisconfigured")["status"] == "False")


def test_a_worker_below_a_shell_that_keeps_sigterm_is_named_and_one_whose_shell_has_given_its_place_is_not(bed, workers):
    shell, replaced = f"worker-{HASH}-shell", f"worker-{HASH}-execs"
    bed.a.deployment()
    for pod, script in ((shell, "migrate; celery -A app worker; true"), (replaced, "migrate; exec celery -A app worker")):
        bed.a.pod(pod, containers=[{"name": "worker", "image": "worker", "command": ["sh", "-c"], "args": [script]}])
        bed.a.runs(pod)
        workers(pod, 1)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    message = said(bed, "WorkersMisconfigured", "ShellTakesSignals")
    assert all(words in message for words in (f"crew@{shell}", '"sh"', "exec celery")), message
    holds("the other one is not named", lambda: replaced not in bed.a.pool_condition("WorkersMisconfigured")["message"], 3)


def test_a_pod_is_not_deleted_for_a_cancelled_job_while_its_worker_runs_a_task_of_another_producer(bed, workers):
    alone, shared = f"worker-{HASH}-alone", f"worker-{HASH}-share"
    fleet(bed.a, alone, shared)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"}, concurrency=4)
    # The number of unfinished jobs says nothing of the tasks in a Pod: these are another pool's.
    bed.b.pool(bed.other, queues=[{"name": "elsewhere"}])
    for n in range(5):
        bed.b.job(f"elsewhere-{n}")
    workers(alone, 4, "default")
    workers(shared, 4)
    bed.a.job("alone", queue="default")
    bed.a.job("shared")
    for name in ("alone", "shared"):
        bed.a.in_phase(name, "Running")
    Celery("producer", broker=bed.redis.url).send_task("of.another.producer", queue="crew_jobs")
    until("the other producer's task runs", lambda: bed.redis.client.hlen("unacked") == 3)
    for name in ("alone", "shared"):
        bed.a.change(name, cancel=True)
    until("the Pod that runs nothing else is deleted", lambda: bed.a.is_leaving(alone), CONSIDERED)
    until("it is said that the other job cannot be stopped", lambda: bed.a.condition("shared", "CancelUnsupported"), CONSIDERED)
    holds("its Pod stays", lambda: not bed.a.is_leaving(shared), 3)


def test_a_native_sidecar_is_never_the_workers_container(bed):
    proxy = {"name": "istio-proxy", "image": "proxy", "restartPolicy": "Always"}
    bed.a.deployment(initContainers=[proxy])
    bed.a.pod(POD, initContainers=[proxy])
    bed.a.runs(POD)
    native(bed.a, "proxy-1", "2026-01-01T00:00:00Z")
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    task = started(bed, "crew", f"crew@{POD}")
    assert bed.a.status("crew")["worker"]["podName"] == POD
    restarts_at = bed.a.get("pods", POD)["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    native(bed.a, "proxy-2", restarts_at)
    holds("the job goes on", lambda: bed.a.status("crew").get("workerLosses", 0) == 0, 5)
    assert bed.a.pool_condition("WorkersUnattributed").get("status") != "True"
    bed.a.terminates(POD, "worker")
    until("the loss is noticed", lambda: bed.a.status("crew").get("workerLosses") == 1, 10)
    until("its message waits again", lambda: bed.redis.queued(task))


def native(tenant, container: str, since: str) -> None:
    """The native sidecar of the Pod runs, or runs again."""
    status = {"name": "istio-proxy", "image": "proxy", "imageID": "", "ready": True, "restartCount": 0}
    status |= {"containerID": f"containerd://{container}", "state": {"running": {"startedAt": since}}}
    tenant.patch("pods", POD, {"status": {"initContainerStatuses": [status]}}, "status")


def test_a_node_name_that_two_pods_have_is_said_and_no_end_of_either_is_a_death(bed):
    pods = [f"worker-{HASH}-first", f"worker-{HASH}-other"]
    fleet(bed.a, *pods)
    for pod in pods:
        bed.a.patch("pods", pod, {"status": {"containerStatuses": since_long(bed.a, pod)}}, "status")
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    started(bed, "crew", "celery@worker")
    assert "podName" not in bed.a.status("crew")["worker"]

    def is_said():
        bed.redis.event("worker-heartbeat", "celery@worker", freq=2.0, active=0)
        return bed.a.pool_condition("WorkersUnattributed").get("reason") == "NodeNameUnclear"

    until("it is said", is_said, CONSIDERED, every=1)
    assert "-n crew@$(POD_NAME)" in bed.a.pool_condition("WorkersUnattributed")["message"]
    bed.a.terminates(pods[0])
    restarts(bed.a, pods[1], "worker")
    bed.a.vanishes(pods[0])
    losses = lambda: bed.a.status("crew").get("workerLosses", 0) + bed.a.status("crew").get("messageLosses", 0)
    holds("the job stays with its worker", lambda: losses() == 0, 10)


def test_a_message_stays_with_a_silent_worker_outside_the_cluster_although_all_pods_deny_it(bed):
    bed.a.deployment()
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    bed.redis.event("worker-heartbeat", "celery@prod-01", freq=2.0, active=0)
    bed.a.job("crew")
    task = bed.a.task("crew")
    bed.a.in_phase("crew", "Queued")
    # No event tells of it, and a worker that is busy with another task answers nothing.
    bed.redis.take(task)
    losses = lambda: bed.a.status("crew").get("messageLosses", 0)
    # Two audits, of 2 seconds each, find what is lost.
    holds("it stays in flight", lambda: losses() == 0 and not bed.redis.queued(task), 15)


def test_a_worker_of_another_cluster_that_is_named_like_a_pod_is_not_taken_for_a_dead_one(bed, example_worker, events):
    bed.a.deployment()
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    node = "crew@worker-7d4b9-x2x7q"
    example_worker(node)
    bed.a.job("guest", inputs={"seconds": SUSPICIOUS})
    assert bed.a.in_phase("guest", "Running")["worker"]["name"] == node
    began = time.monotonic()
    status = bed.a.in_phase("guest", "Succeeded", seconds=SUSPICIOUS + 20)
    assert time.monotonic() - began > SUSPICIOUS - 3, "it was over before anything could be suspected"
    assert (status["attempts"], status.get("workerLosses", 0)) == (1, 0)
    assert events.runs(status["taskID"]) == 1


def test_a_worker_that_hangs_is_told_of_and_left_alone(bed, example_worker):
    """It has room, and takes nothing."""
    bed.a.deployment(replicas=1)
    bed.a.pod(POD)
    bed.a.runs(POD)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"}, minReplicas=1)
    stalled = lambda: bed.a.pool_condition("WorkersStalled")
    worker = example_worker(f"crew@{POD}")
    bed.a.job("first", inputs={"seconds": 0})
    bed.a.in_phase("first", "Succeeded")
    until("nothing stalls", lambda: stalled().get("status") == "False")
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        bed.a.job("unheeded", inputs={"seconds": 0})
        until("it is said", lambda: stalled().get("status") == "True", 75)
        assert (stalled()["reason"], "crew_jobs,default" in stalled()["message"]) == ("NothingTaken", True)
        assert not bed.a.is_leaving(POD)
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)
    bed.a.in_phase("unheeded", "Succeeded")
    until("it is over", lambda: stalled().get("status") == "False")
    assert not bed.a.is_leaving(POD)
