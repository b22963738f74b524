"""The values: what the schema takes and refuses, and what is written about them."""

import json
import os
import re

import pytest
import yaml
from chart import (
    BUNDLED,
    CHART,
    OLDEST_KUBERNETES,
    PROJECT,
    SCENARIOS,
    helm,
    options,
    refusal,
    render,
    resolve,
    schema,
    values,
)


@pytest.mark.parametrize("scenario", [*SCENARIOS, None])
def test_the_chart_lints(scenario):
    done = helm("lint", "--strict", "--kube-version", OLDEST_KUBERNETES, str(CHART), *options(scenario=scenario))
    assert done.returncode == 0, done.stdout + done.stderr


# Every line: a value that is wrong, and what Helm must name in its answer.
REFUSED = [
    ("replicas=2", "replicas"),
    ("operator.replica=2", "replica"),
    ("operator.replicas=two", "replicas"),
    ("operator.replicas=-1", "replicas"),
    ("operator.replicas=6", "replicas"),
    ("operator.replicas=1.5", "replicas"),
    ("operator.image.tag=a/b", "tag"),
    ("operator.image.digest=sha256:abc", "digest"),
    ("operator.image.repository=Crew Job", "repository"),
    ("operator.image.pullPolicy=Sometimes", "pullPolicy"),
    ("operator.log.format=xml", "format"),
    ("operator.log.filter=", "filter"),
    ("operator.resources.limits.memory=128MB", "memory"),
    ("operator.resources.limit.memory=128Mi", "limit"),
    ('operator.extraEnv=[{"name":"CREWJOB_LEASE_NAME","value":"x"}]', "extraEnv"),
    ('operator.extraEnv=[{"value":"x"}]', "name"),
    ('operator.nodeSelector={"disk":1}', "disk"),
    ("operator.tolerations=all", "tolerations"),
    ("operator.serviceAccount.name=No_Name", "name"),
    ("operator.service.enabled=maybe", "enabled"),
    ("nameOverride=Crew_Jobs", "nameOverride"),
    ("poolNamespaces=research", "poolNamespaces"),
    ('poolNamespaces=["Research"]', "poolNamespaces"),
    ('poolNamespaces=["a","a"]', "poolNamespaces"),
    ('imagePullSecrets=["registry"]', "imagePullSecrets"),
    ("crds.upgrade=never", "upgrade"),
    ("crds.keep=true", "keep"),
    ("rbac.create=2", "create"),
    ("redis.url=redis://h", "url"),
    ("redis.existingSecret=Not_A_Name", "existingSecret"),
    ("redis.bundled.password=short", "password"),
    ("redis.bundled.password=has@reserved:characters", "password"),
    ("redis.bundled.maxmemory=lots", "maxmemory"),
    ("redis.bundled.persistence.size=1GB", "size"),
    ("defaultPool.name=Default", "name"),
    ("defaultPool.minReplicas=-1", "minReplicas"),
    ("defaultPool.maxReplicas=many", "maxReplicas"),
    ("defaultPool.maxReplicas=10001", "maxReplicas"),
    ("defaultPool.concurrency=0", "concurrency"),
    ("defaultPool.targetPerWorker=0", "targetPerWorker"),
    ("defaultPool.scaleDownDelay=300", "scaleDownDelay"),
    ("defaultPool.scaleDownDelay=5 minutes", "scaleDownDelay"),
    ("defaultPool.scaleDownDelay=1d", "scaleDownDelay"),
    ("defaultPool.resultRetention=1w", "resultRetention"),
    ("defaultPool.onWorkerUnreachable=Panic", "onWorkerUnreachable"),
    ("defaultPool.largeResults=S3", "largeResults"),
    ("defaultPool.agingAfter=soon", "agingAfter"),
    ('defaultPool.limits=[{"maxInFlight":1}]', "name"),
    ('defaultPool.prices=[{"model":"m","inputPerMillion":1.5,"outputPerMillion":"1"}]', "inputPerMillion"),
    ('defaultPool.prices=[{"model":"m","inputPerMillion":"1,5","outputPerMillion":"1"}]', "inputPerMillion"),
    ('defaultPool.limits=[{"name":"a","maxInFlight":0}]', "maxInFlight"),
    ('defaultPool.limits=[{"name":"a","rate":{"count":1}}]', "per"),
    ('defaultPool.limits=[{"name":"a","key":{"by":"User"}}]', "by"),
    ("defaultPool.queues=[]", "queues"),
    ('defaultPool.queues=["crew_jobs"]', "queues"),
    ('defaultPool.queues=[{"name":"crew jobs"}]', "name"),
    ('defaultPool.queues=[{"name":"a","exchange":"b"}]', "exchange"),
    ('defaultPool.allowedTasks=["run me"]', "allowedTasks"),
    ("defaultPool.celery.visibilityTimeout=3600", "visibilityTimeout"),
    ("defaultPool.celery.visibility_timeout=1h", "visibility_timeout"),
    ("defaultPool.celery.prioritySteps=[0,10]", "prioritySteps"),
    ("defaultPool.celery.unackedKey=a b", "unackedKey"),
    ("defaultPool.jobDefaults.timeouts.hard=an hour", "hard"),
    ("defaultPool.jobDefaults.timeouts.hard=null", "hard"),
    ("defaultPool.jobDefaults.timeout.hard=1h", "timeout"),
    ("defaultPool.jobDefaults.retryPolicy.maxRetries=-1", "maxRetries"),
    ("defaultPool.jobDefaults.retryPolicy.backoff.factor=0", "factor"),
    ("defaultPool.jobDefaults.retryPolicy.onUnknown=Guess", "onUnknown"),
    ("defaultPool.jobDefaults.ttlAfterFinished=7d", "ttlAfterFinished"),
    ("worker.app=backend celery", "app"),
    ("worker.logLevel=loud", "logLevel"),
    ("worker.replicas=3", "replicas"),
    ("worker.terminationGracePeriodSeconds=1h", "terminationGracePeriodSeconds"),
    ("worker.tmpSizeLimit=big", "tmpSizeLimit"),
    ("worker.extraArgs=--beat", "extraArgs"),
    ('worker.extraEnv=[{"name":"REDIS_URL","value":"redis://elsewhere"}]', "extraEnv"),
]


@pytest.mark.parametrize(("value", "named"), REFUSED)
def test_a_malformed_value_is_refused_by_its_name(value, named):
    message = refusal(BUNDLED, value)
    assert "values don't meet the specifications of the schema" in message
    assert re.search(rf"\b{named}\b", message), message


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["defaultPool.minReplicas=5"], "defaultPool.minReplicas is 5, above defaultPool.maxReplicas, which is 4"),
        (["defaultPool.jobDefaults.timeouts.soft=60m"], "defaultPool.jobDefaults.timeouts.soft is 60m"),
        (["worker.enabled=false"], "set defaultPool.deploymentName"),
    ],
)
def test_values_that_contradict_each_other_are_refused_by_their_names(sets, message):
    assert message in refusal(BUNDLED, *sets)


@pytest.mark.parametrize(
    "value",
    [
        "operator.replicas=0",
        "operator.resources.limits.cpu=2",
        "operator.resources.requests.cpu=0.5",
        'operator.extraEnv=[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"spec.nodeName"}}}]',
        'defaultPool.queues=[{"name":"a"}]',
        "defaultPool.allowedTasks=[]",
        "defaultPool.celery.prioritySteps=[0,5]",
        "defaultPool.jobDefaults.timeouts.total=24h",
        "defaultPool.jobDefaults.retryPolicy.nonRetryable[0]=openai.AuthenticationError",
        "global.imageRegistry=registry.example.com",
    ],
)
def test_values_that_are_meant_to_be_set_are_taken(value):
    assert render(BUNDLED, value)


def nodes(node: dict, path: str = ""):
    node = resolve(node)
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


FOREIGN = {"global", "gateway.affinity", "operator.affinity", "worker.affinity", "redis.bundled.affinity"}


def test_the_schema_knows_no_unnamed_values_and_describes_all_others():
    for path, node in nodes(schema()):
        if node.get("type") == "object" and path not in FOREIGN and "[]" not in path:
            assert node.get("additionalProperties") not in (None, True), f"{path} takes anything"
        assert path == "" or "[]" in path or "claims" in path or node.get("description"), f"{path} has no description"


def test_every_default_is_in_the_schema():
    known = {path for path, _ in nodes(schema())}

    def check(tree, path=""):
        for name, value in tree.items():
            here = f"{path}.{name}" if path else name
            if here.split(".")[-2:-1] not in (["requests"], ["limits"]):
                assert here in known, f"{here} is not in values.schema.json"
            if isinstance(value, dict):
                check(value, here)

    check(values())


# The schema repeats what the CRD says of a pool, so that a mistake is found before anything is installed.


def pool_schema() -> dict:
    crd = yaml.safe_load((CHART / "crds/crewworkerpools.crewjob.dev.yaml").read_text())
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def differences(ours: dict, theirs: dict, path: str) -> list[str]:
    ours = resolve(ours)
    found = []
    if theirs.get("properties"):
        for name in sorted(set(ours["properties"]) ^ set(theirs["properties"])):
            found.append(f"{path}.{name}: only in {'the chart' if name in ours['properties'] else 'the CRD'}")
        for name in sorted(set(ours["properties"]) & set(theirs["properties"])):
            found += differences(ours["properties"][name], theirs["properties"][name], f"{path}.{name}")
    elif theirs["type"] == "array":
        found += [f"{path}: {key}" for key in ("minItems", "maxItems") if ours.get(key) != theirs.get(key)]
        found += differences(ours["items"], theirs["items"], f"{path}[]")
    else:
        keys = ("minimum", "maximum", "pattern", "enum")
        found += [
            f"{path}: {key} is {ours.get(key)}, {theirs.get(key)} in the CRD"
            for key in keys
            if ours.get(key) != theirs.get(key)
        ]
    return found


def test_the_schema_of_the_default_pool_is_that_of_the_crd():
    ours, theirs = resolve(schema()["properties"]["defaultPool"]), pool_schema()
    # What the chart knows itself, and what it says otherwise.
    for name in ("enabled", "name", "deploymentName", "container", "cleanup"):
        del ours["properties"][name]
    theirs["properties"]["resultRetention"] = theirs["properties"].pop("redis")["properties"]["resultRetention"]
    del theirs["properties"]["deploymentRef"]
    assert differences(ours, theirs, "defaultPool") == []


# The table of values in the README comes from the schema and the defaults.


def table() -> str:
    described = dict(nodes(schema()))
    rows = ["| Value | Default | Meaning |", "|---|---|---|"]

    def walk(tree, path=""):
        for name, value in tree.items():
            here = f"{path}.{name}" if path else name
            if isinstance(value, dict) and value and name != "resources":
                walk(value, here)
            else:
                default = '""' if value == "" else json.dumps(value).strip('"')
                rows.append(f"| `{here}` | `{default}` | {described[here]['description']} |")

    walk(values())
    return "\n".join(rows)


def test_the_readme_lists_every_value_with_its_default():
    path = CHART / "README.md"
    text = path.read_text()
    before, rest = text.split("<!-- values -->\n", 1)
    _, after = rest.split("\n<!-- /values -->", 1)
    wanted = f"{before}<!-- values -->\n{table()}\n<!-- /values -->{after}"
    if os.environ.get("UPDATE_EXPECT"):
        path.write_text(wanted)
    assert text == wanted or os.environ.get("UPDATE_EXPECT"), "run UPDATE_EXPECT=1 tests/chart/run"


def test_the_chart_has_the_version_of_the_program():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    package = re.search(r'^version = "(.+)"', (PROJECT / "Cargo.toml").read_text(), re.MULTILINE)
    assert chart["appVersion"] == package.group(1)
    assert chart["kubeVersion"] == f">={OLDEST_KUBERNETES}-0"
