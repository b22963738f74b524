"""`helm upgrade --reuse-values`: the values of an earlier chart, in which what is new has no default.

`earlier/` holds charts of earlier commits, as `helm package` makes them; tests/e2e installs them for an upgrade.
"""

import functools
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
import yaml
from chart import BUNDLED, CHART, NATIVE, SCENARIOS, find, pods, render, template, values

EARLIER = Path(__file__).resolve().parent / "earlier"
# Which commit each is of: before it, what its name says was not there.
COMMITS = {"before-native": "3e2309a^", "before-worker-user": "7c5d282"}


def earlier_values(name: str) -> dict:
    with tarfile.open(EARLIER / f"{name}.tgz") as package:
        return yaml.safe_load(package.extractfile("crewjob-operator/values.yaml"))


@functools.cache
def reusing(earlier: str, *sets: str, scenario=None) -> list[dict]:
    """What Helm makes of this chart with the values of an earlier one, which take the place of its values.yaml."""
    with tempfile.TemporaryDirectory() as directory:
        chart = Path(shutil.copytree(CHART, Path(directory) / "chart"))
        (chart / "values.yaml").write_text(yaml.safe_dump(earlier_values(earlier)))
        done = template(*sets, scenario=scenario, chart=chart, flags=["--is-upgrade"])
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def without_secrets(objects: list[dict]) -> list[dict]:
    """A generated password is another one each time."""
    return [item for item in objects if item["kind"] != "Secret"]


def test_an_earlier_chart_of_each_name_is_there():
    assert {path.stem for path in EARLIER.glob("*.tgz")} == set(COMMITS)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("earlier", COMMITS)
def test_with_the_values_of_an_earlier_chart_all_is_as_with_the_defaults(earlier, scenario):
    kept = f"redis.bundled.image.tag={values()['redis']['bundled']['image']['tag']}"
    assert without_secrets(reusing(earlier, kept, scenario=scenario)) == without_secrets(render(scenario=scenario))


@pytest.mark.parametrize("earlier", COMMITS)
def test_new_values_can_be_set_together_with_earlier_ones(earlier):
    sets = (*NATIVE, "podSecurity.setIds=false", "networkPolicy.enabled=true", "worker.podDisruptionBudget.enabled=true")
    objects = reusing(earlier, *sets)
    pod = pods(objects)["Deployment/crewjob-worker"]["spec"]
    assert pod["containers"][0]["command"] == ["/opt/crewjob/crewjob", "worker"]
    assert "runAsUser" not in pod["securityContext"]
    assert find(objects, "NetworkPolicy", "crewjob-worker")["spec"]["egress"][-1]["ports"] == [
        {"port": 443, "protocol": "TCP"}
    ]
    assert find(objects, "PodDisruptionBudget", "crewjob-worker")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    "unset",
    ["worker.native", "podSecurity", "networkPolicy", "networkPolicy.apiServer", "commonLabels", "rbac.secretNames"],
)
def test_a_value_that_is_unset_has_its_default(unset):
    assert without_secrets(render(BUNDLED, f"{unset}=null")) == without_secrets(render(BUNDLED))


def test_a_value_that_is_false_or_empty_stays_so():
    """Sprig's merge takes false, 0 and empty for absent."""
    objects = render(BUNDLED, "podSecurity.setIds=false", "networkPolicy.enabled=true", "networkPolicy.workerEgress=[]")
    assert "fsGroup" not in str(pods(objects))
    assert len(find(objects, "NetworkPolicy", "crewjob-worker")["spec"]["egress"]) == 2


def difference(new: dict, old: dict) -> dict:
    """What a tree of values has that an earlier one has not."""
    found = {}
    for name, value in new.items():
        if name not in old:
            found[name] = value
        elif isinstance(value, dict) and (deeper := difference(value, old[name])):
            found[name] = deeper
    return found


def test_the_defaults_that_templates_fill_in_are_those_of_the_values_file():
    text = (CHART / "templates/_defaults.tpl").read_text()
    filled_in = text.split('{{- define "crewjob.defaults" -}}')[1].split("{{- end -}}")[0]
    assert yaml.safe_load(filled_in) == difference(values(), earlier_values("before-native"))


def test_every_template_fills_in_the_defaults_first():
    for path in [*CHART.glob("templates/**/*.yaml"), CHART / "templates/NOTES.txt"]:
        assert path.read_text().startswith('{{- include "crewjob.fill" . -}}\n'), path.name
