"""Where finished jobs are kept before they are deleted."""

import pytest
from chart import BUNDLED, find, pods, refusal, render

FILE = (BUNDLED, "archive.file.existingClaim=jobs")
S3 = (BUNDLED, "archive.s3.bucket=jobs", "archive.s3.existingSecret=store")


def operator(*sets: str) -> tuple[dict, dict]:
    """The Pod of the operator, and its environment."""
    pod = pods(render(*sets))["Deployment/crewjob-operator"]["spec"]
    env = {variable["name"]: variable for variable in pod["containers"][0]["env"]}
    return pod, env


def settings(env: dict) -> dict[str, str]:
    return {name.removeprefix("CREWJOB_ARCHIVE_"): env[name]["value"] for name in env if name.startswith("CREWJOB_ARCHIVE_")}


def test_nothing_is_archived_unless_asked_for():
    pod, env = operator(BUNDLED)
    assert "ARCHIVE" not in str(env) and "AWS" not in str(env) and "volumes" not in pod


def test_files_are_on_the_volume_of_the_claim():
    pod, env = operator(*FILE, "archive.file.maxMiB=4096")
    assert settings(env) == {"DIR": "/archive", "DIR_MIB": "4096", "INPUTS": "false"}
    assert pod["volumes"] == [{"name": "archive", "persistentVolumeClaim": {"claimName": "jobs"}}]
    assert pod["containers"][0]["volumeMounts"] == [{"name": "archive", "mountPath": "/archive"}]
    assert pod["securityContext"]["fsGroup"] == 65532, "so that the operator may write it"


def test_the_credentials_of_a_store_are_read_from_a_secret_and_never_in_a_value():
    pod, env = operator(*S3, "archive.s3.endpoint=https://minio.store:9000", "archive.inputs=true")
    assert settings(env) == {
        "INPUTS": "true",
        "S3_BUCKET": "jobs",
        "S3_ENDPOINT": "https://minio.store:9000",
        "S3_REGION": "us-east-1",
        "S3_PREFIX": "crewjobs/",
    }
    read = {name: env[name]["valueFrom"]["secretKeyRef"] for name in env if name.startswith("AWS_")}
    key = lambda name: {"name": "store", "key": name}  # noqa: E731
    assert read == {
        "AWS_ACCESS_KEY_ID": key("AWS_ACCESS_KEY_ID"),
        "AWS_SECRET_ACCESS_KEY": key("AWS_SECRET_ACCESS_KEY"),
        "AWS_SESSION_TOKEN": key("AWS_SESSION_TOKEN") | {"optional": True},
    }
    assert "volumes" not in pod


def test_two_archives_or_a_store_without_credentials_are_refused():
    assert "keep one" in refusal(*S3, "archive.file.existingClaim=jobs")
    assert "archive.s3.existingSecret" in refusal(BUNDLED, "archive.s3.bucket=jobs")


@pytest.mark.parametrize(
    "wrong",
    ["archive.s3.bucket=Jobs", "archive.s3.endpoint=minio:9000", "archive.s3.endpoint=https://user:pass@minio", "archive.file.maxMiB=-1"],
)
def test_a_value_that_cannot_be_right_is_named(wrong):
    assert wrong.split("=")[0].rsplit(".", 1)[1] in refusal(BUNDLED, wrong)


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("", 443), ("https://minio.store", 443), ("http://minio.store", 80), ("http://minio.store:9000", 9000), ("https://[fd00::1]:9000/s3", 9000)],
)
def test_a_network_policy_lets_the_operator_reach_the_store(endpoint, port):
    objects = render(*S3, f"archive.s3.endpoint={endpoint}", "networkPolicy.enabled=true", "networkPolicy.apiServer.ports=[6443]")
    rules = find(objects, "NetworkPolicy", "crewjob-operator")["spec"]["egress"]
    assert {"ports": [{"port": port, "protocol": "TCP"}]} in rules
