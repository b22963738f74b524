"""Where results of every size end, and the commands of the README that read them."""

import hashlib
import json

import pytest

import crew
import kube

pytestmark = pytest.mark.usefixtures("clean")

SIZES = {"small": 1_000, "medium": 100_000, "large": 900_000, "huge": 10_000_000}


def test_results_of_every_size_are_kept_where_the_status_says(app):
    crew.start(*(crew.job(name, inputs={"result_bytes": size, "seconds": 0}) for name, size in SIZES.items()))
    results = {name: crew.in_phase(name, "Succeeded", seconds=90)["result"] for name in SIZES}
    small = results["small"]["value"]
    small = small if isinstance(small, str) else json.dumps(small)
    assert len(small) >= SIZES["small"]
    for name in ("medium", "large"):
        path = "jsonpath={.status.result.configMapName}"
        config_map = kube.kubectl("get", "crewjob", name, "-o", path)
        text = kube.kubectl("get", "configmap", config_map, "-o", r"jsonpath={.data.result\.json}")
        assert len(text) == results[name]["sizeBytes"] >= SIZES[name]
        assert hashlib.sha256(text.encode()).hexdigest() == results[name]["sha256"]
    huge, redis = results["huge"], app.backend.client
    assert huge["sizeBytes"] >= SIZES["huge"]
    document = json.loads(redis.get(huge["redisKey"]))
    assert document["status"] == "SUCCESS" and len(json.dumps(document["result"])) >= SIZES["huge"]
    assert redis.ttl(huge["redisKey"]) > 6 * 24 * 3600


def test_a_result_that_comes_after_the_end_is_noted(app):
    crew.workers_at_most(0)
    crew.no_workers()
    crew.start(crew.job("ended"))
    task = crew.in_phase("ended", "Queued")["taskID"]
    kube.patch("crewjob", "ended", {"spec": {"cancel": True}})
    crew.in_phase("ended", "Cancelled")
    document = json.dumps({"task_id": task, "status": "SUCCESS", "result": 1, "traceback": None, "children": []})
    app.backend.client.publish(f"celery-task-meta-{task}", document)
    late = kube.until("it is noted", lambda: crew.condition("ended", "LateResult"), 10)
    assert late["status"] == "True" and crew.status("ended")["phase"] == "Cancelled"
