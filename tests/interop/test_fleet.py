"""Python and native workers side by side on one queue."""

import os
import random
from collections import Counter

from conftest import eventually, start
from tasks import echo, fail, flaky, note

# A multiple of 100.
TASKS = int(os.environ.get("INTEROP_TASKS") or 2000)


def test_mixed_tasks_are_each_done_once_by_two_workers_of_either_kind(server, tmp_path):
    server.flushall()
    notes = tmp_path / "notes"
    notes.touch()
    calls = []
    for number in range(TASKS):
        kind = number % 100
        if kind == 1:
            calls.append(flaky.s(1))
        elif kind == 2:
            calls.append(fail.s(f"number {number}"))
        elif kind == 3:
            calls.append(echo.s(number, text="\u00e9" * 50))
        else:
            calls.append(note.s(str(notes), number))
    random.Random(5).shuffle(calls)
    results = [call.apply_async(priority=random.Random(number).randrange(10)) for number, call in enumerate(calls)]
    workers = [start("python", tmp_path, concurrency=1, number=number) for number in (1, 2)]
    try:
        for worker in workers:
            # Before the native ones have done all of it.
            eventually(worker.answers, 30, f"an answer of {worker.node}")
        workers += [start("native", tmp_path, concurrency=1, number=number) for number in (1, 2)]
        eventually(lambda: all(result.ready() for result in results[-200:]), 240, "the end of the last tasks")
        eventually(lambda: sum(server.exists(f"celery-task-meta-{result.id}") for result in results) == TASKS, 60)
        eventually(lambda: all(result.ready() for result in results), 60, "the end of all tasks")
        eventually(lambda: server.hlen("unacked") == 0, 30, "the acknowledgements")
    finally:
        for worker in workers:
            worker.stop()
    wanted = sorted(int(call.args[1]) for call in calls if call.task == "note")
    assert sorted(map(int, notes.read_text().split())) == wanted, "each ran once"
    states = Counter((call.task, result.state) for call, result in zip(calls, results, strict=True))
    assert states == {
        ("note", "SUCCESS"): TASKS * 97 // 100,
        ("flaky", "SUCCESS"): TASKS // 100,
        ("fail", "FAILURE"): TASKS // 100,
        ("echo", "SUCCESS"): TASKS // 100,
    }
    served = Counter(result.worker.split("@")[0].rstrip("12") for result in results)
    print(dict(served))
    assert served["python"] > TASKS / 20 and served["native"] > TASKS / 20
    assert not server.keys("crewjob-lease:*")
