"""A primary, a replica and three sentinels that choose another primary when it is gone."""

import contextlib
from pathlib import Path

import redis

from servers import Redis, Sentinel
from waiting import until

MASTER = "mymaster"
PASSWORD = "p4ss of redis"
OF_SENTINELS = "p4ss of sentinels"


class Watched:
    """Two servers, of which one is the primary at a time, behind three sentinels."""

    def __init__(self, folder: Path):
        protected = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
        first = Redis(folder / "first", *protected, password=PASSWORD)
        second = Redis(folder / "second", *protected, "--replicaof", f"127.0.0.1 {first.port}", password=PASSWORD)
        self.servers = {server.port: server for server in (first, second)}
        self.sentinels = [Sentinel(folder / f"sentinel-{number}", first, MASTER, PASSWORD, OF_SENTINELS) for number in range(3)]
        quoted = PASSWORD.replace(" ", "%20")
        self.url = ";".join(f"sentinel://:{quoted}@127.0.0.1:{sentinel.port}/0" for sentinel in self.sentinels)
        until("the sentinels know each other and the replica", self.is_ready, 60)

    def environment(self) -> dict[str, str]:
        """What a Secret of a pool, or the environment of a worker, says besides the URL."""
        return {"REDIS_SENTINEL_MASTER": MASTER, "REDIS_SENTINEL_PASSWORD": OF_SENTINELS}

    def is_ready(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return all(
                sentinel.client.execute_command("SENTINEL", "CKQUORUM", MASTER)
                and sentinel.client.sentinel_master(MASTER)["num-other-sentinels"] == 2
                and [it["master-link-status"] for it in sentinel.client.sentinel_slaves(MASTER)] == ["ok"]
                for sentinel in self.sentinels
            )
        return False

    def primary(self) -> Redis:
        """What most sentinels take for the primary."""
        named = [int(sentinel.client.sentinel_get_master_addr_by_name(MASTER)[1]) for sentinel in self.sentinels]
        return self.servers[max(named, key=named.count)]

    def fail_over(self) -> None:
        """Has the sentinels make the replica the primary, and waits until they say that it is."""
        before = self.primary()
        self.sentinels[0].client.execute_command("SENTINEL", "FAILOVER", MASTER)
        until("another one is the primary", lambda: self.primary() is not before, 60)

    def kill_the_primary(self) -> Redis:
        """Kills it, and waits until another one is the primary."""
        before = self.primary()
        before.process.kill()
        before.process.wait()
        until("another one is the primary", lambda: self.primary() is not before, 60)
        return before

    def end(self) -> None:
        for server in (*self.sentinels, *self.servers.values()):
            server.stop()
