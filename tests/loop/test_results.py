"""Results that are too large for a status: where they are kept, and what the status says of it."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from waiting import until


def is_published(bed, name: str) -> str:
    bed.a.job(name)
    task = bed.a.task(name)
    until("its message waits", lambda: bed.redis.queued(task))
    bed.redis.acknowledge(bed.redis.take(task))
    return task


@pytest.mark.parametrize("size", [60_000, 2_000_000])
@pytest.mark.parametrize("heard", [True, False], ids=["heard", "read"])
def test_a_pool_that_keeps_large_results_on_redis_makes_no_config_map_and_says_key_digest_and_expiry(bed, size, heard):
    bed.a.pool(bed.redis, largeResults="Redis", celery={"resultExpires": "20m"})
    task = is_published(bed, "crew")
    result = {"text": "é" * size, "n": [1.50, None]}
    if not heard:
        bed.operator.stop()
    bed.redis.store(task, "SUCCESS", result, expires=60)
    if not heard:
        bed.operator.start()
    key = f"celery-task-meta-{task}"
    found = bed.a.in_phase("crew", "Succeeded")["result"]
    text = json.dumps(result)
    assert f'"result": {text}' in bed.redis.client.get(found["redisKey"]).decode()
    assert found["sizeBytes"] == len(text) and found["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert found["redisKey"] == key and "configMapName" not in found and "value" not in found
    assert bed.a.items("configmaps") == []
    # It is kept until then, and no longer than any other result.
    expires = datetime.fromisoformat(found["redisExpiresAt"])
    left = timedelta(milliseconds=bed.redis.client.pttl(key))
    assert timedelta(minutes=19) < expires - datetime.now(UTC) <= timedelta(minutes=20)
    assert timedelta(minutes=19) < left <= timedelta(minutes=20)
    message = bed.a.condition("crew", "Complete")["message"]
    assert key in message and "on Redis only" in message and found["redisExpiresAt"] in message
    small = is_published(bed, "small")
    bed.redis.store(small, "SUCCESS", "y" * 4_000)
    assert bed.a.in_phase("small", "Succeeded")["result"]["value"] == "y" * 4_000


def test_a_pool_copies_large_results_to_config_maps_unless_told_otherwise_and_heeds_a_change(bed):
    bed.a.pool(bed.redis)
    task = is_published(bed, "before")
    bed.redis.store(task, "SUCCESS", "x" * 60_000)
    found = bed.a.in_phase("before", "Succeeded")["result"]
    assert bed.a.get("configmaps", found["configMapName"])["data"]["result.json"] == json.dumps("x" * 60_000)
    bed.a.patch("crewworkerpools", "default", {"spec": {"largeResults": "Redis"}})
    until("it is heeded", lambda: bed.a.pool_status().get("observedGeneration") == 2)
    task = is_published(bed, "after")
    bed.redis.store(task, "SUCCESS", "x" * 60_000)
    assert bed.a.in_phase("after", "Succeeded")["result"]["redisKey"] == f"celery-task-meta-{task}"
    assert len(bed.a.items("configmaps")) == 1


SIZES = {"small": 1_000, "medium": 100_000, "large": 900_000, "huge": 3_000_000}


def test_results_of_every_size_of_a_celery_worker_are_kept_where_the_status_and_the_readme_say(bed, example_worker):
    bed.a.pool(bed.redis)
    example_worker()
    for name, size in SIZES.items():
        bed.a.job(name, inputs={"result_bytes": size, "seconds": 0})
    jobs = {name: (bed.a.in_phase(name, "Succeeded", seconds=60), bed.a.get("crewjobs", name)) for name in SIZES}
    results = {name: status["result"] for name, (status, _) in jobs.items()}
    assert len(json.dumps(results["small"]["value"])) >= SIZES["small"]
    for name in ("medium", "large"):
        config_map = bed.a.kubectl("get", "crewjob", name, "-o", "jsonpath={.status.result.configMapName}")
        text = bed.a.kubectl("get", "configmap", config_map, "-o", r"jsonpath={.data.result\.json}")
        assert len(text) == results[name]["sizeBytes"] >= SIZES[name]
        assert hashlib.sha256(text.encode()).hexdigest() == results[name]["sha256"]
        # By this the garbage collector deletes it with the job.
        (owner,) = bed.a.get("configmaps", config_map)["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("CrewJob", name, jobs[name][1]["metadata"]["uid"])
    huge, redis = results["huge"], bed.redis.client
    assert huge["sizeBytes"] >= SIZES["huge"]
    document = json.loads(redis.get(huge["redisKey"]))
    assert document["status"] == "SUCCESS" and len(json.dumps(document["result"])) >= SIZES["huge"]
    assert redis.ttl(huge["redisKey"]) > 6 * 24 * 3600


def test_a_result_that_comes_after_the_end_is_noted(bed):
    bed.a.pool(bed.redis)
    bed.a.job("ended")
    task = bed.a.in_phase("ended", "Queued")["taskID"]
    bed.a.change("ended", cancel=True)
    bed.a.in_phase("ended", "Cancelled")
    bed.redis.store(task, "SUCCESS", 1)
    late = until("it is noted", lambda: bed.a.condition("ended", "LateResult"), 10)
    assert late["status"] == "True" and bed.a.status("ended")["phase"] == "Cancelled"
