"""`crewjob.serve()`: programs on pipes, without a worker."""

import json
import signal
import textwrap
import time

import pytest
from conftest import PATIENCE, a_call, ask

import crewjob

WORK = """
@crewjob.task
def work(value=None):
    return value
"""


def test_a_program_serves_one_call_after_the_other_until_its_input_ends(serve):
    ended = serve(WORK, a_call(1), a_call(value={"a": [None, "é"]}))
    assert (ended.status, ended.results) == (0, [1, {"a": [None, "é"]}])


def test_what_anything_prints_goes_to_the_log_and_no_answer_is_spoilt(serve):
    ended = serve(
        """
        import os, subprocess, sys
        os.write(1, b"loading, without an end of the line")
        print("loaded")

        @crewjob.task
        def work():
            print('{"result": "printed"}')
            os.write(1, b'{"result": "written"}')
            subprocess.run(["sh", "-c", "echo '{\\"result\\": \\"of a child\\"}'"])
            sys.__stdout__.write('{"result": "no line yet"')
            return "returned"
        """,
        a_call(),
        a_call(),
    )
    # What was printed before is a line of its own, or two.
    assert [json.loads(line) for line in ended.output.splitlines()[-2:]] == [{"result": "returned"}] * 2
    for what in ("printed", "written", "of a child", "no line yet"):
        assert what in ended.log


def test_calls_are_read_by_the_server_only(start):
    process = start(
        """
        import subprocess
        @crewjob.task
        def work():
            try:
                return input()
            except EOFError:
                return subprocess.run(["timeout", "5", "cat"]).returncode
        """
    )
    # Standard input stays open, as that of a worker does.
    assert [ask(process, a_call()) for _ in range(2)] == [{"result": 0}] * 2


def test_what_is_printed_is_logged_at_once(start):
    process = start("@crewjob.task\ndef work():\n    print('printed')\n")
    assert ask(process, a_call()) == {"result": None}
    process.kill()
    assert process.stderr.read() == "printed\n"


def test_an_exception_keeps_its_type_and_only_those_that_the_task_names_are_tried_again(serve):
    ended = serve(
        """
        import json, urllib.error

        class NoStock(Exception):
            pass

        class Ärger(TimeoutError):
            pass

        def local():
            class Inner(NoStock):
                pass
            return Inner

        FAILURES = [ValueError("no"), KeyError("ink"), ConnectionResetError("gone"), NoStock("0 left"),
                    Ärger("late"), json.JSONDecodeError("bad", "{", 1), urllib.error.URLError("down"), local()(),
                    ValueError("\\ud800")]

        @crewjob.task(retry_for=(ConnectionError, TimeoutError))
        def work(number):
            raise FAILURES[number]
        """,
        *(a_call(number) for number in range(9)),
    )
    named = [(line["error"]["type"], line["error"]["message"], line["retry"]) for line in ended.lines]
    assert named == [
        ("ValueError", "no", False),
        ("KeyError", "'ink'", False),
        ("ConnectionResetError", "gone", True),
        ("program.NoStock", "0 left", False),
        ("TimeoutError", "late", True),
        ("json.decoder.JSONDecodeError", "bad: line 1 column 2 (char 1)", False),
        ("urllib.error.URLError", "<urlopen error down>", False),
        ("program.Inner", "", False),
        ("ValueError", "\ud800", False),
    ]


def test_the_traceback_of_a_failure_is_that_of_the_task(serve):
    ended = serve("@crewjob.task\ndef work():\n    return deeper()\ndef deeper():\n    return 1 / 0\n", a_call())
    assert ended.log.startswith("Traceback (most recent call last):\n")
    assert "in deeper" in ended.log and ended.log.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "server.py" not in ended.log and "tasks.py" not in ended.log


def test_a_failure_without_end_is_answered_all_the_same(serve):
    ended = serve("@crewjob.task\ndef work():\n    raise ValueError('x' * (17 << 20))\n", a_call(), a_call())
    assert [line["error"]["type"] for line in ended.lines] == ["ValueError"] * 2
    assert all(len(line) < 16 << 20 for line in ended.output.splitlines())
    assert ended.log.count("ValueError: xxx") == 2 and len(ended.log) < 3 << 20


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        ("float('nan')", "InvalidResult", "Out of range float values are not JSON compliant"),
        ("{1, 2}", "InvalidResult", "Object of type set is not JSON serializable"),
        ("[{'__type__': 1, '__value__': 2}]", "InvalidResult", "reserved keys __type__ and __value__"),
        ("nested(257)", "InvalidResult", "nested deeper than 256 levels"),
        ("nested(100_000)", "InvalidResult", ""),
        ("'x' * (16 << 20)", "ResultTooLarge", "it has 16777218 bytes"),
    ],
)
def test_a_result_that_not_every_client_can_read_fails_its_call_only(serve, value, kind, reason):
    ended = serve(
        f"""
        def nested(levels):
            value = 1
            for _ in range(levels):
                value = [value]
            return value

        @crewjob.task
        def work(good):
            return nested(256) if good else {value}
        """,
        a_call(False),
        a_call(True),
    )
    refused, good = ended.lines
    assert refused["error"]["type"] == f"crewjob.worker.{kind}" and reason in refused["error"]["message"]
    assert refused["retry"] is False and json.dumps(good["result"]) == "[" * 256 + "1" + "]" * 256


def test_progress_comes_from_any_thread_of_the_call_and_never_after_its_end(serve):
    ended = serve(
        """
        import os, threading
        kept = []

        @crewjob.task
        def work():
            crewjob.progress({"percent": 0})
            thread = threading.Thread(target=crewjob.progress, args=["of a thread"])
            thread.start()
            thread.join()
            for call in kept:
                call.progress("of a call that is over")
            kept.append(crewjob.current_call())
            if os.fork() == 0:
                crewjob.progress("of a process of its own")
                os._exit(0)
            os.wait()
            crewjob.progress(float("inf"))
            return "done"

        crewjob.progress("without a call")
        """,
        a_call(),
        a_call(),
    )
    assert ended.lines == [{"progress": {"percent": 0}}, {"progress": "of a thread"}, {"result": "done"}] * 2
    assert ended.log.count("progress is not reported: it is no JSON") == 2


def test_a_task_knows_its_call(serve):
    asked = a_call() | {
        "job": {"name": "order-17", "namespace": "shop", "uid": "u-1"},
        "idempotency_key": "first",
        "retries": 2,
        "worker": "native@host",
        "time_limit": 60,
        "soft_time_limit": None,
    }
    program = """
    import dataclasses
    @crewjob.task
    def work():
        call = crewjob.current_call()
        job = call.job and dataclasses.asdict(call.job)
        return {name: getattr(call, name) for name in FIELDS} | {"job": job}
    """
    fields = [name for name in asked if name not in ("args", "kwargs")]
    program = f"FIELDS = {fields}\n" + textwrap.dedent(program)
    given, bare = serve(program, asked, a_call()).results
    assert given == {name: asked[name] for name in fields}
    assert (bare["job"], bare["idempotency_key"], bare["retries"]) == (None, "c0ffee", 0)


def test_one_task_serves_every_call_and_several_go_by_their_names(serve):
    assert serve(WORK, a_call(1, task="backend.tasks.run_crew_task")).results == [1]
    several = WORK + "\n@crewjob.task(name='shop.double')\ndef double(value):\n    return 2 * value\n"
    *results, unknown = serve(several, a_call(1), a_call(2, task="shop.double"), a_call(task="shop.ship")).lines
    assert results == [{"result": 1}, {"result": 4}]
    assert unknown["error"] == {
        "type": "celery.exceptions.NotRegistered",
        "message": "'shop.ship'; there are: program.work, shop.double",
    }


def test_a_program_may_choose_what_it_serves(serve):
    chosen = WORK + "\n@crewjob.task\ndef other():\n    return 'other'\ncrewjob.serve(other)\n"
    assert serve(chosen, a_call()).results == ["other"]


def test_a_coroutine_function_is_a_task(serve):
    program = "import asyncio\n@crewjob.task\nasync def work(value):\n    await asyncio.sleep(0)\n    return value\n"
    assert serve(program, a_call(1), a_call(2)).results == [1, 2]


def test_wrong_arguments_and_a_broken_line_are_failures(serve):
    ended = serve(WORK, a_call(1, 2), "{\n", a_call(3))
    kinds = [line["error"]["type"] for line in ended.lines[:2]]
    assert kinds == ["TypeError", "json.decoder.JSONDecodeError"] and ended.lines[2] == {"result": 3}


def test_a_task_that_exits_ends_the_program_with_its_status(serve):
    ended = serve("@crewjob.task\ndef work():\n    raise SystemExit(75)\n", a_call())
    assert (ended.status, ended.lines) == (75, [])


def test_a_program_without_a_task_says_so(serve):
    ended = serve("")
    assert ended.status == 1 and "decorate a function with crewjob.task" in ended.log


LONG = """
import time
@crewjob.task
def work(catch):
    done = 0
    try:
        crewjob.progress("begun")
        while True:
            time.sleep(0.01)
            done += 1
    except crewjob.SoftTimeLimitExceeded:
        if not catch:
            raise
        return {"partly": done >= 0}
"""


def ends_at_the_limit(process, catches):
    said = json.loads(process.stdout.readline())
    if catches:
        assert said == {"result": {"partly": True}}
    else:
        assert said["error"]["type"].endswith("SoftTimeLimitExceeded")
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("catches", [True, False])
def test_the_soft_limit_is_an_exception_after_which_the_program_ends(start, catches):
    process = start(LONG)
    assert ask(process, a_call(catches)) == {"progress": "begun"}
    process.send_signal(signal.SIGTERM)
    ends_at_the_limit(process, catches)


ASYNC = """
import asyncio
import time
def busy(seconds=2):
    crewjob.progress("begun")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
async def busy_task():
    busy()
@crewjob.task
async def work(where, catch):
    try:
        if where == "in the task":
            busy(30)
        elif where == "in a callback":
            asyncio.get_running_loop().call_soon(busy)
        elif where == "in another task":
            other = asyncio.create_task(busy_task())
        else:
            asyncio.get_running_loop().call_soon(crewjob.progress, "begun")
        await asyncio.sleep(30)
    except crewjob.SoftTimeLimitExceeded:
        if not catch:
            raise
        await asyncio.sleep(0.01)
        return {"partly": True}
"""


@pytest.mark.parametrize("catches", [True, False])
@pytest.mark.parametrize("where", ["in the task", "in a callback", "in another task", "while the loop waits"])
def test_the_soft_limit_is_raised_in_a_coroutine_wherever_the_signal_comes(start, where, catches):
    process = start(ASYNC)
    assert ask(process, a_call(where, catches)) == {"progress": "begun"}
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    ends_at_the_limit(process, catches)
    assert time.monotonic() - began < 15, "the limit does not wait for what runs"


def test_a_program_without_a_call_ends_at_once_when_it_is_told_to(start):
    process = start(WORK)
    assert ask(process, a_call(1)) == {"result": 1}
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def test_a_handler_of_the_programs_own_for_sigterm_stays(start):
    own = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    process = start(own + WORK)
    assert ask(process, a_call(1)) == {"result": 1}
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 7


def test_a_program_has_a_folder_asks_for_it_to_be_saved_and_reports_what_it_consumed(start, tmp_path):
    process = start(
        """
        @crewjob.task
        def work():
            (crewjob.state_dir() / "step").write_text("done")
            crewjob.checkpoint()
            crewjob.report_usage("m", input_tokens=3, cost_usd="0.5")
            crewjob.report_usage(requests=1)
            return 1
        """
    )
    said = [ask(process, a_call() | {"state_dir": str(tmp_path)})]
    said += [json.loads(next(line for line in process.stdout if line.strip())) for _ in range(3)]
    assert said == [
        {"checkpoint": True},
        {"usage": {"model": "m", "input_tokens": 3, "cost_usd": "0.5"}},
        {"usage": {"requests": 1}},
        {"result": 1},
    ]
    assert (tmp_path / "step").read_text() == "done"


def test_outside_a_call_there_is_no_folder_and_reports_do_nothing():
    assert crewjob.state_dir() is None
    crewjob.checkpoint()
    crewjob.report_usage("m", requests=1)
