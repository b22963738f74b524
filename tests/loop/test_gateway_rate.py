"""How many requests a caller may make: over all replicas together, and still while Redis is gone."""

import pytest
from gateways import JOBS, Account, Gateway

from waiting import until


@pytest.fixture(scope="module")
def ada(bed):
    return Account(bed.a, "ada", JOBS)


@pytest.fixture(scope="module")
def eve(bed):
    return Account(bed.a, "eve", JOBS)


@pytest.fixture
def gateways(bed, tmp_path):
    started = []

    def start(*options: str, **env: str) -> Gateway:
        started.append(Gateway(tmp_path, bed.control_plane.kubeconfig, bed.a.namespace, *options, **env))
        return started[-1]

    yield start
    for gateway in started:
        gateway.stop()


def asks(gateway: Gateway, account: Account):
    return gateway.request("GET", "/api/status/none", account.token)


def test_a_caller_has_its_requests_once_over_all_replicas_and_none_of_another_caller(bed, gateways, ada, eve):
    one, other = (gateways("--rate-limit", "6/1h", redis_url=bed.redis.url) for _ in range(2))
    # The first request of a token counts for its address: the API server has not accepted it yet.
    for gateway in (one, other):
        for account in (ada, eve):
            assert asks(gateway, account).status == 404
    answers = [asks(gateway, ada) for gateway in (one, other) * 4]
    assert [answer.status for answer in answers] == [404] * 6 + [429] * 2
    assert [int(answer.headers["x-ratelimit-remaining"]) for answer in answers] == [5, 4, 3, 2, 1, 0, 0, 0]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"6"}
    refused = answers[-1]
    assert refused.problem == "rate-limited" and 590 <= int(refused.headers["retry-after"]) <= 601
    assert 3500 <= int(refused.headers["x-ratelimit-reset"]) <= 3600
    again = one.request("GET", "/api/status/none", ada.another_token())
    assert again.status == 404, "a new token counts for its address once"
    assert asks(one, eve).headers["x-ratelimit-remaining"] == "5"
    assert one.request("GET", "/healthz").status == 200, "probes are not counted"
    keys = bed.redis.client.keys("crewjob:rate:*")
    assert len(keys) == 3, "two users and an address"
    assert all(len(key) == len(b"crewjob:rate:") + 32 and 0 < bed.redis.client.ttl(key) <= 3601 for key in keys)


def test_a_new_token_of_the_same_user_brings_no_new_requests(gateways, ada):
    gateway = gateways("--rate-limit", "3/1h")
    asks(gateway, ada)
    assert [asks(gateway, ada).status for _ in range(4)] == [404, 404, 404, 429]
    token = ada.another_token()
    assert gateway.request("GET", "/api/status/none", token).status == 404, "unknown, it counts for its address"
    assert gateway.request("GET", "/api/status/none", token).status == 429, "known, for its user"


def test_while_redis_is_gone_each_replica_counts_for_itself_and_requests_do_not_wait(bed, gateways, ada):
    gateway = gateways("--rate-limit", "5/1h", redis_url=bed.redis.url)
    assert asks(gateway, ada).status == 404
    bed.redis.stop()
    try:
        statuses = [asks(gateway, ada).status for _ in range(8)]
        assert statuses == [404] * 5 + [429] * 3
        assert gateway.metric("crewjob_gateway_rate_limit_without_redis_total") >= 8
    finally:
        bed.redis.start()
    until("Redis counts again", lambda: asks(gateway, ada).status == 404 and bed.redis.client.keys("crewjob:rate:*"))
    assert gateway.log.read_text().count("this replica counts for itself") == 1


def test_a_user_of_redis_with_the_documented_rights_is_enough_and_its_password_is_in_no_log(bed, gateways, ada):
    command = "on >hunter2hunter2 ~crewjob:rate:* -@all +ping +hello +select +time +evalsha +script|load +get +set"
    bed.redis.client.execute_command("ACL", "SETUSER", "gateway", *command.split())
    url = bed.redis.url.replace("redis://", "redis://gateway:hunter2hunter2@")
    gateway = gateways("--rate-limit", "5/1h", redis_url=url)
    assert asks(gateway, ada).status == 404
    assert gateway.metric("crewjob_gateway_rate_limit_without_redis_total") == 0, gateway.log.read_text()
    assert bed.redis.client.keys("crewjob:rate:*") and "hunter2" not in gateway.log.read_text()
    bed.redis.client.execute_command("ACL", "DELUSER", "gateway")
