"""Which Redis the default pool uses, and the one that the chart can bring."""

import base64
import hashlib

import pytest
from chart import BUNDLED, CHART, PROJECT, find, names, of_kind, pods, refusal, render


USERS = (CHART / "files/redis-users.acl").read_text()


def data(secret: dict) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def secret(name: str, *sets, **where) -> dict[str, str]:
    return data(find(render(BUNDLED, *sets, **where), "Secret", name))


def rules(user: str) -> str:
    """What the chart's file says that a user may do."""
    return next(line.removeprefix(f"{user} ") for line in USERS.splitlines() if line.startswith(f"{user} "))


def password(url: str) -> str:
    return url.split("@")[0].rsplit(":", 1)[1]


def test_without_a_redis_the_chart_names_the_value_to_set():
    message = refusal()
    assert "redis.bundled.enabled=true" in message
    assert "redis.existingSecret=NAME" in message
    assert "crewjob.dev/redis=true" in message


@pytest.mark.parametrize("pool", ["true", "false"])
def test_two_redis_are_one_too_many(pool):
    message = refusal(BUNDLED, "redis.existingSecret=mine", f"defaultPool.enabled={pool}")
    assert "redis.bundled.enabled and redis.existingSecret are both set" in message


def test_an_existing_secret_is_used_and_nothing_of_redis_is_created():
    objects = render("redis.existingSecret=mine")
    assert find(objects, "CrewWorkerPool", "default")["spec"]["redis"]["secretName"] == "mine"
    assert [name for name in names(objects) if "redis" in name] == []
    assert of_kind(objects, "Secret") == []


def test_the_bundled_redis_is_one_pod_with_its_service_and_a_labelled_secret():
    objects = render(BUNDLED)
    assert [name for name in names(objects) if "redis" in name] == [
        "Secret/crewjob-redis",
        "Secret/crewjob-redis-worker",
        "Service/crewjob-redis",
        "StatefulSet/crewjob-redis",
    ]
    assert find(objects, "StatefulSet", "crewjob-redis")["spec"]["replicas"] == 1
    secret = find(objects, "Secret", "crewjob-redis")
    assert secret["metadata"]["labels"]["crewjob.dev/redis"] == "true"


def test_operator_and_workers_are_two_users_and_no_worker_sees_the_password_of_another():
    objects = render(BUNDLED)
    operators, workers = (data(find(objects, "Secret", name)) for name in ("crewjob-redis", "crewjob-redis-worker"))
    place = "crewjob-redis.crewjob.svc:6379/0"
    assert operators["REDIS_URL"] == f"redis://operator:{password(operators['REDIS_URL'])}@{place}"
    assert workers == {"REDIS_URL": f"redis://worker:{password(workers['REDIS_URL'])}@{place}"}
    assert len({operators["password"], password(operators["REDIS_URL"]), password(workers["REDIS_URL"])}) == 3
    assert find(objects, "CrewWorkerPool", "default")["spec"]["redis"]["secretName"] == "crewjob-redis"
    worker = pods(objects)["Deployment/crewjob-worker"]["spec"]
    assert "crewjob-redis-worker" in str(worker)
    assert "'crewjob-redis'" not in str(worker)


def test_redis_knows_the_two_users_by_the_passwords_in_their_urls():
    operators, workers = secret("crewjob-redis"), secret("crewjob-redis-worker")
    lines = operators["redis.conf"].splitlines()
    assert len(operators["password"]) == 32
    assert f"requirepass {operators['password']}" in lines
    for user, url in (("operator", operators["REDIS_URL"]), ("worker", workers["REDIS_URL"])):
        digest = hashlib.sha256(password(url).encode()).hexdigest()
        assert f"user {user} on #{digest} {rules(user)}" in lines


def test_an_upgrade_keeps_every_password_that_it_finds():
    """An upgrade reads the administrator's password from the cluster; all others follow from it, and from nothing else."""
    sets = ("redis.bundled.password=found-in-the-cluster",)
    for name in ("crewjob-redis", "crewjob-redis-worker"):
        assert secret(name, *sets) == secret(name, *sets, "operator.replicas=2")
        assert secret(name, *sets) != secret(name, "redis.bundled.password=another-one-of-these")


def test_the_documentation_tells_of_the_same_users():
    page = (PROJECT / "docs/redis.md").read_text()
    for user in ("operator", "worker"):
        shown = page.split(f"ACL SETUSER {user} on >PASSWORD")[1].split("```")[0]
        assert shown.replace("\\\n", " ").split() == rules(user).split(), user


def test_redis_drops_no_message_and_remembers_across_restarts():
    lines = data(find(render(BUNDLED), "Secret", "crewjob-redis"))["redis.conf"].splitlines()
    assert {"maxmemory-policy noeviction", "appendonly yes", "maxmemory 256mb", "dir /data"} <= set(lines)


def test_redis_runs_as_its_own_user_from_a_configuration_file():
    pod = find(render(BUNDLED), "StatefulSet", "crewjob-redis")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 999
    assert pod["containers"][0]["command"] == ["redis-server"]
    assert pod["containers"][0]["args"] == ["/etc/redis/redis.conf"]


def test_a_given_password_is_used_and_a_new_one_restarts_redis_and_the_workers():
    def annotations(given):
        objects = render(BUNDLED, f"redis.bundled.password={given}")
        assert data(find(objects, "Secret", "crewjob-redis"))["password"] == given
        return {name: pod["metadata"].get("annotations") for name, pod in pods(objects).items()}

    before, after = annotations("first-long-password"), annotations("second-long-password")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"StatefulSet/crewjob-redis", "Deployment/crewjob-worker"}


def test_other_users_restart_redis_because_it_reads_them_once():
    assert "files/redis-users.acl" in (CHART / "templates/redis/statefulset.yaml").read_text()


def test_a_generated_password_changes_no_pod():
    def of(replicas):
        found = pods(render(BUNDLED, f"operator.replicas={replicas}"))
        return [found[name] for name in ("StatefulSet/crewjob-redis", "Deployment/crewjob-worker")]

    assert of(1) == of(2)


def test_workers_of_an_existing_redis_may_have_a_secret_of_their_own():
    objects = render("redis.existingSecret=mine", "redis.existingWorkerSecret=theirs")
    pool = find(objects, "CrewWorkerPool", "default")["spec"]["redis"]
    assert (pool["secretName"], pool["workerSecretName"]) == ("mine", "theirs")
    worker = str(pods(objects)["Deployment/crewjob-worker"]["spec"])
    assert worker.count("'theirs'") == 7 and "'mine'" not in worker
    shared = str(pods(render("redis.existingSecret=mine"))["Deployment/crewjob-worker"]["spec"])
    assert shared.count("'mine'") == 7


def test_a_secret_for_workers_alone_is_refused():
    assert "set redis.existingSecret to the operator's, too" in refusal(BUNDLED, "redis.existingWorkerSecret=theirs")


def test_data_lies_with_the_pod_or_in_a_claim_that_outlives_the_release():
    volumes = find(render(BUNDLED), "StatefulSet", "crewjob-redis")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "data", "emptyDir": {}} in volumes
    objects = render(scenario="persistent-redis")
    volumes = find(objects, "StatefulSet", "crewjob-redis")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "crewjob-redis"}} in volumes
    claim = find(objects, "PersistentVolumeClaim", "crewjob-redis")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"]["requests"]["storage"] == "4Gi"


def test_certificates_of_a_private_authority_are_mounted_where_the_secret_has_them():
    pod = find(render("redis.existingSecret=mine"), "Deployment", "crewjob-worker")["spec"]["template"]["spec"]
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "redis-ca")
    assert volume["secret"] == {
        "secretName": "mine",
        "optional": True,
        "items": [
            {"key": "REDIS_URL", "path": "url"},
            {"key": "RESULT_BACKEND_URL", "path": "result-url"},
            {"key": "REDIS_CA", "path": "ca.crt"},
            {"key": "REDIS_CLIENT_CERT", "path": "client.crt"},
            {"key": "REDIS_CLIENT_KEY", "path": "client.key"},
        ],
    }
    assert {"name": "redis-ca", "mountPath": "/etc/crewjob/redis", "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]
