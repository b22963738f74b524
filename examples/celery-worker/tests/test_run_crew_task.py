"""`run_crew_task` on a real worker."""

import asyncio
import contextlib
import json

import celery
import pytest
from celery.contrib.abortable import AbortableAsyncResult
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, WorkerLostError
from conftest import eventually, free_port, running_redis, running_worker

from backend import tasks
from backend.crew import Crew
from backend.tasks import run_crew_task

OPERATOR = {"crewjob_uid": "5d0b3c1e-0000-4000-8000-000000000001"}


@pytest.fixture
def run(worker):
    def run(inputs, job_id="job-1", bypass_cache=False, **options):
        kwargs = {"inputs": inputs, "bypass_cache": bypass_cache}
        return run_crew_task.apply_async(args=[job_id], kwargs=kwargs, **options)

    return run


def document(results, task_id):
    return json.loads(results.get(f"celery-task-meta-{task_id}"))


def test_the_result_has_the_text_the_job_the_worker_and_why_no_model_was_asked(run):
    task = run({"topic": "Tides", "seconds": 0, "level": "school"})
    result = task.get(timeout=30)
    assert result["job_id"] == "job-1"
    assert result["status"] == "completed"
    assert result["format"] == "text"
    assert result["result"].startswith("# Tides")
    assert "- level: school" in result["result"]
    assert result["offline"] is True
    assert "OPENAI_API_KEY and CREW_MODEL not set" in result["offline_reason"]
    assert result["cached"] is False
    assert result["celery"] == {"task_id": task.id, "retries": 0, "worker": "crew@tests"}


def test_the_stored_document_names_task_worker_and_queue(run, results):
    task = run({"topic": "Extended", "seconds": 0})
    task.get(timeout=30)
    stored = document(results, task.id)
    assert stored["name"] == "backend.tasks.run_crew_task"
    assert stored["worker"] == "crew@tests"
    assert stored["queue"] == "crew_jobs"
    assert 3500 < results.ttl(f"celery-task-meta-{task.id}") <= 3600


def test_started_and_progress_are_written_on_the_way(run, results):
    task_id = "progress-1"
    with results.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(f"celery-task-meta-{task_id}")
        run({"topic": "Progress", "seconds": 1}, task_id=task_id).get(timeout=30)
        documents = []
        while not documents or documents[-1]["status"] != "SUCCESS":
            message = channel.get_message(timeout=5)
            if message:
                documents.append(json.loads(message["data"]))
    states = [written["status"] for written in documents]
    assert states == ["STARTED", "PROGRESS", "PROGRESS", "PROGRESS", "SUCCESS"]
    reports = [written["result"] for written in documents[1:-1]]
    assert [report["percent"] for report in reports] == [0, 33, 66]
    assert [report["message"].split(":")[0] for report in reports] == ["researcher", "writer", "editor"]


def test_a_run_that_ends_while_redis_is_away_stores_its_result_as_soon_as_redis_is_back(tmp_path):
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    urls = {"REDIS_URL": f"{url}/0", "RESULT_BACKEND_URL": f"{url}/0"}
    log = tmp_path / "worker.log"
    with contextlib.ExitStack() as stack:
        with running_redis(port, tmp_path) as client:
            stack.enter_context(running_worker("away@tests", log, "-c", "1", "-Q", "crew_jobs", **urls))
            producer = celery.Celery(broker=url, set_as_current=False)
            inputs = {"topic": "Away", "seconds": 3}
            sent = {"args": ["job-1"], "kwargs": {"inputs": inputs}, "queue": "crew_jobs", "task_id": "away-1"}
            producer.send_task(run_crew_task.name, **sent)
            eventually(lambda: client.get("celery-task-meta-away-1"), what="a run")
        eventually(lambda: "the result cache is not written" in log.read_text(), what="the end of the run")
        client = stack.enter_context(running_redis(port, tmp_path))
        eventually(lambda: client.get("celery-task-meta-away-1"), what="a document")
        assert document(client, "away-1")["status"] == "SUCCESS"
        assert "progress is not shown" in log.read_text(), "the run did not wait for Redis"


def test_the_same_inputs_are_answered_from_the_cache(run):
    first = run({"topic": "Cache", "seconds": 0.6, "b": 1}).get(timeout=30)
    second = run({"b": 1, "seconds": 0.6, "topic": "Cache"}, job_id="job-2").get(timeout=30)
    assert (first["cached"], second["cached"]) == (False, True)
    assert second["result"] == first["result"]
    assert second["job_id"] == "job-2"
    assert second["elapsed_seconds"] < 0.5 < first["elapsed_seconds"]


def test_bypass_cache_runs_the_crew_again_and_keeps_the_new_output(run, results):
    run({"topic": "Bypass", "seconds": 0}).get(timeout=30)
    key = next(key for key in results.scan_iter("crew-cache:offline:*") if b"# Bypass" in results.get(key))
    results.set(key, json.dumps({"text": "stale", "offline": True}))
    assert run({"topic": "Bypass", "seconds": 0}).get(timeout=30)["result"] == "stale"
    assert run({"topic": "Bypass", "seconds": 0}, bypass_cache=True).get(timeout=30)["cached"] is False
    assert run({"topic": "Bypass", "seconds": 0}).get(timeout=30)["result"].startswith("# Bypass")
    assert 86_000 < results.ttl(key) <= 86_400


def test_a_damaged_cache_entry_is_ignored(run, results):
    run({"topic": "Damaged", "seconds": 0}).get(timeout=30)
    key = next(key for key in results.scan_iter("crew-cache:offline:*") if b"# Damaged" in results.get(key))
    results.set(key, b"\xff not json")
    assert run({"topic": "Damaged", "seconds": 0}).get(timeout=30)["cached"] is False


def test_the_text_is_as_long_as_asked(run):
    result = run({"topic": "Size", "seconds": 0, "result_bytes": 20_000}).get(timeout=30)
    assert len(result["result"]) == 20_000


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "inputs must be a JSON object, not list"),
        ("text", "inputs must be a JSON object, not str"),
        (None, "inputs must be a JSON object, not NoneType"),
        ({}, "inputs.topic must be a non-empty string"),
        ({"topic": 7}, "inputs.topic must be a non-empty string"),
        ({"topic": "  "}, "inputs.topic must be a non-empty string"),
        ({"topic": "x", "seconds": "3"}, "inputs.seconds must be a number from 0"),
        ({"topic": "x", "seconds": float("nan")}, "inputs.seconds must be a number from 0"),
        ({"topic": "x", "seconds": 0, "fail": "unheard-of"}, "inputs.fail must be transient, permanent, crash or"),
    ],
)
def test_bad_inputs_fail_with_a_message_that_names_the_input(run, results, inputs, message):
    task = run(inputs)
    with pytest.raises(ValueError, match=message):
        task.get(timeout=30)
    stored = document(results, task.id)
    assert (stored["status"], stored["result"]["exc_type"]) == ("FAILURE", "ValueError")


def test_bad_job_id_and_bypass_cache_are_refused(run):
    with pytest.raises(ValueError, match="job_id must be a non-empty string"):
        run({"topic": "x"}, job_id=7).get(timeout=30)
    with pytest.raises(ValueError, match="bypass_cache must be true or false"):
        run({"topic": "x"}, bypass_cache="yes").get(timeout=30)


def test_a_transient_error_is_retried(run, results):
    task = run({"topic": "Retry", "seconds": 0, "fail": "transient", "fail_runs": 1})
    assert task.get(timeout=30)["celery"]["retries"] == 1


def test_a_permanent_error_is_not_retried(run, results):
    task = run({"topic": "Permanent", "seconds": 0, "fail": "permanent"})
    with pytest.raises(ValueError, match="inputs.fail is permanent"):
        task.get(timeout=30)
    assert document(results, task.id)["retries"] == 0


def test_a_named_exception_is_raised(run):
    with pytest.raises(KeyError, match="inputs.fail is KeyError"):
        run({"topic": "Named", "seconds": 0, "fail": "KeyError"}).get(timeout=30)


def test_running_out_of_memory_does_not_take_the_worker_down(run):
    with pytest.raises(RuntimeError, match="backend.tasks.run_crew_task ran out of memory"):
        run({"topic": "Memory", "seconds": 0, "fail": "MemoryError"}).get(timeout=30)
    assert run({"topic": "After", "seconds": 0}).get(timeout=30)["celery"]["worker"] == "crew@tests"


def test_retries_of_the_operators_jobs_are_left_to_the_operator(run, results):
    task = run({"topic": "Owned", "seconds": 0, "fail": "transient"}, headers=OPERATOR, retries=1)
    with pytest.raises(ConnectionError):
        task.get(timeout=30)
    stored = document(results, task.id)
    assert (stored["status"], stored["retries"]) == ("FAILURE", 1)


def test_a_killed_process_is_a_lost_worker(run):
    with pytest.raises(WorkerLostError):
        run({"topic": "Crash", "seconds": 0, "fail": "crash"}).get(timeout=30)


def test_a_soft_time_limit_stops_the_crew(run):
    with pytest.raises(SoftTimeLimitExceeded):
        run({"topic": "Soft", "seconds": 30}, soft_time_limit=1, time_limit=20).get(timeout=15)


def test_a_crew_that_ends_while_its_cancellation_is_seen_has_ended(monkeypatch):
    async def seen_at_once(_backend, _task_id):
        pass

    async def crew(_inputs, _report, _retries):
        await asyncio.sleep(0)
        return {"text": "done"}

    monkeypatch.setattr(tasks, "until_cancelled", seen_at_once)
    ended = tasks.run_until_cancelled(run_crew_task, Crew("test", crew), {})
    assert asyncio.run(ended) == {"text": "done"}


def test_revoke_with_terminate_stops_a_running_crew(run, results):
    task = run({"topic": "Terminate", "seconds": 60})
    eventually(lambda: task.state == "PROGRESS", what="a running task")
    task.revoke(terminate=True)
    with pytest.raises(TaskRevokedError, match="terminated"):
        task.get(timeout=15)
    assert document(results, task.id)["worker"] == "crew@tests"


def test_abort_stops_a_crew_that_cannot_be_killed(run, results, thread_worker):
    task = run({"topic": "Abort", "seconds": 60}, queue="threads")
    eventually(lambda: task.state == "PROGRESS", what="a running task")
    AbortableAsyncResult(task.id).abort()
    with pytest.raises(TaskRevokedError, match="revoked"):
        task.get(timeout=15)
    stored = document(results, task.id)
    assert (stored["worker"], stored["name"]) == ("crew@threads", "backend.tasks.run_crew_task")
