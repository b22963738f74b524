"""Whose a Deployment's replicas are."""

import crew
import kube

WAITS = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); signal.sigwait([15])"


def deployment(name: str, **spec) -> dict:
    """Workers that wait to be told to go."""
    found = kube.get("deployment", kube.WORKER)["spec"]["template"]["spec"]["containers"][0]
    container = {"name": "worker", "image": found["image"], "command": ["python", "-c", WAITS]}
    container["securityContext"] = found["securityContext"]
    pod = {"terminationGracePeriodSeconds": 3660, "containers": [container]}
    labels = {"test": name}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def pool(name: str) -> dict:
    queue = {"name": name, "routingKey": name}
    return crew.pool(name, queues=[queue], deploymentRef={"name": name}, scaleDownDelay="1s")


def contested(name: str) -> dict:
    return crew.condition(name, "ReplicasContested", "crewworkerpool")


def test_replicas_that_nobody_asked_for_are_the_operators_and_others_are_left_alone(clean):
    names = ("defaulted", "chosen")
    try:
        kube.apply(deployment("defaulted"), deployment("chosen", replicas=1), *(pool(name) for name in names))
        kube.until("the workers are not needed", lambda: kube.get("deployment", "defaulted")["spec"]["replicas"] == 0)
        kube.until("the other owner is named", lambda: contested("chosen").get("status") == "True")
        assert "kubectl-client-side-apply" in contested("chosen")["message"]
        assert contested("defaulted")["status"] == "False"
        assert kube.get("deployment", "chosen")["spec"]["replicas"] == 1
    finally:
        kube.kubectl("delete", "deployment", *names, "--ignore-not-found")
        # One that was told to go before it listened would stay for its whole grace period.
        selector = f"test in ({', '.join(names)})"
        kube.kubectl("delete", "pods", "-l", selector, "--grace-period=0", "--force", "--ignore-not-found")
