"""`health_check`, `cleanup_old_results` and `error_handler` on a real worker."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from conftest import ENVIRONMENT, PROJECT, eventually

from backend.celery_app import error_handler
from backend.tasks import cleanup_old_results, health_check, run_crew_task


def test_health_check_names_worker_and_task(worker):
    task = health_check.delay()
    result = task.get(timeout=30)
    assert result["status"] == "healthy"
    assert result["worker_id"] == "crew@tests"
    assert result["task_id"] == task.id
    assert result["crew"] == "offline"


def put_result(results, name, age, status="SUCCESS", ttl=None, naive=False):
    done = datetime.now(UTC) - age
    written = {"status": status, "result": None, "date_done": done.isoformat(), "task_id": name}
    if naive:
        written["date_done"] = done.replace(tzinfo=None).isoformat()
    if status == "STARTED":
        written["date_done"] = None
    results.set(f"celery-task-meta-{name}", json.dumps(written), ex=ttl)
    return f"celery-task-meta-{name}"


def test_cleanup_deletes_only_old_results_without_expiry(worker, results):
    day = timedelta(days=1)
    old = [put_result(results, "old", 2 * day), put_result(results, "naive", 2 * day, naive=True)]
    old += [put_result(results, f"many-{number}", 3 * day, status="FAILURE") for number in range(1200)]
    kept = [
        put_result(results, "young", timedelta(hours=1)),
        put_result(results, "young-naive", timedelta(hours=23), naive=True),
        put_result(results, "expiring", 2 * day, ttl=600),
        put_result(results, "started", 2 * day, status="STARTED"),
    ]
    results.set("celery-task-meta-not-json", "hello")
    results.hset("celery-task-meta-hash", "a", "b")
    kept += ["celery-task-meta-not-json", "celery-task-meta-hash"]

    counts = cleanup_old_results.delay().get(timeout=30)

    assert counts["results_deleted"] == len(old)
    assert counts["results_scanned"] >= len(old) + len(kept) - 1
    assert results.exists(*old) == 0
    assert results.exists(*kept) == len(kept)
    assert cleanup_old_results.delay(retention_seconds=60).get(timeout=30)["results_deleted"] == 2
    results.delete(*kept)


def test_cleanup_deletes_orphaned_reply_lists(worker, server):
    bindings = "_kombu.binding.reply.celery.pidbox"
    server.lpush("gone.reply.celery.pidbox", "reply")
    server.lpush("waiting.reply.celery.pidbox", "reply")
    server.sadd(bindings, "waiting\x06\x16\x06\x16waiting.reply.celery.pidbox")

    counts = cleanup_old_results.delay().get(timeout=30)

    assert counts["reply_lists_deleted"] == 1
    assert not server.exists("gone.reply.celery.pidbox")
    assert server.exists("waiting.reply.celery.pidbox")
    server.srem(bindings, "waiting\x06\x16\x06\x16waiting.reply.celery.pidbox")
    server.delete("waiting.reply.celery.pidbox")


def test_cleanup_finds_results_and_replies_under_other_names_and_leaves_the_rest(server, results):
    names = {"GLOBAL_KEYPREFIX": "app1:", "PRIORITY_SEPARATOR": ":p"}
    old = json.dumps({"status": "SUCCESS", "result": None, "date_done": "2020-01-01T00:00:00+00:00"})
    results.mset({"app1:celery-task-meta-mine": old, "celery-task-meta-other": old})
    for reply in ("app1:gone", "app1:waiting", "other"):
        server.lpush(f"{reply}.reply.celery.pidbox", "reply")
    binding = "waiting:p:pwaiting.reply.celery.pidbox"
    server.sadd("app1:_kombu.binding.reply.celery.pidbox", binding)

    program = "import json; from backend import housekeeping, tasks; print(json.dumps(housekeeping.clean(60)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, env=ENVIRONMENT | names, capture_output=True, check=True
    )

    assert json.loads(done.stdout) == {
        "results_scanned": 1,
        "results_deleted": 1,
        "reply_lists_scanned": 2,
        "reply_lists_deleted": 1,
    }
    assert (results.exists("app1:celery-task-meta-mine"), results.exists("celery-task-meta-other")) == (0, 1)
    left = ["app1:waiting.reply.celery.pidbox", "other.reply.celery.pidbox"]
    assert sorted(key.decode() for key in server.keys("*.reply.celery.pidbox") if b"binding" not in key) == left
    results.delete("celery-task-meta-other")
    server.delete(*left, "app1:_kombu.binding.reply.celery.pidbox")


@pytest.mark.parametrize("retention", [-1, "a day", True])
def test_cleanup_refuses_a_retention_that_is_no_duration(worker, retention):
    with pytest.raises(ValueError, match="retention_seconds must be a number of seconds"):
        cleanup_old_results.delay(retention_seconds=retention).get(timeout=30)


def test_error_handler_logs_the_failure_in_the_worker(worker):
    task = run_crew_task.apply_async(args=["job-1"], kwargs={"inputs": "not an object"}, link_error=error_handler.s())
    line = f"backend.tasks.run_crew_task[{task.id}] failed: ValueError('inputs must be a JSON object, not str')"
    eventually(lambda: line in worker.read_text(), what=f"the line {line!r} in {worker}")


def test_error_handler_takes_a_bare_task_id(worker):
    assert error_handler.delay("some-task").get(timeout=30) == {"task_id": "some-task", "error": None}
