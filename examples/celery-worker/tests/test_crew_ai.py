"""The CrewAI crew against a server that speaks OpenAI's API."""

import asyncio
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from backend import crew, crew_ai

STRANGERS = []


def keep_to_this_machine(event, arguments):
    """Refuses what CrewAI would tell others of its users."""
    if event not in {"socket.connect", "socket.getaddrinfo"}:
        return
    address = arguments if event == "socket.getaddrinfo" else arguments[1]
    if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "localhost"}:
        STRANGERS.append(address[:2])
        raise ConnectionRefusedError(f"{address[0]} is not this machine")


sys.addaudithook(keep_to_this_machine)


@pytest.fixture
def endpoint(monkeypatch, tmp_path):
    """The requests that a model's endpoint received; it answers with `status`."""

    class Handler(BaseHTTPRequestHandler):
        status = 200
        requests = []

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.requests.append((self.path, body))
            message = {"role": "assistant", "content": '```json\n{"title": "Tides"}\n```'}
            answer = {
                "id": "answer",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
            text = json.dumps(answer if self.status == 200 else {"error": {"message": "busy"}}).encode()
            self.send_response(self.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("CREW_MODEL", "local-model")
    # CrewAI leaves files there.
    monkeypatch.setenv("HOME", str(tmp_path))
    yield Handler
    server.shutdown()
    server.server_close()
    assert STRANGERS == []


def test_a_configured_model_is_asked_by_all_three_agents(endpoint):
    reports = []
    chosen = crew.configured()
    assert chosen.name == "crewai:local-model"

    async def run():
        output = await chosen.run({"topic": "Tides", "level": "school"}, lambda *report: reports.append(report), 0)
        await asyncio.sleep(0)
        return output

    output = asyncio.run(run())
    assert output == {"text": '```json\n{"title": "Tides"}\n```', "offline": False, "model": "local-model"}
    assert reports == [(0, "researcher: at work"), (33, "writer: at work"), (66, "editor: at work")]
    prompts = [json.dumps(body["messages"]) for _, body in endpoint.requests]
    assert len(prompts) == 3
    assert all("Tides" in prompt and "level: school" in prompt for prompt in prompts)
    assert {body["model"] for _, body in endpoint.requests} == {"local-model"}


def test_an_endpoint_that_is_down_is_a_transient_error(endpoint):
    endpoint.status = 503
    with pytest.raises(ConnectionError):
        asyncio.run(crew_ai.run({"topic": "Tides"}, lambda *_: None, 0))


def test_a_model_without_crewai_fails_and_names_the_package_to_install(monkeypatch):
    monkeypatch.setenv("CREW_MODEL", "local-model")
    monkeypatch.setitem(sys.modules, "crewai", None)
    with pytest.raises(RuntimeError, match="pip install -r requirements-crewai.txt"):
        asyncio.run(crew_ai.run({"topic": "Tides"}, lambda *_: None, 0))
