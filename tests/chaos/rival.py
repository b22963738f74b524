"""Another tenant of the same operator: a namespace with a Redis, a pool, workers and jobs of its own, which must end as
correctly as those of the first tenant, and a Redis from which forged and planted data come."""

import json
import random
from pathlib import Path

import redis

import crew
import kube
from load import insist
from waiting import until

NAMESPACE = "rival"
REDIS_PORT = 6379
LABELS = {"app": "rival-redis"}
# A pool that does not exist: its jobs wait until they are deleted.
NOWHERE = {"poolRef": {"name": "nowhere"}}
FLOOD = "flood"


def create_namespace() -> None:
    if not kube.run(["kubectl", "get", "namespace", NAMESPACE]).stdout:
        kube.kubectl("create", "namespace", NAMESPACE)


def install() -> None:
    """Its Redis and its pool; the namespace and the operator's rights in it are there."""
    (image,) = {pod["spec"]["containers"][0]["image"] for pod in kube.items("pods", "app.kubernetes.io/component=redis")}
    container = {"name": "redis", "image": image, "command": ["redis-server", "--save", "", "--protected-mode", "no"]}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
    of = {"namespace": NAMESPACE, "name": "redis"}
    deployment = {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": template}
    service = {"selector": LABELS, "ports": [{"port": REDIS_PORT}]}
    labelled = {**of, "labels": {"crewjob.dev/redis": "true"}}
    url = f"redis://redis.{NAMESPACE}:{REDIS_PORT}/0"
    pool = {
        "redis": {"secretName": "redis"},
        "deploymentRef": {"name": kube.WORKER},
        "concurrency": 2,
        "minReplicas": 1,
        "maxReplicas": 1,
    }
    apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": of, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": of, "spec": service},
        {"apiVersion": "v1", "kind": "Secret", "metadata": labelled, "stringData": {"REDIS_URL": url}},
        {"apiVersion": crew.API_VERSION, "kind": "CrewWorkerPool", "metadata": {**of, "name": "default"}, "spec": pool},
    )
    until("the pool of the other tenant reaches its Redis", reaches_redis)


def apply(*objects: dict) -> None:
    kube.kubectl("-n", NAMESPACE, "apply", "-f", "-", given=kube.as_list(objects))


def reaches_redis() -> bool:
    shown = "jsonpath={.status.conditions[?(@.type=='BrokerReachable')].status}"
    return kube.kubectl("-n", NAMESPACE, "get", "crewworkerpool", "default", "-o", shown) == "True"


def use_workers(records: Path) -> None:
    """Starts workers like those of the first tenant, which record in a folder of their own."""
    like = kube.get("deployment", kube.WORKER)
    template = like["spec"]["template"]
    template["metadata"].pop("creationTimestamp", None)
    for container in template["spec"]["containers"]:
        kept = [entry for entry in container.get("env", []) if entry["name"] not in ("REDIS_URL", "CHAOS_FOLDER")]
        url = {"secretKeyRef": {"name": "redis", "key": "REDIS_URL"}}
        folder = {"name": "CHAOS_FOLDER", "value": f"/chaos/{records.name}"}
        container["env"] = [*kept, {"name": "REDIS_URL", "valueFrom": url}, folder]
        container.pop("envFrom", None)
    metadata = {"namespace": NAMESPACE, "name": kube.WORKER}
    spec = {"replicas": 1, "selector": like["spec"]["selector"], "template": template}
    kube.run(["kubectl", "-n", NAMESPACE, "delete", "deployment", kube.WORKER, "--ignore-not-found", "--wait"])
    kube.run(["kubectl", "-n", NAMESPACE, "delete", "pods", "-l", "app.kubernetes.io/component=worker", "--grace-period=0", "--force"])
    apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})


def jobs(label: str) -> list[dict]:
    """Its jobs of a class, those of a flood left out."""
    return json.loads(insist("-n", NAMESPACE, "get", "crewjobs", "-l", f"test={label}", "-o", "json"))["items"]


def remove_all() -> None:
    insist("delete", "--raw", f"/apis/{crew.API_VERSION}/namespaces/{NAMESPACE}/crewjobs")


class Redis:
    """A client of the tenant's Redis, which the tenant may do with as it likes."""

    def __init__(self):
        # Of a Service the cluster's network knows the address; the name is resolved by the cluster's DNS.
        self.client = redis.Redis(host=f"redis.{NAMESPACE}", port=REDIS_PORT, socket_timeout=10)

    def forge(self, tasks: list[str], pods: list[str], dice: random.Random) -> int:
        """Says of the first tenant's tasks that they have ended, failed, been revoked, or run where they do not."""
        for task in tasks:
            for status in ("SUCCESS", "FAILURE", "REVOKED", "RETRY"):
                said = {"status": status, "result": "forged", "traceback": None, "children": [], "task_id": task}
                document = json.dumps({**said, "retries": 4294967295, "worker": "crew@forged"})
                self.client.set(f"celery-task-meta-{task}", document, ex=600)
                self.client.publish(f"celery-task-meta-{task}", document)
            for pod in dice.sample(pods, min(2, len(pods))):
                event = {"type": "task-started", "uuid": task, "hostname": f"crew@{pod}", "timestamp": 1, "clock": 1}
                message = {
                    "body": json.dumps([{**event, "utcoffset": 0, "pid": 1}]),
                    "content-encoding": "utf-8",
                    "content-type": "application/json",
                    "headers": {"hostname": f"crew@{pod}"},
                    "properties": {
                        "delivery_mode": 1,
                        "delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"},
                        "priority": 0,
                        "delivery_tag": "forged",
                    },
                }
                self.client.publish("/0.celeryev/task.multi", json.dumps(message))
        return len(tasks)

    def plant(self) -> list[str]:
        """Writes an epoch that no leader has into the operator's fence; returns the keys."""
        fences = [key.decode() for key in self.client.scan_iter("crewjob:*:epoch:*", count=1000)]
        for fence in fences:
            self.client.hset(fence, "epoch", 2147483646)
        return fences

    def clear(self, fences: list[str]) -> None:
        """What the pool's condition says that clears them."""
        if fences:
            self.client.delete(*fences)


def flood(small: int, large: int) -> None:
    """Creates jobs that wait for a pool that does not exist, some of them far too large."""
    waiting = [crew.job(f"{FLOOD}-{number:04}", FLOOD, **NOWHERE) for number in range(small)]
    zeros = {"v": [0] * 600_000}
    heavy = [crew.job(f"{FLOOD}-large-{number}", FLOOD, inputs=zeros, **NOWHERE) for number in range(large)]
    insist("create", "-n", NAMESPACE, "-f", "-", given=kube.as_list(waiting), fine="(AlreadyExists)")
    for job in heavy:
        insist("create", "-n", NAMESPACE, "-f", "-", given=kube.as_list([job]), fine="(AlreadyExists)")


def drain() -> None:
    path = f"/apis/{crew.API_VERSION}/namespaces/{NAMESPACE}/crewjobs?labelSelector=test%3D{FLOOD}"
    insist("delete", "--raw", path)  # the API server may be restarting
