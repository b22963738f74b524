"""One trace for each job, from the creation of the object over its message to the worker's run, in a real collector."""

import json
import re
from pathlib import Path

import pytest

from collector import Answering, Collector, attributes
from servers import CeleryWorker, NativeWorker, free_port
from waiting import holds, until

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/traces.md"
APPLICATION = """
import os
import time
from celery import Celery

app = Celery("application", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(task_acks_late=True, task_track_started=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
app.conf.broker_transport_options = {"priority_steps": [0, 3, 6, 9], "queue_order_strategy": "priority"}

@app.task(name="backend.tasks.run_crew_task", bind=True)
def run_crew_task(self, job_id, inputs, bypass_cache=False):
    time.sleep(inputs.get("seconds", 0))
    return "done"
"""
CAUSE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NO_PARENT = ("", None)


@pytest.fixture(scope="module")
def collector(tmp_path_factory):
    collector = Collector(tmp_path_factory.mktemp("collector"))
    yield collector
    collector.stop()


@pytest.fixture
def traced(bed, collector):
    """The operator, which sends spans to the collector."""
    bed.operator.restart(otel_exporter_otlp_endpoint=collector.url)
    bed.a.pool(bed.redis)
    return bed.operator


def instrumented() -> str:
    """What the document says that a Celery worker needs."""
    return re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1]


def trace_of(bed, job: str) -> str:
    return bed.a.get("crewjobs", job)["metadata"]["uid"].replace("-", "")


def named(spans: list[dict], name: str) -> dict:
    (span,) = [span for span in spans if span["name"] == name]
    return span


def complete(bed, collector: Collector, job: str, spans: int) -> list[dict]:
    """The spans of a job, once there are as many."""
    trace = trace_of(bed, job)
    until(f"{spans} spans of {job} have arrived", lambda: len(collector.spans(trace)) >= spans)
    return collector.spans(trace)


def test_one_trace_leads_from_the_object_over_its_message_to_the_run_of_an_instrumented_celery_worker(
    bed, traced, collector, tmp_path
):
    worker = CeleryWorker(
        tmp_path, bed.redis.url, APPLICATION + instrumented(), "crew@traced", "-c", "1", "-Q", "crew_jobs",
        otel_exporter_otlp_endpoint=collector.url, otel_service_name="crew", otel_bsp_schedule_delay="100",
    )  # fmt: skip
    try:
        bed.a.job("report", topic="of secret bees", inputs={"key": "hunter2"})
        bed.a.in_phase("report", "Succeeded")
        spans = complete(bed, collector, "report", 4)
    finally:
        worker.stop()
    job, enqueue, attempt = (named(spans, name) for name in ("crewjob backend.tasks.run_crew_task", "enqueue", "attempt 1"))
    run = named(spans, "run/backend.tasks.run_crew_task")
    assert {span["name"]: span["sender"] for span in spans} == {
        job["name"]: "crewjob-operator", "enqueue": "crewjob-operator", "attempt 1": "crewjob-operator", run["name"]: "crew",
    }  # fmt: skip
    assert job.get("parentSpanId") in NO_PARENT
    assert [span["parentSpanId"] for span in (enqueue, attempt, run)] == [job["spanId"], job["spanId"], attempt["spanId"]]
    said = attributes(job)
    assert (said["crewjob.namespace"], said["crewjob.name"], said["crewjob.pool"]) == (bed.a.namespace, "report", "default")
    assert (said["crewjob.phase"], said["crewjob.reason"], said["crewjob.attempts"]) == ("Succeeded", "Succeeded", "1")
    assert attributes(attempt)["crewjob.outcome"] == "Succeeded"
    assert attributes(attempt)["crewjob.task_id"] == bed.a.task("report")
    assert bed.a.status("report")["traceID"] == job["traceId"]
    mine = json.dumps([span for span in spans if span["sender"] == "crewjob-operator"])
    assert "hunter2" not in mine and "bees" not in mine
    assert bed.operator.metric("crewjob_spans_exported_total") >= 3


def test_a_command_of_a_native_worker_is_told_the_span_of_each_of_its_jobs_attempts(bed, traced, collector, tmp_path):
    script = '[ "$CREWJOB_RETRIES" -ge 1 ] || exit 75; echo "$TRACEPARENT"'
    tasks = json.dumps({"crew": {"cache": 0, "run": {"command": ["/bin/sh", "-c", script], "output": "text"}}})
    worker = NativeWorker(tmp_path, bed.redis.url, tasks, "crew@traced")
    try:
        policy = {"maxRetries": 1, "backoff": {"initial": "1s", "max": "1s"}}
        bed.a.job("twice", retryPolicy=policy)
        status = bed.a.in_phase("twice", "Succeeded")
    finally:
        worker.stop()
    spans = complete(bed, collector, "twice", 4)
    first, second = named(spans, "attempt 1"), named(spans, "attempt 2")
    assert f"00-{second['traceId']}-{second['spanId']}-01" in str(status["result"]["value"])
    assert first["spanId"] != second["spanId"]
    assert [attributes(span)["crewjob.outcome"] for span in (first, second)] == ["Failed", "Succeeded"]
    assert (first["status"].get("code"), attributes(first)["error.type"]) == (2, "CommandFailed")


def test_a_trace_is_linked_to_the_span_that_the_object_names_and_a_malformed_annotation_does_no_harm(bed, traced, collector, crew_worker):
    crew_worker()
    api = {"apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob", "spec": {"topic": "t"}}
    for name, cause in (("caused", CAUSE), ("malformed", "00-x")):
        bed.a.create("crewjobs", {**api, "metadata": {"name": name, "annotations": {"crewjob.dev/traceparent": cause}}})
    for name in ("caused", "malformed"):
        bed.a.in_phase(name, "Succeeded")
    roots = [named(complete(bed, collector, name, 3), "crewjob backend.tasks.run_crew_task") for name in ("caused", "malformed")]
    (link,) = roots[0]["links"]
    assert f"00-{link['traceId']}-{link['spanId']}-01" == CAUSE
    assert not roots[1].get("links")


def test_an_operator_that_is_killed_sends_no_span_twice(bed, traced, collector, crew_worker):
    crew_worker()
    bed.a.job("long", inputs={"seconds": 3})
    bed.a.in_phase("long", "Running")
    bed.operator.kill()
    bed.operator.start(otel_exporter_otlp_endpoint=collector.url)
    bed.a.in_phase("long", "Succeeded")
    spans = complete(bed, collector, "long", 3)
    bed.operator.restart(otel_exporter_otlp_endpoint=collector.url)
    assert sorted(span["name"] for span in spans) == ["attempt 1", "crewjob backend.tasks.run_crew_task", "enqueue"]
    holds("no span is sent again", lambda: len(collector.spans(trace_of(bed, "long"))) == 3, 2)


def test_the_last_spans_are_sent_when_the_operator_stops(bed, traced, collector, crew_worker):
    crew_worker()
    bed.a.job("last")
    bed.a.in_phase("last", "Succeeded")
    bed.operator.stop()
    complete(bed, collector, "last", 3)
    bed.operator.start()


@pytest.mark.parametrize("collector_is", ["dead", "silent", "overloaded", "refusing"])
def test_jobs_run_as_ever_whatever_the_collector_does_and_lost_spans_are_counted(bed, crew_worker, collector_is):
    status = {"dead": None, "silent": None, "overloaded": 503, "refusing": 400}[collector_is]
    failing = Answering(status)
    url = f"http://127.0.0.1:{free_port()}" if collector_is == "dead" else failing.url
    try:
        bed.operator.restart(otel_exporter_otlp_endpoint=url, otel_exporter_otlp_timeout="500")
        bed.a.pool(bed.redis)
        crew_worker()
        for number in range(10):
            bed.a.job(f"job-{number}")
        for number in range(10):
            bed.a.in_phase(f"job-{number}", "Succeeded")
        why = "Refused" if collector_is == "refusing" else "Failed"
        dropped = lambda: bed.operator.metric("crewjob_spans_dropped_total", why=why)  # noqa: E731
        until("lost spans are counted", lambda: dropped() > 0, 60)
        if collector_is in ("silent", "overloaded"):
            assert failing.requests >= 5, "a collector that may recover is asked again"
        assert bed.operator.metric("crewjob_spans_exported_total") == 0
        assert "sending spans failed" in bed.operator.said(200)
    finally:
        failing.stop()
        bed.operator.restart()


def test_without_an_endpoint_no_message_names_a_span(bed):
    bed.operator.restart()
    bed.a.pool(bed.redis)
    bed.a.job("plain")
    task = bed.a.task("plain")
    until("the job is on its queue", lambda: bed.redis.queued(task))
    assert "traceparent" not in bed.redis.queued(task)[0]["headers"]
    assert "traceID" not in bed.a.in_phase("plain", "Queued")


def test_a_setting_that_cannot_be_used_is_named_in_the_log_and_jobs_go_on(bed, crew_worker):
    bed.operator.restart(otel_exporter_otlp_endpoint="collector:hunter2")
    try:
        bed.a.pool(bed.redis)
        crew_worker()
        bed.a.job("untraced")
        bed.a.in_phase("untraced", "Succeeded")
        log = bed.operator.log.read_text()
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" in log and "hunter2" not in log
    finally:
        bed.operator.restart()
