"""The gateway on a whole cluster: two replicas behind their Service, of which one is killed."""

import json
import subprocess

import pytest

import conftest
import crew
import kube
import workers
from waiting import until

pytestmark = pytest.mark.usefixtures("clean")

ACCOUNT = "application"
KEYS, TIMES = 20, 5
# Sends each request again, with its key, until it is answered.
CLIENT = """
import concurrent.futures, json, sys, time, urllib.request
token, keys, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def submit(number):
    key = f"key-{number % keys:02}"
    body = json.dumps({"topic": key, "inputs": {"seconds": 0}, "labels": {"test": "gateway"}}).encode()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json", "idempotency-key": key}
    for _ in range(150):
        try:
            with urllib.request.urlopen(urllib.request.Request("http://crewjob-gateway/api/submit", body, headers), timeout=5) as answer:
                return key, json.load(answer)["name"]
        except OSError as error:
            said = error.read().decode() if hasattr(error, "read") else error
            time.sleep(0.2)
    return key, f"not answered: {said}"
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for made in pool.map(submit, range(keys * times)):
        print(*made, flush=True)
"""


@pytest.fixture
def client(tmp_path):
    """A Pod that calls the gateway, with a token that may do with jobs what an application needs."""
    rights = [{"apiGroups": ["crewjob.dev"], "resources": ["crewjobs"], "verbs": ["create", "get"]}]
    named = {"name": ACCOUNT, "namespace": kube.NAMESPACE}
    rbac = "rbac.authorization.k8s.io"
    kube.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": named, "rules": rights},
        {
            "apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": named,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT}],
        },
    )  # fmt: skip
    workers.deploy("client", [], ["sleep", "infinity"])
    kube.kubectl("wait", "--for=condition=Available", "deployment/client", "--timeout=60s")
    with conftest.installed_with({"gateway": {"enabled": True, "replicas": 2}}, tmp_path):
        yield next(pod["metadata"]["name"] for pod in kube.items("pods", "app=client") if pod["status"]["phase"] == "Running")
    kube.kubectl("delete", "deployment/client", f"rolebinding/{ACCOUNT}", f"role/{ACCOUNT}", f"serviceaccount/{ACCOUNT}")


def gateways() -> list[str]:
    pods = kube.items("pods", "app.kubernetes.io/component=gateway")
    is_ready = lambda pod: any(it["type"] == "Ready" and it["status"] == "True" for it in pod["status"].get("conditions", []))
    return [pod["metadata"]["name"] for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]


def test_100_submissions_with_20_keys_over_two_gateways_of_which_one_is_killed_make_20_jobs(client, figure):
    until("two gateways are ready", lambda: len(gateways()) == 2)
    token = kube.kubectl("create", "token", ACCOUNT).strip()
    command = ["kubectl", "-n", kube.NAMESPACE, "exec", client, "--", "python3", "-c", CLIENT, token, str(KEYS), str(TIMES)]
    made = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for number, line in enumerate(process.stdout):
            key, name = line.strip().split(" ", 1)
            assert made.setdefault(key, name) == name, line
            if number == KEYS:
                kube.kubectl("delete", "pod", gateways()[0], "--grace-period=0", "--force")
    assert process.returncode == 0 and len(set(made.values())) == KEYS, made
    jobs = json.loads(kube.kubectl("get", "crewjobs", "-l", "test=gateway", "-o", "json"))["items"]
    assert {job["metadata"]["name"] for job in jobs} == set(made.values())
    for name in made.values():
        crew.in_phase(name, "Succeeded", seconds=60)
    until("two gateways are ready again", lambda: len(gateways()) == 2)
    figure(f"{KEYS * TIMES} submissions with {KEYS} keys over two gateways, one of them killed: {len(jobs)} jobs")
