"""Redis clients, one per process and server."""

from functools import cache
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.sentinel import Sentinel

from backend import settings


def broker_redis() -> Redis:
    return connect(settings.REDIS_URL)


def result_redis() -> Redis:
    return connect(settings.RESULT_BACKEND_URL)


@cache
def connect(url: str) -> Redis:
    encryption = settings.tls(url) or {}
    if not settings.is_of_sentinels(url):
        return Redis.from_url(url, decode_responses=False, **settings.SOCKETS, **encryption)
    # As Celery reads it: user, password and database are those of the first part.
    parts = [urlsplit(part) for part in url.split(";")]
    first = parts[0]
    login = {"username": first.username, "password": first.password}
    login = {option: unquote(value) for option, value in login.items() if value}
    sentinels = Sentinel(
        [(part.hostname, part.port or 26379) for part in parts],
        sentinel_kwargs=settings.sentinel_sockets(),
        db=int(first.path.strip("/") or 0),
        **({"ssl": True} if encryption else {}),
        **settings.SOCKETS,
        **encryption,
        **login,
    )
    return sentinels.master_for(settings.SENTINEL_MASTER)
