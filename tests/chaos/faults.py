"""What can go wrong with an installation. A fault returns the name of its target, or None if it cannot be made now."""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import redis

import celery_side
import crew
import ground
import kube
import load
import operators
import rival
from verdict import Fault
from waiting import until

CUT_SECONDS = (3.0, 10.0)
# After as many restarts in place the kubelet makes a container wait longer and longer: a new Pod is faster.
RESTARTS = 1
# More than the workers' memory limit.
ALLOCATE_MIB = 1024
# How long the API server answers nothing, with its connections open.
STALL_SECONDS = (4.0, 12.0)
# Results of this size are documented to stay on Redis. A few fit into it.
LARGE_BYTES = 40 * 1024 * 1024
LARGE_RESULTS = 3
# How long a planted epoch stays before the tenant that planted it clears it.
PLANTED_SECONDS = 6.0
# A container beside the worker's in each of its Pods; its name sorts before the worker's.
SIDECAR = "a-proxy"

NFT_CUT = """
table netdev chaos {
  chain in { type filter hook ingress device "eth0" priority 0; policy drop; }
  chain out { type filter hook egress device "eth0" priority 0; policy drop; }
}
"""


class Faults:
    """Breaks the installation; remembers what it broke and when."""

    def __init__(
        self, dice: random.Random, cluster: list[str], folder: Path, jobs: load.Load, say: Callable, flood: tuple[int, int]
    ):
        self.dice = dice
        self.cluster = cluster
        self.folder = folder
        self.jobs = jobs
        self.say = say
        self.flood = flood
        self.done: list[Fault] = []
        self.lost_data: list[float] = []
        self.mending: list[threading.Thread] = []
        self.hoarders = 0
        self.large = 0
        self.lasts_until = 0.0
        self.rival = rival.Redis()
        self.redis = redis.Redis.from_url(celery_side.redis_url(), socket_timeout=5, socket_connect_timeout=2)

    # === One after the other ===

    def go_on(self, until: float, pause: tuple[float, float], deck: list[str]) -> None:
        """Draws kinds from a shuffled deck again and again, so that all of them have their turn."""
        waiting: list[str] = []
        while True:
            time.sleep(max(0.0, min(self.dice.uniform(*pause), until - time.time())))
            if time.time() >= until:
                return
            if not waiting:
                waiting = self.dice.sample(deck, len(deck))
            kind = waiting.pop()
            if not self.inject(kind):
                # It has no target now; it comes up again with the next deck at the latest.
                waiting.insert(0, kind)

    def inject(self, kind: str) -> bool:
        began, self.lasts_until = time.time(), 0.0
        try:
            target = KINDS[kind](self)
        except (AssertionError, OSError, redis.RedisError, subprocess.SubprocessError) as error:
            # The last fault is still felt, for example by an API server that does not answer.
            self.say(f"fault {kind} could not be made: {str(error).splitlines()[0][:120]}")
            return False
        if target is None:
            return False
        self.say(f"fault {kind}: {target}")
        ended = max(time.time(), self.lasts_until)
        self.done.append(Fault(kind, began, ended, target, hits_workers_only=kind in WORKERS_ONLY))
        return True

    def mend(self) -> None:
        """Waits until nothing is broken by force any more."""
        for thread in self.mending:
            thread.join()

    # === Targets ===

    def pods(self, component: str) -> dict[str, dict]:
        pods = kube.items("pods", f"app.kubernetes.io/component={component}")
        return {pod["metadata"]["name"]: pod for pod in pods if "deletionTimestamp" not in pod["metadata"]}

    def busy(self):
        """A run that is at work in a Pod that is to stay, and the Pod."""
        pods = self.pods("worker")
        runs = [run for run in ground.runs(self.folder) if run.pod in pods and ground.is_at_work(run)]
        if not runs:
            return None
        # Pods that were restarted often wait long for the next time: spare them.
        fewest = min(restarts(pods[run.pod]) for run in runs)
        run = self.dice.choice([run for run in runs if restarts(pods[run.pod]) == fewest])
        return run, pods[run.pod]

    # === Workers ===

    def worker_kill(self) -> str | None:
        if not (found := self.busy()):
            return None
        run, pod = found
        return end(ground.main_process(pod["metadata"]["uid"], "celery"), f"{run.pod}, busy with {run.job}")

    def child_kill(self) -> str | None:
        if not (found := self.busy()):
            return None
        run, pod = found
        return end(ground.pid_within(pod["metadata"]["uid"], run.pid), f"{run.pod}, the process of {run.job}")

    def pod_delete_now(self) -> str | None:
        if not (found := self.busy()):
            return None
        run, _ = found
        kube.kubectl("delete", "pod", run.pod, "--grace-period=0", "--force", "--wait=false")
        return f"{run.pod}, busy with {run.job}"

    def pod_delete(self) -> str | None:
        if not (found := self.busy()):
            return None
        run, _ = found
        kube.kubectl("delete", "pod", run.pod, "--wait=false")
        return f"{run.pod}, busy with {run.job}"

    def oom(self) -> str | None:
        """A run takes more memory than its container may have; the next run of the job does not."""
        self.hoarders += 1
        name = f"{self.jobs.plan[0].name.rsplit('-', 1)[0]}-hoarder-{self.hoarders}"
        retry = {"maxWorkerLosses": 20}
        inputs = {"seconds": 1, "allocate": ALLOCATE_MIB}
        label = self.jobs.plan[0].body["metadata"]["labels"][load.LABEL]
        self.jobs.submit(crew.job(name, label, inputs=inputs, retryPolicy=retry, priority=10, bypassCache=True))
        return f"{name} will take {ALLOCATE_MIB} MiB"

    def worker_cut(self) -> str | None:
        if not (found := self.busy()):
            return None
        run, pod = found
        return self.cut(pod, ground.main_process(pod["metadata"]["uid"], "celery"))

    def clients_kill(self) -> str | None:
        """All connections of all workers, those for pub/sub included."""
        addresses = {pod["status"].get("podIP") for pod in self.pods("worker").values()}
        clients = [
            client
            for type_ in ("normal", "pubsub")
            for client in self.redis.client_list(_type=type_)
            if client["addr"].rsplit(":", 1)[0] in addresses
        ]
        killed = sum(int(self.redis.client_kill_filter(_id=client["id"])) for client in clients)
        return f"{killed} connections of {len(addresses)} workers" if killed else None

    # === The operator ===

    def operator_kill(self) -> str | None:
        """All replicas at once."""
        pods = self.pods("operator")
        pids = [operators.process_of(pod["metadata"]["uid"]) for pod in pods.values()]
        for pid in filter(None, pids):
            os.kill(pid, signal.SIGKILL)
        self.replace(pods.values())
        return " and ".join(pods) if any(pids) else None

    def leader_kill(self) -> str | None:
        leading = self.pods("operator").get(operators.leader())
        if leading is None:
            return None
        killed = end(operators.process_of(leading["metadata"]["uid"]), leading["metadata"]["name"])
        if killed:
            self.replace([leading])
        return killed

    def operator_cut(self) -> str | None:
        leading = self.pods("operator").get(operators.leader())
        if leading is None:
            return None
        return self.cut(leading, operators.process_of(leading["metadata"]["uid"]))

    def replace(self, pods) -> None:
        for pod in pods:
            if restarts(pod) >= RESTARTS:
                kube.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--wait=false")

    # === What they stand on ===

    def redis_flush(self) -> str | None:
        self.lost_data.append(time.time())
        self.redis.flushall()
        self.lost_data.append(time.time())
        return "FLUSHALL"

    def redis_restart(self) -> str | None:
        """In place: the append-only file is in the Pod's own volume, so the data is there again."""
        pod = next(iter(self.pods("redis").values()), None)
        if pod is None or restarts(pod) >= RESTARTS:
            return None
        before = self.redis_run_id()
        killed = end(ground.main_process(pod["metadata"]["uid"], "redis-server"), "in place, data kept")
        if killed:
            self.await_redis(before)
        return killed

    def redis_replace(self) -> str | None:
        """The Pod goes, and its volume with all data."""
        pod = next(iter(self.pods("redis").values()), None)
        if pod is None:
            return None
        self.lost_data.append(time.time())
        kube.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--wait=false")
        until("Redis has another Pod", lambda: self.another_redis(pod["metadata"]["uid"]))
        self.await_redis()
        self.lost_data.append(time.time())
        return "Pod deleted, data lost"

    def another_redis(self, uid: str) -> bool:
        return any(pod["metadata"]["uid"] != uid for pod in self.pods("redis").values())

    def redis_run_id(self) -> str | None:
        try:
            return self.redis.info("server")["run_id"]
        except redis.RedisError:
            return None

    def await_redis(self, not_this: str | None = None) -> None:
        until("Redis answers", lambda: self.redis_run_id() not in (None, not_this), seconds=60)

    def apiserver_restart(self) -> str | None:
        how = self.dice.choice(["TERM", "KILL"])
        done = kube.run([*self.cluster, "restart", "apiserver", how])
        if done.returncode != 0:
            raise OSError(f"restarting the API server: {done.stderr.strip()}")
        return f"with SIG{how}"

    def apiserver_stall(self) -> str | None:
        """It is stopped, not ended: connections stay open, and nothing is answered."""
        pid = ground.process_with("kube-apiserver", str(ground.state_dir()))
        if pid is None:
            return None
        seconds = round(self.dice.uniform(*STALL_SECONDS), 1)
        os.kill(pid, signal.SIGSTOP)
        self.later(seconds, lambda: os.kill(pid, signal.SIGCONT))
        return f"for {seconds} s"

    def secret_change(self) -> str | None:
        """The same Redis under another name: the operator has to connect anew."""
        url = celery_side.operators_redis_url()
        short, long = f".{kube.NAMESPACE}.svc:", f".{kube.NAMESPACE}.svc.cluster.local:"
        changed = url.replace(long, short) if long in url else url.replace(short, long)
        if changed == url:
            return None
        kube.patch("secret", crew.SECRET, {"stringData": {"REDIS_URL": changed}})
        return "another name of the same Redis"

    # === Another tenant, and what is large ===

    def tenant_flood(self) -> str | None:
        small, large = self.flood
        rival.flood(small, large)
        self.later(5.0, rival.drain)
        return f"{small} jobs of a pool that does not exist, and {large} of 1.2 MB"

    def tenant_forge(self) -> str | None:
        """Another tenant's Redis says of our tasks what is not so."""
        shown = ["-l", load.LABEL, "-o", "jsonpath={.items[*].status.taskID}"]
        tasks = kube.kubectl("get", "crewjobs", *shown).split()[-40:]
        pods = [pod["metadata"]["name"] for pod in kube.items("pods")]
        return f"{self.rival.forge(tasks, pods, self.dice)} tasks" if tasks else None

    def tenant_plant(self) -> str | None:
        fences = self.rival.plant()
        if not fences:
            return None
        self.later(PLANTED_SECONDS, lambda: self.rival.clear(fences))
        return f"{len(fences)} fences for {PLANTED_SECONDS:.0f} s"

    def large_result(self) -> str | None:
        """A result that no object of Kubernetes can hold."""
        if self.large >= LARGE_RESULTS:
            return None
        self.large += 1
        name = f"{self.jobs.plan[0].name.rsplit('-', 1)[0]}-large-{self.large}"
        label = self.jobs.plan[0].body["metadata"]["labels"][load.LABEL]
        inputs = {"seconds": 1, "result_bytes": LARGE_BYTES}
        retry = {"maxWorkerLosses": 20}
        self.jobs.submit(crew.job(name, label, inputs=inputs, retryPolicy=retry, priority=10, bypassCache=True))
        return f"{name} returns {LARGE_BYTES >> 20} MiB"

    def sidecar_kill(self) -> str | None:
        """The container beside the worker's ends and is started again; the worker goes on."""
        if not (found := self.busy()):
            return None
        run, pod = found
        return end(ground.main_process(pod["metadata"]["uid"], "sleep"), f"{SIDECAR} of {run.pod}, busy with {run.job}")

    # === The network ===

    def cut(self, pod: dict, pid: int | None) -> str | None:
        """Nothing comes from the Pod or gets to it for some seconds."""
        if pid is None:
            return None
        seconds = round(self.dice.uniform(*CUT_SECONDS), 1)
        # The process may die meanwhile: the namespace is held open to be mended in any case.
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        nft(namespace, NFT_CUT)
        self.later(seconds, lambda: heal(namespace))
        return f"{pod['metadata']['name']} for {seconds} s"

    def later(self, seconds: float, mend: Callable[[], object]) -> None:
        """Mends in a while what is broken until then."""
        self.lasts_until = time.time() + seconds

        def wait_and_mend() -> None:
            time.sleep(seconds)
            mend()

        thread = threading.Thread(target=wait_and_mend)
        self.mending.append(thread)
        thread.start()


def heal(namespace: int) -> None:
    try:
        nft(namespace, "delete table netdev chaos")
    finally:
        os.close(namespace)


def restarts(pod: dict) -> int:
    return sum(container["restartCount"] for container in pod["status"].get("containerStatuses", []))


def end(pid: int | None, target: str) -> str | None:
    if pid is None:
        return None
    os.kill(pid, signal.SIGKILL)
    return target


def nft(namespace: int, rules: str) -> None:
    command = ["nsenter", f"--net=/proc/self/fd/{namespace}", "nft", "-f", "-"]
    done = subprocess.run(command, input=rules, capture_output=True, text=True, pass_fds=[namespace])
    # A Pod that has gone meanwhile has taken its interface and the rules with it.
    if done.returncode != 0 and "No such file" not in done.stderr:
        raise OSError(f"nft: {done.stderr.strip()}")


KINDS: dict[str, Callable[[Faults], str | None]] = {
    "worker_kill": Faults.worker_kill,
    "child_kill": Faults.child_kill,
    "pod_delete_now": Faults.pod_delete_now,
    "pod_delete": Faults.pod_delete,
    "oom": Faults.oom,
    "worker_cut": Faults.worker_cut,
    "clients_kill": Faults.clients_kill,
    "operator_kill": Faults.operator_kill,
    "leader_kill": Faults.leader_kill,
    "operator_cut": Faults.operator_cut,
    "redis_flush": Faults.redis_flush,
    "redis_restart": Faults.redis_restart,
    "redis_replace": Faults.redis_replace,
    "apiserver_restart": Faults.apiserver_restart,
    "apiserver_stall": Faults.apiserver_stall,
    "secret_change": Faults.secret_change,
    "tenant_flood": Faults.tenant_flood,
    "tenant_forge": Faults.tenant_forge,
    "tenant_plant": Faults.tenant_plant,
    "large_result": Faults.large_result,
    "sidecar_kill": Faults.sidecar_kill,
}
WORKERS_ONLY = {"worker_kill", "child_kill", "pod_delete_now", "pod_delete", "oom", "tenant_forge", "sidecar_kill"}
# The commonest faults are those of workers.
DECK = [*KINDS, "worker_kill", "worker_kill", "child_kill", "pod_delete_now", "pod_delete", "leader_kill"]
