"""Limits of a pool: what is over them waits in Kubernetes, and they hold whatever becomes of operators and of Redis."""

import datetime
import time

import pytest

from servers import Operator
from waiting import settles, until

MOST = 2
TENANTS = {"name": "tenants", "key": {"by": "Label", "label": "tenant"}, "maxInFlight": MOST}


def create(bed, name: str, tenant: str = "a", **spec) -> None:
    bed.a.job(name, labels={"tenant": tenant}, **spec)


def reason(bed, name: str) -> str:
    return bed.a.condition(name).get("reason", "")


def message(bed, name: str) -> str:
    return bed.a.condition(name).get("message", "")


def ends(bed, name: str, attempt: int = 1, state: str = "SUCCESS") -> None:
    """Lets the run of a job end."""
    task = bed.a.task(name, attempt)
    until(f"the message of {name} waits", lambda: bed.redis.queued(task))
    taken = bed.redis.take(task)
    result = {"answer": 42} if state == "SUCCESS" else {"exc_type": "ValueError", "exc_message": ["no"]}
    bed.redis.store(task, state, result)
    bed.redis.acknowledge(taken)


def in_flight(statuses: list[dict]) -> list[str]:
    """The phases of the jobs that are on Redis or with a worker, as their statuses say. What a killed leader has just
    released is not there yet, and its successor publishes it as soon as there is room."""
    return [status["phase"] for status in statuses if status.get("phase") in ("Queued", "Running")]


def messages(bed) -> int:
    """How many messages wait or are with a worker, at one moment."""
    reading = bed.redis.client.pipeline(transaction=True)
    for band in ("", "\x06\x163", "\x06\x166", "\x06\x169"):
        reading.llen(f"crew_jobs{band}")
    reading.hlen("unacked")
    return sum(reading.execute())


@pytest.fixture
def second(bed):
    """Another operator, which stands by."""
    second = Operator(bed.folder / "second", bed.operator.kubeconfig, bed.a.namespace, bed.operator.pool_namespaces)
    second.folder.mkdir(exist_ok=True)
    second.start(leading=False, pod_name="second")
    until("it waits", lambda: second.get("/livez")[0] == 200)
    yield second
    second.stop()
    if not bed.operator.is_running():
        bed.operator.start()
    until("the operator leads", lambda: bed.operator.metric("crewjob_leading") == 1)


def test_what_is_over_a_limit_waits_in_kubernetes_and_says_for_what(bed):
    bed.a.pool(bed.redis, limits=[TENANTS])
    create(bed, "a-0")
    create(bed, "a-1")
    create(bed, "b-0", "b")
    until("two of a and one of b are published", lambda: len(bed.redis.messages()) == 3)
    create(bed, "a-2")
    until("the third says what it waits for", lambda: reason(bed, "a-2") == "LimitReached")
    assert bed.a.status("a-2")["phase"] == "Pending"
    says = message(bed, "a-2")
    assert 'limit "tenants" of CrewWorkerPool "default" is reached for key "a": 2 jobs may be in flight' in says
    assert "number 1 of those that wait with the same keys" in says
    create(bed, "a-3")
    until("the fourth is behind it", lambda: "number 2 of those" in message(bed, "a-3"))
    assert bed.operator.metric("crewjob_jobs_waiting", reason="LimitReached") == 2
    settles("no more are published", lambda: len(bed.redis.messages()) == 3, 3)
    ends(bed, "a-0")
    until("the third is published then", lambda: bed.redis.queued(bed.a.task("a-2")), 5)
    assert reason(bed, "a-3") == "LimitReached"
    bed.a.delete("crewjobs", "a-1")
    until("the fourth is published when one is deleted", lambda: bed.redis.queued(bed.a.task("a-3")), 10)


def test_a_repetition_waits_for_its_turn_and_a_suspended_job_gives_its_place_away(bed):
    bed.a.pool(bed.redis, limits=[{"name": "all", "maxInFlight": 1}])
    # While it backs off it asks for nothing. Else it would be the older one of two that ask.
    create(bed, "first", retryPolicy={"maxRetries": 1, "backoff": {"initial": "2s"}})
    until("the first is published", lambda: bed.redis.queued(bed.a.task("first")))
    create(bed, "second")
    until("the second waits", lambda: reason(bed, "second") == "LimitReached")
    ends(bed, "first", state="FAILURE")
    until("the second is published", lambda: bed.redis.queued(bed.a.task("second")))
    until("the first waits", lambda: (bed.a.status("first")["phase"], reason(bed, "first")) == ("Retrying", "LimitReached"))
    bed.a.change("second", suspend=True)
    until("the first is repeated", lambda: bed.redis.queued(bed.a.task("first", 2)), 10)
    bed.a.change("second", suspend=False)
    until("the second waits again", lambda: reason(bed, "second") == "LimitReached")
    ends(bed, "first", 2)
    ends(bed, "second")
    for name in ("first", "second"):
        bed.a.in_phase(name, "Succeeded")


def test_a_limit_holds_while_leaders_are_killed_and_redis_is_emptied(bed, crew_worker, second):
    bed.a.pool(bed.redis, limits=[TENANTS, {"name": "all", "maxInFlight": MOST + 1}])
    crew_worker("crew@first", "-c", "8")
    names = [f"crew-{number}" for number in range(24)]
    for number, name in enumerate(names):
        create(bed, name, "ab"[number % 2], inputs={"seconds": 0.3})
    operators, done, faults = [bed.operator, second], 0, ["kill", "empty", "kill", "empty and kill"]
    seen, deadline = [], time.monotonic() + 180
    while done < len(names):
        assert time.monotonic() < deadline, f"{done} of {len(names)} have ended"
        items = bed.a.items("crewjobs")
        counting = in_flight([item.get("status", {}) for item in items])
        assert len(counting) <= MOST + 1, counting
        for tenant in "ab":
            own = [item.get("status", {}) for item in items if item["metadata"]["labels"]["tenant"] == tenant]
            assert len(in_flight(own)) <= MOST
        seen.append(messages(bed))
        assert seen[-1] <= MOST + 1
        done = sum(item.get("status", {}).get("phase") == "Succeeded" for item in items)
        if faults and done >= 5 * (5 - len(faults)):
            fault = faults.pop(0)
            if "empty" in fault:
                bed.redis.client.flushall()
            if "kill" in fault:
                leading = next(it for it in operators if it.metric("crewjob_leading") == 1)
                leading.kill()
                leading.start(leading=False, pod_name="second" if leading is second else "operator")
    assert max(seen) == MOST + 1 and not faults
    assert [bed.a.status(name)["attempts"] for name in names] == [1] * len(names)
    for operator in operators:
        until("it answers", lambda operator=operator: operator.get("/livez")[0] == 200)


def test_a_rate_counts_finished_jobs_also_of_an_earlier_leader(bed):
    bed.a.pool(bed.redis, limits=[{"name": "calls", "rate": {"count": 2, "per": "12s"}}])
    names = [f"crew-{number}" for number in range(5)]
    for name in names[:2]:
        create(bed, name)
    until("two are published", lambda: len(bed.redis.messages()) == 2)
    for name in names[2:]:
        create(bed, name)
    until("the third waits", lambda: reason(bed, names[2]) == "LimitReached")
    assert "2 jobs may be released in 12 s" in message(bed, names[2])
    for name in names[:2]:
        ends(bed, name)
        bed.a.in_phase(name, "Succeeded")
    bed.operator.kill()
    bed.redis.client.flushall()
    bed.operator.start()
    for name in names[2:]:
        ends(bed, name)
    for name in names:
        bed.a.in_phase(name, "Succeeded", seconds=60)
    released = sorted(datetime.datetime.fromisoformat(bed.a.status(name)["releasedAt"]) for name in names)
    spans = [(last - first).total_seconds() for first, last in zip(released, released[2:])]
    assert all(span >= 12 for span in spans), released
    assert spans[0] < 12 + 30, "the limit is used"


def test_a_key_whose_task_is_told_of_too_many_requests_is_slowed_down_alone(bed):
    bed.a.pool(bed.redis, limits=[TENANTS | {"maxInFlight": 4, "slowDown": {}}])
    for number in range(4):
        create(bed, f"a-{number}", retryPolicy={"maxRetries": 0})
    until("four are published", lambda: len(bed.redis.messages()) == 4)
    create(bed, "a-5")
    until("another one waits", lambda: reason(bed, "a-5") == "LimitReached")
    task = bed.a.task("a-0")
    taken = bed.redis.take(task)
    bed.redis.store(task, "FAILURE", {"exc_type": "RateLimitError", "exc_message": ["slow down. Retry-After: 600"], "exc_module": "openai"})
    bed.redis.acknowledge(taken)
    bed.a.in_phase("a-0", "Failed")
    settles("none is released", lambda: len(bed.redis.messages()) == 3, 3)
    create(bed, "a-6")
    until("it says why", lambda: "a task was told that there are too many requests, and when to try again" in message(bed, "a-6"))
    for number in range(4):
        create(bed, f"b-{number}", "b")
    until("another key goes on", lambda: len(bed.redis.messages()) == 7)


def test_keys_take_turns_by_weight_and_urgent_jobs_go_first(bed):
    weights = {"name": "tenants", "key": {"by": "Label", "label": "tenant"}, "weights": {"b": 3}}
    bed.a.pool(bed.redis, limits=[weights, {"name": "all", "maxInFlight": 1}])
    create(bed, "first")
    until("the first is published", lambda: bed.redis.queued(bed.a.task("first")))
    for number in range(8):
        create(bed, f"a-{number}")
    for number in range(8):
        create(bed, f"b-{number}", "b")
    create(bed, "urgent", priority=9)
    names = [item["metadata"]["name"] for item in bed.a.items("crewjobs")]
    until("all others wait", lambda: sum(reason(bed, name) == "LimitReached" for name in names) == 17)
    order = []
    last = "first"
    for _ in range(9):
        ends(bed, last)
        [waiting] = until("the next one is published", lambda: [it for it in bed.redis.messages() if it["headers"]["crewjob_name"] != last])
        last = waiting["headers"]["crewjob_name"]
        order.append(last)
    assert order[0] == "urgent", order
    assert [name[0] for name in order[1:]].count("b") in (6, 7), order  # `a` has had two before


def test_a_limit_that_is_raised_or_removed_lets_jobs_go_on_at_once(bed):
    bed.a.pool(bed.redis, limits=[{"name": "all", "maxInFlight": 1}])
    for number in range(6):
        create(bed, f"crew-{number}")
    until("five wait", lambda: bed.operator.metric("crewjob_jobs_waiting", reason="LimitReached") == 5)
    bed.a.patch("crewworkerpools", "default", {"spec": {"limits": [{"name": "all", "maxInFlight": 3}]}})
    until("three are published", lambda: len(bed.redis.messages()) == 3)
    settles("no more are", lambda: len(bed.redis.messages()) == 3, 2)
    bed.a.patch("crewworkerpools", "default", {"spec": {"limits": None}})
    until("all are published", lambda: len(bed.redis.messages()) == 6)
