"""The life of one CrewJob."""

import base64
import json
import uuid

import pytest
import redis

import celery_side
import crew
import kube

EXAMPLE = crew.PROJECT / "examples/crewjob.yaml"
NAME = "intro-to-ml"


@pytest.fixture(scope="module")
def lived(installation):
    """The example, applied while there was no worker, and what was seen of it until the workers were gone again."""
    crew.no_workers()
    seen = {}
    with kube.Watch(NAME) as watch:
        kube.kubectl("apply", "-f", str(EXAMPLE))
        kube.kubectl("wait", "--for=condition=Complete", f"crewjob/{NAME}", "--timeout=90s")
        seen["phases"] = watch.phases_up_to("Succeeded")
    seen["redis users"] = redis_users()
    seen["pods"] = {pod["metadata"]["name"]: pod for pod in crew.worker_pods()}
    seen["job"] = kube.get("crewjob", NAME)
    seen["wide"] = kube.kubectl("get", "crewjob", NAME, "-o", "wide")
    seen["described"] = kube.kubectl("describe", "crewjob", NAME)
    seen["everything"] = kube.kubectl("get", "crewjobs,crewworkerpools,events,pods,configmaps", "-o", "yaml")
    seen["logs"] = kube.kubectl("logs", f"deployment/{kube.OPERATOR}")
    seen["logs"] += kube.kubectl("logs", "-l", "app.kubernetes.io/component=worker", "--tail=-1")
    seen["warnings"] = kube.warnings_about("crewjob", NAME)
    crew.no_workers()
    return seen


def redis_users() -> set[str]:
    """The users that are connected to Redis, without these tests'."""
    with redis.Redis.from_url(celery_side.redis_url()) as admin:
        return {client["user"] for client in admin.client_list()} - {"default"}


def test_a_job_goes_from_pending_to_succeeded_on_a_worker_scaled_from_zero(lived):
    assert lived["phases"] == ["Pending", "Queued", "Running", "Succeeded"]


def test_the_status_tells_task_attempts_worker_and_result(lived):
    job, status = lived["job"], lived["job"]["status"]
    assert uuid.UUID(status["taskID"]).version == 5
    assert status["attempts"] == 1
    assert status["observedGeneration"] == job["metadata"]["generation"]
    worker = status["worker"]
    pod = lived["pods"][worker["podName"]]
    assert worker["name"] == f"crew@{worker['podName']}"
    assert worker["podUID"] == pod["metadata"]["uid"]
    assert worker["containerID"] == pod["status"]["containerStatuses"][0]["containerID"]
    result = status["result"]["value"]
    result = json.loads(result) if isinstance(result, str) else result
    assert result["job_id"] == NAME and result["celery"]["task_id"] == status["taskID"]
    assert "Introduction to machine learning" in result["result"]


def test_times_follow_each_other(lived):
    status = lived["job"]["status"]
    assert status["queuedAt"] <= status["startedAt"] <= status["finishedAt"]


def test_conditions_are_those_of_a_finished_job(lived):
    conditions = {found["type"]: found["status"] for found in lived["job"]["status"]["conditions"]}
    assert conditions["Complete"] == "True"
    assert conditions["Reconciling"] == "False"
    assert "True" not in (conditions.get("Failed"), conditions.get("Stalled"))


def test_get_wide_is_a_table_to_read(lived):
    header, row = lived["wide"].splitlines()
    columns = ["NAME", "PHASE", "REASON", "PRIORITY", "ATTEMPTS", "AGE", "POOL", "WORKER", "TASK ID", "TOPIC"]
    assert [header.find(column) for column in columns] == sorted(header.find(column) for column in columns)
    assert header.find("NAME") == 0 and -1 not in [header.find(column) for column in columns]
    for value in (NAME, "Succeeded", "default", lived["job"]["status"]["taskID"], "Introduction to machine learning"):
        assert value in row


def test_describe_and_explain_show_the_essentials(lived):
    for text in ("Phase:", "Succeeded", "Task ID:", "Attempts:", "Pod Name:", "Result:", "Conditions:"):
        assert text in lived["described"]
    explained = kube.kubectl("explain", "crewjob.spec")
    for field in ("topic", "inputs", "priority", "poolRef", "retryPolicy", "timeouts", "suspend", "cancel"):
        assert f"\n  {field}\t" in explained
    assert "10 is the most urgent" in " ".join(kube.kubectl("explain", "crewjob.spec.priority").split())


def test_nothing_is_warned_about(lived):
    assert [event["message"] for event in lived["warnings"]] == []


def test_no_password_of_redis_is_anywhere_to_be_read(lived):
    known = lambda secret, key: base64.b64decode(kube.get("secret", secret)["data"][key]).decode()
    urls = [known(secret, "REDIS_URL") for secret in (crew.SECRET, crew.WORKER_SECRET)]
    passwords = {known(crew.SECRET, "password"), *(url.split("@")[0].rsplit(":", 1)[1] for url in urls)}
    assert len(passwords) == 3
    for password in passwords:
        assert len(password) >= 16
        assert password not in lived["everything"]
        assert password not in lived["logs"]


def test_operator_and_worker_use_redis_as_the_two_users_and_nothing_was_refused_to_them(lived):
    assert lived["redis users"] == {"operator", "worker"}
    with redis.Redis.from_url(celery_side.redis_url()) as admin:
        refused = {f"{entry['username']}: {entry['reason']} {entry['object']}" for entry in admin.acl_log()}
    # Clients name themselves where they may.
    assert {text for text in refused if not text.endswith("client|setinfo")} == set()


def test_workers_go_back_to_zero(lived):
    assert crew.replicas() == 0 and crew.worker_pods() == []
