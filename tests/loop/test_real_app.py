"""The settings of a published application, all at once: five bands of priorities with another separator, a password with
characters that URLs quote, results in another database of the same server, and a prefetch of four."""

import json
import urllib.parse

import pytest
import redis
from celery import Celery

from servers import CREW, CeleryWorker, NativeWorker, Redis
from test_priority import bands
from waiting import until

PASSWORD = "p@ss:w/rd#1"
APPLICATION = """
import os
from celery import Celery

app = Celery("application", broker=os.environ["REDIS_URL"], backend=os.environ["RESULT_BACKEND_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True, broker_pool_limit=10, task_acks_late=True, task_track_started=True,
    task_default_priority=2, worker_prefetch_multiplier=4, result_expires=86400,
    broker_transport_options={
        "priority_steps": list(range(5)), "sep": ":", "queue_order_strategy": "priority", "health_check_interval": 30,
        "retry_on_timeout": True, "socket_keepalive": True,
    },
)

def ran(task):
    app.backend.client.incr(f"ran:{task.request.id}")

@app.task(name="backend.tasks.run_crew_task", bind=True)
def run_crew_task(self, job_id, inputs, bypass_cache=False):
    ran(self)
    return "done"

@app.task(name="of.the.application", bind=True)
def of_the_application(self):
    ran(self)
"""


@pytest.fixture
def server(tmp_path):
    server = Redis(tmp_path / "real")
    server.client.config_set("requirepass", PASSWORD)
    server.client = redis.Redis(port=server.port, password=PASSWORD, db=15)
    yield server
    server.stop()


@pytest.mark.parametrize("kind", ["python", "native"])
def test_a_published_applications_settings_work_with_workers_of_both_kinds(bed, server, tmp_path, kind):
    url = f"redis://:{urllib.parse.quote(PASSWORD, safe='')}@127.0.0.1:{server.port}"
    bed.a.secret("redis-real", REDIS_URL=f"{url}/15", RESULT_BACKEND_URL=f"{url}/14")
    names = {"prioritySteps": [0, 1, 2, 3, 4], "separator": ":", "resultExpires": "24h"}
    bed.a.pool_with("redis-real", "default", celery=names)
    for priority in range(11):
        bed.a.job(f"crew-{priority}", priority=priority)
    of_jobs = {"crew_jobs": 3, "crew_jobs:1": 2, "crew_jobs:2": 2, "crew_jobs:3": 2, "crew_jobs:4": 2}
    until("the jobs are spread over all bands", lambda: bands(server) == of_jobs)
    usual = [json.loads(message)["headers"]["id"] for message in server.client.lrange("crew_jobs:2", 0, -1)]
    assert bed.a.task("crew-5") in usual, "a usual job is in the band in the middle"
    options = ("-c", "1", "-Q", "crew_jobs")
    if kind == "python":
        producer = Celery("producer", broker=f"{url}/15")
        producer.conf.broker_transport_options = {"priority_steps": list(range(5)), "sep": ":"}
        own = [producer.send_task("of.the.application", queue="crew_jobs", priority=n % 5).id for n in range(10)]
        worker = CeleryWorker(tmp_path / "worker", f"{url}/15", APPLICATION, "crew@real", *options, "-P", "threads", result_backend_url=f"{url}/14")
    else:
        own = []
        tasks = json.dumps({"crew": {"cache": 0, "run": {"command": ["/bin/sh", "-c", CREW], "output": "text"}}})
        options = (*options, "--priority-steps", "0,1,2,3,4", "--separator", ":")
        worker = NativeWorker(tmp_path / "worker", f"{url}/15", tasks, "crew@real", *options, result_backend_url=f"{url}/14")
    try:
        for priority in range(11):
            status = bed.a.in_phase(f"crew-{priority}", "Succeeded")
            assert (status["attempts"], status.get("messageLosses", 0), status.get("workerLosses", 0)) == (1, 0, 0)
        results = redis.Redis(port=server.port, password=PASSWORD, db=14)
        if kind == "python":
            jobs = [bed.a.status(f"crew-{priority}")["taskID"] for priority in range(11)]
            runs = lambda: [int(results.get(f"ran:{task}") or 0) for task in (*jobs, *own)]
            until("each has run once", lambda: runs() == [1] * 21)
        expected = ("True", "PrefetchTooHigh") if kind == "python" else ("False", "AsExpected")
        condition = lambda: bed.a.pool_condition("WorkersMisconfigured")
        until("the pool says how its workers are set up", lambda: (condition().get("status"), condition().get("reason")) == expected)
    finally:
        worker.process.kill()
        worker.process.wait()
