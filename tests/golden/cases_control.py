"""What a worker answers to each command of remote control, errors included: control.json."""

import json
from pathlib import Path

import redis
from backend.celery_app import app
from backend.tasks import run_crew_task

from recorder import Tap, eventually, task_id, worker

NODE = "control@golden"
TASK = "backend.tasks.run_crew_task"

# Each in its turn: what one changes, the next one sees. `election` is left out: a lone worker stops at it.
REQUESTS = [
    ("ping", {}),
    ("ping", {"ignored": 1}),
    ("clock", {}),
    ("active", {"safe": False}),
    ("active", {"safe": True}),
    ("reserved", {}),
    ("scheduled", {}),
    ("query_task", {"ids": ["{busy}", "{held}", "nobody"]}),
    ("query_task", {"ids": "{busy}"}),
    ("query_task", {}),
    ("stats", {}),
    ("conf", {"with_defaults": False}),
    ("conf", {"with_defaults": True}),
    ("registered", {"taskinfoitems": []}),
    ("active_queues", {}),
    ("active_queues", {"x": 1}),
    ("report", {}),
    ("memsample", {}),
    ("revoke", {"task_id": []}),
    ("revoke", {"task_id": "a"}),
    ("revoke", {}),
    ("revoke", {"task_id": "a", "terminate": True}),
    ("revoke", {"task_id": ["b"], "terminate": True, "signal": "sigterm"}),
    ("revoke", {"task_id": "c", "terminate": True, "signal": "SIGNONE"}),
    ("terminate", {"task_id": "d", "signal": "KILL"}),
    ("terminate", {"task_id": "d"}),
    ("terminate", {}),
    ("revoked", {}),
    ("hello", {"from_node": "other@golden", "revoked": ["e"]}),
    ("hello", {"from_node": "other@golden", "revoked": {"f": [1.5, "f"]}}),
    ("hello", {"from_node": NODE, "revoked": []}),
    ("rate_limit", {"task_name": TASK, "rate_limit": "10/m"}),
    ("registered", {"taskinfoitems": []}),
    ("registered", {"taskinfoitems": ["exchange"]}),
    ("rate_limit", {"task_name": TASK, "rate_limit": 0}),
    ("rate_limit", {"task_name": TASK, "rate_limit": "fast"}),
    ("rate_limit", {"task_name": TASK, "rate_limit": "1/d"}),
    ("rate_limit", {"task_name": "none", "rate_limit": "1/s"}),
    ("rate_limit", {"task_name": TASK}),
    ("rate_limit", {}),
    ("time_limit", {"task_name": TASK, "hard": 120, "soft": 60}),
    ("time_limit", {"task_name": "none", "hard": 120}),
    ("disable_events", {}),
    ("disable_events", {}),
    ("enable_events", {}),
    ("enable_events", {}),
    ("enable_events", {"x": 1}),
    ("heartbeat", {}),
    ("pool_grow", {"n": 1}),
    ("pool_shrink", {"n": 1}),
    ("pool_shrink", {"n": 1}),
    ("pool_restart", {}),
    ("autoscale", {"max": 3, "min": 1}),
    ("add_consumer", {"queue": "extra", "exchange": None, "exchange_type": "direct", "routing_key": None}),
    ("add_consumer", {}),
    ("cancel_consumer", {"queue": "extra"}),
    ("no_such", {"x": 1}),
]


def record_control(client: redis.Redis, tap: Tap, target: Path) -> None:
    """Asks a worker of one process that is busy."""
    answers = []
    with worker(NODE, tap, "-c", "1"):
        held, busy = task_id("control-held"), task_id("control-busy")
        run_crew_task.apply_async(args=["held", {}], task_id=held, countdown=900)
        eventually("the held task is taken", lambda: client.hlen("unacked") == 1)
        run_crew_task.apply_async(args=["busy", {"mode": "sleep", "seconds": 120}], task_id=busy)
        tap.result(busy, "STARTED")
        ids = {"{busy}": busy, "{held}": held}
        for method, arguments in REQUESTS:
            text = json.dumps(arguments)
            for name, id in ids.items():
                text = text.replace(name, id)
            answers.append(ask(NODE, method, json.loads(text)))
        app.control.revoke([busy, held], terminate=True)
        tap.result(busy, "REVOKED")
    client.flushdb()
    lines = ",\n".join(json.dumps(answer) for answer in answers)
    (target / "control.json").write_text(f"[\n{lines}\n]\n")


def ask(node: str, method: str, arguments: dict) -> dict:
    replies = app.control.broadcast(method, arguments=arguments, destination=[node], reply=True, timeout=3, limit=1)
    return {"node": node, "method": method, "arguments": arguments, "reply": replies[0][node]}
