"""Redis clients, one per process and server."""

from functools import cache

from redis import Redis

from backend import settings


def broker_redis() -> Redis:
    return connect(settings.REDIS_URL)


def result_redis() -> Redis:
    return connect(settings.RESULT_BACKEND_URL)


@cache
def connect(url: str) -> Redis:
    return Redis.from_url(
        url, decode_responses=False, socket_connect_timeout=5, socket_timeout=30, **(settings.tls(url) or {})
    )
