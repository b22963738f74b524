"""Passwords that change while everything runs: neither the operator nor a native worker is started again."""

import shlex

import pytest

from fixtures import starts
from servers import CrewWorker, Redis
from waiting import until

USER = "crew"


@pytest.fixture
def server(tmp_path):
    server = Redis(tmp_path / "redis")
    server.client.execute_command("ACL", "SETUSER", USER, "on", "~*", "&*", "+@all", ">first-p4ss")
    yield server
    server.stop()


@pytest.fixture
def worker(server, tmp_path):
    """Starts a native worker that is told in this way how to get in."""
    yield from starts(lambda **env: CrewWorker(tmp_path / "worker", "", "crew@first", "-c", "4", **env))


def url(server: Redis, password: str) -> str:
    return f"redis://{USER}:{password}@127.0.0.1:{server.port}/0"


def rotated(server: Redis, old: str) -> None:
    """The old password is no longer valid, and all connections are made again."""
    server.client.execute_command("ACL", "SETUSER", USER, f"<{old}")
    server.client.execute_command("CLIENT", "KILL", "USER", USER)


def no_secret_is_told(bed, worker, *passwords: str) -> None:
    told = worker.log.read_text() + bed.operator.log.read_text() + str(bed.a.pool_status())
    assert not [password for password in passwords if password in told]


def test_a_password_is_rotated_in_the_secret_and_in_a_file_with_no_restart_and_no_job_noticing(bed, server, worker, tmp_path):
    file = tmp_path / "url"
    file.write_text(url(server, "first-p4ss") + "\n")
    bed.a.secret("redis-default", REDIS_URL=url(server, "first-p4ss"))
    bed.a.pool_with("redis-default", "default")
    running = worker(redis_url_file=str(file))
    bed.a.job("before")
    bed.a.in_phase("before", "Succeeded")
    bed.a.job("during", inputs={"seconds": 25})
    bed.a.in_phase("during", "Running")

    # Both are valid for a while.
    server.client.execute_command("ACL", "SETUSER", USER, ">second-p4ss")
    file.write_text(url(server, "second-p4ss"))
    bed.a.secret("redis-default", REDIS_URL=url(server, "second-p4ss"))
    version = bed.a.get("secrets", "redis-default")["metadata"]["resourceVersion"]
    until("the operator has read it", lambda: bed.a.pool_status()["redis"]["secretVersion"] == version, 60)
    rotated(server, "first-p4ss")

    bed.a.job("after")
    bed.a.in_phase("after", "Succeeded")
    ended = [bed.a.in_phase(name, "Succeeded", seconds=60) for name in ("before", "during", "after")]
    assert [(it["attempts"], it.get("messageLosses", 0), it.get("workerLosses", 0)) for it in ended] == [(1, 0, 0)] * 3
    assert running.process.poll() is None and "moves to another Redis" not in bed.operator.log.read_text()
    no_secret_is_told(bed, running, "first-p4ss", "second-p4ss")


def test_a_password_that_is_replaced_at_once_keeps_both_out_until_they_are_told_the_new_one(bed, server, worker, tmp_path):
    file = tmp_path / "url"
    file.write_text(url(server, "first-p4ss"))
    bed.a.secret("redis-default", REDIS_URL=url(server, "first-p4ss"))
    bed.a.pool_with("redis-default", "default")
    running = worker(redis_url_file=str(file))
    bed.a.job("before")
    bed.a.in_phase("before", "Succeeded")
    server.client.execute_command("ACL", "SETUSER", USER, ">second-p4ss")
    rotated(server, "first-p4ss")
    until("the pool says so", lambda: bed.a.pool_condition("BrokerReachable")["reason"] == "BrokerAuthenticationFailed")
    bed.a.job("meanwhile")
    file.write_text(url(server, "second-p4ss"))
    bed.a.secret("redis-default", REDIS_URL=url(server, "second-p4ss"))
    bed.a.in_phase("meanwhile", "Succeeded", seconds=60)
    assert running.process.poll() is None
    no_secret_is_told(bed, running, "first-p4ss", "second-p4ss")


def test_a_command_is_asked_for_a_token_whenever_a_connection_is_made(bed, server, worker, tmp_path):
    bed.a.secret("redis-default", REDIS_URL=url(server, "first-p4ss"))
    bed.a.pool_with("redis-default", "default")
    token = tmp_path / "token"
    token.write_text("first-p4ss")
    command = f"""printf '{{"username": "{USER}", "password": "%s"}}' "$(cat {shlex.quote(str(token))})" """
    running = worker(redis_url=f"redis://127.0.0.1:{server.port}/0", redis_credentials_command=command)
    bed.a.job("before")
    bed.a.in_phase("before", "Succeeded")
    server.client.execute_command("ACL", "SETUSER", USER, ">second-p4ss")
    token.write_text("second-p4ss")
    bed.a.secret("redis-default", REDIS_URL=url(server, "second-p4ss"))
    version = bed.a.get("secrets", "redis-default")["metadata"]["resourceVersion"]
    until("the operator has read it", lambda: bed.a.pool_status()["redis"]["secretVersion"] == version, 60)
    rotated(server, "first-p4ss")
    bed.a.job("after")
    bed.a.in_phase("after", "Succeeded")
    assert running.process.poll() is None
    no_secret_is_told(bed, running, "first-p4ss", "second-p4ss")


def test_a_worker_whose_command_fails_ends_at_its_start_and_says_why(server, worker):
    failing = worker(redis_url=f"redis://127.0.0.1:{server.port}/0", redis_credentials_command="echo s3cret; echo 'no role' >&2; exit 3")
    assert failing.process.wait(30) != 0
    told = failing.log.read_text()
    assert "REDIS_CREDENTIALS_COMMAND" in told and "no role" in told and "s3cret" not in told
