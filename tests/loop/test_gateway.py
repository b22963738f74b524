"""Jobs over HTTP: with the rights of the caller's token, once for each key, whatever becomes of a gateway."""

import concurrent.futures
import hashlib
import json

import pytest
from gateways import JOBS, OTHERS, RESULTS, Account, Gateway, crewjobs
from tenant import GROUP

from waiting import until


@pytest.fixture(scope="module")
def writer(bed):
    """An account that may do with jobs of `a` what there is to do, and nothing else anywhere."""
    return Account(bed.a, "writer", JOBS, OTHERS, RESULTS)


@pytest.fixture(scope="module")
def reader(bed):
    return Account(bed.a, "reader", JOBS | {"verbs": ["get", "list"]})


@pytest.fixture(scope="module")
def gateway(bed):
    gateway = Gateway(bed.folder, bed.control_plane.kubeconfig, bed.a.namespace, "--rate-limit", "off")
    yield gateway
    gateway.stop()


def test_a_job_is_submitted_followed_and_its_result_read(bed, gateway, writer, crew_worker):
    bed.a.pool(bed.redis)
    made = gateway.submit(writer.token, inputs={"seconds": 0}, priority=9, labels={"team": "x"})
    assert made.status == 202, made
    job = made.json
    assert job["id"] == f"{bed.a.namespace}.{job['name']}" and made.headers["location"] == job["links"]["status"]
    assert job["name"].startswith("bees-") and job["phase"] == "Pending"
    stored = bed.a.get("crewjobs", job["name"])
    assert stored["spec"]["priority"] == 9 and stored["metadata"]["labels"] == {"team": "x"}
    waits = gateway.request("GET", job["links"]["result"], writer.token)
    assert (waits.status, waits.problem) == (409, "not-finished") and waits.json["phase"] in ("Pending", "Queued")
    crew_worker()
    bed.a.in_phase(job["name"], "Succeeded")
    status = gateway.request("GET", job["links"]["status"], writer.token).json
    assert (status["phase"], status["attempts"], status["result"]["place"]) == ("Succeeded", 1, "status")
    result = gateway.request("GET", job["links"]["result"], writer.token)
    assert result.status == 200 and f"done for {bed.a.namespace}/{job['name']}" in json.dumps(result.json)
    by_name = gateway.request("GET", f"/api/status/{job['name']}", writer.token)
    assert by_name.json["uid"] == job["uid"], "a name without a namespace is of the gateway's"
    assert gateway.request("GET", job["links"]["kubernetes"], writer.token).json["metadata"]["uid"] == job["uid"]


def test_a_failed_job_says_why_it_has_no_result_and_a_cancelled_one_ends(bed, gateway, writer, crew_worker):
    bed.a.pool(bed.redis)
    waiting = gateway.submit(writer.token).json
    bed.a.in_phase(waiting["name"], "Queued")
    cancelled = gateway.request("POST", waiting["links"]["cancel"], writer.token)
    assert cancelled.status == 202 and cancelled.json["id"] == waiting["id"]
    bed.a.in_phase(waiting["name"], "Cancelled")
    assert gateway.request("POST", waiting["links"]["cancel"], writer.token).status == 200
    crew_worker()
    failing = gateway.submit(writer.token, inputs={"exits": 3}, retryPolicy={"maxRetries": 0}).json
    bed.a.in_phase(failing["name"], "Failed")
    without = gateway.request("GET", failing["links"]["result"], writer.token)
    assert (without.status, without.problem, without.json["phase"]) == (404, "no-result", "Failed")
    assert without.json["reason"] and without.json["errorType"], without.text


def test_a_result_is_read_from_the_jobs_own_config_map_and_one_on_redis_is_named(bed, gateway, writer):
    bed.a.pool(bed.redis)
    bed.a.pool(bed.redis, "kept", largeResults="Redis")
    text = json.dumps("x" * 9000)
    for pool, expected in (("default", 200), ("kept", 409)):
        job = gateway.submit(writer.token, pool=pool).json
        task = bed.a.task(job["name"])
        until("its message waits", lambda task=task: bed.redis.queued(task))
        bed.redis.acknowledge(bed.redis.take(task))
        bed.redis.store(task, "SUCCESS", "x" * 9000)
        bed.a.in_phase(job["name"], "Succeeded")
        result = gateway.request("GET", job["links"]["result"], writer.token)
        assert result.status == expected, result
        if expected == 200:
            assert result.text == text
            assert hashlib.sha256(result.text.encode()).hexdigest() == bed.a.status(job["name"])["result"]["sha256"]
        else:
            assert result.problem == "result-on-redis" and task in result.json["redisKey"]


def test_a_caller_can_do_what_its_token_can_and_no_more(bed, gateway, writer, reader):
    job = gateway.submit(writer.token).json
    assert gateway.request("GET", job["links"]["status"], reader.token).status == 200
    for refused in (
        gateway.submit(reader.token),
        gateway.request("POST", job["links"]["cancel"], reader.token),
        gateway.submit(writer.token, namespace=bed.b.namespace),
        gateway.request("GET", f"/api/status/{bed.b.namespace}.x", writer.token),
    ):
        assert (refused.status, refused.problem) == (403, "forbidden")
        assert "cannot" in refused.json["detail"], "the API server says which right is missing"
    assert not bed.a.get("crewjobs", job["name"])["spec"].get("cancel")
    absent = gateway.request("GET", "/api/status/none", writer.token)
    assert (absent.status, absent.problem) == (404, "no-such-job")


def test_the_same_key_and_body_are_one_job_and_another_body_is_refused(bed, gateway, writer, reader):
    first = gateway.submit(writer.token, "order 1", inputs={"a": 1, "b": 2})
    assert first.status == 202
    spelled = '{"inputs": {"b": 2, "a": 1},  "topic": "bees"}'
    again = gateway.request("POST", "/api/submit", writer.another_token() , spelled, idempotency_key="order 1")
    assert (again.status, again.json["uid"], again.headers["location"]) == (202, first.json["uid"], first.headers["location"])
    other = gateway.submit(writer.token, "order 1", inputs={"a": 1, "b": 3})
    assert (other.status, other.problem, other.json["id"]) == (422, "idempotency-key-reused", first.json["id"])
    assert gateway.submit(writer.token, "order 2", inputs={"a": 1, "b": 2}).json["uid"] != first.json["uid"]
    assert gateway.submit(reader.token, "order 1", inputs={"a": 1, "b": 2}).status == 403, "a key is no right"
    named = gateway.submit(writer.token, "order 3", name="mine")
    assert (named.status, named.json["errors"][0]["pointer"]) == (400, "/name")
    assert gateway.submit(writer.token, "k" * 256).problem == "invalid-idempotency-key"
    assert len(bed.a.items("crewjobs")) == 2


def test_a_key_is_free_again_when_its_job_is_deleted(bed, gateway, writer):
    first = gateway.submit(writer.token, "k").json
    bed.a.delete("crewjobs", first["name"])
    second = gateway.submit(writer.token, "k").json
    assert second["name"] == first["name"] and second["uid"] != first["uid"]


def test_20_keys_repeated_five_times_each_over_two_gateways_of_which_one_is_killed_are_20_jobs(bed, writer):
    start = lambda: Gateway(bed.folder, bed.control_plane.kubeconfig, bed.a.namespace)  # noqa: E731
    gateways = [start(), start()]
    try:
        requests = [(number % 20, number) for number in range(100)]

        def submits(key_and_number: tuple[int, int]) -> str:
            key, number = key_and_number
            if number == 40:
                gateways[0].kill()
            for attempt in range(5):
                try:
                    answer = gateways[(number + attempt) % 2].submit(writer.token, f"key {key}", inputs={"key": key})
                except OSError:
                    continue  # as a client does when its connection breaks: the other one
                assert answer.status == 202, answer
                return answer.json["uid"]
            raise AssertionError("no gateway answers")

        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            uids = list(pool.map(submits, requests))
        assert gateways[0].process.returncode == -9
        by_key = [{uids[index] for index, (key, _) in enumerate(requests) if key == wanted} for wanted in range(20)]
        assert all(len(found) == 1 for found in by_key)
        jobs = bed.a.items("crewjobs")
        assert len(jobs) == 20 and {job["metadata"]["uid"] for job in jobs} == set(uids)
    finally:
        for gateway in gateways:
            gateway.stop()


def test_kubernetes_own_paths_go_on_and_their_answers_come_back_as_they_are(bed, gateway, writer):
    path = crewjobs(bed.a.namespace)
    body = {"apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob", "metadata": {"name": "plain"}, "spec": {"topic": "t"}}
    assert gateway.request("POST", path, writer.token, body).status == 201
    patched = gateway.request(
        "PATCH", f"{path}/plain", writer.token, {"spec": {"priority": 1}}, content_type="application/merge-patch+json"
    )
    assert patched.json["spec"]["priority"] == 1
    listed = gateway.request("GET", f"{path}?fieldSelector=spec.poolRef.name%3Ddefault&limit=5", writer.token).json
    assert [item["metadata"]["name"] for item in listed["items"]] == ["plain"]
    invalid = gateway.request("POST", path, writer.token, body | {"spec": {"topic": ""}})
    assert invalid.status == 422 and invalid.json["kind"] == "Status" and invalid.json["reason"] == "Invalid"
    absent = gateway.request("GET", f"{path}/none", writer.token)
    assert absent.status == 404 and absent.json["details"]["name"] == "none"
    assert gateway.request("GET", f"{GROUP}/namespaces/{bed.a.namespace}/crewworkerpools", writer.token).status == 200
    assert gateway.request("GET", f"{GROUP}/crewjobs", writer.token).status == 403, "of all namespaces: not this account"
    assert gateway.request("DELETE", f"{path}/plain", writer.token).status == 200
    assert gateway.request("DELETE", path, writer.token).problem == "method-not-allowed"


def test_a_fixed_account_serves_callers_without_tokens_and_each_user_has_keys_of_its_own(bed, writer, tmp_path):
    kubeconfig = tmp_path / "kubeconfig"
    text = bed.control_plane.kubeconfig.read_text()
    kubeconfig.write_text(text.replace(bed.control_plane.token, writer.token))
    options = ["--mode", "fixed", "--trusted-proxies", "127.0.0.1/32", "--user-header", "X-User"]
    gateway = Gateway(tmp_path, kubeconfig, bed.a.namespace, *options)
    try:
        submit = lambda user: gateway.request("POST", "/api/submit", None, {"topic": "t"}, x_user=user, idempotency_key="k")  # noqa: E731
        ada, eve = submit("ada"), submit("eve")
        assert ada.status == eve.status == 202 and ada.json["uid"] != eve.json["uid"] and submit("ada").json["uid"] == ada.json["uid"]
        annotations = bed.a.get("crewjobs", ada.json["name"])["metadata"]["annotations"]
        assert annotations["crewjob.dev/submitted-by"] == "ada"
        assert gateway.request("GET", ada.json["links"]["status"]).problem == "unauthenticated", "no user was named"
        admins = gateway.request("GET", crewjobs(bed.b.namespace), bed.control_plane.token, x_user="ada")
        assert admins.status == 403, "a caller's own token does not go on"
    finally:
        gateway.stop()


def test_the_description_of_the_interface_is_served_and_names_what_is_there(gateway):
    document = gateway.request("GET", "/openapi.json").json
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {f"/api/{what}" for what in ("submit", "status/{id}", "result/{id}", "cancel/{id}", "events/{id}")}
    fields = document["components"]["schemas"]["Submission"]["properties"]
    assert {"topic", "inputs", "priority", "pool", "namespace", "labels"} <= set(fields)


def test_a_gateway_that_is_told_to_stop_answers_what_it_has_begun(bed, writer):
    gateway = Gateway(bed.folder, bed.control_plane.kubeconfig, bed.a.namespace, "--shutdown-delay", "1")
    gateway.process.terminate()
    assert gateway.submit(writer.token).status == 202, "while it spreads that it leaves"
    assert gateway.process.wait(15) == 0
