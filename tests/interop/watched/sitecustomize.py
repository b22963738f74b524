"""Records in the file CONNECTIONS each address that a Python program connects to, and refuses all but this machine's.

Python imports it at its start wherever PYTHONPATH leads here.
"""

import os
import sys


def watch(event, arguments):
    if event not in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
        return
    address = arguments[:2] if event == "socket.getaddrinfo" else arguments[1]
    with open(os.environ["CONNECTIONS"], "a") as file:
        file.write(f"{address[0]}:{address[1]}\n" if isinstance(address, tuple) else f"{address}\n")
    if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "localhost", "::1"}:
        raise ConnectionRefusedError(f"{address} is not on this machine")


if "CONNECTIONS" in os.environ:
    sys.addaudithook(watch)
