"""A job's events as they happen, on streams that come to an end and are bounded."""

import asyncio
import resource
import time

import pytest
from gateways import JOBS, Account, Events, Gateway

from waiting import until


@pytest.fixture(scope="module")
def account(bed):
    return Account(bed.a, "follower", JOBS)


@pytest.fixture(scope="module")
def gateway(bed):
    gateway = Gateway(bed.folder, bed.control_plane.kubeconfig, bed.a.namespace, "--rate-limit", "off")
    yield gateway
    gateway.stop()


def queued(bed, name: str) -> str:
    """A job that waits for a worker: its task."""
    bed.a.pool(bed.redis)
    bed.a.job(name)
    bed.a.in_phase(name, "Queued")
    return bed.a.task(name)


def test_phases_progress_and_the_end_arrive_as_they_happen_and_then_the_stream_ends(bed, gateway, account):
    task = queued(bed, "followed")
    events = iter(Events(gateway, account.token, "followed"))
    name, _, data = next(events)
    assert (name, data["phase"]) == ("phase", "Queued")
    message = bed.redis.take(task)
    bed.redis.store(task, "STARTED", {"pid": 1}, worker="crew@x")
    bed.redis.event("task-started", "crew@x", uuid=task)
    next(event for event in events if event[2].get("phase") == "Running")
    bed.redis.store(task, "PROGRESS", {"percent": 40, "message": "reads"})
    told = next(event for event in events if event[0] == "progress")
    assert (told[2]["percent"], told[2]["message"]) == (40, "reads")
    bed.redis.acknowledge(message)
    bed.redis.store(task, "SUCCESS", "fine")
    last = list(events)[-1]
    assert (last[0], last[2]["phase"]) == ("end", "Succeeded") and last[2]["links"]["result"].endswith("followed")
    again = Events(gateway, account.token, "followed", last[1])
    assert again.answer.status == 204, "a browser that has had the end is told not to come again"
    late = list(Events(gateway, account.token, "followed"))
    assert [event[0] for event in late] == ["end"]


def test_a_follower_that_comes_again_hears_what_it_has_missed_and_nothing_twice(bed, gateway, account):
    queued(bed, "left")
    first = Events(gateway, account.token, "left")
    told = next(iter(first))
    first.close()
    second = iter(Events(gateway, account.token, "left", told[1]))
    bed.a.change("left", cancel=True)
    heard = list(second)
    assert heard[-1][0] == "end" and told[2] not in [data for _, _, data in heard], "it knew the phase"
    third = list(Events(gateway, account.token, "left", told[1]))
    assert [(name, data["phase"]) for name, _, data in third] == [("end", "Cancelled")]


def test_the_end_of_a_job_that_is_deleted_is_told(bed, gateway, account):
    bed.a.job("gone")
    events = iter(Events(gateway, account.token, "gone"))
    next(events)
    bed.a.delete("crewjobs", "gone")
    told = list(events)
    assert (told[-1][0], told[-1][2]["reason"]) == ("end", "Deleted")


def test_what_is_wrong_from_the_start_is_an_answer_and_no_stream(bed, gateway, account):
    for path, token, problem in [
        ("/api/events/none", account.token, "no-such-job"),
        (f"/api/events/{bed.b.namespace}.none", account.token, "forbidden"),
        ("/api/events/none", None, "unauthenticated"),
    ]:
        assert gateway.request("GET", path, token).problem == problem


def test_a_stream_ends_when_its_gateway_stops_and_goes_on_at_another_one(bed, account, tmp_path):
    gateways = [Gateway(tmp_path, bed.control_plane.kubeconfig, bed.a.namespace) for _ in range(2)]
    try:
        queued(bed, "moved")
        events = iter(Events(gateways[0], account.token, "moved"))
        _, last, _ = next(events)
        gateways[0].process.terminate()
        assert list(events) == [] and gateways[0].process.wait(10) == 0
        events = Events(gateways[1], account.token, "moved", last)
        bed.a.delete("crewjobs", "moved")
        assert list(events)[-1][0] == "end"
    finally:
        for gateway in gateways:
            gateway.stop()


def test_one_caller_has_so_many_streams_and_leaves_room_for_others(bed, account, tmp_path):
    other = Account(bed.a, "other-follower", JOBS)
    options = ["--max-streams", "5", "--max-streams-per-caller", "3"]
    gateway = Gateway(tmp_path, bed.control_plane.kubeconfig, bed.a.namespace, *options)
    try:
        bed.a.job("watched")
        streams = [Events(gateway, account.token, "watched") for _ in range(3)]
        assert all(stream.answer.status == 200 for stream in streams)
        refused = gateway.request("GET", "/api/events/watched", account.token)
        assert (refused.status, refused.problem) == (503, "too-many-streams") and int(refused.headers["retry-after"]) > 0
        watch = f"/apis/crewjob.dev/v1alpha1/namespaces/{bed.a.namespace}/crewjobs?watch=1"
        assert gateway.request("GET", watch, account.token).problem == "too-many-streams", "a watch is a stream"
        others = [Events(gateway, other.token, "watched") for _ in range(2)]
        assert gateway.request("GET", "/api/events/watched", other.token).problem == "too-many-streams", "of all"
        for stream in streams + others:
            stream.close()
        until("they are given back", lambda: gateway.metric("crewjob_gateway_streams") == 0)
        assert Events(gateway, account.token, "watched").answer.status == 200
    finally:
        gateway.stop()


@pytest.mark.alone
def test_10_000_streams_of_one_caller_are_refused_beyond_its_own_and_all_else_goes_on(bed, gateway, account):
    # Each is a file here, and one at the gateway.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    other = Account(bed.a, "neighbour", JOBS)
    bed.a.job("crowded")
    try:
        asyncio.run(crowd(gateway, account, other))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until("all are given back", lambda: gateway.metric("crewjob_gateway_streams") == 0, 60)
    assert gateway.request("GET", "/api/status/crowded", account.token).status == 200


async def crowd(gateway: Gateway, account: Account, other: Account) -> None:
    slots, open_, refused = asyncio.Semaphore(100), [], []

    async def opens() -> None:
        async with slots:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            request = f"GET /api/events/crowded HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {account.token}\r\n\r\n"
            writer.write(request.encode())
            line = await asyncio.wait_for(reader.readline(), 60)
            if line.startswith(b"HTTP/1.1 200"):
                open_.append(writer)
            else:
                assert line.startswith(b"HTTP/1.1 503"), line
                assert b"problem+json" in await reader.read(300)
                refused.append(line)
                writer.close()

    await asyncio.gather(*(opens() for _ in range(10_000)))
    assert (len(open_), len(refused)) == (1024, 8976)
    began = time.monotonic()
    answer = await asyncio.to_thread(gateway.submit, other.token)
    assert answer.status == 202 and time.monotonic() - began < 5, "another caller is served meanwhile"
    for writer in open_:
        writer.close()
