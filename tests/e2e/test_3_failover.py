"""Redis fails over to a replica that had fallen behind, and is down for long."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

import celery_side
import crew
import kube
from waiting import holds, until

pytestmark = pytest.mark.usefixtures("clean")

REDIS = "statefulset/crewjob-redis"
SERVICE = "crewjob-redis"
MAIN, REPLICA = 6379, 6380
REPLICATE = (
    f"redis-server /etc/redis/redis.conf --port {REPLICA} --appendonly no --dbfilename replica.rdb"
    f' --masterauth "$REDISCLI_AUTH" --replicaof 127.0.0.1 {MAIN} --daemonize yes'
)

JOBS = 5
OUTAGE_SECONDS = int(os.environ.get("E2E_OUTAGE_SECONDS", "8"))


def cli(port: int, *command: str) -> str:
    return kube.kubectl("exec", REDIS, "--", "redis-cli", "-p", str(port), *command)


def serve_from(port: int) -> None:
    """Points operator and workers at another Redis, and ends the connections to the one before."""
    service = {"name": "redis", "port": MAIN, "targetPort": port}
    kube.patch("service", SERVICE, {"spec": {"ports": [service]}})
    url = celery_side.redis_url()
    reached = lambda: redis.Redis.from_url(url, socket_timeout=5).info("server")["tcp_port"] == port
    until(f"new connections reach port {port}", reached, 30)
    before = ({MAIN, REPLICA} - {port}).pop()
    for type_ in ("normal", "pubsub"):
        cli(before, "CLIENT", "KILL", "TYPE", type_, "SKIPME", "yes")


@contextmanager
def replica() -> Iterator[None]:
    """A Redis beside the one that is used, with the same data; afterwards all is as before, and empty."""
    kube.kubectl("exec", REDIS, "--", "sh", "-c", REPLICATE)
    try:
        in_step = lambda: "master_link_status:up" in cli(REPLICA, "INFO", "replication")
        until("the replica is in step", in_step)
        yield
    finally:
        cli(MAIN, "FLUSHALL")
        serve_from(MAIN)
        kube.patch("service", SERVICE, {"spec": {"ports": [{"name": "redis", "port": MAIN, "targetPort": "redis"}]}})
        # It ends without an answer.
        kube.run(["kubectl", "-n", kube.NAMESPACE, "exec", REDIS, "--", "redis-cli", "-p", str(REPLICA), "SHUTDOWN"])


def test_after_a_failover_to_a_stale_replica_every_job_ends_once_and_as_declared(app, executions, figure):
    crew.workers_at_most(0)
    crew.no_workers()
    with replica():
        crew.start(*crew.batch("done", JOBS, priority=10), *crew.batch("dropped", JOBS))
        crew.all_in_phase("done", "Queued", JOBS)
        crew.all_in_phase("dropped", "Queued", JOBS)
        waiting = lambda: int(cli(REPLICA, "LLEN", "crew_jobs")) + int(cli(REPLICA, "LLEN", "crew_jobs\x06\x163"))
        until("the replica has their messages", lambda: waiting() == 2 * JOBS)
        cli(REPLICA, "REPLICAOF", "NO", "ONE")

        crew.cancel("dropped")
        crew.all_in_phase("dropped", "Cancelled", JOBS)
        crew.workers_at_most(1)
        crew.all_in_phase("done", "Succeeded", JOBS)
        ended = ended_jobs()
        assert {executions.begun[status["taskID"]] for status in ended.values()} == {0, 1}
        crew.workers_at_most(0)
        crew.no_workers()
        crew.start(*crew.batch("waiting", JOBS))
        crew.all_in_phase("waiting", "Queued", JOBS)

        assert waiting() == 2 * JOBS
        executions.stop()
        serve_from(REPLICA)
        until("what has ended is taken off the queues", lambda: waiting() == JOBS, 30)
        afterwards = celery_side.Executions(app)
        crew.workers_at_most(3)
        took = crew.all_in_phase("waiting", "Succeeded", JOBS)
        crew.start(crew.job("new"))
        crew.in_phase("new", "Succeeded")
        crew.no_workers()
        afterwards.stop()
        figure(f"failover to a stale replica: {JOBS} queued jobs succeeded {took:.1f} s after a worker was allowed")
        assert ended_jobs() == ended
        ids = crew.task_ids("waiting")
        assert afterwards.of(ids) == dict.fromkeys(ids, 1)
        assert {status["taskID"] for status in ended.values()} & set(afterwards.begun) == set()


def ended_jobs() -> dict[str, dict]:
    """What is recorded of the jobs that ended before the failover."""
    return {found["metadata"]["name"]: found["status"] for found in kube.items("crewjobs", "test in (done, dropped)")}


def test_a_long_outage_of_redis_that_loses_its_data_costs_time_only(figure):
    crew.workers_at_most(1)
    crew.start(*crew.batch("running", 4, inputs={"seconds": OUTAGE_SECONDS + 10}))
    crew.all_in_phase("running", "Running", 4)
    crew.start(*crew.batch("queued", 3))
    crew.all_in_phase("queued", "Queued", 3)

    kube.kubectl("scale", REDIS, "--replicas=0")
    try:
        down = lambda: crew.condition("default", "BrokerReachable", "crewworkerpool").get("status") == "False"
        until("the pool says that Redis is down", down, 30)
        crew.start(*crew.batch("created", 3))
        unmoved = lambda: crew.replicas() == 1 and down() and crew.phases("queued") == {"Queued": 3}
        holds("the worker stays and nothing is decided", unmoved, OUTAGE_SECONDS)
    finally:
        kube.kubectl("scale", REDIS, "--replicas=1")
    for label, count in (("running", 4), ("queued", 3), ("created", 3)):
        crew.all_in_phase(label, "Succeeded", count, 120)
    for label in ("running", "queued", "created"):
        for found in kube.items("crewjobs", f"test={label}"):
            assert (found["status"]["attempts"], found["status"].get("workerLosses", 0)) == (1, 0), found["status"]
    assert set(runs_by_the_log().values()) == {1}
    figure(f"Redis down for {OUTAGE_SECONDS} s and its data lost: 10 of 10 jobs Succeeded, each run once")


def runs_by_the_log() -> Counter[str]:
    """How often each task was run to its end. Events are lost while Redis is down; the worker's log is not."""
    (pod,) = crew.worker_pods()
    log = kube.kubectl("logs", pod["metadata"]["name"])
    return Counter(re.findall(r"run_crew_task\[([0-9a-f-]{36})\] succeeded", log))
