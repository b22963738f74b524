"""Which Redis the default pool uses, and the one that the chart can bring."""

import base64

import pytest
from chart import BUNDLED, find, names, of_kind, refusal, render


def data(secret: dict) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def test_without_a_redis_the_chart_says_what_to_set():
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
        "Service/crewjob-redis",
        "StatefulSet/crewjob-redis",
    ]
    assert find(objects, "StatefulSet", "crewjob-redis")["spec"]["replicas"] == 1
    secret = find(objects, "Secret", "crewjob-redis")
    assert secret["metadata"]["labels"]["crewjob.dev/redis"] == "true"


def test_the_url_leads_to_the_service_with_the_password_that_redis_wants():
    secret = data(find(render(BUNDLED), "Secret", "crewjob-redis"))
    assert len(secret["password"]) == 32
    assert secret["REDIS_URL"] == f"redis://default:{secret['password']}@crewjob-redis.crewjob.svc:6379/0"
    assert f"requirepass {secret['password']}" in secret["redis.conf"].splitlines()


def test_redis_drops_no_message_and_remembers_across_restarts():
    lines = data(find(render(BUNDLED), "Secret", "crewjob-redis"))["redis.conf"].splitlines()
    assert {"maxmemory-policy noeviction", "appendonly yes", "maxmemory 256mb", "dir /data"} <= set(lines)


def test_redis_runs_as_its_own_user_from_a_configuration_file():
    pod = find(render(BUNDLED), "StatefulSet", "crewjob-redis")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 999
    assert pod["containers"][0]["command"] == ["redis-server"]
    assert pod["containers"][0]["args"] == ["/etc/redis/redis.conf"]


def test_a_given_password_is_used_and_a_new_one_restarts_redis():
    def annotation(password):
        objects = render(BUNDLED, f"redis.bundled.password={password}")
        assert data(find(objects, "Secret", "crewjob-redis"))["password"] == password
        return find(objects, "StatefulSet", "crewjob-redis")["spec"]["template"]["metadata"]["annotations"]

    assert annotation("first-long-password") != annotation("second-long-password")


def test_a_generated_password_does_not_change_the_pod():
    pods = {str(find(render(BUNDLED, f"operator.replicas={n}"), "StatefulSet", "crewjob-redis")) for n in (1, 2)}
    assert len(pods) == 1


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
        "items": [{"key": "REDIS_CA", "path": "ca.crt"}],
    }
    assert {"name": "redis-ca", "mountPath": "/etc/crewjob/redis", "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]
