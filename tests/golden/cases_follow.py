"""What a worker publishes after a run: follow/<case>.json.

A file has the message that came in, the messages that went out by the key of their list, and the result documents that
were stored, in their order. The worker consumes one queue that nothing is routed to, so what follows stays in its list.
"""

import json
from pathlib import Path

import celery
import redis
from backend.celery_app import app, error_handler
from backend.tasks import cleanup_old_results, health_check, old_errback, run_crew_task

from recorder import Tap, body_of, eventually, say, task_id, worker

QUEUE = "intake"
NODE = "follow@golden"


def record_follow(client: redis.Redis, tap: Tap, target: Path) -> None:
    (target / "follow").mkdir()
    with worker(NODE, tap, "-c", "1", "-Q", QUEUE):
        recorder = Follow(client, tap, target / "follow")
        record_callbacks(recorder)
        record_chains(recorder)
        record_failures(recorder)
        record_retries(recorder)
    client.flushdb()
    say(f"{recorder.cases} cases of what follows a task")


def record_callbacks(follow: "Follow") -> None:
    run, unknown = run_crew_task, celery.signature("no.such.task", app=celery.Celery("elsewhere", set_as_current=False))
    link = follow.link
    link("link", "A callback gets the result in front of its arguments.", run.s({"topic": "AI"}))
    link("link-immutable", "An immutable callback gets its own arguments only.", health_check.si())
    link("link-immutable-args", "Alone, its arguments are shown as a list.", run.si("own", {}))
    link("link-with-id", "A callback that brings its id.", run.s().set(task_id=task_id("link-with-id-callback")))
    link("link-unknown", "A callback this worker does not know.", unknown)
    link("link-two", "Two callbacks are sent as a group.", run.s(), health_check.si())
    link("link-group", "A group as callback.", celery.group(run.s(), health_check.si()))
    link("link-group-and-task", "Groups go first.", cleanup_old_results.si(), celery.group(run.s(), run.s(False)))
    link("link-group-nested", "Groups in a group.", celery.group(run.s(), celery.group(run.s(), health_check.si())))
    link("link-group-of-chain", "A chain in a group.", celery.group(run.s() | health_check.si(), run.s()))
    link("link-group-of-one", "A group of one task.", celery.group(run.s()))
    link("link-group-immutable", "In a group they are shown as a tuple.", celery.group(run.si("own", {}), run.s()))
    busy = celery.group(run.s(), health_check.si().set(priority=1)).set(priority=9, queue="crew_jobs", task_id="gid")
    link("link-group-options", "Options of a group go before those of its tasks.", busy)
    link("link-chain", "A chain as callback.", run.s({"topic": "AI"}) | health_check.si() | cleanup_old_results.si())
    link("link-chain-of-one", "A chain of one task.", celery.chain(run.s()))
    busy = celery.chain(run.s(), health_check.si(), link=[run.s()], link_error=[old_errback.s()])
    link("link-chain-options", "Options of a chain.", busy.set(priority=9, task_id="last", countdown=5))
    link("link-chain-and-task", "A chain beside a task is in a group.", run.s() | health_check.si(), run.s())
    link("link-chain-nested", "A chain in a chain.", follow.nested_chain())
    link("link-chord", "A chord as callback.", celery.chord([run.s(), health_check.si()], old_errback.s(), app=app))
    timed = {"countdown": 60, "expires": 120, "time_limit": 10, "soft_time_limit": 5}
    link("link-times", "countdown, expires and limits of a callback.", run.s().set(**timed))
    timed = {"eta": "2030-01-02T03:04:05+00:00", "expires": "2030-01-02T04:00:00Z"}
    link("link-eta", "eta and expires as text.", run.s().set(**timed))
    link("link-priority", "The callback's own priority.", run.s().set(priority=9))
    link("link-queue", "The callback's own queue.", run.s().set(queue="crew_jobs"))
    link("link-exchange", "Exchange and routing key.", run.s().set(exchange="crew_jobs", routing_key="crew.jobs"))
    link("link-headers", "Headers, shadow, reply_to, ignore_result.", follow.decorated(run.s()))
    link("link-link", "What follows the callback.", run.s().set(link=[health_check.si()], link_error=[old_errback.s()]))
    link("link-stamped", "A stamped callback.", follow.stamped(run.s()))
    link("link-grouped", "A member of a group has a callback.", health_check.si(), group_id="the-group", group_index=3)
    link("link-child", "A child's callback: the root is kept.", health_check.si(), root_id="root", parent_id="parent")
    link("link-urgent", "Priority is not inherited.", health_check.si(), priority=1)
    link("link-headers-of-parent", "Headers are not inherited.", health_check.si(), headers={"crewjob_uid": "5d0b3c1e"})


def record_chains(follow: "Follow") -> None:
    run, run_all = run_crew_task, follow.run
    run_all("chain", "A chain of three.", run.s("job-1") | run.s({"n": 2}) | health_check.si())
    run_all("chain-next", "Its second task.", (run.s("job-1") | run.s({"n": 2}) | health_check.si()), second=True)
    immutable = run.s("job-1") | run.si("own", {}) | run.si("own", {})
    run_all("chain-immutable", "An immutable task in a chain, with arguments.", immutable)
    linked = run.s("job-1").set(link=[cleanup_old_results.si()]) | health_check.si()
    run_all("chain-link", "A callback and a chain: the callback goes first.", linked)
    errors = celery.chain(run.s("job-1"), health_check.si(), link_error=[old_errback.s()])
    run_all("chain-link-error", "link_error of a chain is in each of its tasks.", errors)
    run_all("chain-group", "A chain that ends in a group.", run.s("job-1") | celery.group(run.s(), health_check.si()))
    chord = run.s("job-1") | celery.group(run.s(), run.s()) | health_check.si()
    run_all("chain-chord", "A group in the middle of a chain is a chord.", chord)
    times = run.s("job-1") | health_check.si().set(countdown=5, priority=2, queue="crew_jobs")
    run_all("chain-options", "Options of a chain's task.", times)


def record_failures(follow: "Follow") -> None:
    def fail(**options):
        return run_crew_task.s("job-1", {"mode": "fail"}).set(**options)

    follow.run("link-error", "An old-style errback.", fail(link_error=[old_errback.s()]), "FAILURE")
    two = [old_errback.s(), old_errback.s().set(queue="crew_jobs", priority=1)]
    follow.run("link-error-two", "Two errbacks are one group.", fail(link_error=two), "FAILURE")
    follow.run("link-error-immutable", "It gets no id.", fail(link_error=[health_check.si()]), "FAILURE")
    child = {"link_error": [old_errback.s()], "root_id": "root", "parent_id": "parent"}
    follow.run("link-error-child", "The failed task is the parent.", fail(**child), "FAILURE")
    both = [error_handler.s(), old_errback.s()]
    follow.run("link-error-native", "One that is called in place is not sent.", fail(link_error=both), "FAILURE")
    rest = run_crew_task.s({"n": 2}).set(task_id="second"), health_check.si().set(task_id="third", queue="crew_jobs")
    follow.run("chain-failed", "The rest of a chain fails too.", celery.chain(fail(), *rest), "FAILURE", results=3)


def record_retries(follow: "Follow") -> None:
    def retry(countdown):
        return run_crew_task.s("job-1", {"mode": "retry", "countdown": countdown})

    follow.run("retry", "self.retry(countdown=60).", retry(60), "RETRY", retried=True)
    more = {"expires": 300, "headers": {"crewjob_uid": "5d0b3c1e"}, "priority": 7, "shadow": "intro", "time_limit": 50}
    more |= {"link": [health_check.si()], "link_error": [old_errback.s()], "group_id": "g", "group_index": 2}
    follow.run("retry-all", "All options are kept.", retry(60).set(**more), "RETRY", retried=True)
    chained = retry(60).set(root_id="root", parent_id="parent") | health_check.si()
    follow.run("retry-chain", "The chain is kept.", chained, "RETRY", retried=True)
    follow.run("retry-stamped", "Stamps are kept.", follow.stamped(retry(60)), "RETRY", retried=True)


class Follow:
    """Lets the worker run one message after the other, and writes down what comes of each."""

    def __init__(self, client: redis.Redis, tap: Tap, target: Path):
        self.client, self.tap, self.target, self.cases = client, tap, target, 0

    def link(self, name: str, about: str, *callbacks, **options) -> None:
        self.run(name, about, run_crew_task.s("job-1").set(link=list(callbacks), **options))

    def run(self, name, about, signature, status="SUCCESS", results=1, retried=False, second=False) -> None:
        signature.apply_async(queue="lobby")
        incoming = self.enter(*self.take("lobby"))
        if second:
            self.result(incoming, status)
            incoming = self.enter(*self.waiting()[0][1:])
        document = self.result(incoming, status)
        stored = [document]
        if results > 1:
            chain = body_of(json.dumps(incoming).encode())[2]["chain"]
            keys = [f"celery-task-meta-{step['options']['task_id']}" for step in chain]
            stored += [json.loads(self.client.get(key)) for key in keys]
        sent = [{"key": key, "message": json.loads(text)} for key, text in self.waiting()]
        published = [self.held(incoming)] if retried else sent
        case = {"about": about, "incoming": incoming, "published": published, "results": stored}
        (self.target / f"{name}.json").write_text(json.dumps(case, indent=1) + "\n")
        self.cases += 1

    def take(self, queue: str):
        """The only message of a queue, of whatever priority."""
        key, text = next((key, text) for key, text in self.waiting() if key.split("\x06")[0] == queue)
        return (text,)

    def enter(self, text: bytes) -> dict:
        """Gives the worker a message as if it had been sent to its queue."""
        message = json.loads(text)
        message["properties"]["delivery_info"]["routing_key"] = QUEUE
        self.client.lpush(QUEUE, json.dumps(message))
        return message

    def waiting(self) -> list:
        """Takes the messages off all lists, in the order in which they would be consumed."""
        found = []
        for key in sorted(self.client.keys("*")):
            if self.client.type(key) == b"list":
                found += [(key.decode(), text) for text in reversed(self.client.lrange(key, 0, -1))]
                self.client.delete(key)
        return found

    def result(self, message: dict, status: str) -> dict:
        id = message["headers"]["id"]
        document = json.loads(self.tap.result(id, status)[1])
        tag = message["properties"]["delivery_tag"]
        eventually("the message is acknowledged", lambda: not self.client.hexists("unacked", tag))
        return document

    def held(self, message: dict) -> dict:
        """The retry, which the worker has taken already and holds until its time."""

        def probe():
            entries = [json.loads(entry)[0] for entry in self.client.hvals("unacked")]
            return next((entry for entry in entries if entry["headers"]["id"] == message["headers"]["id"]), None)

        found = eventually("the retry is held", probe)
        app.control.revoke(found["headers"]["id"])
        return {"key": QUEUE, "message": found}

    def nested_chain(self):
        inner = celery.chain(run_crew_task.s(), health_check.si(), app=app)
        outer = celery.chain(run_crew_task.s(), cleanup_old_results.si(), app=app)
        outer.tasks = [inner, cleanup_old_results.si()]
        return outer

    def decorated(self, signature):
        more = {"shadow": "intro-to-ml", "reply_to": "somebody", "ignore_result": True, "retries": 1}
        return signature.set(headers={"crewjob_uid": "5d0b3c1e"}, **more)

    def stamped(self, signature):
        signature.stamp(tenant="a")
        return signature
