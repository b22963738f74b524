#!/usr/bin/env python3
"""Decodes envelopes the way a Celery worker does.

Reads one envelope per line from standard input, as it would lie in the Redis list, and prints one line of JSON for
each: the task name, id, args, kwargs, embed, headers and properties that Celery understood, or {"error": "..."}.
The exit status is 1 when any envelope was refused.
"""

import sys

import environment

environment.enter()

from backend.celery_app import app  # noqa: E402
from celery.worker.request import Request  # noqa: E402
from kombu import Connection  # noqa: E402
from kombu.serialization import loads as loads_body  # noqa: E402
from kombu.serialization import prepare_accept_content  # noqa: E402
from kombu.utils.json import dumps, loads  # noqa: E402


def accept(line: bytes, channel) -> dict:
    message = channel.message_to_python(loads(line))
    request = Request(message, app=app, hostname="crew@accepts", on_ack=None, on_reject=None)
    accepted = prepare_accept_content(app.conf.accept_content)
    args, kwargs, embed = loads_body(request.body, request.content_type, request.content_encoding, accept=accepted)
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
        raise TypeError(
            f"args must be an array and kwargs an object, not {type(args).__name__} and {type(kwargs).__name__}"
        )
    properties = message.properties
    return {
        "task": request.name,
        "registered": request.name in app.tasks,
        "id": request.id,
        "args": args,
        "kwargs": kwargs,
        "embed": embed,
        "eta": request.eta,
        "expires": request.expires,
        "time_limits": request.time_limits,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "headers": message.headers,
        "delivery_tag": message.delivery_tag,
        "delivery_info": message.delivery_info,
        "priority": properties.get("priority"),
        "correlation_id": request.correlation_id,
        "properties": properties,
    }


def main() -> int:
    app.loader.import_default_modules()
    refused = 0
    with Connection("memory://") as connection, connection.channel() as channel:
        for line in sys.stdin.buffer:
            if not line.strip():
                continue
            try:
                answer = accept(line, channel)
            except Exception as error:
                refused += 1
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(dumps(answer), flush=True)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
