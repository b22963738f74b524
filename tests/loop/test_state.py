"""The state of a job, which each attempt finds as the last one left it, and what its runs consumed."""

import json
import signal
import time

import pytest

from fixtures import starts
from servers import PACKAGE, CeleryWorker, NativeWorker
from test_pods import POD, fleet
from waiting import holds, until

POLICY = {"maxRetries": 3, "backoff": {"initial": "1s", "max": "1s"}}

# Three steps, each of which is paid for: a line in CALLS. `fails` is the step after which the first attempt fails, `waits`
# the step before which a run waits until the file GO is there.
CREW = r"""
import json, os, pathlib, sys, time
call = json.loads(sys.stdin.readline())
inputs = call["kwargs"].get("inputs") or {}
state, calls, go = pathlib.Path(os.environ["CREWJOB_STATE_DIR"]), os.environ["CALLS"], os.environ["GO"]
assert call["state_dir"] == str(state)
def say(**line):
    print(json.dumps(line), flush=True)
if inputs.get("large"):
    (state / "noise").write_bytes(os.urandom(inputs["large"]))
for step in range(1, inputs.get("steps", 3) + 1):
    done = state / f"step-{step}"
    if done.exists():
        continue
    while inputs.get("waits") == step and not os.path.exists(go):
        time.sleep(0.05)
    with open(calls, "a") as paid:
        paid.write(f"{step}\n")
    cost = {} if inputs.get("free") else {"cost_usd": "0.25"}
    say(usage={"model": "m", "input_tokens": 100, "output_tokens": 10, "requests": 1} | cost)
    (state / "new").write_text(f"text {step}")
    (state / "new").rename(done)
    if inputs.get("asks", True):
        say(checkpoint=True)
    if inputs.get("fails") == step and not call["retries"]:
        sys.exit(75)
say(result={"text": " ".join(sorted(file.name for file in state.iterdir() if file.name != "noise"))})
"""
ALL = "step-1 step-2 step-3"

# The same three steps as a task of a Celery worker.
APPLICATION = r"""
import os, pathlib
import crewjob
from celery import Celery

app = Celery("application", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"], include=["crewjob.guard"])
app.conf.update(
    task_acks_late=True, task_track_started=True, worker_prefetch_multiplier=1, worker_send_task_events=True,
    broker_transport_options={"visibility_timeout": 3600}, result_backend_always_retry=True, result_extended=True,
)

@crewjob.task(name="backend.tasks.run_crew_task", retry_for=(ConnectionError,))
def run_crew_task(job_id, inputs=None, bypass_cache=False):
    state, call = crewjob.state_dir(), crewjob.current_call()
    for step in range(1, 4):
        done = state / f"step-{step}"
        if done.exists():
            continue
        with open(os.environ["CALLS"], "a") as paid:
            paid.write(f"{step}\n")
        crewjob.report_usage("m", input_tokens=100, output_tokens=10, requests=1, cost_usd="0.25")
        done.write_text(f"text {step}")
        crewjob.checkpoint()
        if inputs.get("fails") == step and not call.retries:
            raise ConnectionError("no answer")
    return {"result": " ".join(sorted(file.name for file in state.iterdir()))}

run = crewjob.celery_task(app, run_crew_task, version="1")
"""


@pytest.fixture
def calls(tmp_path):
    """What was paid for so far."""
    return lambda: (tmp_path / "calls").read_text().split() if (tmp_path / "calls").exists() else []


@pytest.fixture
def go(tmp_path):
    """Lets waiting runs go on."""
    return (tmp_path / "go").touch


@pytest.fixture
def worker(bed, tmp_path):
    """Starts a native worker on `redis`."""

    def start(node="crew@first", *options, state=None):
        env = {"CALLS": str(tmp_path / "calls"), "GO": str(tmp_path / "go")}
        run = {"command": ["python3", "-c", CREW], "env": env} | ({"state": state} if state else {})
        return NativeWorker(tmp_path / node, bed.redis.url, json.dumps({"crew": {"run": run}}), node, *options)

    yield from starts(start)


@pytest.fixture
def celery_worker(bed, tmp_path):
    """Starts a Celery worker with the package on `redis`."""

    def start(node="crew@celery"):
        calls, options = str(tmp_path / "calls"), ("-P", "solo", "-Q", "crew_jobs")
        return CeleryWorker(tmp_path / node, bed.redis.url, APPLICATION, node, *options, pythonpath=str(PACKAGE), calls=calls)

    yield from starts(start)


def states(bed) -> list[str]:
    return [key.decode() for key in bed.redis.client.keys("crewjob-state:*")]


def text(status) -> str:
    return status["result"]["value"]["result"]


def saved(bed, name: str, calls, step: int):
    """Waits until a step of the job was paid for and saved."""
    key = lambda: f"crewjob-state:{bed.a.get('crewjobs', name)['status'].get('taskID')}"
    until(f"step {step} is paid for", lambda: calls()[-1:] == [str(step)])
    until("its state is saved", lambda: bed.redis.client.hexists(key(), "archive"))
    until("the status says so", lambda: "savedAt" in bed.a.status(name).get("state", {}))


def test_an_attempt_finds_what_the_last_one_left_and_nothing_is_paid_for_twice(bed, worker, calls):
    bed.a.pool(bed.redis)
    worker()
    bed.a.job("again", inputs={"fails": 2}, retryPolicy=POLICY)
    status = bed.a.in_phase("again", "Succeeded")
    assert (calls(), text(status), status["attempts"]) == (["1", "2", "3"], ALL, 2)
    assert [past.get("resumed", False) for past in status["attemptHistory"]] == [False, True]
    assert status["state"]["sizeBytes"] > 0 and status["state"]["savedAt"]
    until("the state of a job that has succeeded is deleted", lambda: not states(bed))


def test_what_all_attempts_consumed_is_in_the_status_by_model_and_in_the_history(bed, worker):
    bed.a.pool(bed.redis)
    worker()
    bed.a.job("costs", inputs={"fails": 2}, retryPolicy=POLICY)
    status = bed.a.in_phase("costs", "Succeeded")
    consumed = {"inputTokens": 300, "outputTokens": 30, "requests": 3, "costUSD": "0.75"}
    assert status["usage"] == consumed | {"models": [{"model": "m"} | consumed]}
    assert [past["usage"]["costUSD"] for past in status["attemptHistory"]] == ["0.5", "0.25"]
    assert "usageCount" not in status


def test_tokens_cost_what_the_pool_says_where_a_program_reports_no_cost(bed, worker):
    bed.a.pool(bed.redis, prices=[{"model": "m", "inputPerMillion": "2000", "outputPerMillion": "10000"}])
    worker()
    bed.a.job("priced", inputs={"free": True, "fails": 2}, retryPolicy=POLICY)
    status = bed.a.in_phase("priced", "Succeeded")
    assert status["usage"]["costUSD"] == "0.9", "300 tokens at 0.002 and 30 at 0.01"
    assert [past["usage"]["costUSD"] for past in status["attemptHistory"]] == ["0.6", "0.3"]


def test_with_resume_false_each_attempt_begins_anew(bed, worker, calls):
    bed.a.pool(bed.redis)
    worker()
    bed.a.job("anew", inputs={"fails": 2}, retryPolicy=POLICY | {"resume": False})
    status = bed.a.in_phase("anew", "Succeeded")
    assert calls() == ["1", "2", "1", "2", "3"]
    assert not any(past.get("resumed") for past in status["attemptHistory"])
    assert status["usage"]["costUSD"] == "1.25"


def test_a_job_whose_worker_was_killed_goes_on_elsewhere_where_it_was(bed, worker, calls, go):
    fleet(bed.a, POD)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    first = worker(f"crew@{POD}")
    bed.a.job("moves", inputs={"waits": 3})
    saved(bed, "moves", calls, 2)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    bed.a.terminates(POD, "worker")
    go()
    worker("crew@second")
    status = bed.a.in_phase("moves", "Succeeded", seconds=60)
    assert text(status) == ALL
    # The command of a worker that is killed goes on here; in a container it is killed with it.
    assert calls()[:2] == ["1", "2"] and calls().count("1") == 1
    assert (status["attempts"], status["workerLosses"], status["state"]["resumed"]) == (1, 1, True)
    assert [past.get("resumed", False) for past in status["attemptHistory"]] == [False, True]
    assert float(status["usage"]["costUSD"]) == 0.75, "what the killed run said last counts"


def test_a_worker_that_is_drained_stops_a_run_at_its_checkpoint_and_no_attempt_is_counted(bed, worker, calls, go):
    bed.a.pool(bed.redis)
    first = worker("crew@first", "--on-drain", "checkpoint")
    bed.a.job("drained", inputs={"waits": 3})
    bed.a.job("bare", inputs={"waits": 1, "steps": 1, "asks": False})
    saved(bed, "drained", calls, 2)
    began = time.monotonic()
    first.process.send_signal(signal.SIGTERM)
    first.process.wait(30)
    assert time.monotonic() - began < 15
    go()
    worker("crew@second")
    status = bed.a.in_phase("drained", "Succeeded")
    assert (calls()[:2], text(status)) == (["1", "2"], ALL)
    assert (status["attempts"], status.get("workerLosses", 0), status["state"]["resumed"]) == (1, 0, True)
    bed.a.in_phase("bare", "Succeeded")


def test_a_run_that_has_saved_nothing_goes_on_to_its_end_when_its_worker_is_drained(bed, worker, calls, go):
    bed.a.pool(bed.redis)
    first = worker("crew@first", "--on-drain", "checkpoint")
    bed.a.job("bare", inputs={"waits": 1})
    bed.a.in_phase("bare", "Running")
    first.process.send_signal(signal.SIGTERM)
    holds("it goes on", lambda: first.process.poll() is None, 2)
    go()
    assert text(bed.a.in_phase("bare", "Succeeded")) == ALL


def test_another_job_begins_with_the_state_that_a_failed_one_has_left(bed, worker, calls):
    bed.a.pool(bed.redis)
    worker()
    bed.a.job("first", inputs={"fails": 2}, retryPolicy={"maxRetries": 0})
    bed.a.in_phase("first", "Failed")
    bed.a.job("second", resumeFrom={"name": "first"})
    status = bed.a.in_phase("second", "Succeeded")
    assert (calls(), text(status)) == (["1", "2", "3"], ALL)
    assert status["attemptHistory"][0]["resumed"]
    assert len(states(bed)) == 1, "that of the failed job is kept"
    bed.a.job("third", resumeFrom={"name": "another"})
    status = bed.a.in_phase("third", "Succeeded")
    assert status["state"]["problem"] == 'spec.resumeFrom names CrewJob "another", which does not exist'
    assert calls() == ["1", "2", "3"] * 2
    bed.a.pool(bed.redis, "second")
    bed.a.job("fourth", poolRef={"name": "second"}, resumeFrom={"name": "first"})
    status = bed.a.in_phase("fourth", "Succeeded")
    assert status["state"]["problem"] == 'spec.resumeFrom names CrewJob "first", which another pool serves'


def test_what_another_version_of_the_task_has_saved_is_not_used_and_that_is_said(bed, worker, calls):
    bed.a.pool(bed.redis)
    first = worker(state={"version": "1"})
    bed.a.job("old", inputs={"fails": 2}, retryPolicy={"maxRetries": 0})
    bed.a.in_phase("old", "Failed")
    first.stop()
    worker("crew@second", state={"version": "2"})
    bed.a.job("new", resumeFrom={"name": "old"})
    status = bed.a.in_phase("new", "Succeeded")
    assert calls() == ["1", "2", "1", "2", "3"]
    assert "another version of the task has saved the state" in status["state"]["problem"]
    assert "resumed" not in status["attemptHistory"][0]


def test_a_state_that_is_too_large_is_said_and_the_run_goes_on_without(bed, worker, calls):
    bed.a.pool(bed.redis)
    worker("crew@first", "--state-max-bytes", "10000")
    bed.a.job("large", inputs={"large": 20_000, "fails": 2}, retryPolicy=POLICY)
    status = bed.a.in_phase("large", "Succeeded")
    assert calls() == ["1", "2", "1", "2", "3"]
    assert "the state has more than 10000 bytes when it is compressed" in status["state"]["problem"]
    assert "savedAt" not in status["state"] and not states(bed)


def test_a_state_that_cannot_be_read_is_said_and_nothing_of_it_is_left(bed, worker, calls):
    bed.a.pool(bed.redis)
    worker(state={"version": "1"})
    bed.a.job("first", inputs={"fails": 2}, retryPolicy={"maxRetries": 0})
    task = bed.a.in_phase("first", "Failed")["taskID"]
    bed.redis.client.hset(f"crewjob-state:{task}", "archive", b"no archive")
    bed.a.job("second", resumeFrom={"name": "first"})
    status = bed.a.in_phase("second", "Succeeded")
    assert "reading the state failed" in status["state"]["problem"]
    assert (calls(), text(status)) == (["1", "2", "1", "2", "3"], ALL)


def test_a_job_that_saves_nothing_has_no_state_on_redis_and_none_in_its_status(bed, worker):
    bed.a.pool(bed.redis)
    worker()
    bed.a.job("plain", inputs={"asks": False})
    status = bed.a.in_phase("plain", "Succeeded")
    assert "state" not in status and not states(bed)


def test_files_that_have_changed_and_are_at_rest_are_saved_without_being_asked_for(bed, worker, calls, go):
    bed.a.pool(bed.redis)
    worker(state={"interval": 1})
    bed.a.job("quiet", inputs={"waits": 3, "asks": False})
    saved(bed, "quiet", calls, 2)
    go()
    bed.a.in_phase("quiet", "Succeeded")


def test_states_in_a_folder_that_workers_share_take_nothing_of_redis(bed, worker, calls, tmp_path):
    bed.a.pool(bed.redis)
    shared = tmp_path / "shared"
    shared.mkdir()
    worker("crew@first", "--state-folder", str(shared))
    bed.a.job("again", inputs={"fails": 2}, retryPolicy=POLICY)
    bed.a.job("fails", inputs={"fails": 2}, retryPolicy={"maxRetries": 0})
    status = bed.a.in_phase("again", "Succeeded")
    assert (text(status), status["attemptHistory"][1]["resumed"], states(bed)) == (ALL, True, [])
    bed.a.in_phase("fails", "Failed")
    until("only what the failed job left is kept", lambda: len(list(shared.glob("*.state"))) == 1)
    bed.a.job("second", resumeFrom={"name": "fails"})
    assert bed.a.in_phase("second", "Succeeded")["attemptHistory"][0]["resumed"]


def test_a_celery_worker_keeps_the_state_of_a_job_and_says_what_its_runs_consumed(bed, celery_worker, calls):
    bed.a.pool(bed.redis)
    celery_worker()
    bed.a.job("again", inputs={"fails": 2}, retryPolicy=POLICY)
    status = bed.a.in_phase("again", "Succeeded", seconds=60)
    assert (calls(), text(status), status["attempts"]) == (["1", "2", "3"], ALL, 2)
    assert [past.get("resumed", False) for past in status["attemptHistory"]] == [False, True]
    assert [past["usage"]["costUSD"] for past in status["attemptHistory"]] == ["0.5", "0.25"]
    assert (status["usage"]["costUSD"], status["usage"]["inputTokens"]) == ("0.75", 300)
    until("the state of a job that has succeeded is deleted", lambda: not states(bed))


def test_a_job_goes_on_with_a_worker_of_the_other_kind_if_both_say_the_same_version(bed, worker, celery_worker, calls):
    bed.a.pool(bed.redis)
    native = worker(state={"version": "1"})
    bed.a.job("native", inputs={"fails": 1}, retryPolicy={"maxRetries": 0})
    bed.a.in_phase("native", "Failed")
    native.stop()
    celery = celery_worker()
    bed.a.job("celery", inputs={"fails": 2}, resumeFrom={"name": "native"}, retryPolicy={"maxRetries": 0})
    assert bed.a.in_phase("celery", "Failed", seconds=60)["attemptHistory"][0]["resumed"]
    celery.stop()
    worker("crew@second", state={"version": "1"})
    bed.a.job("last", resumeFrom={"name": "celery"})
    status = bed.a.in_phase("last", "Succeeded")
    assert status["attemptHistory"][0]["resumed"]
    assert (calls(), text(status)) == (["1", "2", "3"], ALL)
