"""What the operator makes of stock Celery workers that are set up so that results would be lost: it says so before runs are
paid for."""

import pytest

from servers import CeleryWorker
from waiting import holds, until

APPLICATION = """
import os, time
from celery import Celery

app = Celery("application", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    task_acks_late=True, task_track_started=True, worker_prefetch_multiplier=1, task_ignore_result=False,
    broker_transport_options={"visibility_timeout": 3600}, result_backend_always_retry=True,
)
SETTINGS

@app.task(name="backend.tasks.run_crew_task")
def run_crew_task(job_id, inputs, bypass_cache=False):
    time.sleep(inputs.get("seconds", 0))
    return "done"
"""
# How a worker is set up, why jobs wait for it to be set up otherwise, and what the message has to name.
LOSING = {
    "pickle": ("app.conf.update(result_serializer='pickle', accept_content=['json', 'pickle'])", "ResultSerializerNotJson", "pickle"),
    "lzma": ("app.conf.result_compression = 'lzma'", "ResultCompressionUnknown", "lzma"),
    "no backend": ("app.conf.result_backend = None", "ResultBackendDiffers", "result_backend"),
    "rpc": ("app.conf.result_backend = 'rpc://'", "ResultBackendDiffers", "rpc"),
    "another database": ("app.conf.result_backend += '1'", "ResultBackendDiffers", "database"),
    "ignored": ("app.conf.task_ignore_result = True", "ResultsIgnored", "task_ignore_result"),
}


@pytest.fixture
def worker(bed, tmp_path):
    """Starts a worker with these settings, one task at a time."""
    running = []

    def start(settings: str, node: str = "crew@first", queue: str = "crew_jobs") -> CeleryWorker:
        source = APPLICATION.replace("SETTINGS", settings)
        options = ("-E", "-P", "threads", "-c", "1", "-Q", queue)
        # As root, Celery starts no worker that accepts pickle.
        running.append(CeleryWorker(tmp_path / str(len(running)), bed.redis.url, source, node, *options, c_force_root="1"))
        return running[-1]

    yield start
    for each in running:
        # A thread that sleeps holds up a stop.
        each.process.kill()
        each.process.wait()


def misconfigured(bed, reason: str) -> str:
    """Waits until the pool says so, and returns the message."""
    condition = lambda: bed.a.pool_condition("WorkersMisconfigured")
    return until(f"{reason} is said", lambda: condition().get("reason") == reason and condition()["message"])


def waits(bed, name: str, reason: str) -> str:
    """Waits until a job says why it waits, and returns the message."""
    condition = until(f"{name} waits", lambda: bed.a.condition(name).get("reason") == reason and bed.a.condition(name))
    assert bed.a.status(name)["phase"] == "Pending"
    return condition["message"]


@pytest.mark.parametrize("settings", LOSING)
def test_jobs_wait_for_a_worker_that_would_lose_their_results_to_be_set_up_otherwise(bed, worker, settings):
    source, reason, named = LOSING[settings]
    odd = worker(source)
    bed.a.pool(bed.redis)
    message = misconfigured(bed, reason)
    assert "crew@first" in message and named in message, message
    bed.a.job("crew")
    message = waits(bed, "crew", reason)
    assert "crew@first" in message and named in message, message
    holds("nothing is published", lambda: not bed.redis.messages() and bed.redis.client.hlen("unacked") == 0, 3)
    odd.stop()
    worker("")
    assert bed.a.in_phase("crew", "Succeeded")["attempts"] == 1
    assert bed.a.pool_condition("WorkersMisconfigured")["status"] == "False"
    until("a Warning has said it", lambda: reason in [event["reason"] for event in bed.a.warnings("crewjobs", "crew")])


def test_jobs_wait_for_a_worker_without_the_prefix_of_results_that_the_pool_has(bed, worker):
    worker("")
    bed.a.pool(bed.redis, celery={"resultKeyPrefix": "app:"})
    assert "resultKeyPrefix" in misconfigured(bed, "ResultKeysDiffer")
    bed.a.job("crew")
    waits(bed, "crew", "ResultKeysDiffer")
    bed.a.patch("crewworkerpools", "default", {"spec": {"celery": {"resultKeyPrefix": ""}}})
    bed.a.in_phase("crew", "Succeeded")


def test_a_message_that_waits_is_taken_back_when_one_of_the_workers_turns_out_to_waste_runs(bed, worker):
    worker("", "crew@good", "default")
    bed.a.pool(bed.redis)
    bed.a.job("first", inputs={"seconds": 600})
    bed.a.in_phase("first", "Queued")
    bed.a.job("second")
    bed.a.in_phase("second", "Queued")
    # That a run has begun would be stored as pickle as well.
    worker("app.conf.update(result_serializer='pickle', accept_content=['json', 'pickle'], task_track_started=False)", "crew@odd")
    assert bed.a.in_phase("first", "Running")["worker"]["name"] == "crew@odd"
    message = waits(bed, "second", "ResultSerializerNotJson")
    assert "crew@odd" in message and "crew@good" not in message, message
    assert not bed.redis.messages()
    assert bed.a.status("first")["phase"] == "Running", "what has begun goes on"


def test_a_worker_is_started_for_jobs_that_wait_for_another_so_that_it_can_be_asked(bed, worker):
    bed.a.deployment(replicas=None)
    odd = worker("app.conf.result_serializer = 'pickle'; app.conf.accept_content = ['json', 'pickle']")
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"}, scaleDownDelay="1s")
    misconfigured(bed, "ResultSerializerNotJson")
    odd.stop()
    replicas = lambda: bed.a.get("deployments", "worker")["spec"]["replicas"]
    until("no worker is needed", lambda: replicas() == 0)
    bed.a.job("crew")
    waits(bed, "crew", "ResultSerializerNotJson")
    until("a worker is started", lambda: replicas() == 1)
    bed.operator.restart()
    holds("the job waits under another operator, too", lambda: bed.a.status("crew")["phase"] == "Pending" and not bed.redis.messages(), 5)
    worker("")
    bed.a.in_phase("crew", "Succeeded")


def test_settings_that_lose_no_result_are_said_and_jobs_go_on(bed, worker):
    worker("app.conf.broker_transport_options |= {'priority_steps': [0, 5], 'visibility_timeout': 600}; app.conf.task_acks_late = False")
    bed.a.pool(bed.redis)
    message = misconfigured(bed, "AcknowledgesEarly")
    for setting in ("task_acks_late", "priority_steps", "visibility_timeout"):
        assert setting in message, message
    bed.a.job("crew", priority=10)
    bed.a.in_phase("crew", "Succeeded")
