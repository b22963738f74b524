"""What is wrong with a request costs its sender an error, and no other caller anything."""

import contextlib
import http.client
import json
import socket
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from gateways import JOBS, Account, Gateway, crewjobs
from proxy import Line
from servers import CREWJOB
from tenant import GROUP

from waiting import until


@pytest.fixture(scope="module")
def account(bed):
    return Account(bed.a, "caller", JOBS)


@pytest.fixture(scope="module")
def gateway(bed):
    gateway = Gateway(bed.folder, bed.control_plane.kubeconfig, bed.a.namespace, "--rate-limit", "off")
    yield gateway
    gateway.stop()


@pytest.fixture(autouse=True)
def unharmed(bed, request):
    """After each test the gateway serves as before, from little memory, and has logged no token."""
    yield
    if {"gateway", "account"} <= set(request.fixturenames):
        gateway, account = request.getfixturevalue("gateway"), request.getfixturevalue("account")
        assert gateway.submit(account.token).status == 202
        log = gateway.log.read_text()
        assert account.token not in log and account.token.rsplit(".", 1)[1] not in log and "panicked" not in log


def raw(gateway: Gateway, sent: bytes, seconds: float = 5) -> bytes:
    """What comes back in this time, or until the connection is closed, for bytes that no client library would send."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=seconds) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while data := connection.recv(65536):
                received += data
        return received


def test_a_token_that_has_expired_is_forged_or_missing_is_refused(bed, gateway, account):
    head, payload, signed = account.token.split(".")
    tokens = [account.expired_token(), f"{head}.{payload}.{signed[:-8]}AAAAAAAA", "nonsense", "é", "a b", bed.control_plane.token[:-1]]
    for token in tokens:
        refused = gateway.request("GET", "/api/status/x", token.encode().decode("latin-1"))
        assert (refused.status, refused.problem) == (401, "unauthenticated"), token
    assert gateway.request("GET", crewjobs(bed.a.namespace), account.expired_token()).json["kind"] == "Status"
    missing = gateway.request("GET", "/api/status/x", authorization="Basic YTpi")
    assert missing.problem == "unauthenticated" and missing.headers["www-authenticate"].startswith("Bearer")
    assert gateway.request("GET", "/api/status/x", cookie=f"token={account.token}").status == 401, "cookies are not read"


def test_the_gateway_has_no_rights_of_its_own_to_lend(bed, gateway):
    # The kubeconfig that it was started with is an administrator's.
    for path in (crewjobs(bed.a.namespace), "/api/status/x"):
        assert gateway.request("GET", path).status == 401
        assert gateway.request("GET", path, "nonsense").status == 401


def test_tokens_that_the_api_server_refuses_cost_no_other_caller_an_answer(bed, gateway, account):
    """The API server ends the connection on which it refuses a token, with what others have asked on it."""
    path = crewjobs(bed.a.namespace)
    with ThreadPoolExecutor(8) as callers:
        refused = [callers.submit(gateway.request, "GET", path, f"made-up-{number}") for number in range(200)]
        made = [callers.submit(gateway.submit, account.token, f"key-{number}") for number in range(100)]
        read = [callers.submit(gateway.request, "GET", path, account.token) for _ in range(200)]
        for asked, status in ((refused, 401), (made, 202), (read, 200)):
            assert Counter(one.result().status for one in asked) == {status: len(asked)}


@pytest.mark.parametrize("header", ["impersonate-user", "impersonate-group", "impersonate-extra-x", "x-remote-user", "x-remote-group"])
def test_a_header_that_asks_to_be_another_user_is_refused(bed, gateway, account, header):
    for path in (crewjobs(bed.a.namespace), "/api/status/x"):
        refused = gateway.request("GET", path, account.token, **{header: "system:masters"})
        assert (refused.status, refused.problem) == (400, "refused-header")


def test_a_forged_header_of_a_proxy_is_refused_and_does_not_hide_where_a_request_comes_from(bed, account, tmp_path):
    options = ["--mode", "fixed", "--trusted-proxies", "10.0.0.0/8", "--user-header", "X-User"]
    gateway = Gateway(tmp_path, bed.control_plane.kubeconfig, bed.a.namespace, *options)
    try:
        forged = gateway.request("GET", crewjobs(bed.a.namespace), x_user="admin", x_forwarded_for="10.0.0.1")
        assert (forged.status, forged.problem) == (403, "untrusted-proxy")
        assert gateway.request("GET", crewjobs(bed.a.namespace)).problem == "untrusted-proxy"
    finally:
        gateway.stop()
    limited = Gateway(tmp_path, bed.control_plane.kubeconfig, bed.a.namespace, "--rate-limit", "3/1h")
    try:
        answers = [limited.request("GET", "/api/status/x", f"made-up-{n}", x_forwarded_for=f"10.0.0.{n}").status for n in range(6)]
        assert answers == [401] * 3 + [429] * 3, "made-up tokens and addresses have no counts of their own"
    finally:
        limited.stop()


def test_a_body_of_100_mb_is_refused_before_it_is_read(gateway, account):
    head = f"POST /api/submit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {account.token}\r\ncontent-type: application/json\r\n"
    said = raw(gateway, f"{head}content-length: 100000000\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 413") and b"body-too-large" in said
    before = rss(gateway)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    headers = {"authorization": f"Bearer {account.token}", "content-type": "application/json"}
    # In chunks, so that it does not say how much it is.
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        connection.request("POST", "/api/submit", iter([b"x" * 65536] * 1600), headers, encode_chunked=True)
        assert connection.getresponse().status == 413
    connection.close()
    assert rss(gateway) - before < 8
    large = json.dumps({"topic": "t", "inputs": {"a": "x" * (900 << 10)}})
    assert gateway.request("POST", "/api/submit", account.token, large).status in (202, 422), "up to 1 MiB the API server judges"


def rss(gateway: Gateway) -> float:
    """Megabytes in memory."""
    with open(f"/proc/{gateway.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


@pytest.mark.alone
def test_a_slow_client_is_given_up_and_takes_no_other_ones_place(gateway, account):
    sockets = [socket.create_connection(("127.0.0.1", gateway.port), timeout=60) for _ in range(200)]
    began = time.monotonic()
    head = f"POST /api/submit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {account.token}\r\ncontent-type: application/json\r\n"
    for number, connection in enumerate(sockets):
        # Half of them never end a head, the others a body.
        connection.sendall(b"GET /healthz HTT" if number % 2 else f"{head}content-length: 1000\r\n\r\n{{".encode())
    assert gateway.submit(account.token).status == 202
    for number, connection in enumerate(sockets):
        said = connection.recv(65536)
        assert said == b"" if number % 2 else said.startswith(b"HTTP/1.1 408"), said
        connection.close()
    assert 25 < time.monotonic() - began < 45


@pytest.mark.alone
def test_a_client_that_does_not_read_is_given_up(bed, gateway, account):
    padding = "x" * 200_000
    for number in range(30):
        bed.a.create("crewjobs", {
            "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob",
            "metadata": {"name": f"large-{number}", "annotations": {"padding": padding}}, "spec": {"topic": "t"},
        })
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", gateway.port))
    path = crewjobs(bed.a.namespace)
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {account.token}\r\n\r\n".encode())
    until("it is served", lambda: gateway.metric("crewjob_gateway_connections") >= 1)
    until("it is given up", lambda: gateway.metric("crewjob_gateway_connections") == 0, 60)
    connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/apis/crewjob.dev/v1alpha1/../../../api/v1/secrets",
        "/apis/crewjob.dev/v1alpha1/namespaces/a/crewjobs/..%2f..%2f..%2fsecrets",
        "/apis/crewjob.dev/v1alpha1/namespaces/a%2f..%2fkube-system/crewjobs",
        "/apis/crewjob.dev/v1alpha1/namespaces/a/crewjobs/%2e%2e",
        "/apis/crewjob.dev//v1alpha1/crewjobs",
        "/api/status/..%2f..%2fapi%2fv1%2fsecrets",
        "/api/status/../../api/v1/secrets",
        "/api/status/a.b%00",
        "http://169.254.169.254/api/status/a%2fb",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused_by_the_gateway_itself(gateway, account, path):
    sent = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {account.token}\r\n\r\n"
    said = raw(gateway, sent.encode())
    assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404")), said
    assert b"bad-path" in said or b"not-found" in said or said.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", ["/api/v1/namespaces", "/apis", "/version", "/metrics", f"{GROUP}/namespaces/a/secrets", "/"])
def test_nothing_else_of_the_api_server_can_be_reached(bed, gateway, path):
    assert gateway.request("GET", path, bed.control_plane.token).problem == "not-found"


def test_a_request_cannot_be_smuggled_behind_another_one_and_the_connection_is_not_taken_over(bed, gateway, account):
    head = f"POST /api/submit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {account.token}\r\ncontent-type: application/json\r\n"
    two = raw(gateway, f"{head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /api/v1/secrets HTTP/1.1\r\n\r\n".encode())
    assert two.count(b"HTTP/1.1 ") <= 1 or b"not-found" in two, two
    upgrade = f"GET {crewjobs(bed.a.namespace)}?watch=1&timeoutSeconds=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {account.token}\r\n"
    upgrade += "connection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    assert raw(gateway, upgrade.encode()).startswith(b"HTTP/1.1 200"), "a plain watch"


def test_a_page_of_another_site_can_send_nothing(bed, gateway, account):
    token, body = account.token, {"topic": "t"}
    for headers, problem in [
        ({"content_type": "text/plain"}, "unsupported-media-type"),
        ({"content_type": "application/x-www-form-urlencoded"}, "unsupported-media-type"),
        ({"sec_fetch_site": "cross-site"}, "cross-site"),
        ({"origin": "https://evil.example"}, "cross-site"),
        ({"origin": "null"}, "cross-site"),
    ]:
        for path in ("/api/submit", crewjobs(bed.a.namespace)):
            assert gateway.request("POST", path, token, body, **headers).problem == problem, headers
    assert gateway.request("POST", "/api/cancel/x", token, "", content_type="").problem == "unsupported-media-type"
    asked = gateway.request("OPTIONS", "/api/submit", origin="https://evil.example", access_control_request_method="POST")
    assert asked.status == 405 and not any(name.startswith("access-control") for name in asked.headers)
    own = gateway.request("POST", "/api/submit", token, body, origin=f"http://127.0.0.1:{gateway.port}", sec_fetch_site="same-origin")
    assert own.status == 202


def test_a_body_that_is_none_and_values_that_are_wrong_are_said_with_the_field(gateway, account):
    post = lambda body: gateway.request("POST", "/api/submit", account.token, body)  # noqa: E731
    for body in ("", "{", "[1]", '"x"', "{" * 100_000, b"\xff\xfe", '{"topic": "t", "inputs": ' + "[" * 5000 + "]" * 5000 + "}"):
        assert post(body).problem == "invalid-body"
    for body, pointer in [
        ({"topic": "t", "prio": 1}, "/prio"),
        ({"topic": "t", "namespace": "../kube-system"}, "/namespace"),
        ({"topic": "t", "labels": []}, "/labels"),
    ]:
        assert post(body).json["errors"][0]["pointer"] == pointer
    for body, pointer in [
        ({}, "/topic"),
        ({"topic": "t", "priority": 11}, "/priority"),
        ({"topic": "t", "priority": "high"}, "/priority"),
        ({"topic": "t", "retryPolicy": {"maxRetries": -1}}, "/retryPolicy/maxRetries"),
        ({"topic": "x" * 5000}, "/topic"),
    ]:
        refused = post(body)
        assert (refused.status, refused.problem) == (422, "invalid-job"), refused
        assert pointer in [error["pointer"] for error in refused.json["errors"]], refused.text


def test_an_api_server_that_does_not_answer_is_said_and_comes_back(bed, account, tmp_path):
    line = Line(bed.control_plane, tmp_path)
    gateway = Gateway(tmp_path, line.kubeconfig, bed.a.namespace)
    try:
        assert gateway.submit(account.token).status == 202
        line.reset()
        refused = gateway.submit(account.token)
        assert (refused.status, refused.problem) == (503, "api-server-unavailable") and refused.headers["retry-after"]
        assert gateway.request("GET", "/healthz").status == 200
        line.recover()
        until("it serves again", lambda: gateway.submit(account.token).status == 202)
    finally:
        gateway.stop()
        line.stop()


def test_options_that_do_not_fit_together_are_refused_at_the_start(bed):
    for options, word in [
        (["--mode", "forward", "--user-header", "X-User"], "--mode fixed"),
        (["--mode", "fixed", "--user-header", "X-User"], "--trusted-proxies"),
        (["--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.pem"], "/nowhere.pem"),
    ]:
        env = {"KUBECONFIG": str(bed.control_plane.kubeconfig)}
        done = subprocess.run([CREWJOB, "gateway", *options], env=env, capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and word in done.stderr, done.stderr
