"""`kubectl crewjob doctor --redis`: what is wrong with the servers of pools."""

import json

from test_kubectl import ctl  # noqa: F401


def reasons(done) -> set[str]:
    return {finding["reason"] for finding in json.loads(done.stdout)["findings"] if finding["object"].startswith("crewworkerpool/")}


def test_a_server_that_is_nearly_full_or_has_what_does_not_belong_there_is_found_and_a_clean_one_is_not(bed, ctl):  # noqa: F811
    bed.a.pool(bed.redis)
    clean = ctl("doctor", "--redis", "-o", "json")
    assert reasons(clean) == set() and any(it.startswith("redis/") for it in json.loads(clean.stdout)["lookedAt"]), clean.stdout
    for number in range(101):
        bed.redis.client.lpush(f"0b7c-{number}.reply.celery.pidbox", "{}")
    for number in range(50):
        bed.redis.client.setex(f"expires-{number}.reply.celery.pidbox", 60, "")
    used = bed.redis.client.info("memory")["used_memory"]
    bed.redis.client.config_set("maxmemory", used + used // 5)
    try:
        found = ctl("doctor", "--redis", "-o", "json")
        assert {"ReplyListsOrphaned", "RedisNearlyFull"} <= reasons(found) and found.returncode == 1, found.stdout
        without = ctl("doctor", "-o", "json")
        assert not {"ReplyListsOrphaned", "RedisNearlyFull"} & reasons(without)
    finally:
        bed.redis.client.config_set("maxmemory", 0)
    bed.a.delete("secrets", "redis-default")
    unread = json.loads(ctl("doctor", "--redis", "-o", "json").stdout)["unread"]
    assert any("redis-default" in it for it in unread), unread
