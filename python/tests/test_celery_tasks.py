"""The same functions in Celery's own code for tasks, without a broker. `tests/interop` has them on real workers."""

import pytest

import crewjob
from crewjob import celery_tasks

celery = pytest.importorskip("celery")
exceptions = pytest.importorskip("celery.exceptions")
trace = pytest.importorskip("celery.app.trace")

JOB = {"crewjob_uid": "u-1", "crewjob_name": "order-17", "crewjob_namespace": "shop"}
FAILURES = {
    "gone": ConnectionResetError("gone"),
    "no": ValueError("no"),
    "memory": MemoryError(),
    "ignored": exceptions.Ignore(),
    "late": crewjob.SoftTimeLimitExceeded(),
}
RUNS = []


@crewjob.task(retry_for=(ConnectionError, TimeoutError))
def work(what):
    call = crewjob.current_call()
    RUNS.append(call.retries)
    crewjob.progress("not shown: there is no worker")
    if what in FAILURES:
        raise FAILURES[what]
    if what == "large":
        return "x" * (17 << 20)
    return {1, 2} if what == "a set" else [what, call.task, call.id, call.job and call.job.name, call.idempotency_key]


@pytest.fixture
def app():
    RUNS.clear()
    app = celery.Celery("tests", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(result_extended=True, task_store_eager_result=True)
    return app


def stored(app, task, what, id, **headers):
    """The result document of a run as a worker makes it."""
    request = {"id": id, "task": task.name, "root_id": "t-1", "retries": 0, "called_directly": False} | headers
    trace.build_tracer(task.name, task, app=app)(id, [what], {}, request)
    return app.backend.get_task_meta(id)


def test_a_function_is_a_celery_task_under_the_name_that_celery_gives_it(app):
    task = crewjob.celery_task(app, work)
    assert (task.name, task.max_retries) == ("test_celery_tasks.work", 3)
    assert task.apply(["tea"], task_id="t-1").result == ["tea", task.name, "t-1", None, "t-1"]


def test_a_function_knows_the_crewjob_that_it_works_for(app):
    result = stored(app, crewjob.celery_task(app, work), "tea", "t-2", **JOB)["result"]
    assert result[2:] == ["t-2", "order-17", "t-1"]


def test_options_are_those_of_app_task(app):
    task = crewjob.celery_task(app, work, name="shop.work", max_retries=1, acks_late=True)
    assert (task.name, task.max_retries, task.acks_late) == ("shop.work", 1, True)

    @crewjob.task(name="shop.named")
    def named():
        pass

    assert crewjob.celery_task(app, named).name == "shop.named"


def test_a_failure_that_the_task_names_is_retried_and_any_other_is_not(app):
    task = crewjob.celery_task(app, work, max_retries=2)
    assert isinstance(task.apply(["gone"]).result, ConnectionResetError) and RUNS == [0, 1, 2]
    RUNS.clear()
    assert isinstance(task.apply(["no"]).result, ValueError) and RUNS == [0]


def test_the_retries_of_a_crewjob_are_the_operators_and_its_final_failures_say_so(app):
    task = crewjob.celery_task(app, work)
    assert "retryable" not in (gone := stored(app, task, "gone", "t-3", **JOB)) and gone["status"] == "FAILURE"
    assert stored(app, task, "no", "t-4", **JOB)["retryable"] is False
    assert stored(app, task, "a set", "t-5", **JOB)["retryable"] is False
    assert "retryable" not in stored(app, task, "late", "t-6", **JOB)
    assert "retryable" not in stored(app, task, "no", "t-7")
    assert stored(app, task, "gone", "t-8")["status"] == "RETRY"


def test_what_not_every_client_can_read_is_a_failure(app):
    assert type(crewjob.celery_task(app, work).apply(["a set"]).result).__name__ == "InvalidResult"


def test_a_result_may_be_larger_than_what_the_native_worker_takes(app):
    assert len(crewjob.celery_task(app, work).apply(["large"]).result) == 17 << 20


def test_running_out_of_memory_is_a_failure_of_the_task(app):
    result = crewjob.celery_task(app, work).apply(["memory"]).result
    assert isinstance(result, RuntimeError) and str(result).endswith("ran out of memory")


def test_celerys_own_exceptions_go_through(app):
    task = crewjob.celery_task(app, work)
    assert task.apply(["ignored"]).state == "IGNORED"
    assert isinstance(task.apply(["late"]).result, exceptions.SoftTimeLimitExceeded)


def test_progress_does_not_wait_for_redis_as_results_do_with_always_retry(caplog):
    pytest.importorskip("redis")
    app = celery.Celery("tests", backend="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.update(result_backend_always_retry=True, result_backend_max_retries=1)
    task = app.task(work)
    task.push_request(id="t-9", task=task.name, is_eager=False)
    celery_tasks.CeleryWorker(task).progress(b"1", 1)
    assert "progress is not shown: Error" in caplog.text and task.backend.always_retry
    with pytest.raises(exceptions.BackendGetMetaError):
        task.backend.get_task_meta("t-9")


def test_a_soft_limit_that_passes_while_progress_is_reported_ends_the_run(app, monkeypatch):
    task = crewjob.celery_task(app, work)

    def late(*_, **__):
        raise crewjob.SoftTimeLimitExceeded()

    monkeypatch.setattr(app.backend, "get_state", late)
    ended = stored(app, task, "tea", "t-10")
    assert (ended["status"], type(ended["result"]).__name__) == ("FAILURE", "SoftTimeLimitExceeded")


class Leases:
    """Redis, as far as a lease needs it."""

    def __init__(self):
        self.asked = []

    def eval(self, script, _, key, *_args):
        self.asked.append((script, key))

    def exists(self, _key):
        return 0


@pytest.mark.parametrize("redelivered", [False, True])
def test_a_soft_limit_that_passes_while_the_guard_looks_for_an_end_ends_the_run_and_its_lease(
    app, monkeypatch, redelivered
):
    pytest.importorskip("redis")
    from crewjob import guard

    def late(*_):
        raise crewjob.SoftTimeLimitExceeded()

    leases = Leases()
    monkeypatch.setattr(guard, "broker", lambda *_: (leases, ""))
    monkeypatch.setattr(guard, "ended", late)
    request = {"hostname": "crew@tests", "delivery_info": {"redelivered": redelivered}}
    with pytest.raises(crewjob.SoftTimeLimitExceeded):
        guard.lease_for(crewjob.celery_task(app, work), "t-11", request)
    scripts = [] if redelivered else [guard.TAKE, guard.GIVE_UP]
    assert leases.asked == [(script, "crewjob-lease:t-11") for script in scripts]


def test_a_function_may_be_a_plain_celery_task_as_well(app):
    task = app.task(work)
    assert task.apply(["tea"], task_id="t-7").result == ["tea", task.name, "t-7", None, "t-7"]
    assert isinstance(task.apply(["gone"]).result, ConnectionResetError) and RUNS == [0, 0]


def test_the_guard_keeps_the_name_that_it_has_as_a_file():
    pytest.importorskip("redis")
    import crewjob_guard
    from crewjob import guard

    assert crewjob_guard.GuardedRequest is guard.GuardedRequest is celery.Task.Request


@crewjob.task
def consumes(what):
    crewjob.report_usage("m", input_tokens=3, requests=1, cost_usd="0.1")
    crewjob.report_usage("m", input_tokens=4, cost_usd=0.2)
    if what == "fails":
        raise ValueError(what)
    return what


@pytest.mark.parametrize("what", ["works", "fails"])
def test_what_a_run_consumed_is_in_its_result_also_of_one_that_failed(app, what):
    usage = stored(app, crewjob.celery_task(app, consumes), what, "t-9", **JOB)["usage"]
    assert usage["models"] == {"m": {"input_tokens": 7, "requests": 1, "cost_usd": "0.3"}} and usage["count"]


def test_what_a_plain_task_of_celery_consumed_is_in_its_result(app):
    task = app.task(name="plain")(consumes)
    usage = stored(app, task, "works", "t-10")["usage"]
    assert usage["models"]["m"]["input_tokens"] == 7


@pytest.mark.parametrize("report", [{"cost_usd": "a lot"}, {"cost_usd": float("nan")}, {"input_tokens": "many"}])
def test_a_report_that_is_none_fails_no_run_and_leaves_what_was_reported(app, report):
    @crewjob.task
    def odd():
        crewjob.report_usage("m", input_tokens=3, cost_usd="0.5")
        crewjob.report_usage("m", **report)
        return "done"

    request = {"id": "t-11", "task": "odd", "root_id": "t-11", "retries": 0, "called_directly": False}
    task = crewjob.celery_task(app, odd)
    trace.build_tracer(task.name, task, app=app)("t-11", [], {}, request)
    document = app.backend.get_task_meta("t-11")
    assert (document["status"], document["result"]) == ("SUCCESS", "done")
    assert document["usage"]["models"] == {"m": {"input_tokens": 3, "cost_usd": "0.5"}}
