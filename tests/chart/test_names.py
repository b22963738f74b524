"""How objects are called."""

import json

import pytest
from chart import BUNDLED, SCENARIOS, find, names, render


def stems(*sets, **where) -> list[str]:
    kinds = ("Deployment/", "StatefulSet/")
    return [name.split("/")[1] for name in names(render(BUNDLED, *sets, **where)) if name.startswith(kinds)]


@pytest.mark.parametrize(
    ("release", "sets", "stem"),
    [
        ("crewjob", [], "crewjob"),
        ("crewjob-operator", [], "crewjob"),
        ("team-a", [], "team-a"),
        ("team-a", ["nameOverride=crew"], "crew"),
    ],
)
def test_names_are_short_and_repeat_nothing(release, sets, stem):
    assert stems(*sets, release=release) == [f"{stem}-operator", f"{stem}-worker", f"{stem}-redis"]


def test_the_longest_release_name_makes_valid_names():
    for name in names(render(BUNDLED, release="r" * 53)):
        assert len(name.split("/")[1]) <= 63


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_object_is_there_twice(scenario):
    keys = [
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in render(scenario=scenario)
    ]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_object_is_labelled_with_its_release_and_component(scenario):
    for item in render(scenario=scenario):
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "crewjob"
        assert labels["app.kubernetes.io/instance"] == "crewjob"
        assert labels["app.kubernetes.io/component"] in ("operator", "worker", "redis", "pool", "rbac", "crds", "doctor", "gateway")
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


def test_the_default_pool_is_called_default_and_serves_both_queues():
    pool = find(render(BUNDLED), "CrewWorkerPool", "default")
    assert pool["apiVersion"] == "crewjob.dev/v1alpha1"
    assert pool["metadata"]["namespace"] == "crewjob"
    assert pool["spec"] == {
        "redis": {"secretName": "crewjob-redis", "workerSecretName": "crewjob-redis-worker", "resultRetention": "168h"},
        "deploymentRef": {"name": "crewjob-worker"},
        "queues": [{"name": "crew_jobs", "routingKey": "crew.jobs"}, {"name": "default", "routingKey": "default"}],
        "allowedTasks": [
            "backend.tasks.run_crew_task",
            "backend.tasks.health_check",
            "backend.tasks.cleanup_old_results",
            "backend.celery_app.error_handler",
        ],
        "concurrency": 1,
        "minReplicas": 0,
        "maxReplicas": 4,
        "scaleDownDelay": "5m",
        "onWorkerUnreachable": "Wait",
        "largeResults": "ConfigMap",
        "runOnceRetention": "720h",
        "agingAfter": "1h",
        "jobDefaults": {"timeouts": {"hard": "60m"}},
    }


def test_prices_are_those_of_the_values():
    price = {"model": "gpt-5", "inputPerMillion": "1.25", "outputPerMillion": "10"}
    pool = find(render(BUNDLED, f"defaultPool.prices={json.dumps([price])}"), "CrewWorkerPool", "default")
    assert pool["spec"]["prices"] == [price]


def test_limits_are_those_of_the_values():
    limits = '[{"name":"tenants","key":{"by":"Label","label":"tenant"},"maxInFlight":5,"weights":{"a":4}}]'
    pool = find(render(BUNDLED, f"defaultPool.limits={limits}", "defaultPool.agingAfter=2h"), "CrewWorkerPool", "default")
    [limit] = pool["spec"]["limits"]
    assert (limit["key"]["label"], limit["maxInFlight"], limit["weights"]) == ("tenant", 5, {"a": 4})
    assert pool["spec"]["agingAfter"] == "2h"


def test_old_results_are_cleaned_up_at_times_where_that_is_asked_for():
    assert "CrewSchedule" not in str(names(render(BUNDLED)))
    schedule = find(render(BUNDLED, "defaultPool.cleanup.enabled=true"), "CrewSchedule", "default-cleanup")["spec"]
    assert (schedule["schedules"], schedule["timeZone"]) == (["0 3 * * *"], "Etc/UTC")
    job = schedule["template"]["spec"]
    assert (job["task"], job["queue"]) == ("backend.tasks.cleanup_old_results", "default")
    assert (job["args"], job["kwargs"]) == ([], {}), "the task takes no arguments of a crew"


def test_without_the_default_pool_there_is_no_worker():
    assert "CrewWorkerPool" not in str(names(render(scenario="operator-only")))
    assert "worker" not in str(names(render(scenario="operator-only")))


def test_a_pool_may_scale_a_deployment_that_is_not_the_charts():
    objects = render(scenario="own-worker")
    assert find(objects, "CrewWorkerPool", "default")["spec"]["deploymentRef"] == {"name": "crews"}
    assert "Deployment/crewjob-worker" not in names(objects)


def test_a_pool_may_name_the_container_of_the_worker():
    objects = render("defaultPool.container=crew", scenario="own-worker")
    assert find(objects, "CrewWorkerPool", "default")["spec"]["deploymentRef"] == {"name": "crews", "container": "crew"}
