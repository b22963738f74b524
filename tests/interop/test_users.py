"""What the chart's Redis users may do. All other tests of this folder run as these users: what they need is allowed."""

import pytest
from celery import chord, group
from conftest import PORT, is_unknown, refused, running, url
from redis import Redis
from redis.exceptions import NoPermissionError
from tasks import app

OF_THE_OPERATOR = (
    "crewjob:{4f5b}:epoch:crewjob/crewjob-operator",
    "crewjob:{4f5b}:team:6f1c",
    "crewjob:{4f5b}:team:6f1c:message",
    "crewjob:{",
)
# Each begins like those: queues of such names, what the guard and native workers keep, and a prefix before all of it.
OF_WORKERS = (
    *("crewjob:{"[:length] for length in range(1, 9)),
    *("crew_jobs", "crew_jobs\x06\x163", "crewjobs", "crewjob-lease:6f1c", "crewjob-reserved:a", "crewjob-outcome:b"),
    *("crewjob:quarantine", "crew-cache:a", "celery", "celery-task-meta-6f1c", "celery-taskset-meta-6f1c.j"),
    *("unacked", "_kombu.binding.celery", "default", "app1:default", "app1:crewjob:quarantine", "\xff"),
)
OF_ADMINISTRATORS = (
    *("FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG GET requirepass", "ACL LIST", "ACL SETUSER worker allkeys", "MONITOR"),
    *("CLIENT LIST", "CLIENT KILL TYPE normal", "SCRIPT FLUSH", "FUNCTION FLUSH", "SHUTDOWN NOSAVE", "SWAPDB 0 1"),
    *("REPLICAOF NO ONE", "SAVE", "MIGRATE 127.0.0.1 1 key 0 1"),
)


@pytest.fixture
def worker_user(server):
    # What is refused from here on is what these tests are about.
    assert refused(server) == set()
    client = Redis.from_url(url("worker"))
    yield client
    client.close()
    server.acl_log_reset()


@pytest.mark.parametrize("key", OF_THE_OPERATOR)
def test_a_worker_cannot_touch_the_fence_and_the_markers_of_the_operator(server, worker_user, key):
    server.set(key, "kept")
    worker_user.set("mine", "planted")
    for command in (
        ("SET", key, "planted"),
        ("GET", key),
        ("DEL", key),
        ("HSET", key, "epoch", 2147483646),
        ("RENAME", "mine", key),
        ("COPY", "mine", key),
        ("LMOVE", "mine", key, "LEFT", "LEFT"),
        ("EVAL", "return redis.call('SET', KEYS[1], 'planted')", 1, key),
        ("PEXPIRE", key, 1),
    ):
        with pytest.raises(NoPermissionError):
            worker_user.execute_command(*command)
    with pytest.raises(Exception, match="access (at least one of the keys|a key)"):
        worker_user.eval(f"return redis.call('SET', '{key}', 'planted')", 0)
    assert server.get(key) == b"kept"
    server.delete(key, "mine")


@pytest.mark.parametrize("key", OF_WORKERS)
def test_a_worker_may_use_every_other_key(server, worker_user, key):
    assert worker_user.set(key, "1") and worker_user.delete(key) == 1


@pytest.mark.parametrize("command", OF_ADMINISTRATORS)
def test_a_worker_has_no_command_that_reaches_beyond_its_keys(server, worker_user, command):
    if is_unknown(server, command.split()[0]):
        pytest.skip("an older server does not have it")
    with pytest.raises(NoPermissionError):
        worker_user.execute_command(*command.split())


def test_a_chord_and_a_nested_group_are_joined(server, tmp_path):
    server.flushall()
    with running("python", tmp_path, concurrency=2):
        joined = app.signature("echo")
        sums = [app.signature("total", (n, n)) for n in range(5)]
        assert chord(sums, joined).apply_async().get(timeout=30)["args"] == [[0, 2, 4, 6, 8]]
        nested = group(app.signature("total", (1, 1)), group(app.signature("total", (n,)) for n in (2, 3)))
        (found,) = chord([nested], joined).apply_async().get(timeout=30)["args"]
        assert sorted(found) == [2, 2, 3]
    assert Redis(port=PORT).keys("crewjob:{*") == []
