"""A pool's conditions, and the bounds within which it scales its Deployment."""

import time

from waiting import holds, settles, unchanged, until

NAME = "worker-7d4b9c5f6d-x2x7q"


def blocked(bed, reason: str, *says: str) -> dict:
    def found():
        condition = bed.a.pool_condition("WorkersNotStarting")
        return condition if (condition.get("status"), condition.get("reason")) == ("True", reason) else None

    condition = until(f"workers do not start for {reason}", found)
    for text in says:
        assert text in condition["message"], condition["message"]
    return condition


def waits(bed, **container) -> None:
    """The Pod has a node and its container waits for something."""
    status = {"name": "worker", "image": "worker:1", "imageID": "", "ready": False, "restartCount": 0, **container}
    scheduled = [{"type": "PodScheduled", "status": "True"}]
    change = {"phase": "Pending", "conditions": scheduled, "containerStatuses": [status]}
    bed.a.patch("pods", NAME, {"status": change}, "status")


def waiting(reason: str, message: str) -> dict:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def replicas(bed) -> int:
    return bed.a.get("deployments", "worker")["spec"]["replicas"]


def pool(bed, **spec) -> None:
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"}, scaleDownDelay="1s", **spec)


def test_workers_that_do_not_start_say_why_in_a_condition_of_the_pool(bed):
    bed.a.deployment(replicas=1)
    bed.a.pod()
    pool(bed)
    bed.a.job("crew")
    until("a worker is asked for", lambda: replicas(bed) == 1)
    waits(bed, **waiting("ImagePullBackOff", "Back-off pulling image"))
    blocked(bed, "ImageNotPulled", NAME, "worker:1", "Back-off pulling image", "imagePullSecrets")
    waits(bed, **waiting("CreateContainerConfigError", 'secret "keys" not found'))
    blocked(bed, "ContainerNotCreated", 'secret "keys" not found')
    over = {"exitCode": 3, "reason": "Error", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:02Z"}
    waits(bed, **waiting("CrashLoopBackOff", "back-off"), lastState={"terminated": over})
    blocked(bed, "CrashLoop", "exit code 3", f"kubectl logs {NAME} -c worker --previous")
    bed.a.runs()
    until("nothing is said any more", lambda: bed.a.pool_condition("WorkersNotStarting")["status"] == "False")


def test_jobs_that_wait_repeat_why_workers_do_not_start_with_one_write_each_also_over_a_restart(bed):
    bed.a.deployment(replicas=1)
    bed.a.pod()
    pool(bed)
    for number in range(5):
        bed.a.job(f"crew-{number}")
    jobs = [f"crew-{number}" for number in range(5)]
    for job in jobs:
        bed.a.in_phase(job, "Queued")
    writes = lambda: bed.operator.metric("crewjob_api_writes_total", write="JobStatus", outcome="Done")  # noqa: E731
    # The operator counts a write after it can be seen.
    before = unchanged(writes, 1)
    waits(bed, **waiting("ImagePullBackOff", "Back-off pulling image"))
    reason = lambda job: bed.a.condition(job)["reason"]  # noqa: E731
    until("all jobs say it", lambda: {reason(job) for job in jobs} == {"ImageNotPulled"})
    message = bed.a.condition(jobs[0])["message"]
    assert 'CrewWorkerPool "default"' in message and NAME in message and "imagePullSecrets" in message, message
    assert "ImageNotPulled" in bed.a.kubectl("get", "crewjob", jobs[0])
    settles("it is written once", lambda: writes() - before == len(jobs), 4)
    bed.operator.restart()
    holds("it is said on", lambda: {reason(job) for job in jobs} == {"ImageNotPulled"}, 12)
    assert writes() == 0, "an operator that starts writes what is said already"
    bed.a.runs()
    until("they wait for a worker", lambda: {reason(job) for job in jobs} == {"Enqueued"})
    settles("that is written once, too", lambda: writes() == len(jobs), 3)


def test_pods_that_a_quota_refuses_are_said_in_a_condition_of_the_pool(bed):
    bed.a.deployment(replicas=1)
    pool(bed)
    bed.a.job("crew")
    until("a worker is asked for", lambda: replicas(bed) == 1)
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"}
    bed.a.patch("deployments", "worker", {"status": {"conditions": [failure]}}, "status")
    blocked(bed, "PodsNotCreated", "exceeded quota: small")


def test_a_pool_that_may_have_no_workers_says_so_when_a_job_waits(bed):
    bed.a.deployment(replicas=1)
    pool(bed, maxReplicas=0)
    bed.a.job("crew")
    blocked(bed, "NoReplicasAllowed", "spec.maxReplicas")


def test_a_lowered_max_replicas_is_obeyed_at_once(bed):
    bed.a.deployment(replicas=1)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"}, scaleDownDelay="1h", maxReplicas=5)
    for number in range(8):
        bed.a.job(f"crew-{number}")
    until("all that may be are asked for", lambda: replicas(bed) == 5)
    bed.a.patch("crewworkerpools", "default", {"spec": {"maxReplicas": 2}})
    until("the rest goes", lambda: replicas(bed) == 2, 10)
    bed.a.patch("crewworkerpools", "default", {"spec": {"maxReplicas": 9, "minReplicas": 9}})
    until("so many are asked for", lambda: replicas(bed) == 9, 10)


def test_kubectl_scale_is_respected_and_said_and_undone_with_the_command_that_is_said(bed):
    bed.a.deployment(replicas=1)
    pool(bed)
    bed.a.job("crew")
    until("a worker is asked for", lambda: replicas(bed) == 1)
    bed.a.kubectl("scale", "deployment/worker", "--replicas=0")
    contested = lambda: bed.a.pool_condition("ReplicasContested")  # noqa: E731
    until("the other owner is said", lambda: contested().get("status") == "True", 10)
    assert "kubectl scale" in contested()["message"]
    blocked(bed, "ReplicasContested", "kubectl scale")
    since, scaled = contested()["lastTransitionTime"], bed.operator.metric("crewjob_api_writes_total", write="Scale")
    bed.a.job("another")
    holds("it is left alone", lambda: replicas(bed) == 0 and contested()["status"] == "True", 5)
    assert contested()["lastTransitionTime"] == since
    assert bed.operator.metric("crewjob_api_writes_total", write="Scale") == scaled, "it is not tried again and again"
    command = contested()["message"].split(": kubectl ")[1]
    assert command.endswith("crewjob.dev/take-replicas=\"$(date +%s)\" --overwrite"), command
    value = str(int(time.time()))
    bed.a.kubectl("annotate", "crewworkerpool", "default", f"crewjob.dev/take-replicas={value}", "--overwrite")
    until("the operator scales again", lambda: replicas(bed) == 2)
    until("nothing is contested", lambda: contested()["status"] == "False")
    assert bed.a.pool_status()["replicasTakenFor"] == value
    bed.a.kubectl("scale", "deployment/worker", "--replicas=7")
    until("the other owner is said", lambda: contested()["status"] == "True", 10)
    holds("the annotation counts once", lambda: replicas(bed) == 7, 4)


def test_the_numbers_of_a_pool_are_written_rarely_while_its_conditions_are_written_at_once(bed):
    bed.a.deployment(replicas=1)
    pool(bed)
    before = bed.operator.metric("crewjob_api_writes_total", write="PoolStatus")
    began = time.monotonic()
    for number in range(40):
        bed.a.job(f"crew-{number}")
        time.sleep(0.1)
    until("the depth is shown", lambda: bed.a.pool_status()["depth"] == 40)
    most = 4 + (time.monotonic() - began) / 5
    assert bed.operator.metric("crewjob_api_writes_total", write="PoolStatus") - before <= most


def test_the_gauges_of_a_deleted_pool_go_away(bed):
    pool(bed)
    series = lambda: [line for line in bed.operator.get("/metrics")[1].splitlines() if bed.a.namespace in line]  # noqa: E731
    of = lambda name: [line for line in series() if line.startswith(name)]  # noqa: E731
    until("it is counted", lambda: of("crewjob_broker_up") and of("crewjob_queue_depth"))
    bed.a.delete("crewworkerpools", "default")
    until("its gauges go", lambda: not of("crewjob_broker_up") and not of("crewjob_queue_depth"))


def test_two_pools_that_share_a_queue_on_one_redis_say_so_and_name_each_other(bed):
    bed.a.pool(bed.redis)
    bed.b.pool(bed.redis)
    shared = lambda tenant: tenant.pool_condition("QueuesShared")  # noqa: E731
    for tenant, other in ((bed.a, bed.b), (bed.b, bed.a)):
        until("it is said", lambda tenant=tenant: shared(tenant).get("status") == "True")
        assert f"{other.namespace}/default" in shared(tenant)["message"]
    bed.b.patch("crewworkerpools", "default", {"spec": {"celery": {"globalKeyPrefix": "b:"}}})
    until("they are apart", lambda: shared(bed.a)["status"] == "False" and shared(bed.b)["status"] == "False")
