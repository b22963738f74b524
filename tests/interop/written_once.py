#!/usr/bin/env python3
"""Functions that are tasks of both kinds of workers: of the native one by this program, of Celery's in `written_once_app`."""

import os
import subprocess
import time

import crewjob


class NoStock(Exception):
    pass


@crewjob.task(name="once.work", retry_for=ConnectionError)
def work(what, *, good_after=0):
    call = crewjob.current_call()
    print('{"result": "printed"}')
    os.write(1, b'{"result": "written"')
    subprocess.run(["echo", '{"error": "of a child"}'])
    crewjob.progress({"percent": 50})
    if what == "no stock":
        raise NoStock("0 left")
    if what == "a set":
        return {1, 2}
    if call.retries < good_after or what == "gone":
        raise ConnectionResetError("gone")
    return {
        "what": what,
        "id": call.id,
        "retries": call.retries,
        "key": call.idempotency_key,
        "job": call.job and [call.job.name, call.job.namespace, call.job.uid],
        "limits": [call.time_limit, call.soft_time_limit],
        "worker": call.worker,
    }


@crewjob.task(name="once.count")
def count():
    """Counts until it has to stop."""
    crewjob.progress({"percent": 50})
    number = 0
    try:
        while True:
            time.sleep(0.01)
            number += 1
    except crewjob.SoftTimeLimitExceeded:
        return {"complete": False, "counted": number > 0}


if __name__ == "__main__":
    crewjob.serve()
