"""The gateway's tools for agents, by a public client of the Model Context Protocol and by hand."""

import asyncio
import json

import httpx2
import pytest
from gateways import Gateway
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from test_gateway import writer  # noqa: F401

from waiting import until

ACCEPT = "application/json, text/event-stream"
TASKS = "io.modelcontextprotocol/tasks"


@pytest.fixture
def started(bed, tmp_path):
    gateways = []

    def start(*options: str) -> Gateway:
        gateways.append(Gateway(tmp_path, bed.control_plane.kubeconfig, bed.a.namespace, *options))
        return gateways[-1]

    yield start
    for gateway in gateways:
        gateway.stop()


def by_client(gateway: Gateway, token: str, act, mode: str = "auto"):
    """What comes of an action of the public client."""

    async def run():
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=60) as http:
            transport = streamable_http_client(f"http://127.0.0.1:{gateway.port}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                return await act(client)

    return asyncio.run(run())


def tools(gateway: Gateway, token: str, mode: str = "auto") -> list[str]:
    return [tool.name for tool in by_client(gateway, token, lambda client: client.list_tools(), mode).tools]


def call(gateway: Gateway, token: str, tool: str, arguments: dict, mode: str = "auto") -> tuple[bool, dict]:
    """Whether a tool has failed, and what it says."""
    result = by_client(gateway, token, lambda client: client.call_tool(tool, arguments), mode)
    return bool(result.is_error), result.structured_content


def message(gateway: Gateway, token: str | None, method: str, **params):
    """One message of the newest version, as a client sends it that knows tasks."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {TASKS: {}}},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": meta}}
    named = {"mcp_name": params["name"]} if "name" in params else {"mcp_name": params["taskId"]} if "taskId" in params else {}
    headers = {"accept": ACCEPT, "mcp_protocol_version": "2026-07-28", "mcp_method": method} | named
    return gateway.request("POST", "/mcp", token, body, **headers)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_agent_runs_follows_and_reads_a_job_with_a_public_client(bed, started, writer, crew_worker, mode):  # noqa: F811
    bed.a.pool(bed.redis)
    gateway = started("--mcp", "on")
    assert tools(gateway, writer.token, mode) == ["run_job", "get_job", "follow_job", "get_job_result", "cancel_job"]
    asked = {"topic": "Machine learning", "inputs": {"seconds": 0}, "idempotencyKey": "k-1"}
    failed, job = call(gateway, writer.token, "run_job", asked, mode)
    assert not failed and job["phase"] == "Pending", job
    assert call(gateway, writer.token, "run_job", asked, mode)[1]["uid"] == job["uid"]
    assert call(gateway, writer.token, "follow_job", {"id": job["id"], "seconds": 0}, mode)[1]["phase"] != "Succeeded"
    crew_worker()
    until("it has ended", lambda: call(gateway, writer.token, "follow_job", {"id": job["id"]}, mode)[1]["phase"] == "Succeeded")
    failed, result = call(gateway, writer.token, "get_job_result", {"id": job["id"]}, mode)
    assert not failed and result["id"] == job["id"] and "done for" in json.dumps(result["result"])


def test_what_is_wrong_is_the_error_of_the_tool_and_costs_nothing_else(bed, started, writer):  # noqa: F811
    gateway = started("--mcp", "on")
    for tool, arguments, problem in [
        ("run_job", {"inputs": {}}, "invalid-job"),
        ("run_job", {"topic": "t", "no": 1}, "invalid-body"),
        ("run_job", {"topic": "t", "idempotencyKey": "é"}, "invalid-idempotency-key"),
        ("get_job", {}, "invalid-body"),
        ("get_job", {"id": "../secrets"}, "invalid-body"),
        ("get_job", {"id": "kube-system.other"}, "forbidden"),
        ("get_job", {"id": "no-such-job"}, "no-such-job"),
        ("follow_job", {"id": "no-such-job", "seconds": 51}, "invalid-body"),
        ("follow_job", {"id": "no-such-job", "seconds": "long"}, "invalid-body"),
    ]:
        failed, said = call(gateway, writer.token, tool, arguments)
        assert failed and said["type"].endswith(f"/{problem}"), (tool, arguments, said)
    assert message(gateway, None, "tools/list").problem == "unauthenticated"
    for body in ("", "[]", "{", '{"jsonrpc": "2.0"}', "x" * 1_000_000):
        answered = gateway.request("POST", "/mcp", writer.token, body, accept=ACCEPT)
        assert 400 <= answered.status < 500, (body[:20], answered)
    assert gateway.request("GET", "/mcp", writer.token).problem == "method-not-allowed"
    assert message(gateway, writer.token, "tools/list").status == 200


def test_read_only_tools_change_nothing_and_without_the_option_there_are_none(bed, started, writer):  # noqa: F811
    gateway = started("--mcp", "read-only")
    assert tools(gateway, writer.token) == ["get_job", "follow_job", "get_job_result"]
    bed.a.job("there")
    for tool, arguments in [("run_job", {"topic": "t"}), ("cancel_job", {"id": "there"})]:
        answered = message(gateway, writer.token, "tools/call", name=tool, arguments=arguments).json
        assert "read-only" in answered["error"]["message"], answered
    answered = message(gateway, writer.token, "tasks/cancel", taskId="there").json
    assert "read-only" in answered["error"]["message"], answered
    assert not bed.a.get("crewjobs", "there")["spec"].get("cancel") and len(bed.a.items("crewjobs")) == 1
    assert message(started(), writer.token, "tools/list").problem == "not-found"


def test_a_job_is_a_task_that_every_replica_knows(bed, started, writer, crew_worker):  # noqa: F811
    bed.a.pool(bed.redis)
    crew_worker()
    one, other = started("--mcp", "on"), started("--mcp", "on")
    made = message(one, writer.token, "tools/call", name="run_job", arguments={"topic": "t", "inputs": {"seconds": 1}}).json["result"]
    assert made["status"] == "working", made
    one.kill()

    def task(which: str = made["taskId"]) -> dict:
        return message(other, writer.token, "tasks/get", taskId=which).json["result"]

    until("it is completed", lambda: task()["status"] == "completed")
    assert "done for" in json.dumps(task()["result"]["structuredContent"]["result"])
    bed.a.job("fails", inputs={"exits": 3}, retryPolicy={"maxRetries": 0})
    until("one that was made otherwise has failed", lambda: task("fails")["status"] == "completed")
    assert task("fails")["result"]["isError"]
    bed.a.job("long", inputs={"seconds": 60})
    assert "error" not in message(other, writer.token, "tasks/cancel", taskId="long").json
    until("it is cancelled", lambda: task("long")["status"] == "cancelled")
