"""The owner of a Deployment's replicas: the API server remembers which field manager wrote them."""

import json

from waiting import holds, until


def deployment(name: str, **spec) -> dict:
    labels = {"test": name}
    pod = {"terminationGracePeriodSeconds": 3660, "containers": [{"name": "worker", "image": "worker"}]}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def test_replicas_that_no_client_asked_for_are_the_operators_and_others_are_left_alone(bed):
    for object_ in (deployment("defaulted"), deployment("chosen", replicas=1)):
        bed.a.kubectl("apply", "-f", "-", given=json.dumps(object_))
    for name in ("defaulted", "chosen"):
        queue = {"name": name, "routingKey": name}
        bed.a.pool(bed.redis, name, queues=[queue], deploymentRef={"name": name}, scaleDownDelay="1s")
    replicas = lambda name: bed.a.get("deployments", name)["spec"]["replicas"]  # noqa: E731
    contested = lambda name: bed.a.pool_condition("ReplicasContested", name)  # noqa: E731
    assert replicas("chosen") == 1
    until("the workers are not needed", lambda: replicas("defaulted") == 0)
    until("the other owner is named", lambda: contested("chosen").get("status") == "True")
    assert "kubectl-client-side-apply" in contested("chosen")["message"]
    assert contested("defaulted")["status"] == "False"
    holds("the others are left alone", lambda: replicas("chosen") == 1, 3)


def test_an_operator_that_starts_is_ready_only_when_it_has_scaled_the_workers(bed):
    """`helm install --wait` watches all resources, and fails when one changes just after the last has become ready."""
    bed.operator.stop()
    bed.redis.stop()
    bed.a.kubectl("apply", "-f", "-", given=json.dumps(deployment("late")))
    bed.a.pool(bed.redis, ready=False, minReplicas=3, deploymentRef={"name": "late"})
    replicas = lambda: bed.a.get("deployments", "late")["spec"]["replicas"]  # noqa: E731
    assert replicas() == 1, "the API server's default"
    bed.operator.start()
    unready = until("it waits for the pool's Redis", lambda: r if "[-] pools:" in (r := bed.operator.get("/readyz")[1]) else None)
    assert f"{bed.a.namespace}/default" in unready and not bed.operator.ready()
    bed.redis.start()
    until("it is ready", bed.operator.ready, every=0.01)
    assert replicas() == 3


def test_a_worker_that_has_just_popped_a_message_is_not_scaled_away(bed):
    """Kombu pops a message in one call, and notes it in `unacked` in the next: in between, Redis has it in no place."""
    bed.a.kubectl("apply", "-f", "-", given=json.dumps(deployment("worker")))
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"}, scaleDownDelay="0s")
    replicas = lambda: bed.a.get("deployments", "worker")["spec"]["replicas"]  # noqa: E731
    until("the workers are not needed", lambda: replicas() == 0)
    bed.a.job("crew", priority=10)
    bed.a.in_phase("crew", "Queued")
    until("a worker is asked for", lambda: replicas() == 1)
    assert bed.redis.client.rpop("crew_jobs")
    until("the queue was looked at", lambda: bed.a.pool_status()["queues"][0]["depth"] == 0)
    holds("its worker stays", lambda: replicas() == 1, 3)
