"""What producers push; no worker is running."""

from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

import celery
import redis
from backend.celery_app import REFERENCE, app, error_handler
from backend.tasks import cleanup_old_results, health_check, old_errback, run_crew_task

from recorder import SEPARATOR, Recording, bucket, task_id


def record_envelopes(client: redis.Redis, recording: Recording) -> None:
    run = run_crew_task
    inputs = {"topic": "AI"}
    stranger = celery.Celery(
        "stranger", broker=app.conf.broker_url, backend=app.conf.result_backend, set_as_current=False
    )
    stranger.conf.update(REFERENCE)
    call = {"args": ["job-1"], "kwargs": {"inputs": inputs, "bypass_cache": False}}

    def push(name: str, about: str, send) -> None:
        send()
        lists = [key for key in client.scan_iter("*") if client.type(key) == b"list"]
        found = [(key, client.rpop(key)) for key in lists]
        if len(found) != 1:
            raise ValueError(f"{name}: expected one message, found {len(found)}")
        recording.save("envelope", name, found[0][0], about, found[0][1])

    def send(name: str, **options):
        return lambda: run.apply_async(**{**call, **options}, task_id=task_id(name))

    push(
        "apply-async",
        "run_crew_task.apply_async with args, kwargs and a link_error; default priority 5.",
        send("apply-async", link_error=error_handler.s()),
    )
    push(
        "delay",
        "health_check.delay(): empty tuple of args, queue default, id chosen by Celery.",
        lambda: health_check.delay(),
    )
    push("delay-args", "run_crew_task.delay(...): args as a tuple.", lambda: run.delay("job-1", inputs))
    push("countdown", "countdown=60: headers.eta one minute after sending.", send("countdown", countdown=60))
    eta = datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    push("eta", "eta given as an aware datetime.", send("eta", eta=eta))
    push(
        "eta-whole-second",
        "eta without a fraction of a second.",
        send("eta-whole-second", eta=eta.replace(microsecond=0)),
    )
    push("expires", "expires=120: headers.expires, and properties.expiration in ms.", send("expires", expires=120))
    push(
        "countdown-expires-limits",
        "countdown=60, expires=120, time_limit=10, soft_time_limit=5.",
        send("countdown-expires-limits", countdown=60, expires=120, time_limit=10, soft_time_limit=5),
    )
    for priority in (-1, *range(11), 255):
        name = f"priority-{priority:02}" if priority >= 0 else "priority-minus-1"
        key = bucket("crew_jobs", priority)
        about = f"priority={priority} lands on {key.replace(SEPARATOR, '<06 16>')}; the stored priority is not clamped."
        push(name, about, send(name, priority=priority))
    push(
        "send-task",
        "send_task by name from an app that does not know the task: priority 0, no time limits, ignore_result null.",
        lambda: stranger.send_task("backend.tasks.run_crew_task", **call, task_id=task_id("send-task")),
    )
    push(
        "send-task-registered",
        "send_task by name from an app that knows the task: task options are merged (Celery 5.7).",
        lambda: app.send_task("backend.tasks.run_crew_task", **call, task_id=task_id("send-task-registered")),
    )
    push(
        "custom-headers",
        "Custom message headers: a string, a number, an object and null.",
        send(
            "custom-headers", headers={"crewjob_uid": "5d0b3c1e", "n": 3, "nested": {"a": [1, None]}, "nothing": None}
        ),
    )
    push(
        "beat",
        "As beat sends it: header celery_beat_task.",
        lambda: cleanup_old_results.apply_async(task_id=task_id("beat"), headers={"celery_beat_task": True}),
    )
    push("ignore-result", "ignore_result=True.", send("ignore-result", ignore_result=True))
    push("shadow", "shadow name for display.", send("shadow", shadow="intro-to-ml"))
    push(
        "named-exchange",
        "Exchange and routing key given: delivery_info carries both.",
        send("named-exchange", exchange="crew_jobs", routing_key="crew.jobs"),
    )
    push(
        "long-args",
        "argsrepr and kwargsrepr are cut at about 1024 characters, the body is not.",
        send("long-args", args=["x" * 3000]),
    )
    push(
        "typed-kwargs",
        "Values that kombu encodes as __type__ objects, a big integer, NaN and a lone surrogate in kwargs.",
        lambda: run.apply_async(
            args=["job-1"],
            kwargs={
                "inputs": {
                    "at": eta,
                    "id": uuid5(NAMESPACE_URL, "x"),
                    "raw": b"\xff",
                    "n": 2**70,
                    "nan": float("nan"),
                    "s": "\ud800",
                }
            },
            task_id=task_id("typed-kwargs"),
        ),
    )
    push("unicode", "Unicode in args and kwargs.", send("unicode", args=["jöb-😀"], kwargs={"inputs": {"é": "日本語"}}))
    push(
        "link",
        "A callback in embed.callbacks.",
        send("link", link=health_check.si().set(task_id=task_id("link-callback"))),
    )
    chain = celery.chain(
        run.s("job-1").set(task_id=task_id("chain-1")),
        health_check.si().set(task_id=task_id("chain-2")),
        cleanup_old_results.si().set(task_id=task_id("chain-3")),
    )
    push("chain", "chain of three: the rest lies in embed.chain in reverse order.", chain.apply_async)
    group = celery.group(run.s("job-1").set(task_id=task_id("group-1")))
    push(
        "group",
        "Member of a group: headers.group and group_index.",
        lambda: group.apply_async(task_id=task_id("group")),
    )
    header = [run.s("job-1").set(task_id=task_id("chord-1"))]
    body = old_errback.s().set(task_id=task_id("chord-body"))
    push(
        "chord",
        "Header task of a chord: embed.chord is the body's signature.",
        lambda: celery.chord(header, app=app)(body),
    )
    push(
        "stamped",
        "A stamped task: stamped_headers and stamps.",
        lambda: stamped(run.s(*call["args"], **call["kwargs"]), tenant="a").apply_async(task_id=task_id("stamped")),
    )
    client.delete(*[key for key in client.scan_iter("celery-taskset-meta-*")] or ["none"])


def stamped(signature, **stamps):
    signature.stamp(**stamps)
    return signature
