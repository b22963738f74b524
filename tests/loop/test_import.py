"""What a Celery set-up would be here: read from its workers and its queues, without a change to either."""

import json
import os
import subprocess
import urllib.parse

import pytest
from celery import Celery

from servers import CREWJOB, CeleryWorker
from test_real_app import APPLICATION, PASSWORD, server  # noqa: F401
from waiting import until

NODE = "celery@old"


@pytest.fixture
def url(server):  # noqa: F811
    return f"redis://:{urllib.parse.quote(PASSWORD, safe='')}@127.0.0.1:{server.port}"


@pytest.fixture
def worker(url, tmp_path):
    env = {"result_backend_url": f"{url}/14"}
    worker = CeleryWorker(tmp_path / "old", f"{url}/15", APPLICATION, NODE, "-c", "2", "-P", "threads", **env)
    yield worker
    worker.stop()


def imported(what: str, *options: str, **env: str) -> tuple[dict, str]:
    """What is printed, as an object, and what is said besides."""
    command = [str(CREWJOB), "ctl", "import", what, "-o", "json", *options]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr and urllib.parse.quote(PASSWORD, safe="") not in done.stdout + done.stderr
    return json.loads(done.stdout), done.stderr


def test_the_pool_that_fits_a_published_application_is_printed_and_works(bed, url, worker):
    bed.a.secret("broker", REDIS_URL=f"{url}/15", RESULT_BACKEND_URL=f"{url}/14")
    through = ("--secret", "broker", "-n", bed.a.namespace)
    kubeconfig = {"KUBECONFIG": str(bed.control_plane.kubeconfig)}
    answered = lambda: "no worker has answered" not in imported("pool", *through, **kubeconfig)[1]  # noqa: E731
    until("the worker answers", answered, 30)
    pool, said = imported("pool", *through, **kubeconfig)
    assert pool["spec"] == {
        "redis": {"secretName": "broker"},
        "celery": {"prioritySteps": [0, 1, 2, 3, 4], "separator": ":", "resultExpires": "24h"},
        "queues": [{"name": "celery"}],
        "allowedTasks": ["backend.tasks.run_crew_task", "of.the.application"],
        "concurrency": 2,
    }
    assert f"{NODE}: worker_prefetch_multiplier is not 1" in said and "worker_send_task_events" in said
    bed.a.kubectl("create", "-f", "-", given=json.dumps(pool))
    until("the pool is ready", lambda: bed.a.pool_condition("Ready").get("status") == "True")
    bed.a.job("first")
    assert bed.a.in_phase("first", "Succeeded")["result"]["value"] == "done"


def test_messages_that_wait_are_printed_as_jobs_and_none_of_them_is_touched(bed, url, server, worker):  # noqa: F811
    env = {"REDIS_URL": f"{url}/15", "RESULT_BACKEND_URL": f"{url}/14"}
    app = Celery(broker=f"{url}/15", backend=f"{url}/14")
    app.conf.broker_transport_options = {"priority_steps": list(range(5)), "sep": ":"}
    until("the worker consumes nothing", lambda: app.control.cancel_consumer("celery", reply=True))
    until("it says so", lambda: app.control.inspect().active_queues() == {NODE: []})
    calls = {}
    for number in range(205):
        # A hundred of the large ones are more than the program takes in one answer.
        deep = {"list": [1, None], "text": "x" * (200_000 if number % 2 else 1)}
        kwargs = {"job_id": f"job-{number}", "inputs": {"topic": f"Ünï {number}", "deep": deep}}
        sent = app.send_task("backend.tasks.run_crew_task", (), kwargs, priority=number % 5, time_limit=60, soft_time_limit=30)
        calls[sent.id] = (kwargs, number % 5)
    dump = lambda: {key: server.client.dump(key) for key in server.client.keys("*celery*") if server.client.type(key) == b"list"}  # noqa: E731
    before = dump()
    assert len(before) == 5
    jobs, said = imported("jobs", "--queue", "celery", "--pool", "gpu", **env)
    assert dump() == before and "205 messages wait" in said
    assert len(jobs["items"]) == len(calls)
    for job in jobs["items"]:
        kwargs, priority = calls.pop(job["metadata"]["annotations"]["crewjob.dev/imported-task"])
        spec = job["spec"]
        assert (spec["kwargs"], spec["args"], spec["topic"]) == (kwargs, [], kwargs["inputs"]["topic"])
        assert (spec["priority"], spec["queue"], spec["poolRef"]["name"], spec["suspend"]) == (10 - priority, "celery", "gpu", True)
        assert spec["timeouts"] == {"hard": "60s", "soft": "30s"}
    assert [job["spec"]["priority"] for job in jobs["items"]] == sorted((job["spec"]["priority"] for job in jobs["items"]), reverse=True)
    bed.a.kubectl("create", "-f", "-", given=json.dumps(jobs["items"][0]))
    assert bed.a.items("crewjobs")[0]["spec"]["suspend"] is True


def test_what_cannot_be_reached_or_was_not_said_is_an_error_that_says_what_to_do():
    def refused(*options: str, **env: str) -> tuple[int, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("REDIS")}
        done = subprocess.run([str(CREWJOB), "ctl", "import", *options], env=clean | env, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr

    status, said = refused("pool")
    assert status == 2 and "--secret" in said and "REDIS_URL" in said
    status, said = refused("pool", REDIS_URL="redis://:secret-word@127.0.0.1:1/0")
    assert status == 1 and "127.0.0.1:1" in said and "secret-word" not in said
