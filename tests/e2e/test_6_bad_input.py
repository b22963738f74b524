"""What is wrong is said on the job, in words that tell how to mend it, and is picked up when it is mended."""

import base64
import json

import pytest

import celery_side
import crew
import kube
import operators

pytestmark = pytest.mark.usefixtures("clean", "unharmed")

GOOD_TASK = "backend.tasks.run_crew_task"


@pytest.fixture
def unharmed():
    """The operator has not crashed."""
    before = operators.restarts()
    yield
    assert operators.restarts() == before


def held_back(name: str, reason: str, *words: str) -> None:
    """The job is Pending for this reason, its condition says these words, and so does a Warning Event."""

    def says_so():
        found = crew.condition(name, "Reconciling")
        return found if found.get("reason") == reason else None

    message = kube.until(f"{name} is held back by {reason}", says_so, seconds=30)["message"]
    assert crew.status(name)["phase"] == "Pending"
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"
    notes = kube.until(f"a Warning about {name}", lambda: warnings(name, reason), seconds=15)
    assert message in notes


def warnings(name: str, reason: str) -> list[str]:
    return [event["message"] for event in kube.warnings_about("crewjob", name) if event["reason"] == reason]


@pytest.fixture
def no_worker():
    crew.workers_at_most(0)
    crew.no_workers()


def test_a_pool_that_cannot_serve_the_job_is_named_until_it_can(no_worker):
    queue = {"name": "slow", "routingKey": "slow"}
    kube.apply(crew.pool("narrow", queues=[queue]), crew.pool("strict", allowedTasks=["my.task"]))
    kube.until("the pools are ready", lambda: crew.ready("narrow") and crew.ready("strict"))
    crew.start(
        crew.job("pool-missing", poolRef={"name": "nowhere"}),
        crew.job("queue-missing", poolRef={"name": "narrow"}, queue="express"),
        crew.job("task-refused", poolRef={"name": "strict"}),
    )
    held_back("pool-missing", "PoolNotFound", '"nowhere"', "default, narrow, strict")
    held_back("queue-missing", "QueueNotInPool", '"express"', "slow")
    held_back("task-refused", "TaskNotAllowed", GOOD_TASK, "my.task")

    express = {"name": "express", "routingKey": "express"}
    kube.apply(
        crew.pool("nowhere"),
        crew.pool("narrow", queues=[queue, express]),
        crew.pool("strict", allowedTasks=[GOOD_TASK]),
    )
    for name in ("pool-missing", "queue-missing", "task-refused"):
        crew.in_phase(name, "Queued", seconds=15)


def test_a_redis_that_cannot_be_used_is_explained_until_it_can(no_worker):
    good = celery_side.redis_url()
    password = good.split(":")[2].split("@")[0]
    wrong = good.replace(password, "not-the-password")
    away = "redis://127.0.0.1:1/0"
    kube.apply(
        crew.secret("plain", labelled=False, REDIS_URL=good),
        crew.secret("empty", OTHER="x"),
        crew.secret("wrong", REDIS_URL=wrong),
        crew.secret("away", REDIS_URL=away),
    )
    names = ("absent", "plain", "empty", "wrong", "away")
    kube.apply(*(crew.pool(f"on-{name}", secret=name) for name in names))
    crew.start(*(crew.job(f"job-{name}", poolRef={"name": f"on-{name}"}) for name in names))

    held_back("job-absent", "SecretNotFound", '"absent"', "REDIS_URL")
    held_back("job-plain", "SecretNotLabelled", '"plain"', "crewjob.dev/redis=true")
    held_back("job-empty", "SecretInvalid", '"empty"', "REDIS_URL")
    held_back("job-wrong", "BrokerAuthenticationFailed", "crewjob-redis.crewjob.svc:6379")
    held_back("job-away", "BrokerUnreachable", "127.0.0.1:1")
    for secret in ("not-the-password", password):
        assert secret not in kube.kubectl("get", "crew,events", "-o", "yaml")
        assert secret not in kube.kubectl("logs", f"deployment/{kube.OPERATOR}")

    kube.apply(*(crew.secret(name, REDIS_URL=good) for name in names))
    for name in names:
        crew.in_phase(f"job-{name}", "Queued", seconds=30)


def test_inputs_that_celery_could_not_take_fail_for_good():
    deep: dict = {}
    for _ in range(40):
        deep = {"a": deep}
    crew.start(
        crew.job("too-deep", inputs=deep),
        crew.job("too-large", inputs={"text": "x" * 70_000}),
        crew.job("decoded", inputs={"when": {"__type__": "datetime", "__value__": "now"}}),
    )
    for name, words in (("too-deep", "32"), ("too-large", "65536"), ("decoded", "__type__")):
        status = crew.in_phase(name, "Failed", seconds=15)
        failed = crew.condition(name, "Failed")
        assert failed["reason"] == "InvalidSpec" and failed["status"] == "True"
        assert words in failed["message"] and "inputs" in failed["message"]
        assert status["attempts"] == 0


def test_an_invalid_job_is_refused_with_the_name_of_the_field():
    for field, bad in (
        ("priority", {"priority": 11}),
        ("topic", {"topic": ""}),
        ("task", {"task": "celery.backend_cleanup"}),
    ):
        refused = kube.run(
            ["kubectl", "-n", kube.NAMESPACE, "create", "-f", "-"],
            json.dumps(crew.job("bad") | {"spec": {"topic": "x"} | bad}),
        )
        assert refused.returncode != 0 and f"spec.{field}" in refused.stderr, refused.stderr


def test_odd_messages_on_the_queue_hurt_nobody(app, no_worker):
    redis = app.backend.client
    odd = ["no JSON", "{}", "[1]", '{"body": 1, "properties": 2}', '{"body": "!", "headers": null}', "\u0000"]
    odd.append(json.dumps({"body": base64.b64encode(b"\xff").decode(), "headers": {"id": 7}, "properties": {}}))
    redis.lpush("crew_jobs", *odd)
    crew.start(crew.job("among-odd"))
    crew.in_phase("among-odd", "Queued")
    # A worker ends with an error when it takes one of these. The operator looks first: every minute, and when it connects.
    redis.client_kill_filter(_type="pubsub")
    kube.until("only the job is left", lambda: redis.llen("crew_jobs") == 0, seconds=20)
    assert crew.ready("default")
    (stream,) = redis.keys("crewjob:*:quarantine")
    assert {fields[b"element"].decode() for _, fields in redis.xrange(stream)} == set(odd)
    app.send_task("unknown.task", queue="crew_jobs")
    crew.workers_at_most(3)
    crew.in_phase("among-odd", "Succeeded")


def test_a_result_of_an_unknown_state_is_passed_over_and_an_unreadable_one_is_said(app):
    redis = app.backend.client
    crew.start(crew.job("sideways", inputs={"seconds": 3}), crew.job("unreadable", inputs={"seconds": 3}))

    def store(name: str, document: str) -> None:
        key = f"celery-task-meta-{crew.in_phase(name, 'Running')['taskID']}"
        redis.set(key, document)
        redis.publish(key, document)

    task = crew.in_phase("sideways", "Running")["taskID"]
    store("sideways", json.dumps({"task_id": task, "status": "SIDEWAYS", "result": {"percent": "much"}}))
    store("unreadable", "no JSON")
    crew.in_phase("unreadable", "Failed")
    failed = crew.condition("unreadable", "Failed")
    assert failed["reason"] == "NoResult" and "cannot be read" in failed["message"]
    crew.in_phase("sideways", "Succeeded")
