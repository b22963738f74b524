#!/usr/bin/env python3
"""Records what Celery really writes to Redis, one file per case, with an index.json that says what each file is.

Needs Python 3.11 or later, `redis-server` on the PATH and, the first time, a package index for pip. It starts its
own redis-server and its own workers, and takes about a minute. Ids chosen here are fixed; tags, times and process ids
differ from run to run: tests decode these files and encode them again, and do not compare them with a new recording.

With `follow` only follow/ and control.json are recorded, and the rest stays.
"""

import os
import re
import shutil
import sys

import environment
from environment import HERE, WORK

if "CREWJOB_GOLDEN_ENVIRONMENT" not in os.environ:
    # Tracebacks carry file names: record in a neutral place, not in this checkout or in a home directory.
    if shutil.which("redis-server") is None:
        sys.exit(
            "redis-server is not on the PATH; install it (Debian: apt-get install redis-server) and run this again"
        )
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    shutil.copytree(HERE / "app", WORK / "app")
    (WORK / "venv").symlink_to(environment.directory())
    environment.enter(app=WORK / "app", prefix=WORK / "venv")

import celery  # noqa: E402
import kombu  # noqa: E402
import redis  # noqa: E402

from recorder import Recording, Tap, redis_server, say  # noqa: E402

TARGET = HERE / f"celery-{'.'.join(celery.__version__.split('.')[:2])}"


def main() -> None:
    only = ["follow", "control.json"] if sys.argv[1:] == ["follow"] else None
    staging = WORK / "recorded"
    staging.mkdir()
    recording = Recording(staging)
    with redis_server() as (client, url):
        os.environ["REDIS_URL"] = url
        # The application takes the server's address when it is imported.
        import cases_control
        import cases_envelopes
        import cases_follow
        import cases_workers

        tap = Tap(client)
        if not only:
            say("envelopes that producers push")
            cases_envelopes.record_envelopes(client, recording)
            cases_workers.record_runs(client, tap, recording)
            say("workers of other configurations")
            cases_workers.record_other_workers(client, tap, recording)
            client.flushdb()
        say("what follows a task, and what remote control answers")
        cases_follow.record_follow(client, tap, staging)
        cases_control.record_control(client, tap, staging)
        if only:
            return replace(staging, only)
        info = client.info("server")
    recording.finish(
        {
            "celery": celery.__version__,
            "kombu": kombu.__version__,
            "redis-py": redis.__version__,
            "redis-server": info["redis_version"],
            "python": sys.version.split()[0],
        }
    )
    shutil.rmtree(TARGET, ignore_errors=True)
    replace(staging, [path.name for path in staging.iterdir()])


def replace(staging, parts: list[str]) -> None:
    private = re.compile(rb"/home/|/root/")
    leaks = [path for path in staging.rglob("*") if path.is_file() and private.search(path.read_bytes())]
    if leaks:
        raise ValueError(
            f"{leaks[0]} names a home directory; record with a neutral temporary directory (TMPDIR)"
        )
    TARGET.mkdir(exist_ok=True)
    for part in parts:
        old, new = TARGET / part, staging / part
        if old.is_dir():
            shutil.rmtree(old)
        shutil.copytree(new, old) if new.is_dir() else shutil.copy(new, old)
    say(f"{len([path for path in staging.rglob('*') if path.is_file()])} files in {os.path.relpath(TARGET)}")
    shutil.rmtree(WORK)


if __name__ == "__main__":
    main()
    # Without Celery's finalizers: they unsubscribe from a server that has gone, and wait for it.
    sys.stdout.flush()
    os._exit(0)
