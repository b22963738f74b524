"""Which Pods the operator takes for a pool's, whose end it declares, and which it deletes.

Redis is written by workers, and workers run what models write: here it is written by the tests, and the Pods are objects.
"""

from tenant import now
from waiting import holds, until

HASH = "7d4b9c5f6d"
POD = f"worker-{HASH}-x2x7q"
SIDECAR = "cloud-sql-proxy"
TWO = [{"name": "crew", "image": "crew"}, {"name": SIDECAR, "image": "proxy"}]
NAMED = {"kubectl.kubernetes.io/default-container": "crew"}
# A worker has been asked to stop for half a minute, the Pod was considered, and the worker was asked again.
CONSIDERED = 60


def fleet(tenant, *pods: str, **spec) -> None:
    """The Deployment `worker` with these Pods, which run."""
    tenant.deployment(**{key: value for key, value in spec.items() if key != "annotations"})
    for pod in pods:
        tenant.pod(pod, **{key: value for key, value in spec.items() if key in ("containers", "annotations")})
        tenant.runs(pod)


def started(bed, name: str, node: str, **spec) -> str:
    """A job that this worker has begun, as far as Redis tells; the id of its task."""
    bed.a.job(name, **spec)
    task = bed.a.task(name)
    until("its message waits", lambda: bed.redis.queued(task))
    bed.redis.take(task)
    bed.redis.event("task-started", node, uuid=task)
    bed.a.in_phase(name, "Running")
    return task


def restarts(tenant, pod: str, container: str) -> None:
    """A container of a Pod has ended and runs again; the others go on."""
    statuses = tenant.get("pods", pod)["status"]["containerStatuses"]
    tenant.terminates(pod, container)
    ended = tenant.get("pods", pod)["status"]["containerStatuses"]
    for status in ended:
        if status["name"] == container:
            over = status["state"]["terminated"]
            status |= {"lastState": {"terminated": over}, "restartCount": 1, "ready": True, "containerID": status["containerID"] + "-2"}
            status["state"] = {"running": {"startedAt": over["finishedAt"]}}
    assert {status["name"] for status in statuses} == {status["name"] for status in ended}
    tenant.patch("pods", pod, {"status": {"containerStatuses": ended}}, "status")


def test_a_hostname_in_an_event_never_leads_to_a_pod_that_is_none_of_the_jobs_pool(bed):
    fleet(bed.a, POD)
    bed.a.deployment("other")
    others = [f"other-{HASH}-aaaaa", "redis-0", f"worker-{HASH}-fake1", "crewjob-operator", f"worker-{HASH}-aside"]
    bed.a.pod(others[0], deployment="other")
    bed.a.pod(others[1], deployment=None, labels={"app": "redis"})
    bed.a.pod(others[2], deployment=None)
    bed.a.pod(others[3], deployment=None, labels={"app": "operator"})
    # Taken out of the Deployment to look at it, by its labels.
    bed.a.pod(others[4], labels={"app": "aside", "pod-template-hash": HASH})
    for pod in others:
        bed.a.runs(pod)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    for n, pod in enumerate(others):
        started(bed, f"job-{n}", f"crew@{pod}")
        assert "podName" not in bed.a.status(f"job-{n}")["worker"], pod
        bed.a.change(f"job-{n}", cancel=True)
    for n in range(len(others)):
        until("it cannot be stopped", lambda n=n: bed.a.condition(f"job-{n}", "CancelUnsupported"), CONSIDERED)
    assert {POD, *others} <= {pod["metadata"]["name"] for pod in bed.a.items("pods") if "deletionTimestamp" not in pod["metadata"]}


def test_a_pod_is_deleted_for_a_cancelled_job_when_it_runs_nothing_else_and_only_then(bed):
    alone, shared = f"worker-{HASH}-alone", f"worker-{HASH}-share"
    fleet(bed.a, alone, shared)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    bed.a.pool(bed.redis, "second", deploymentRef={"name": "worker"})
    started(bed, "alone", f"crew@{alone}")
    started(bed, "one", f"crew@{shared}")
    started(bed, "another", f"crew@{shared}", poolRef={"name": "second"})
    for name in ("alone", "one"):
        bed.a.change(name, cancel=True)
    until("the Pod that runs nothing else is deleted", lambda: bed.a.is_leaving(alone), CONSIDERED)
    until("it is said that the other job cannot be stopped", lambda: bed.a.condition("one", "CancelUnsupported"), CONSIDERED)
    holds("the Pod stays", lambda: not bed.a.is_leaving(shared), 3)
    assert bed.a.status("another")["phase"] == "Running"


def test_a_sidecar_that_restarts_is_no_loss_and_the_workers_container_that_ends_is_one_at_once(bed):
    fleet(bed.a, POD, containers=TWO, annotations=NAMED)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    task = started(bed, "crew", f"crew@{POD}")
    for _ in range(2):
        restarts(bed.a, POD, SIDECAR)
        holds("the job goes on", lambda: bed.a.status("crew").get("workerLosses", 0) == 0, 2)
    bed.a.terminates(POD, "crew")
    until("the loss is noticed", lambda: bed.a.status("crew").get("workerLosses") == 1, 10)
    until("its message waits again", lambda: bed.redis.queued(task))


def test_a_container_that_is_unclear_is_said_and_no_death_is_declared_until_it_is_named(bed):
    fleet(bed.a, POD, containers=TWO)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    said = until("it is said", lambda: (c := bed.a.pool_condition("WorkersUnattributed")).get("status") == "True" and c)
    assert said["reason"] == "ContainerUnclear"
    assert all(word in said["message"] for word in ("crew", SIDECAR, "spec.deploymentRef.container"))
    started(bed, "crew", f"crew@{POD}")
    told = now()
    # A kubelet's times are in whole seconds: a container that has started within the same one may be the one that has spoken.
    until("the next second has begun", lambda: now() > told)
    for container in ("crew", SIDECAR):
        restarts(bed.a, POD, container)
    holds("no loss is declared", lambda: bed.a.status("crew").get("workerLosses", 0) == 0, 5)
    bed.a.patch("crewworkerpools", "default", {"spec": {"deploymentRef": {"container": "crew"}}})
    until("it is clear", lambda: bed.a.pool_condition("WorkersUnattributed")["status"] == "False")
    until("the end that nothing told of is noticed", lambda: bed.a.status("crew").get("workerLosses") == 1, 10)


def test_a_selector_of_expressions_only_counts_and_asks_the_workers_pods_alone(bed):
    expressions = [{"key": "app", "operator": "In", "values": ["worker"]}, {"key": "canary", "operator": "DoesNotExist"}]
    bed.a.deployment(selector={"matchExpressions": expressions})
    bed.a.pod("redis-0", deployment=None, labels={"app": "redis"})
    bed.a.pod("operator-0", deployment=None, labels={"app": "operator"})
    bed.a.pod(POD)
    for pod in ("redis-0", "operator-0", POD):
        bed.a.runs(pod)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"}, minReplicas=1)
    until("one worker is ready", lambda: bed.a.pool_status().get("replicas", {}).get("ready") == 1)
    holds("no other is", lambda: bed.a.pool_status()["replicas"]["ready"] == 1, 3)
    bed.a.terminates(POD, "worker")
    bed.a.job("crew")
    task = bed.a.task("crew")
    until("its message waits", lambda: bed.redis.queued(task))
    bed.redis.acknowledge(bed.redis.take(task))
    # Redis' Pod and the operator's never deny it, and need not.
    until("its message is found lost", lambda: bed.a.status("crew").get("messageLosses") == 1, 30)
    until("it is published again", lambda: bed.redis.queued(task))


def test_a_worker_outside_the_cluster_is_never_dead_although_its_host_is_named_like_a_pod(bed):
    bed.a.deployment("celery")
    bed.a.pool(bed.redis, deploymentRef={"name": "celery"})
    started(bed, "runs", "celery@celery-prod-01")
    bed.a.job("reserved")
    task = bed.a.task("reserved")
    until("its message waits", lambda: bed.redis.queued(task))
    bed.redis.take(task)
    bed.redis.event("task-received", "celery@celery-7d4b9-x2x7q", uuid=task, name="backend.tasks.run_crew_task")
    losses = lambda name: bed.a.status(name).get("workerLosses", 0) + bed.a.status(name).get("messageLosses", 0)
    # A Pod of such a name would have been taken for dead after 15 seconds, and a receipt that all deny after two audits.
    holds("both stay with their worker", lambda: losses("runs") == losses("reserved") == 0, 25)
    assert bed.redis.queued(task) == [] and bed.a.status("runs")["phase"] == "Running"


def test_a_pod_that_was_recorded_is_dead_when_it_is_gone_before_the_operator_starts_again(bed):
    fleet(bed.a, POD)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    task = started(bed, "crew", f"crew@{POD}")
    until("its Pod is recorded", lambda: bed.a.status("crew")["worker"].get("podName") == POD)
    bed.operator.stop()
    bed.a.vanishes(POD)
    bed.operator.start()
    until("the loss is noticed", lambda: bed.a.status("crew").get("workerLosses") == 1)
    until("its message waits again", lambda: bed.redis.queued(task))


def test_a_message_that_was_only_reserved_by_a_pod_that_is_gone_before_the_operator_starts_again_is_run_again(bed):
    fleet(bed.a, POD)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    bed.a.job("crew")
    task = bed.a.task("crew")
    bed.a.in_phase("crew", "Queued")
    bed.redis.take(task)
    bed.operator.stop()
    bed.a.vanishes(POD)
    bed.operator.start()
    until("its message waits again", lambda: bed.redis.queued(task))


def test_workers_whose_names_lead_to_no_pod_are_said_with_what_to_set(bed):
    fleet(bed.a, POD)
    bed.a.patch("pods", POD, {"status": {"containerStatuses": since_long(bed.a, POD)}}, "status")
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})

    def said():
        bed.redis.event("worker-heartbeat", "celery@node-7", freq=2.0, active=0)
        return (c := bed.a.pool_condition("WorkersUnattributed")).get("status") == "True" and c

    condition = until("it is said", said, CONSIDERED, every=1)
    assert condition["reason"] == "NodeNameUnclear"
    assert all(word in condition["message"] for word in ("celery@node-7", POD, "-n crew@$(POD_NAME)"))

    def mended():
        for host in ("node-7", POD):
            bed.redis.event("worker-heartbeat", f"celery@{host}", freq=2.0, active=0)
        return bed.a.pool_condition("WorkersUnattributed")["status"] == "False"

    until("a worker outside the cluster beside Pods that are heard of is fine", mended, every=1)


def since_long(tenant, pod: str) -> list[dict]:
    statuses = tenant.get("pods", pod)["status"]["containerStatuses"]
    for status in statuses:
        status["state"]["running"]["startedAt"] = "2026-01-01T00:00:00Z"
    return statuses
