"""Removes what Celery leaves behind in Redis."""

import json
from datetime import UTC, datetime, timedelta

from celery import current_app
from redis import Redis
from redis.exceptions import ResponseError, WatchError

from backend import settings
from backend.connection import broker_redis, result_redis

PREFIX = settings.GLOBAL_KEYPREFIX.encode()
SEPARATOR = settings.PRIORITY_SEPARATOR.encode()
REPLIES = PREFIX + b"*.reply.celery.pidbox"
REPLY_BINDINGS = PREFIX + b"_kombu.binding.reply.celery.pidbox"
REPLY_IDLE_SECONDS = 3600
SCAN_COUNT = 500


def clean(retention_seconds: float) -> dict:
    oldest = datetime.now(UTC) - timedelta(seconds=retention_seconds)
    return {**clean_results(result_redis(), oldest), **clean_replies(broker_redis())}


def clean_results(redis: Redis, oldest: datetime) -> dict:
    """Deletes finished results that have no expiry and are older than `oldest`."""
    scanned = deleted = 0
    results = current_app.backend.task_keyprefix + b"*"
    cursor = None
    while cursor != 0:
        cursor, keys = redis.scan(cursor or 0, match=results, count=SCAN_COUNT, _type="string")
        scanned += len(keys)
        with redis.pipeline(transaction=False) as batch:
            for key in keys:
                batch.ttl(key)
            lasting = [key for key, ttl in zip(keys, batch.execute(), strict=True) if ttl == -1]
        deleted += sum(delete_if_old(redis, key, oldest) for key in lasting)
    return {"results_scanned": scanned, "results_deleted": deleted}


def delete_if_old(redis: Redis, key: bytes, oldest: datetime) -> bool:
    with redis.pipeline() as transaction:
        try:
            transaction.watch(key)
            finished = finished_at(transaction.get(key))
            if finished is None or finished >= oldest or transaction.ttl(key) != -1:
                return False
            transaction.multi()
            transaction.delete(key)
            return bool(transaction.execute()[0])
        except WatchError:
            return False


def finished_at(document: bytes | None) -> datetime | None:
    """When a task ended, or None for a running one and for anything that is not a result."""
    try:
        finished = datetime.fromisoformat(json.loads(document or b"")["date_done"])
    except (ValueError, TypeError, KeyError):
        return None
    # Celery before 5.4 wrote UTC without saying so.
    return finished if finished.tzinfo else finished.replace(tzinfo=UTC)


def clean_replies(redis: Redis) -> dict:
    """Deletes replies to remote control calls that ended before they read them."""
    scanned = deleted = 0
    bindings = {PREFIX + member.rsplit(SEPARATOR, 1)[-1]: member for member in redis.smembers(REPLY_BINDINGS)}
    for key in redis.scan_iter(REPLIES, count=SCAN_COUNT, _type="list"):
        scanned += 1
        binding = bindings.get(key)
        if binding is not None and idle_seconds(redis, key) < REPLY_IDLE_SECONDS:
            continue
        with redis.pipeline(transaction=True) as transaction:
            transaction.delete(key)
            if binding is not None:
                transaction.srem(REPLY_BINDINGS, binding)
            deleted += transaction.execute()[0]
    return {"reply_lists_scanned": scanned, "reply_lists_deleted": deleted}


def idle_seconds(redis: Redis, key: bytes) -> int:
    try:
        return redis.object("idletime", key) or 0
    except ResponseError:
        # The server counts uses instead of idle time (an LFU policy): leave what has a reader.
        return 0
