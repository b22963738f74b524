"""`kubectl crewjob result` of results that only Redis has."""

import json

from test_kubectl import ctl, end  # noqa: F401
from waiting import until


def test_a_result_that_only_redis_has_is_printed_as_the_task_returned_it(bed, ctl):  # noqa: F811
    names = {"separator": ":", "resultKeyPrefix": "app_", "globalKeyPrefix": "app_"}
    bed.a.pool(bed.redis, largeResults="Redis", celery=names)
    bed.a.job("crew")
    task = bed.a.task("crew")
    until("its message waits", lambda: bed.redis.client.llen("app_crew_jobs:3") or bed.redis.client.llen("app_crew_jobs"))
    text = json.dumps({"text": "é" * 60_000, "n": [1.50, None]})
    document = f'{{"status": "SUCCESS", "result": {text}, "traceback": null, "children": [], "task_id": "{task}"}}'
    for name in bed.redis.client.keys("app_crew_jobs*"):
        bed.redis.client.delete(name)
    bed.redis.client.set(f"app_celery-task-meta-{task}", document, ex=3600)
    bed.redis.client.publish(f"app_celery-task-meta-{task}", document)
    kept = bed.a.in_phase("crew", "Succeeded")["result"]
    assert "value" not in kept and kept["redisKey"] == f"app_celery-task-meta-{task}"
    printed = ctl("result", "crew")
    assert (printed.returncode, printed.stdout) == (0, text + "\n"), printed.stderr


def test_a_result_that_redis_has_lost_or_that_cannot_be_reached_is_an_error_that_says_where_it_was(bed, ctl):  # noqa: F811
    bed.a.pool(bed.redis, largeResults="Redis")
    bed.a.job("crew")
    end(bed, "crew", result="x" * 60_000)
    kept = bed.a.in_phase("crew", "Succeeded")["result"]
    bed.redis.client.delete(kept["redisKey"])
    lost = ctl("result", "crew")
    assert lost.returncode == 1 and kept["redisKey"] in lost.stderr and "it is gone" in lost.stderr
    bed.a.delete("secrets", "redis-default")
    refused = ctl("result", "crew")
    assert refused.returncode == 1 and kept["redisKey"] in refused.stderr and "redis-default" in refused.stderr
