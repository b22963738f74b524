"""Namespaces that are served by their label: added and taken away while the operator runs."""

import pytest

from servers import Operator
from waiting import holds, until

LABEL = "crewjob.dev/pools"


@pytest.fixture
def labelled(bed):
    """An operator that serves its own namespace, and all with the label; namespace `b` has none yet."""
    bed.operator.stop()
    operator = Operator(bed.folder, bed.control_plane.kubeconfig, bed.a.namespace, [bed.a.namespace])
    operator.start("--pool-namespace-selector", f"{LABEL}=true")
    yield operator
    operator.stop()
    bed.control_plane.kubectl("label", "namespace", bed.b.namespace, f"{LABEL}-")
    bed.operator.start()


def test_a_namespace_is_served_when_it_gets_the_label_and_not_any_more_without_it(bed, labelled):
    bed.b.deployment()
    bed.b.pool(bed.redis, ready=False, deploymentRef={"name": "worker"})
    refused = until("the pool is refused", lambda: (found := bed.b.pool_condition("Ready")).get("status") == "False" and found)
    assert refused["reason"] == "NamespaceNotGranted"
    assert f"kubectl label namespace {bed.b.namespace} {LABEL}=true" in refused["message"]
    bed.b.job("crew")
    bed.control_plane.kubectl("label", "namespace", bed.b.namespace, f"{LABEL}=true")
    until("the pool is served", lambda: bed.b.pool_condition("BrokerReachable").get("status") == "True")
    until("its job is published", lambda: bed.redis.queued(bed.b.task("crew")))
    until("its Deployment is known", lambda: bed.b.pool_status().get("replicas", {}).get("desired") == 1)
    bed.control_plane.kubectl("label", "namespace", bed.b.namespace, f"{LABEL}-")
    until("the pool is refused again", lambda: bed.b.pool_condition("Ready").get("reason") == "NamespaceNotGranted")
    bed.b.job("late")
    holds("nothing more is published", lambda: not bed.redis.queued(bed.b.task("late")), 2)
    bed.control_plane.kubectl("label", "namespace", bed.b.namespace, f"{LABEL}=true")
    until("it goes on when the label is back", lambda: bed.redis.queued(bed.b.task("late")))
    assert labelled.metric("crewjob_leading") == 1
