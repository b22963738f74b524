"""Redis behind sentinels, whose primary changes while jobs run."""

import json
from collections import Counter

import pytest

from fixtures import starts
from sentinels import OF_SENTINELS, PASSWORD, Watched
from servers import CrewWorker, ExampleWorker
from test_kubectl import ctl  # noqa: F401
from waiting import until

JOBS = 200


@pytest.fixture
def watched(tmp_path):
    watched = Watched(tmp_path / "watched")
    yield watched
    watched.end()


@pytest.fixture
def worker(watched, tmp_path):
    """Starts a worker of a kind; its files are in a folder of the node's name."""
    yield from starts(lambda kind, node, *options: kind(tmp_path / node, watched.url, node, *options, **watched.environment()))


PODS = ("native-0", "native-1", "celery")


def a_pool(bed, watched) -> None:
    """Whose workers are Pods of its Deployment: none else may have what these deny, when a server has forgotten an end."""
    bed.a.deployment(replicas=len(PODS))
    for name in PODS:
        bed.a.pod(name)
        bed.a.runs(name)
    bed.a.secret("redis-default", REDIS_URL=watched.url, **watched.environment())
    constant = {"minReplicas": len(PODS), "maxReplicas": len(PODS)}
    bed.a.pool_with("redis-default", "default", deploymentRef={"name": "worker"}, **constant)
    until("the pool is ready", lambda: bed.a.pool_condition("BrokerReachable").get("status") == "True")


def phases(bed) -> Counter:
    return Counter(job.get("status", {}).get("phase") for job in bed.a.items("crewjobs"))


@pytest.mark.parametrize("how", ["asked for", "killed"])
def test_all_of_200_jobs_succeed_while_another_server_becomes_the_primary(bed, watched, worker, ctl, how):  # noqa: F811
    a_pool(bed, watched)
    # All are there before the first worker: however slowly they are made, none is over before the server changes.
    for number in range(JOBS):
        bed.a.job(f"job-{number}", inputs={"seconds": 5})
    until("all are queued", lambda: phases(bed)["Queued"] == JOBS, 120)
    workers = [worker(CrewWorker, f"crew@native-{number}", "-c", "16") for number in range(2)]
    workers.append(worker(ExampleWorker, "crew@celery", "-c", "4"))
    until("some have ended", lambda: phases(bed)["Succeeded"] >= 10, 120)
    assert phases(bed)["Running"] > 0, phases(bed)
    before = watched.primary()
    if how == "killed":
        watched.kill_the_primary()
    else:
        watched.fail_over()

    def all_over():
        found = phases(bed)
        assert set(found) <= {None, "Pending", "Queued", "Running", "Succeeded"}, found
        return found["Succeeded"] == JOBS

    until(f"all {JOBS} have succeeded", all_over, 240)
    if how == "killed":
        before.start()
    attempts = Counter(bed.a.status(f"job-{number}")["attempts"] for number in range(JOBS))
    assert attempts == {1: JOBS}, attempts
    address = bed.a.pool_status()["redis"]["address"]
    assert address.startswith("sentinel://127.0.0.1:") and address.endswith("/mymaster/0")
    found = json.loads(ctl("doctor", "--redis", "-o", "json").stdout)
    assert f"redis/{address}" in found["lookedAt"], found
    told = bed.operator.log.read_text() + "".join(worker.log.read_text() for worker in workers) + json.dumps(bed.a.pool_status())
    assert PASSWORD not in told and PASSWORD.replace(" ", "%20") not in told and OF_SENTINELS not in told


def test_a_sentinel_that_knows_no_such_primary_is_named_in_the_condition_with_the_key_to_mend(bed, watched):
    bed.a.secret("redis-default", REDIS_URL=watched.url, **watched.environment() | {"REDIS_SENTINEL_MASTER": ""})
    bed.a.pool_with("redis-default", "default")
    condition = lambda: bed.a.pool_condition("BrokerReachable")  # noqa: E731
    until("the key is named", lambda: "REDIS_SENTINEL_MASTER is not usable" in condition().get("message", ""))
    assert condition()["reason"] == "SecretInvalid"
    bed.a.secret("redis-default", REDIS_SENTINEL_MASTER="other")
    until("the name is named", lambda: 'knows no primary "other"' in condition()["message"])
