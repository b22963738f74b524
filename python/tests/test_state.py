"""The state of a job as Celery workers keep it, without a worker: the archive, and which run may save it."""

import io
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from crewjob import SoftTimeLimitExceeded
from crewjob import state as states

redis = pytest.importorskip("redis")


@pytest.fixture(scope="module")
def server():
    """A Redis of its own, where there is one on this machine."""
    if not shutil.which("redis-server"):
        pytest.skip("there is no redis-server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        client = redis.Redis(port=port)
        deadline = time.monotonic() + 30
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield client
        process.kill()
        process.wait()


@pytest.fixture
def run(server):
    """Begins a run of a job."""
    server.flushall()
    begun = []

    def begin(name="run", job="job", version="v1"):
        warnings = []
        state = states.State(server, "app:", job, name, version, warnings.append)
        state.warnings = warnings
        begun.append(state)
        return state

    yield begin
    for state in begun:
        state.close()


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_run_finds_the_files_of_the_last_one_with_their_times(run):
    first = run("first")
    (first.folder / "deep").mkdir()
    (first.folder / "deep" / "a").write_text("a")
    (first.folder / "b").write_text("b")
    (first.folder / "b").chmod(0o755)
    os.utime(first.folder / "b", ns=(1, 1_700_000_000_123_456_789))
    first.save()
    second = run("second")
    second.open()
    assert files(second.folder) == {"deep/a": "a", "b": "b"} and second.resumed
    about = (second.folder / "b").stat()
    assert (about.st_mtime_ns, about.st_mode & 0o777) == (1_700_000_000_123_456_789, 0o700)
    assert second.report()["resumed"] and second.report()["bytes"] > 0
    assert states.inventory(second.folder) == states.inventory(first.folder)


def test_a_run_that_was_taken_for_dead_does_not_replace_what_a_later_one_saves(run, server):
    first, second = run("first"), run("second")
    (first.folder / "a").write_text("early")
    first.save()
    second.open()
    (first.folder / "a").write_text("late")
    first.save()
    assert "a later run of the job has begun" in first.warnings[0]
    first.drop()
    third = run("third")
    third.open()
    assert files(third.folder) == {"a": "early"}
    third.drop()
    assert server.keys() == []


def test_a_job_that_saves_nothing_leaves_nothing(run, server):
    state = run()
    state.save()
    state.drop()
    assert server.keys() == [] and state.report() == {}


def test_a_run_begins_anew_or_with_the_state_of_another_job(run):
    old = run(job="old")
    (old.folder / "a").write_text("old")
    old.save()
    other = run("other", "new")
    other.open("old")
    assert files(other.folder) == {"a": "old"}
    anew = run("anew", "old")
    anew.open(anew=True)
    assert files(anew.folder) == {}


def test_another_version_and_what_is_no_archive_are_said_and_not_used(run, server):
    old = run()
    (old.folder / "a").write_text("old")
    old.save()
    other = run("other", version="v2")
    other.open()
    assert "another version" in other.report()["problem"] and files(other.folder) == {}
    server.hset("app:crewjob-state:job", mapping={"archive": b"none", "version": "v1", "saved": 1})
    broken = run("broken")
    broken.open()
    assert "reading the state failed" in broken.report()["problem"] and files(broken.folder) == {}
    (broken.folder / "b").write_text("its own")
    broken.save()
    assert "reading the state failed" in broken.report()["problem"], "saving mends nothing of that"


def test_links_pipes_and_devices_are_left_out_and_not_waited_for(run):
    state = run()
    (state.folder / "file").write_text("x")
    (state.folder / "link").symlink_to("/etc/hostname")
    (state.folder / "folder").symlink_to("/etc")
    os.mkfifo(state.folder / "pipe")
    state.save()
    after = run("after")
    after.open()
    assert [path.name for path in after.folder.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../outside", tarfile.REGTYPE, ""),
        ("/tmp/outside", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "/etc"),
        ("hard", tarfile.LNKTYPE, "/etc/hostname"),
        ("pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_an_archive_with_anything_but_files_inside_is_refused(tmp_path, name, kind, link):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        archive.addfile(member)
    with pytest.raises(states.StateError, match="no plain file or folder inside"):
        states.unpack(out.getvalue(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_is_too_large_is_not_saved_and_the_last_one_stays(run, monkeypatch):
    monkeypatch.setattr(states, "LIMIT", 1000)
    state = run()
    (state.folder / "a").write_text("small")
    state.save()
    (state.folder / "b").write_bytes(os.urandom(2000))
    state.save()
    assert "more than 1000 bytes" in state.report()["problem"]
    after = run("after")
    after.open()
    assert files(after.folder) == {"a": "small"}


def test_a_file_that_changes_while_it_is_copied_gives_no_archive(tmp_path):
    file = tmp_path / "file"
    file.write_text("0123456789")
    now = states.inventory(tmp_path)
    file.write_text("01")
    assert states.pack(tmp_path, now) is None


def test_a_redis_that_does_not_answer_fails_no_run(run):
    warnings = []
    state = states.State(redis.Redis(port=1), "", "job", "run", "v1", warnings.append)
    state.open()
    (state.folder / "a").write_text("a")
    state.save()
    state.drop()
    state.close()
    assert len(warnings) == 3


@pytest.mark.parametrize("act", ["open", "save", "drop"])
def test_the_soft_limit_goes_through_whatever_is_done_with_a_state(run, monkeypatch, act):
    state = run()
    (state.folder / "a").write_text("a")
    state.save()
    (state.folder / "a").write_text("another")

    def limited(*_):
        raise SoftTimeLimitExceeded()

    monkeypatch.setattr(state, "_redis", type("Limited", (), {"eval": limited})())
    with pytest.raises(SoftTimeLimitExceeded):
        getattr(state, act)()
