"""Renders the chart, and finds what is in it."""

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
CHART = PROJECT / "charts/crewjob-operator"
SCENARIOS = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
OLDEST_KUBERNETES = "1.32.0"
BUNDLED = "redis.bundled.enabled=true"
# Workers that run commands, in the image of a crew.
NATIVE = (
    BUNDLED,
    "worker.native.enabled=true",
    'worker.native.tasks.crew.run.command=["/bin/crew"]',
    "worker.image.repository=crew",
    "worker.image.tag=v1",
)


def helm(*arguments: str) -> subprocess.CompletedProcess:
    # No cluster: what a test sees must not depend on the user's kubeconfig.
    env = os.environ | {"KUBECONFIG": os.devnull}
    command = [os.environ.get("HELM", "helm"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


def options(sets=(), scenario=None) -> list[str]:
    result = [] if scenario is None else ["--values", str(CHART / "ci" / f"{scenario}.yaml")]
    for text in sets:
        kind = "--set-json" if re.match(r"[^=]+=([\[{]|null$)", text) else "--set"
        result += [kind, text]
    return result


def template(
    *sets: str, scenario=None, release="crewjob", namespace="crewjob", chart=CHART, flags=()
) -> subprocess.CompletedProcess:
    arguments = ["--namespace", namespace, "--kube-version", OLDEST_KUBERNETES, *flags]
    return helm("template", release, str(chart), *arguments, *options(sets, scenario))


@functools.cache
def render(*sets: str, scenario=None, release="crewjob", namespace="crewjob") -> list[dict]:
    """The objects that an installation with these values would create."""
    done = template(*sets, scenario=scenario, release=release, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refusal(*sets: str, scenario=None) -> str:
    """What Helm says about values that the chart does not take."""
    done = template(*sets, scenario=scenario)
    assert done.returncode != 0, f"{sets} were taken"
    return done.stderr


@functools.cache
def notes(*sets: str, scenario=None) -> str:
    """What Helm prints after an installation with these values."""
    with tempfile.TemporaryDirectory() as directory:
        # As a manifest, because only an installation prints the notes, and Helm 3 needs a cluster even to try one.
        chart = shutil.copytree(CHART, Path(directory) / "chart")
        text = (chart / "templates/NOTES.txt").read_text()
        manifest = 'kind: Notes\ntext: {{ include "notes" . | toJson }}\n'
        (chart / "templates/notes.yaml").write_text('{{ define "notes" }}' + text + "{{ end }}" + manifest)
        done = template(*sets, scenario=scenario, chart=chart)
    assert done.returncode == 0, done.stderr
    return of_kind(list(yaml.safe_load_all(done.stdout)), "Notes")[0]["text"]


def of_kind(objects: list[dict], *kinds: str) -> list[dict]:
    return [item for item in objects if item and item["kind"] in kinds]


def find(objects: list[dict], kind: str, name: str) -> dict:
    found = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects {kind}/{name} in {names(objects)}"
    return found[0]


def names(objects: list[dict]) -> list[str]:
    return sorted(f"{item['kind']}/{item['metadata']['name']}" for item in objects)


def hook(item: dict) -> str | None:
    return item["metadata"].get("annotations", {}).get("helm.sh/hook")


def pods(objects: list[dict]) -> dict[str, dict]:
    """The Pod template of every workload, and every Pod, by name."""
    workloads = of_kind(objects, "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod")
    template = lambda item: item if item["kind"] == "Pod" else item["spec"]["template"]  # noqa: E731
    return {f"{item['kind']}/{item['metadata']['name']}": template(item) for item in workloads}


def containers(pod: dict) -> list[dict]:
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def values() -> dict:
    return yaml.safe_load((CHART / "values.yaml").read_text())


@functools.cache
def schema_text() -> str:
    return (CHART / "values.schema.json").read_text()


def schema() -> dict:
    return json.loads(schema_text())


def resolve(node: dict) -> dict:
    """A schema's node with what it refers to; what stands at the node itself wins."""
    references = [node] if "$ref" in node else node.get("allOf", [])
    for reference in references:
        definition = schema()["definitions"][reference["$ref"].removeprefix("#/definitions/")]
        node = {**definition, **{key: value for key, value in node.items() if key not in ("$ref", "allOf")}}
    return node


def crds(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(directory.glob("*.yaml"))}
