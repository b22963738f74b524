"""Traces: where the operator is told to send spans."""

import pytest
from chart import BUNDLED, find, pods, refusal, render

ENDPOINT = "tracing.endpoint=http://collector.observability:4318"


def variables(*sets: str) -> dict[str, dict]:
    """Variables of OpenTelemetry in the operator's container."""
    (container,) = pods(render(BUNDLED, *sets))["Deployment/crewjob-operator"]["spec"]["containers"]
    return {entry["name"]: entry for entry in container["env"] if entry["name"].startswith("OTEL_")}


def test_nothing_is_traced_unless_an_endpoint_is_named():
    assert variables() == {}
    assert variables("tracing.ratio=0.5", "tracing.headersSecret=collector") == {}


def test_the_operator_is_told_where_spans_go_and_what_part_of_the_jobs_is_traced():
    assert {name: entry.get("value") for name, entry in variables(ENDPOINT, "tracing.ratio=0.25").items()} == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.observability:4318",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
    }
    assert variables(ENDPOINT)["OTEL_TRACES_SAMPLER_ARG"]["value"] == "1"


def test_headers_for_the_collector_come_from_a_secret_and_stand_nowhere_else():
    entry = variables(ENDPOINT, "tracing.headersSecret=collector")["OTEL_EXPORTER_OTLP_HEADERS"]
    reference = {"name": "collector", "key": "OTEL_EXPORTER_OTLP_HEADERS"}
    assert entry == {"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": {"secretKeyRef": reference}}


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("http://collector:4318", 4318),
        ("http://collector", 80),
        ("https://collector/otlp", 443),
        ("http://[fd00::1]:4318", 4318),
        ("https://[fd00::1]", 443),
    ],
)
def test_the_network_policy_lets_the_operator_reach_the_collector(endpoint, port):
    policy = find(render(BUNDLED, "networkPolicy.enabled=true", f"tracing.endpoint={endpoint}"), "NetworkPolicy", "crewjob-operator")
    assert {"ports": [{"port": port, "protocol": "TCP"}]} == policy["spec"]["egress"][-1]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("tracing.endpoint=collector:4318", "endpoint"),
        ("tracing.endpoint=http://user:password@collector", "endpoint"),
        ("tracing.ratio=2", "ratio"),
        ("tracing.ratio=half", "ratio"),
        ("tracing.headersSecret=No_Name", "headersSecret"),
        ("tracing.enabled=true", "enabled"),
    ],
)
def test_a_malformed_setting_is_refused_by_its_name(value, named):
    assert named in refusal(BUNDLED, value)


def test_a_variable_is_set_by_the_chart_or_by_the_user_and_never_twice():
    own = 'operator.extraEnv=[{"name":"OTEL_EXPORTER_OTLP_ENDPOINT","value":"http://mine:4318"}]'
    assert variables(own)["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"] == "http://mine:4318"
    assert "operator.extraEnv sets OTEL_EXPORTER_OTLP_ENDPOINT" in refusal(BUNDLED, ENDPOINT, own)
