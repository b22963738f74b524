"""Addresses, Services and NetworkPolicies, on clusters of IPv4, IPv6 or both."""

import base64

import pytest
from chart import BUNDLED, NATIVE, SCENARIOS, find, of_kind, pods, refusal, render

POLICIES = (BUNDLED, "networkPolicy.enabled=true")
DNS = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]


def policy(name: str, *sets: str, **where) -> dict:
    return find(render(*(sets or POLICIES), **where), "NetworkPolicy", name)["spec"]


def tcp(*ports: int) -> list[dict]:
    return [{"port": port, "protocol": "TCP"} for port in ports]


def test_operator_and_native_workers_listen_on_ipv6_too():
    objects = render(*NATIVE)
    operator = pods(objects)["Deployment/crewjob-operator"]["spec"]["containers"][0]
    assert {"name": "CREWJOB_ADMIN_ADDRESS", "value": "[::]:8080"} in operator["env"]
    arguments = pods(objects)["Deployment/crewjob-worker"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--admin-address") + 1] == "[::]:8081"


def test_the_bundled_redis_listens_on_every_address_of_both_families():
    conf = base64.b64decode(find(render(BUNDLED), "Secret", "crewjob-redis")["data"]["redis.conf"]).decode()
    # With a minus, Redis starts where there is no such family.
    assert "bind * -::*" in conf.splitlines()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_address_of_one_family_is_written_anywhere(scenario):
    for item in render(scenario=scenario):
        assert "0.0.0.0" not in str(item) and "127.0.0.1" not in str(item), item["metadata"]["name"]


def test_the_families_of_services_are_the_clusters_or_those_asked_for():
    def policies(*sets):
        return {item["spec"].get("ipFamilyPolicy") for item in of_kind(render(BUNDLED, *sets), "Service")}

    assert policies() == {None}
    assert policies("ipFamilyPolicy=PreferDualStack") == {"PreferDualStack"}
    assert "ipFamilyPolicy" in refusal(BUNDLED, "ipFamilyPolicy=Dual")


def test_there_are_no_network_policies_unless_asked_for():
    assert of_kind(render(BUNDLED), "NetworkPolicy") == []
    assert len(of_kind(render(*POLICIES), "NetworkPolicy")) == 3


def test_each_policy_is_of_the_pods_that_it_is_named_after():
    objects = render(*POLICIES)
    for item in of_kind(objects, "NetworkPolicy"):
        selector = item["spec"]["podSelector"]
        expressions = selector.get("matchExpressions", [])

        def matches(labels, selector=selector, expressions=expressions):
            named = all(labels.get(found["key"]) in found["values"] for found in expressions)
            return named and selector["matchLabels"].items() <= labels.items()

        chosen = {name for name, pod in pods(objects).items() if matches(pod["metadata"]["labels"])}
        expected = {
            "crewjob-operator": {"Deployment/crewjob-operator", "Job/crewjob-crds", "Pod/crewjob-doctor"},
            "crewjob-worker": {"Deployment/crewjob-worker"},
            "crewjob-redis": {"StatefulSet/crewjob-redis"},
        }
        assert chosen == expected[item["metadata"]["name"]]
        assert item["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_the_operator_reaches_dns_the_api_server_and_redis_and_serves_metrics():
    found = policy("crewjob-operator")
    redis = {"podSelector": {"matchLabels": labels_of("redis")}}
    assert found["ingress"] == [{"ports": tcp(8080)}]
    assert found["egress"] == [
        {"ports": DNS},
        {"ports": tcp(443, 6443)},
        {"ports": tcp(6379)},
        {"ports": tcp(6379), "to": [redis]},
    ]


def labels_of(component: str) -> dict:
    names = {"name": "crewjob", "instance": "crewjob", "component": component}
    return {f"app.kubernetes.io/{key}": value for key, value in names.items()}


def test_the_api_server_may_have_addresses_of_both_families():
    cidrs = 'networkPolicy.apiServer.cidrs=["10.0.0.1/32","fd00::1/128"]'
    (rule,) = [rule for rule in policy("crewjob-operator", *POLICIES, cidrs)["egress"] if rule["ports"] == tcp(443, 6443)]
    assert rule["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}, {"ipBlock": {"cidr": "fd00::1/128"}}]


def test_workers_reach_dns_redis_and_https_and_nothing_reaches_celery():
    found = policy("crewjob-worker")
    redis = {"podSelector": {"matchLabels": labels_of("redis")}}
    assert found["ingress"] == []
    assert found["egress"] == [{"ports": DNS}, {"ports": tcp(6379), "to": [redis]}, {"ports": tcp(443)}]


def test_workers_reach_the_models_that_they_are_told_of():
    model = {"to": [{"podSelector": {"matchLabels": {"app": "model"}}}], "ports": [{"port": 8000}]}
    sets = 'networkPolicy.workerEgress=[{"to":[{"podSelector":{"matchLabels":{"app":"model"}}}],"ports":[{"port":8000}]}]'
    assert policy("crewjob-worker", *POLICIES, sets)["egress"][2:] == [model]


def test_an_existing_redis_is_reached_at_its_port():
    sets = ("redis.existingSecret=mine", "networkPolicy.enabled=true", "networkPolicy.redisPorts=[6380]")
    for name in ("crewjob-operator", "crewjob-worker"):
        assert {"ports": tcp(6380)} in policy(name, *sets)["egress"]
    assert len(of_kind(render(*sets), "NetworkPolicy")) == 2


def test_metrics_are_open_to_the_peers_that_are_named():
    peer = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    sets = 'networkPolicy.metricsFrom=[{"namespaceSelector":{"matchLabels":{"name":"monitoring"}}}]'
    assert policy("crewjob-operator", *POLICIES, sets)["ingress"] == [{"ports": tcp(8080), "from": [peer]}]
    native = (*NATIVE, "networkPolicy.enabled=true", sets)
    assert policy("crewjob-worker", *native)["ingress"] == [{"ports": tcp(8081), "from": [peer]}]


def test_redis_is_open_to_operator_and_workers_and_the_peers_that_are_named():
    sets = 'networkPolicy.redisFrom=[{"podSelector":{"matchLabels":{"app":"flower"}}}]'
    found = policy("crewjob-redis", *POLICIES, sets)
    peers = [labels_of("operator"), labels_of("worker"), {"app": "flower"}]
    assert found["ingress"] == [
        {"ports": tcp(6379), "from": [{"podSelector": {"matchLabels": labels}} for labels in peers]}
    ]
    assert found["egress"] == []
