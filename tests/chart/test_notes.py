"""What Helm prints after an installation."""

import re

import pytest
import yaml
from chart import BUNDLED, CHART, SCENARIOS, notes


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "operator-only"])
def test_notes_print_the_next_commands(scenario):
    text = notes(scenario=scenario)
    assert "kubectl -n crewjob rollout status deployment/crewjob-operator\n" in text
    assert "kubectl -n crewjob apply -f - <<'YAML'\n" in text
    assert "kubectl -n crewjob get crewjob intro-to-ml -w\n" in text
    assert "helm -n crewjob test crewjob --logs\n" in text


def test_the_job_in_the_notes_can_be_pasted():
    document = notes(BUNDLED).split("<<'YAML'\n", 1)[1].split("\nYAML\n", 1)[0]
    job = yaml.safe_load(document)
    assert (job["apiVersion"], job["kind"]) == ("crewjob.dev/v1alpha1", "CrewJob")
    assert job["spec"]["topic"]
    assert "poolRef" not in job["spec"]


def test_the_job_in_the_notes_names_a_pool_that_is_not_called_default():
    document = notes(scenario="existing-redis").split("<<'YAML'\n", 1)[1].split("\nYAML\n", 1)[0]
    assert yaml.safe_load(document)["spec"]["poolRef"] == {"name": "crews"}


def test_without_a_pool_the_notes_ask_for_one():
    text = notes(scenario="operator-only")
    assert "kubectl explain crewworkerpool.spec" in text
    assert "kind: CrewJob" not in text


@pytest.mark.parametrize(
    ("sets", "scenario", "warning"),
    [
        ([BUNDLED], None, "WARNING: the bundled Redis loses its data with its Pod"),
        (["redis.existingSecret=mine"], None, "WARNING: the Secret mine was not found in namespace crewjob"),
        (["redis.existingSecret=mine"], None, "kubectl -n crewjob label secret mine crewjob.dev/redis=true"),
        (["redis.existingSecret=mine"], None, "NOTE: the workers, and the code that they run, have the operator's rights"),
        (
            ["redis.existingSecret=mine", "redis.existingWorkerSecret=theirs"],
            None,
            "WARNING: the workers' Secret theirs was not found in namespace crewjob",
        ),
        (
            [BUNDLED, "poolNamespaceSelector=crewjob.dev/pools=true"],
            None,
            "create rolebinding crewjob-operator-pools --clusterrole=crewjob-operator-pools "
            "--serviceaccount=crewjob:crewjob-operator\n",
        ),
        ([], "own-worker", "NOTE: the pool scales your Deployment crews"),
        ([BUNDLED, "rbac.create=false"], None, "NOTE: with rbac.create=false"),
        ([BUNDLED, "operator.replicas=0"], None, "NOTE: with operator.replicas=0"),
    ],
)
def test_notes_warn_when_something_is_off(sets, scenario, warning):
    assert warning in notes(*sets, scenario=scenario)


def test_notes_do_not_warn_without_need():
    text = notes(scenario="persistent-redis")
    assert "WARNING" not in text
    assert "NOTE:" not in text


@pytest.mark.parametrize("text", [notes("redis.existingSecret=mine"), (CHART / "README.md").read_text()], ids=["notes", "readme"])
def test_every_url_with_tls_is_one_that_celery_takes_for_its_results(text):
    urls = re.findall(r"rediss://\w+:[^' \n]+", text)
    assert urls and all(url.endswith("?ssl_cert_reqs=required") for url in urls)
