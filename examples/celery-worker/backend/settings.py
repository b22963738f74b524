"""Settings from the environment, with the defaults of a local setup."""

import os
import socket
import ssl
from pathlib import Path


def seconds(name: str, default: int) -> int:
    return whole_number(name, default, "a whole number of seconds")


def whole_number(name: str, default: int | None, what: str = "a whole number") -> int | None:
    text = os.environ.get(name)
    if not text:
        return default
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{name} must be {what}, not {text!r}")
    return int(text)


REDIS_URL = os.environ.get("REDIS_URL") or "redis://127.0.0.1:6379/0"
RESULT_BACKEND_URL = os.environ.get("RESULT_BACKEND_URL") or REDIS_URL
REDIS_CA_FILE = os.environ.get("REDIS_CA_FILE") or "/etc/crewjob/redis/ca.crt"
REDIS_CLIENT_CERT_FILE = os.environ.get("REDIS_CLIENT_CERT_FILE") or "/etc/crewjob/redis/client.crt"
REDIS_CLIENT_KEY_FILE = os.environ.get("REDIS_CLIENT_KEY_FILE") or "/etc/crewjob/redis/client.key"

# The name under which sentinels know the primary: a `sentinel://` URL has no place for it. User and password of the sentinels
# are not those of Redis, which are in the URL.
SENTINEL_MASTER = os.environ.get("REDIS_SENTINEL_MASTER") or None
SENTINEL_LOGIN = {
    option: value
    for option in ("username", "password")
    if (value := os.environ.get(f"REDIS_SENTINEL_{option.upper()}"))
}
SENTINEL_TLS = os.environ.get("REDIS_SENTINEL_TLS") == "true"

# `0` shows what Celery does without the guard.
GUARD = os.environ.get("CREWJOB_GUARD") != "0"
# Kombu reads without a time limit: a worker was seen that waited for ever for a reply that Redis was not going to send.
# And when the machine of Redis fails without closing connections, a worker has to notice that on each connection.
SOCKET_TIMEOUT = 10
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
SOCKETS = {
    "socket_timeout": SOCKET_TIMEOUT,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value for name, value in KEEPALIVE.items() if hasattr(socket, name)
    },
}

VISIBILITY_TIMEOUT = seconds("VISIBILITY_TIMEOUT", 3600)
RESULT_EXPIRES = seconds("RESULT_EXPIRES", 3600)
GLOBAL_KEYPREFIX = os.environ.get("GLOBAL_KEYPREFIX") or ""
RESULT_KEYPREFIX = os.environ.get("RESULT_KEYPREFIX", GLOBAL_KEYPREFIX)
PRIORITY_SEPARATOR = os.environ.get("PRIORITY_SEPARATOR") or "\x06\x16"
CONCURRENCY = whole_number("CELERY_CONCURRENCY", None)

RESULT_CACHE_TTL = seconds("RESULT_CACHE_TTL", 86_400)
RESULT_RETENTION = seconds("RESULT_RETENTION", 86_400)


def key_names() -> dict:
    """Returns kombu's options for what its keys are called."""
    names = {"global_keyprefix": GLOBAL_KEYPREFIX, "sep": PRIORITY_SEPARATOR}
    if steps := os.environ.get("PRIORITY_STEPS"):
        names["priority_steps"] = [int(step) for step in steps.split(",")]
    if unacked := os.environ.get("UNACKED_KEY"):
        names["unacked_key"] = unacked
        names["unacked_index_key"] = f"{unacked}_index"
        names["unacked_mutex_key"] = f"{unacked}_mutex"
    return names


def is_of_sentinels(url: str) -> bool:
    return url.startswith("sentinel://")


def sentinel(url: str) -> dict:
    """Returns kombu's and Celery's transport options for a URL of sentinels, and none for another one."""
    if not is_of_sentinels(url):
        return {}
    if not SENTINEL_MASTER:
        raise ValueError("REDIS_SENTINEL_MASTER must be the name under which the sentinels know the primary")
    return {"master_name": SENTINEL_MASTER, "sentinel_kwargs": sentinel_sockets()}


def sentinel_sockets() -> dict:
    """Returns how a connection to a sentinel is made."""
    encryption = {"ssl": True, **certificates()} if SENTINEL_TLS else {}
    return {"socket_timeout": 1, "socket_connect_timeout": 1, **SENTINEL_LOGIN, **encryption}


def tls(url: str) -> dict | None:
    """Returns the TLS options for a Redis URL, or None where it asks for none; one of sentinels does so by such an option."""
    if not url.startswith("rediss://") and not (is_of_sentinels(url) and "ssl_" in url):
        return None
    return certificates()


def certificates() -> dict:
    files = {"ssl_ca_certs": REDIS_CA_FILE, "ssl_certfile": REDIS_CLIENT_CERT_FILE, "ssl_keyfile": REDIS_CLIENT_KEY_FILE}
    there = {option: path for option, path in files.items() if Path(path).is_file()}
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, **there}
