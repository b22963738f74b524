"""What Redis or the API server refuses is said on the job, tried again, and costs nothing that was done."""

import pytest

from servers import Redis
from waiting import settles, until

WAIT = 60


def reason(tenant, job: str) -> str:
    return tenant.condition(job).get("reason", "")


def refused(tenant, job: str, why: str, *says: str) -> None:
    """The job says that it is refused, in its condition, in a Warning and in the list."""
    until(f"{job} says {why}", lambda: reason(tenant, job) == why)
    message = tenant.condition(job)["message"]
    for text in says:
        assert text in message, message
    until("a Warning says it", lambda: [event for event in tenant.warnings("crewjobs", job) if event["reason"] == why], 5)
    assert len([event for event in tenant.warnings("crewjobs", job) if event["reason"] == why]) == 1
    assert why in tenant.kubectl("get", "crewjob", job)


def writes(bed) -> float:
    return bed.operator.metric("crewjob_api_writes_total", write="JobStatus")


@pytest.fixture
def small(tmp_path):
    redis = Redis(tmp_path / "small")
    yield redis
    redis.stop()


def test_a_full_redis_is_said_on_each_job_once_and_all_are_published_when_it_has_room(bed, small):
    bed.a.pool(small)
    small.client.config_set("maxmemory-policy", "noeviction")
    small.client.config_set("maxmemory", "1mb")
    before = writes(bed)
    jobs = [f"crew-{number}" for number in range(5)]
    for job in jobs:
        bed.a.job(job)
    for job in jobs:
        refused(bed.a, job, "BrokerRefused", "enqueueing a task", "maxmemory", "raise its maxmemory")
    lines = bed.operator.log.read_text().count("\n")
    settles("each is told once", lambda: writes(bed) - before == len(jobs), 8)
    assert bed.operator.log.read_text().count("\n") - lines < 40, "it backs off"
    small.client.config_set("maxmemory", "0")
    for job in jobs:
        bed.a.in_phase(job, "Queued", seconds=WAIT)
        until("the refusal goes", lambda job=job: reason(bed.a, job) in ("Enqueued", "NoWorkerAnswers"))
        assert len(small.queued(bed.a.task(job))) == 1


@pytest.mark.parametrize("command", ["lpush", "hset"])
def test_a_command_that_the_user_of_redis_lacks_is_named_and_nothing_is_lost(bed, small, command):
    small.client.execute_command("ACL", "SETUSER", "operator", "on", ">secret-word", "~*", "&*", "+@all")
    url = small.url.replace("redis://", "redis://operator:secret-word@")
    known, small.url = small.url, url
    bed.a.pool(small)
    small.url = known
    small.client.execute_command("ACL", "SETUSER", "operator", f"-{command}")
    bed.a.job("crew")
    refused(bed.a, "crew", "BrokerRefused", f"'{command}'", "docs/redis.md")
    assert "secret-word" not in str(bed.a.get("crewjobs", "crew"))
    small.client.execute_command("ACL", "SETUSER", "operator", "+@all")
    status = bed.a.in_phase("crew", "Queued", seconds=WAIT)
    assert len(small.queued(bed.a.task("crew"))) == 1
    assert "messageLosses" not in status, "it was published once"


def run(bed, job: str) -> str:
    """A job whose result of 8 kB needs a ConfigMap."""
    bed.a.job(job)
    until("it is published", lambda: bed.redis.queued(bed.a.task(job)))
    task = bed.a.task(job)
    bed.redis.acknowledge(bed.redis.take(task))
    bed.redis.store(task, "SUCCESS", "x" * 8192)
    return task


def test_a_config_map_that_a_quota_refuses_is_said_and_the_result_is_kept_until_it_is_stored(bed):
    bed.a.pool(bed.redis)
    quota = bed.a.create("resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": {"count/configmaps": "0"}}})
    figures = {"hard": quota["spec"]["hard"], "used": {"count/configmaps": "0"}}
    bed.a.patch("resourcequotas", "small", {"status": figures}, "status")
    task = run(bed, "crew")
    refused(bed.a, "crew", "ResultRefused", "crew-result-", "exceeded quota", "raise the quota")
    until("the result is kept", lambda: bed.redis.client.ttl(f"celery-task-meta-{task}") > 24 * 3600, 5)
    bed.a.delete("resourcequotas", "small")
    status = bed.a.in_phase("crew", "Succeeded", seconds=WAIT)
    stored = bed.a.get("configmaps", status["result"]["configMapName"])["data"]
    assert "x" * 8192 in "".join(stored.values())


def test_a_config_map_that_belongs_to_something_else_is_named_with_the_command_that_mends_it(bed):
    bed.a.pool(bed.redis)
    bed.a.job("crew", suspend=True)
    name = "crew-result-" + bed.a.task("crew").rsplit("-", 1)[1]
    bed.a.create("configmaps", {"metadata": {"name": name}, "data": {"mine": "yes"}})
    bed.a.change("crew", suspend=False)
    task = bed.a.task("crew")
    until("it is published", lambda: bed.redis.queued(task))
    bed.redis.acknowledge(bed.redis.take(task))
    bed.redis.store(task, "SUCCESS", "x" * 8192)
    refused(bed.a, "crew", "ConfigMapTaken", f"kubectl delete configmap {name}")
    assert bed.a.get("configmaps", name)["data"] == {"mine": "yes"}, "it is left alone"
    assert bed.redis.client.ttl(f"celery-task-meta-{task}") > 24 * 3600
    bed.a.delete("configmaps", name)
    bed.a.in_phase("crew", "Succeeded", seconds=WAIT)
