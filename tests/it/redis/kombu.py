"""Takes messages as a worker's kombu does, goes away without acknowledging them, and publishes one by exchange.

Usage: kombu.py URL TRANSPORT_OPTIONS COUNT. Prints one JSON line: the task ids in the order in which they came.
"""

import json
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "golden"))
sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]  # this file is not the package

import environment  # noqa: E402

environment.enter()

from kombu import Connection, Consumer, Exchange, Producer, Queue  # noqa: E402

url, options, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
queues = [
    Queue("crew_jobs", Exchange("crew_jobs"), routing_key="crew.jobs"),
    Queue("default", Exchange("default"), routing_key="default"),
]
taken = []

with Connection(url, transport_options=options) as connection:
    with Consumer(connection, queues, callbacks=[lambda _, message: taken.append(message)], accept=["json"], prefetch_count=count):
        while len(taken) < count:
            try:
                connection.drain_events(timeout=20)
            except socket.timeout:
                break
    print(json.dumps([message.headers["id"] for message in taken]), flush=True)

with Connection(url, transport_options=options) as connection:
    Producer(connection).publish([], exchange="crew_jobs", routing_key="crew.jobs", headers={"id": "by-exchange", "task": "t"})
