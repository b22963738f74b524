"""A Redis that lets in clients with a certificate only: operator, workers of both kinds, and `kubectl crewjob`."""

import json
import os
import subprocess

import pytest

from certified import CertifiedRedis
from fixtures import starts
from servers import CREWJOB, CrewWorker, ExampleWorker
from test_kubectl import ctl  # noqa: F401
from waiting import until


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    server = CertifiedRedis(tmp_path_factory.mktemp("certified") / "redis")
    yield server
    server.stop()


@pytest.fixture
def worker(certified, tmp_path):
    yield from starts(lambda kind, *given: kind(tmp_path / "worker", certified.url, *given, **certified.environment()))


def a_pool(bed, certified, **secret):
    bed.a.secret("redis-default", **certified.secret() | secret)
    bed.a.pool_with("redis-default", "default", largeResults="Redis")


def test_a_job_runs_and_its_result_is_read_over_connections_that_need_a_certificate(bed, certified, worker, ctl):  # noqa: F811
    a_pool(bed, certified)
    native = worker(CrewWorker, "crew@native")
    bed.a.job("native")
    assert bed.a.in_phase("native", "Succeeded")["result"]["value"]
    native.stop()
    worker(ExampleWorker, "crew@celery")
    bed.a.job("celery")
    bed.a.in_phase("celery", "Succeeded")

    found = json.loads(ctl("doctor", "--redis", "-o", "json").stdout)
    assert any(it.startswith("redis/rediss://") for it in found["lookedAt"]) and not found["unread"], found
    pool = ("import", "pool", "-o", "json")
    assert ctl(*pool, "--secret", "redis-default").returncode == 0
    env = {name.upper(): value for name, value in certified.environment().items()} | {"REDIS_URL": certified.url}
    by_environment = subprocess.run([str(CREWJOB), "ctl", *pool], env=os.environ | env, capture_output=True, text=True, timeout=60)
    assert by_environment.returncode == 0, by_environment.stderr


def test_a_pair_that_does_not_fit_or_is_not_there_is_named_in_the_condition_and_mending_it_is_enough(bed, certified):
    key = certified.secret()["REDIS_CLIENT_KEY"]
    for secret, named in [
        ({"REDIS_CLIENT_KEY": "no key"}, "REDIS_CLIENT_KEY is not usable"),
        ({"REDIS_CLIENT_CERT": ""}, "REDIS_CLIENT_CERT is not usable: it is missing"),
        ({"REDIS_CLIENT_CERT": "", "REDIS_CLIENT_KEY": ""}, "give it as REDIS_CLIENT_CERT"),
    ]:
        if bed.a.get("crewworkerpools", "default"):
            bed.a.secret("redis-default", **certified.secret() | secret)
        else:
            a_pool(bed, certified, **secret)
        told = lambda: named in bed.a.pool_condition("BrokerReachable").get("message", "")  # noqa: E731, B023
        until(f"the pool says {named}", told)
        assert key.splitlines()[1] not in json.dumps(bed.a.pool_status())
    bed.a.secret("redis-default", **certified.secret())
    until("the pool is ready", lambda: bed.a.pool_condition("BrokerReachable")["status"] == "True")
    assert key.splitlines()[1] not in bed.operator.log.read_text()
