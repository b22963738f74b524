"""What workers write while they run tasks and answer remote control."""

import json
import signal
from datetime import UTC, datetime

import celery
import redis
from backend.celery_app import app, error_handler
from backend.tasks import RESULTS, health_check, old_errback, parent, run_crew_task

from recorder import Recording, RemoteControl, Tap, body_of, bucket, eventually, say, task_id, worker


def record_runs(client: redis.Redis, tap: Tap, recording: Recording) -> None:
    """What a prefork worker writes while it runs tasks."""

    def run(name: str, mode: str = "complete", inputs: dict | None = None, **options) -> str:
        id = task_id(name)
        run_crew_task.apply_async(args=[name, {"mode": mode, **(inputs or {})}], task_id=id, **options)
        return id

    def result(name: str, status: str, about: str, id: str, timeout: float = 30) -> None:
        recording.save("result", name, *source_about(tap.result(id, status, timeout), about))

    def event(name: str, about: str, type: str, **fields) -> None:
        recording.save("event", name, *source_about(tap.event(type, **fields), about))

    def source_about(message, about):
        channel, data = message
        return channel, about, data

    def held(id: str) -> bytes:
        def probe():
            values = client.hvals("unacked")
            return next((value for value in values if json.loads(value)[0]["headers"]["id"] == id), None)

        return eventually(f"task {id} in unacked", probe)

    node = "crew@golden"
    with worker(node, tap, "-c", "1") as process:
        say("worker is up: results and events")
        event("worker-online", "The worker says it is there.", "worker-online", hostname=node)
        hello = tap.request("hello", 0)
        recording.save(
            "pidbox-request", "hello", hello[0], "hello, as a starting worker sends it to the others.", hello[1]
        )
        record_bindings(client, recording)
        event("worker-heartbeat", "Every two seconds.", "worker-heartbeat", hostname=node)

        id = run("success")
        result("started", "STARTED", "STARTED (task_track_started): child pid and node name.", id)
        result("success", "SUCCESS", "SUCCESS with an object.", id)
        event("task-sent", "The producer's own event.", "task-sent", uuid=id)
        event("task-received", "Batch on task.multi that holds task-received.", "task-received", uuid=id)
        event("task-started", "Batch on task.multi that holds task-started.", "task-started", uuid=id)
        event("task-succeeded", "Batch on task.multi that holds task-succeeded.", "task-succeeded", uuid=id)

        id = run("success-with-kwargs", inputs={"seconds": 0}, headers={"crewjob_uid": "5d0b3c1e"})
        result(
            "success-custom-header",
            "SUCCESS",
            "SUCCESS of a message with a custom header: headers are not in the result.",
            id,
        )
        id = run("progress", "progress")
        result("progress", "PROGRESS", "The custom state PROGRESS with {percent, message}.", id)
        for mode in RESULTS:
            result(
                f"success-{mode}", "SUCCESS", f"SUCCESS whose result is {RESULTS[mode]!a}.", run(f"result-{mode}", mode)
            )
        parent.apply_async(task_id=task_id("parent"))
        result("success-children", "SUCCESS", "SUCCESS of a task that sent another one: children.", task_id("parent"))
        result("success-parent", "SUCCESS", "SUCCESS of that child: parent_id.", "00000000-0000-5000-8000-00000000c41d")
        grouped = celery.group(health_check.s().set(task_id=task_id("grouped")))
        grouped.apply_async(task_id=task_id("the-group"))
        result("success-group", "SUCCESS", "SUCCESS of a member of a group: group_id.", task_id("grouped"))

        id = run("fail", "fail", link_error=error_handler.s())
        result("failure", "FAILURE", "FAILURE of a built-in exception type.", id)
        event("task-failed", "Batch on task.multi that holds task-failed.", "task-failed", uuid=id)
        result(
            "failure-unknown-type",
            "FAILURE",
            "FAILURE of a type that readers do not know.",
            run("unknown-type", "fail-unknown-type"),
        )
        result(
            "failure-chained",
            "FAILURE",
            "FAILURE with a chained traceback and unicode.",
            run("chained", "fail-chained"),
        )
        id = run("reject", "reject")
        result("failure-reject", "FAILURE", "Reject(requeue=False) is stored as FAILURE (Celery 5.7).", id)
        event("task-rejected", "Batch on task.multi that holds task-rejected.", "task-rejected", uuid=id)
        by_name = run_crew_task.app.send_task
        by_name("backend.tasks.run_crew_task", args=["a", "b", "c", "d", "e"], task_id=task_id("wrong-arguments"))
        result(
            "failure-wrong-arguments",
            "FAILURE",
            "FAILURE TypeError: wrong number of arguments.",
            task_id("wrong-arguments"),
        )
        by_name("no.such.task", queue="default", task_id=task_id("not-registered"))
        result(
            "failure-not-registered",
            "FAILURE",
            "NotRegistered: every extended field is null.",
            task_id("not-registered"),
        )
        id = run("soft-limit", "sleep", {"seconds": 10}, soft_time_limit=1, time_limit=20)
        result("failure-soft-time-limit", "FAILURE", "SoftTimeLimitExceeded.", id)
        id = run("hard-limit", "stubborn", {"seconds": 10}, soft_time_limit=1, time_limit=2)
        result("failure-time-limit", "FAILURE", "TimeLimitExceeded: stored by the main process, traceback null.", id)
        event("task-failed-time-limit", "Batch that holds task-failed of a hard time limit.", "task-failed", uuid=id)
        id = run("lost", "lost")
        result("failure-worker-lost", "FAILURE", "WorkerLostError: the child was killed.", id)

        id = run("expired", expires=datetime(2020, 1, 1, tzinfo=UTC))
        result("revoked-expired", "REVOKED", "REVOKED because headers.expires has passed.", id)
        event("task-revoked-expired", "Batch that holds task-revoked of an expired task.", "task-revoked", uuid=id)
        id = run("terminated", "sleep", {"seconds": 60})
        tap.result(id, "STARTED")
        run_crew_task.app.control.revoke(id, terminate=True)
        result("revoked-terminated", "REVOKED", "REVOKED in full form: a running task was terminated.", id)
        event("task-revoked", "Batch that holds task-revoked of a terminated task.", "task-revoked", uuid=id)

        say("messages in flight")
        blocker = run("blocker", "sleep", {"seconds": 4})
        recording.save(
            "unacked",
            "running",
            "unacked",
            "The entry of a running task: [envelope, exchange, routing key].",
            held(blocker),
        )
        waiting = run("revoked-in-queue")
        run_crew_task.app.control.revoke(waiting)
        short = tap.result(waiting, "REVOKED")
        recording.save(
            "result",
            "revoked-short",
            short[0],
            "REVOKED in short form: stored by the command, no worker had the task.",
            short[1],
        )
        seen = len(tap.messages)
        channel, data = tap.wait("the full REVOKED", lambda channel, _: channel == short[0], since=seen)
        recording.save(
            "result", "revoked-on-arrival", channel, "REVOKED in full form: dropped when the message arrived.", data
        )
        id = run("named-exchange-run", "sleep", {"seconds": 1}, exchange="crew_jobs", routing_key="crew.jobs")
        recording.save(
            "unacked", "named-exchange", "unacked", "The entry of a message that named its exchange.", held(id)
        )
        result("success-named-exchange", "SUCCESS", "SUCCESS of that message: queue is the routing key.", id)

        id = run("retry", "retry", {"countdown": 1}, expires=300, headers={"crewjob_uid": "5d0b3c1e"})
        result("retry", "RETRY", "RETRY: date_done null, the task is its own child.", id)
        event("task-retried", "Batch on task.multi that holds task-retried.", "task-retried", uuid=id)
        result("failure-retries-exhausted", "FAILURE", "FAILURE after the last retry: the original exception.", id)
        id = run("retry-in-list", "retry", {"countdown": 60, "seconds": 1.5}, expires=300, link_error=error_handler.s())
        tap.result(id, "STARTED")
        control = run_crew_task.app.control
        control.cancel_consumer("crew_jobs", reply=True)
        tap.result(id, "RETRY")
        key = bucket("crew_jobs", 5)
        recording.save(
            "envelope",
            "retry",
            key,
            "A retry with countdown=60: retries 1, eta set, parent_id its own id.",
            client.lindex(key, 0),
        )
        client.delete(key)
        control.add_consumer("crew_jobs", reply=True)

        id = run("old-errback", "fail", link_error=old_errback.s())
        errback = tap.events(
            "task-sent of the errback",
            lambda events: any(e["type"] == "task-sent" and e["name"].endswith("old_errback") for e in events),
        )
        recording.save(
            "event",
            "task-sent-errback",
            errback[0],
            "task-sent of an old-style errback, sent by the worker.",
            errback[1],
        )

        say("remote control")
        record_pidbox(client, tap, recording, node, run)

        later = run("held-until-eta", countdown=600)
        recording.save("unacked", "eta", "unacked", "The entry of a message held until its eta.", held(later))
        process.send_signal(signal.SIGTERM)
        event("worker-offline", "The worker says goodbye.", "worker-offline", hostname=node)
        process.wait(30)
        key = bucket("crew_jobs", 5)
        recording.save(
            "envelope",
            "restored",
            key,
            "Put back by a warm shutdown: redelivered, the same delivery tag.",
            client.lindex(key, -1),
        )
        client.delete(key)


def record_pidbox(client: redis.Redis, tap: Tap, recording: Recording, node: str, run) -> None:

    ask = RemoteControl(client, tap, recording).ask
    control, inspect, reply = app.control, app.control.inspect(timeout=0.5), {"reply": True, "timeout": 0.5}
    held = run("held-for-inspect", countdown=900)
    busy = run("busy-for-inspect", "sleep", {"seconds": 60})
    tap.result(busy, "STARTED")
    unknown = task_id("nobody")

    binding, members = "_kombu.binding.reply.celery.pidbox", set()
    control.broadcast("ping", **reply, callback=lambda _: members.update(client.smembers(binding)))
    recording.save("binding", "reply-pidbox", binding, "Where replies to one waiting caller go.", members.pop())

    ask("ping", "ping, to every worker", lambda: control.ping(timeout=0.5), "ping")
    ask("ping-destination", "ping, to one node", lambda: control.ping(destination=[node], timeout=0.5), "ping")
    ask(
        "ping-pattern",
        "ping, to nodes of a pattern",
        lambda: control.broadcast("ping", pattern="crew@*", matcher="glob", **reply),
        "ping",
    )
    ask("active", "inspect active, with one task running", inspect.active, "active")
    ask("reserved-none", "inspect reserved, with no task prefetched", inspect.reserved, "reserved")
    ask("scheduled", "inspect scheduled, with one task held until its eta", inspect.scheduled, "scheduled")
    ask("query-task", "inspect query_task", lambda: inspect.query_task([busy, held]), "query_task")
    ask("stats", "inspect stats", inspect.stats, "stats")
    ask("conf", "inspect conf, changed settings", inspect.conf, "conf")
    ask("conf-with-defaults", "inspect conf, all settings", lambda: inspect.conf(with_defaults=True), "conf")
    ask("active-queues", "inspect active_queues", inspect.active_queues, "active_queues")
    ask("registered", "inspect registered", inspect.registered, "registered")
    ask("revoked", "inspect revoked", inspect.revoked, "revoked")
    ask("clock", "inspect clock", inspect.clock, "clock")
    ask(
        "hello-from-old-worker",
        "hello with a map of revoked ids, as before 5.7",
        lambda: inspect.hello("crew@other", revoked={}),
        "hello",
    )
    ask(
        "unknown-command",
        "a command that does not exist",
        lambda: control.broadcast("no_such_command", **reply),
        "no_such_command",
    )
    ask("revoke", "revoke of a task held until its eta", lambda: control.revoke(held), "revoke")
    ask("revoke-many", "revoke of two ids, with reply", lambda: control.revoke([held, unknown], **reply), "revoke")
    ask(
        "revoke-terminate",
        "revoke with terminate, no reply wanted",
        lambda: control.revoke(busy, terminate=True, signal="SIGTERM"),
        "revoke",
    )
    tap.result(busy, "REVOKED")
    ask(
        "revoke-terminate-unknown",
        "revoke with terminate of an unknown task",
        lambda: control.revoke(unknown, terminate=True, **reply),
        "revoke",
    )


def record_bindings(client: redis.Redis, recording: Recording) -> None:
    for name, exchange in {"crew-jobs": "crew_jobs", "default": "default", "pidbox": "celery.pidbox"}.items():
        key = f"_kombu.binding.{exchange}"
        members = eventually(f"a member of {key}", lambda: client.smembers(key))  # noqa: B023
        recording.save("binding", name, key, "Routing key, pattern and queue, separated by 06 16.", members.pop())


def record_other_workers(client: redis.Redis, tap: Tap, recording: Recording) -> None:
    """Workers that are started otherwise than the reference configuration says."""

    # A solo worker's loop is busy with the task itself, so it sends several events at once.
    with worker("solo@golden", tap, "--pool", "solo"):
        health_check.apply_async(task_id=task_id("solo"))
        channel, data = tap.events(
            "batch of several", lambda events: len(events) > 1 and events[0]["hostname"] == "solo@golden"
        )
        types = ", ".join(event["type"] for event in body_of(data))
        recording.save("event", "task-multi", channel, f"One message with several events: {types}.", data)

    with worker("greedy@golden", tap, "-c", "1", "--prefetch-multiplier", "4"):
        for number in range(3):
            run_crew_task.apply_async(
                args=["greedy", {"mode": "sleep", "seconds": 6}], task_id=task_id(f"greedy-{number}")
            )
        eventually("three messages in flight", lambda: client.hlen("unacked") == 3)
        tap.result(task_id("greedy-0"), "STARTED")
        inspect = app.control.inspect(timeout=0.5)
        control = RemoteControl(client, tap, recording)
        control.ask("reserved", "inspect reserved, with two tasks prefetched", inspect.reserved, "reserved")
        control.ask("stats-greedy", "inspect stats of a worker that prefetches", inspect.stats, "stats")
        control.ask("conf-greedy", "inspect conf of a worker that prefetches", inspect.conf, "conf")
