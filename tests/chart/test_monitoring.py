"""What watches the operator: a ServiceMonitor, alerts and a dashboard, which name metrics that there are."""

import json
import re

import pytest
from chart import BUNDLED, CHART, PROJECT, find, of_kind, render

ALL = (
    BUNDLED,
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.prometheusRule.enabled=true",
    "monitoring.dashboard.enabled=true",
    "monitoring.labels.release=prometheus",
)


# What Prometheus adds to each series that has no such label itself.
ADDED = {"job", "namespace"}


def rules(*sets) -> dict[str, dict]:
    (group,) = find(render(*ALL, *sets), "PrometheusRule", "crewjob-operator")["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def exported() -> dict[str, str]:
    """The metrics of the generated reference, with their labels."""
    rows = re.findall(r"^\| `(crewjob_\w+)` \| (\w+) \| (.*?) \|", (PROJECT / "docs/metrics.md").read_text(), re.MULTILINE)
    found = {}
    for name, kind, labels in rows:
        names = [f"{name}_{part}" for part in ("bucket", "sum", "count")] if kind == "histogram" else [name]
        found |= dict.fromkeys(names, set(re.findall(r"`(\w+)`", labels)) | ({"le"} if kind == "histogram" else set()))
    return found


def expressions() -> list[str]:
    dashboard = json.loads((CHART / "files/dashboard.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    variables = [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    return [rule["expr"] for rule in rules().values()] + shown + variables


def test_nothing_of_it_is_there_unless_asked_for():
    objects = render(BUNDLED)
    assert of_kind(objects, "ServiceMonitor", "PrometheusRule") == []
    assert not [item for item in of_kind(objects, "ConfigMap") if item["metadata"]["name"].endswith("-dashboard")]


def test_prometheus_reads_every_replica_at_the_port_of_the_service():
    objects = render(*ALL)
    monitor = find(objects, "ServiceMonitor", "crewjob-operator")
    service = find(objects, "Service", "crewjob-operator")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert endpoint["honorLabels"] is True, "a pool's namespace would become exported_namespace"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_alerts_and_dashboard_name_metrics_and_labels_that_there_are():
    known = exported()
    assert len(known) > 30
    for expression in expressions():
        for name, selector in re.findall(r"(crewjob_\w+)(?:\{(.*?)\})?", expression):
            assert name in known, f"{name} in {expression}"
            assert set(re.findall(r"(\w+) *!?=", selector)) <= known[name], expression
        for names in re.findall(r"by \((.*?)\)", expression):
            labels = set(names.replace(" ", "").split(","))
            assert any(labels <= known[name] | ADDED for name in re.findall(r"crewjob_\w+", expression)), expression


def test_every_alert_says_what_is_wrong_how_bad_it_is_and_what_to_do():
    found = rules()
    assert set(found) == {
        "CrewJobNoLeader",
        "CrewJobRedisDown",
        "CrewJobQueueDeep",
        "CrewJobWaitsLong",
        "CrewJobAttemptsFail",
        "CrewJobNoConsumer",
        "CrewJobDeadLetters",
        "CrewJobLosesJobs",
    }
    for rule in found.values():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
        for text in rule["annotations"].values():
            assert text.count("{{") == text.count("}}")


@pytest.mark.parametrize(
    ("setting", "alert", "expected"),
    [
        ("queueDepth=7", "CrewJobQueueDeep", "> 7"),
        ("failurePercent=50", "CrewJobAttemptsFail", "> 50"),
        ("oldestWaitSeconds=60", "CrewJobWaitsLong", "> 60"),
    ],
)
def test_bounds_can_be_set(setting, alert, expected):
    lines = rules(f"monitoring.prometheusRule.{setting}")[alert]["expr"].splitlines()
    assert any(line.endswith(expected) for line in lines)


def test_the_dashboard_is_one_that_grafana_reads_and_each_panel_shows_something():
    found = find(render(*ALL), "ConfigMap", "crewjob-operator-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(found["data"]["crewjob.json"])
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert all(panel["targets"] and panel["title"] for panel in panels)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    places = [tuple(panel["gridPos"][at] for at in "xywh") for panel in panels]
    for number, (x, y, w, h) in enumerate(places):
        assert x + w <= 24
        others = places[:number]
        assert not any(x < ox + ow and ox < x + w and y < oy + oh and oy < y + h for ox, oy, ow, oh in others)
