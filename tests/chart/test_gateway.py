"""The gateway: off unless asked for, and with no more rights than its mode needs."""

import pytest
from chart import BUNDLED, find, names, of_kind, pods, refusal, render
from test_network import DNS, tcp
from test_rbac import granted

ON = (BUNDLED, "gateway.enabled=true")
FIXED = (*ON, "gateway.mode=fixed")


def gateway(*sets: str) -> tuple[dict, dict]:
    """The Pod of the gateway, and its environment."""
    pod = pods(render(*sets))["Deployment/crewjob-gateway"]["spec"]
    env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
    return pod, {name.removeprefix("CREWJOB_GATEWAY_"): value for name, value in env.items()}


def mounts(pod: dict) -> dict[str, str]:
    return {mount["name"]: mount["mountPath"] for mount in pod["containers"][0].get("volumeMounts", [])}


def test_there_is_no_gateway_unless_asked_for():
    assert "gateway" not in str(names(render(BUNDLED)))


def test_with_the_callers_tokens_it_has_no_token_and_no_rights():
    pod, env = gateway(*ON)
    assert env["MODE"] == "forward" and env["NAMESPACE"] == "crewjob"
    assert pod["automountServiceAccountToken"] is False
    # What knows the API server again is mounted without a token.
    assert mounts(pod) == {"cluster": "/var/run/secrets/kubernetes.io/serviceaccount"}
    assert "serviceAccountToken" not in str(pod["volumes"])
    assert granted(render(*ON), "crewjob-gateway") == {}


def test_with_an_account_of_its_own_it_may_use_jobs_in_the_declared_namespaces_only():
    jobs = ("crewjob.dev", "crewjobs", "", "create delete get list patch update watch")
    results = ("", "configmaps", "", "get")
    assert granted(render(*FIXED), "crewjob-gateway") == {"crewjob": {jobs, results}}
    sets = (*FIXED, 'gateway.namespaces=["a","b"]', "gateway.readResults=false")
    assert granted(render(*sets), "crewjob-gateway") == {"a": {jobs}, "b": {jobs}}
    assert granted(render(*FIXED, "rbac.create=false"), "crewjob-gateway") == {}
    pod, _ = gateway(*FIXED)
    assert "automountServiceAccountToken" not in pod and mounts(pod) == {}


def test_settings_become_variables_and_secrets_files():
    pod, env = gateway(
        *FIXED, 'gateway.trustedProxies=["10.0.0.0/8","fd00::/8"]', "gateway.userHeader=X-User", "gateway.pathPrefix=/crew",
        "gateway.rateLimit.rate=20/1s", "gateway.rateLimit.existingSecret=redis", "gateway.tls.existingSecret=certificate",
        "gateway.defaultNamespace=research", "gateway.limits.streams=100",
    )
    expected = {
        "TRUSTED_PROXIES": "10.0.0.0/8,fd00::/8", "USER_HEADER": "X-User", "PATH_PREFIX": "/crew", "RATE_LIMIT": "20/1s",
        "TLS_CERT": "/etc/crewjob/tls/tls.crt", "TLS_KEY": "/etc/crewjob/tls/tls.key", "NAMESPACE": "research", "MAX_STREAMS": "100",
    }
    assert expected.items() <= env.items()
    assert mounts(pod) == {"redis": "/etc/crewjob/redis", "tls": "/etc/crewjob/tls"}
    assert "REDIS_URL" not in env, "a password is in no environment"
    sources = [it["secret"] for volume in pod["volumes"] if volume["name"] == "redis" for it in volume["projected"]["sources"]]
    paths = {item["key"]: item["path"] for source in sources for item in source["items"]}
    assert paths == {"REDIS_URL": "url", "REDIS_CA": "ca.crt", "REDIS_CLIENT_CERT": "client.crt", "REDIS_CLIENT_KEY": "client.key"}


def test_the_service_leads_to_the_interface_and_not_to_its_metrics():
    service = find(render(*ON), "Service", "crewjob-gateway")["spec"]
    assert service["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    pod, _ = gateway(*ON)
    assert {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]} == {"http": 8000, "metrics": 8080}
    secured = render(*ON, "gateway.tls.existingSecret=certificate", "gateway.service.port=443")
    assert find(secured, "Service", "crewjob-gateway")["spec"]["ports"] == [{"name": "https", "port": 443, "targetPort": "https"}]
    monitored = render(*ON, "monitoring.serviceMonitor.enabled=true")
    assert find(monitored, "PodMonitor", "crewjob-gateway")["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"


def test_a_drain_stops_one_replica_at_a_time():
    budget = lambda *sets: [item for item in of_kind(render(*ON, *sets), "PodDisruptionBudget") if "gateway" in item["metadata"]["name"]]  # noqa: E731
    assert [item["spec"]["maxUnavailable"] for item in budget()] == [1]
    assert budget("gateway.replicas=1") == budget("gateway.podDisruptionBudget.enabled=false") == []


def test_its_network_policy_lets_in_callers_and_out_what_it_asks():
    sets = (*ON, "networkPolicy.enabled=true")
    policy = find(render(*sets), "NetworkPolicy", "crewjob-gateway")["spec"]
    assert policy["ingress"] == [{"ports": tcp(8000)}, {"ports": tcp(8080)}]
    assert policy["egress"] == [{"ports": DNS}, {"ports": tcp(443, 6443)}]
    ingress = 'networkPolicy.gatewayFrom=[{"podSelector":{"matchLabels":{"app":"ingress"}}}]'
    counted = render(*sets, ingress, "gateway.rateLimit.existingSecret=redis")
    policy = find(counted, "NetworkPolicy", "crewjob-gateway")["spec"]
    assert policy["ingress"][0]["from"] == [{"podSelector": {"matchLabels": {"app": "ingress"}}}]
    assert {"ports": tcp(6379)} in policy["egress"]


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        (["gateway.userHeader=X-User", 'gateway.trustedProxies=["10.0.0.0/8"]'], "gateway.mode=fixed"),
        (["gateway.mode=fixed", "gateway.userHeader=X-User"], "gateway.trustedProxies"),
        (['gateway.namespaces=["a"]'], "gateway.mode=fixed"),
        (["gateway.mode=open"], "mode"),
        (["gateway.rateLimit.rate=5"], "rate"),
        (["gateway.pathPrefix=crew"], "pathPrefix"),
        (["gateway.limits.streams=0"], "streams"),
        (['gateway.trustedProxies=["all"]'], "trustedProxies"),
        (["gateway.tls.existingSecret=No_Name"], "existingSecret"),
    ],
)
def test_values_that_are_wrong_or_contradict_each_other_are_refused_by_their_names(sets, named):
    assert named in refusal(*ON, *sets)


def test_tools_for_agents_are_there_where_they_are_asked_for():
    def mcp(*sets: str) -> str | None:
        pod = find(render(BUNDLED, "gateway.enabled=true", *sets), "Deployment", "crewjob-gateway")["spec"]["template"]["spec"]
        return {it["name"]: it.get("value") for it in pod["containers"][0]["env"]}.get("CREWJOB_GATEWAY_MCP")

    assert mcp() is None
    assert mcp("gateway.mcp.enabled=true") == "on"
    assert mcp("gateway.mcp.enabled=true", "gateway.mcp.readOnly=true") == "read-only"
