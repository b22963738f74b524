"""Python and native workers side by side on one queue."""

import random
from collections import Counter

from conftest import eventually, start
from tasks import echo, fail, flaky, note

TASKS = 10_000


def test_ten_thousand_mixed_tasks_are_each_done_once_by_two_workers_of_either_kind(server, tmp_path):
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
    workers = [
        start(kind, tmp_path, concurrency=1, number=number) for kind in ("python", "native") for number in (1, 2)
    ]
    try:
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
