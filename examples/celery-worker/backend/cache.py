"""What the crew wrote for the same inputs before."""

import hashlib
import json

from celery.utils.log import get_task_logger
from redis.exceptions import RedisError

from backend import settings
from backend.connection import result_redis

logger = get_task_logger(__name__)


class ResultCache:
    """Outputs in Redis, by the crew that wrote them and the SHA-256 of their inputs.

    A cache that cannot be reached is an empty one: the crew then runs.
    """

    def __init__(self, crew: str, ttl: int = settings.RESULT_CACHE_TTL):
        self.crew = crew
        self.ttl = ttl

    def key(self, inputs: dict) -> str:
        canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
        return f"crew-cache:{self.crew}:{hashlib.sha256(canonical.encode()).hexdigest()}"

    def get(self, inputs: dict) -> dict | None:
        if self.ttl == 0:
            return None
        try:
            text = result_redis().get(self.key(inputs))
        except RedisError as error:
            logger.warning("the result cache is not read: %s", error)
            return None
        if text is None:
            return None
        try:
            output = json.loads(text)
        except ValueError:
            output = None
        if not isinstance(output, dict) or not isinstance(output.get("text"), str):
            logger.warning("the result cache holds something else under %s", self.key(inputs))
            return None
        return output

    def put(self, inputs: dict, output: dict) -> None:
        if self.ttl == 0:
            return
        try:
            result_redis().set(self.key(inputs), json.dumps(output), ex=self.ttl)
        except RedisError as error:
            logger.warning("the result cache is not written: %s", error)
