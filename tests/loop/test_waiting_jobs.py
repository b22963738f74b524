"""The metric of the jobs that wait: for what, and nothing that stands for good."""

import re

from servers import Operator

from waiting import until


def waiting(operator, tenant) -> dict[tuple[str, str], int]:
    """How many jobs of this namespace wait, by pool and reason."""
    _, text = operator.get("/metrics")
    line = rf'^crewjob_jobs_waiting{{namespace="{tenant.namespace}",pool="(.*?)",reason="(.*?)"}} (\d+)$'
    return {(pool, reason): int(count) for pool, reason, count in re.findall(line, text, re.MULTILINE)}


def figures(operator, tenant) -> list[str]:
    """Every figure of the pools of this namespace."""
    _, text = operator.get("/metrics")
    return [line for line in text.splitlines() if f'namespace="{tenant.namespace}"' in line]


def test_jobs_that_wait_are_counted_by_what_they_wait_for(bed):
    bed.a.pool(bed.redis)
    bed.a.pool_with("missing", "broken")
    bed.a.job("suspended", suspend=True)
    for name in ("one", "two"):
        bed.a.job(name)
        bed.a.job(f"lost-{name}", poolRef={"name": f"none-{name}"})
    bed.a.job("stuck", poolRef={"name": "broken"})
    expected = {("default", "Suspended"): 1, ("default", "Enqueued"): 2, ("", "PoolNotFound"): 2, ("broken", "SecretNotFound"): 1}
    until("all are counted", lambda: waiting(bed.operator, bed.a) == expected)
    bed.redis.take(bed.a.task("one"))
    bed.redis.event("task-started", "crew@elsewhere", uuid=bed.a.task("one"))
    bed.a.in_phase("one", "Running")
    assert waiting(bed.operator, bed.a) == expected | {("default", "Enqueued"): 1}


def test_of_a_deleted_pool_no_figure_stays_and_its_jobs_wait_for_a_pool(bed):
    bed.a.pool(bed.redis)
    bed.a.job("crew")
    until("it waits for a worker", lambda: waiting(bed.operator, bed.a) == {("default", "Enqueued"): 1})
    attempts = f'crewjob_attempts_total{{namespace="{bed.a.namespace}",pool="default",outcome="Failed"}} 0'
    assert attempts in figures(bed.operator, bed.a), "a counter that appears with its first count has no increase"
    bed.a.delete("crewworkerpools", "default")
    until("it waits for the pool", lambda: waiting(bed.operator, bed.a) == {("", "PoolNotFound"): 1})
    until("nothing else is left", lambda: all("jobs_waiting" in line for line in figures(bed.operator, bed.a)))


def test_an_operator_that_leads_no_more_counts_no_jobs(bed):
    bed.a.pool(bed.redis)
    bed.a.job("crew")
    until("the leader counts it", lambda: waiting(bed.operator, bed.a) == {("default", "Enqueued"): 1})
    second = Operator(bed.folder / "second", bed.operator.kubeconfig, bed.a.namespace, bed.operator.pool_namespaces)
    second.folder.mkdir()
    second.start(leading=False, pod_name="second")
    try:
        until("it stands by", lambda: second.get("/livez")[0] == 200)
        assert figures(second, bed.a) == []
        # As when another replica took the Lease over: the first loses it and goes on as the one that stands by.
        lease = bed.a.items("leases")[0]
        taken = {"holderIdentity": "a third", "leaseTransitions": lease["spec"].get("leaseTransitions", 0) + 1}
        bed.a.patch("leases", lease["metadata"]["name"], {"spec": taken})
        until("the first leads no more", lambda: bed.operator.metric("crewjob_leading") == 0)
        gauges = lambda: [line for line in figures(bed.operator, bed.a) if "_total" not in line and "_seconds_" not in line]  # noqa: E731
        until("it shows no figure of the pool", lambda: gauges() == [] or bed.operator.metric("crewjob_leading") == 1)
        leader = lambda: next((it for it in (bed.operator, second) if it.metric("crewjob_leading") == 1), None)  # noqa: E731
        until("one of them leads", leader, 60)
        until("it counts the job", lambda: waiting(leader(), bed.a) == {("default", "Enqueued"): 1})
        (other,) = {bed.operator, second} - {leader()}
        assert waiting(other, bed.a) == {}
    finally:
        second.stop()
