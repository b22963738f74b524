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
    return Redis.from_url(url, decode_responses=False, **settings.SOCKETS, **(settings.tls(url) or {}))
