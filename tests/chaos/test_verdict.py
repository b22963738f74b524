"""The rules by which a chaos run is judged."""

import random

import load
import pytest
from verdict import EXCUSED, LOST, TWICE, WRONG, Fault, Job, Run, Status, Worker, idle_seconds, judge, recoveries

JOB = Job("job", created_at=0.0)
BACK = 0.2
"""From the end of a run to its result in Redis."""


def run(begin: float, end: float | None = None, how: str = "ok", *, died: float | None = None, **other) -> Run:
    """A run that ended and whose outcome was stored, or one that died."""
    facts = {"job": "job", "task": "task", "pod": "a", "pid": 7, "begin": begin}
    if end is None:
        return Run(**facts | {"last_beat": died} | other)
    return Run(**facts | {"last_beat": end + BACK, "end": end, "how": how, "stored": end + BACK} | other)


def status(phase: str, reason: str = "", at: float | None = 100.0, task: str = "task") -> Status:
    return Status(phase, reason, task=task, finished_at=at)


def kinds(job: Job, said: Status, runs: list[Run], losses: list[float] = ()) -> list[str]:
    return [finding.kind for finding in judge(job, said, runs, losses)]


def test_a_job_that_ran_once_and_succeeded_is_fine():
    assert kinds(JOB, status("Succeeded"), [run(1, 2)]) == []


@pytest.mark.parametrize("phase", ["", "Pending", "Queued", "Running", "Retrying"])
def test_a_job_without_an_end_is_lost(phase):
    assert kinds(JOB, status(phase, at=None), [run(1, 2)]) == [LOST]


def test_success_without_a_run_is_lost_and_wrong():
    assert kinds(JOB, status("Succeeded"), [run(1, died=2), run(3, 4, "ConnectionError")]) == [LOST, WRONG]


def test_success_under_the_id_of_another_task_is_wrong():
    assert kinds(JOB, status("Succeeded", task="other"), [run(1, 2)]) == [WRONG]


def test_a_run_may_follow_one_that_died_or_failed():
    runs = [run(1, died=2), run(3, 4, "ConnectionError"), run(5, 6)]
    assert kinds(JOB, status("Succeeded"), runs) == []


def test_a_run_beside_another_is_a_second_one():
    assert kinds(JOB, status("Succeeded"), [run(1, 5), run(3, 7)]) == [TWICE]


def test_a_run_beside_one_that_dies_later_is_a_second_one():
    assert kinds(JOB, status("Succeeded"), [run(1, died=5), run(3, 7)]) == [TWICE]


def test_a_run_that_is_still_storing_its_outcome_is_at_work():
    assert kinds(JOB, status("Succeeded"), [run(1, 2, stored=6), run(3, 7)]) == [TWICE]


def test_a_run_after_one_that_ended_well_is_a_second_one():
    assert kinds(JOB, status("Succeeded"), [run(1, 2), run(3, 4)]) == [TWICE]


def test_three_runs_are_counted_for_each_pair():
    assert kinds(JOB, status("Succeeded"), [run(1, 2), run(3, 4), run(5, 6)]) == [TWICE] * 3


@pytest.mark.parametrize(
    ("loss", "expected"), [(2.3, EXCUSED), (12.0, EXCUSED), (0.5, TWICE), (30.0, TWICE), (45, TWICE)]
)
def test_a_result_lost_before_it_could_be_read_excuses_another_run(loss, expected):
    assert kinds(JOB, status("Succeeded"), [run(1, 2), run(40, 41)], [loss]) == [expected]


def test_lost_data_excuse_no_run_beside_another():
    assert kinds(JOB, status("Succeeded"), [run(1, 5), run(3, 7)], [2.0]) == [TWICE]


def test_a_result_that_was_never_stored_excuses_another_run():
    assert kinds(JOB, status("Succeeded"), [run(1, 2, stored=None, last_beat=2.1), run(3, 4)]) == [EXCUSED]


def test_retries_are_exhausted_only_after_all_of_them():
    failures = [run(t, t + 1, "ConnectionError") for t in (1, 3, 5, 7)]
    assert kinds(JOB, status("Failed", "RetriesExhausted"), failures) == []
    assert kinds(JOB, status("Failed", "RetriesExhausted"), failures[:3]) == [WRONG]


def test_a_failure_that_was_not_seen_to_be_stored_may_count():
    failures = [run(1, 2, "ConnectionError"), run(3, 4, "ConnectionError", stored=None)]
    once = Job("job", created_at=0.0, max_retries=1)
    assert kinds(once, status("Failed", "RetriesExhausted"), failures) == []
    assert kinds(once, status("Failed", "RetriesExhausted"), failures[:1]) == [WRONG]


def test_a_worker_death_is_no_failure():
    runs = [run(1, 2, "ConnectionError"), run(3, died=4), run(5, died=6), run(7, died=8)]
    assert kinds(JOB, status("Failed", "RetriesExhausted"), runs) == [WRONG]


def test_worker_losses_are_exhausted_only_after_all_of_them():
    deaths = [run(t, died=t + 1) for t in (1, 3, 5, 7)]
    assert kinds(JOB, status("Failed", "WorkerLost"), deaths) == []
    assert kinds(JOB, status("Failed", "WorkerLost"), deaths[:3]) == [WRONG]


def test_only_an_exception_that_is_named_is_not_worth_a_repetition():
    runs = [run(1, 2, "ValueError")]
    named = Job("job", 0.0, non_retryable=("ValueError",))
    assert kinds(named, status("Failed", "NonRetryableError"), runs) == []
    assert kinds(JOB, status("Failed", "NonRetryableError"), runs) == [WRONG]


@pytest.mark.parametrize("reason", ["MessageLost", "NoResult", "ResultExpired", "Revoked"])
def test_no_fault_is_a_reason_to_give_up(reason):
    assert kinds(JOB, status("Failed", reason), [run(1, died=2)]) == [WRONG]


@pytest.mark.parametrize(("losses", "expected"), [([], [WRONG]), ([3.0], []), ([30.0], [WRONG])])
def test_an_outcome_is_unknown_only_where_it_was_lost_before_it_could_be_read(losses, expected):
    assert kinds(JOB, status("Failed", "NoResult"), [run(1, 2)], losses) == expected
    assert kinds(JOB, status("Failed", "NoResult"), [run(1, 2, "ConnectionError")], losses) == expected


def test_an_outcome_is_unknown_where_it_was_never_stored():
    assert kinds(JOB, status("Failed", "NoResult"), [run(1, died=2)]) == [WRONG]
    assert kinds(JOB, status("Failed", "NoResult"), [run(1, 2, stored=None)]) == []
    assert kinds(JOB, status("Failed", "NoResult"), [run(1, died=2)], [3.0]) == [], "its worker's word was lost"


def test_a_failure_is_wrong_where_a_result_was_there_to_read():
    failures = [run(t, t + 1, "ConnectionError") for t in (1, 3, 5, 7)]
    said = status("Failed", "RetriesExhausted", at=20)
    assert kinds(JOB, said, [*failures, run(9, 10)]) == [WRONG]
    assert kinds(JOB, said, [*failures, run(9, 10)], [11.0]) == []
    assert kinds(JOB, said, [*failures, run(18, 19.5)]) == [], "it came with the end"


def test_a_job_is_cancelled_only_when_asked_to_be():
    assert kinds(JOB, status("Cancelled"), [run(1, died=2)]) == [WRONG]
    assert kinds(Job("job", 0.0, cancelled_at=1.5), status("Cancelled"), [run(1, died=2)]) == []


def test_cancelled_is_wrong_where_a_result_was_there_before():
    asked = Job("job", 0.0, cancelled_at=5.0)
    assert kinds(asked, status("Cancelled", at=6), [run(1, 2)]) == [WRONG]
    assert kinds(asked, status("Cancelled", at=6), [run(1, 2)], [3.0]) == []
    assert kinds(asked, status("Succeeded", "FinishedBeforeCancel", at=6), [run(1, 2)]) == []


def test_a_cancelled_job_does_not_run_afterwards():
    asked = Job("job", 0.0, cancelled_at=5.0)
    assert kinds(asked, status("Cancelled", at=6), [run(8, 9)]) == [WRONG]
    assert kinds(asked, status("Cancelled", at=6), [run(6.5, died=7)]) == [], "the revocation was on its way"


# === Recovery ===

WORKERS = [Worker("a", 1, 0, 10, slots=1), Worker("b", 1, 0, 100, slots=1)]


def recovery(runs, workers=WORKERS, faults=()):
    (found,) = recoveries(runs, workers, faults)
    return found


def test_a_recovery_lasts_from_the_last_sign_of_life_to_the_next_run():
    found = recovery([run(1, died=10), run(13, 14, pod="b")])
    assert (found.died, found.resumed, found.idle, found.disturbed) == (10, 13, 3, False)


def test_time_without_a_free_worker_does_not_count():
    other = run(5, 11.8, job="other", pod="b")
    assert recovery([run(1, died=10), run(13, 14, pod="b"), other]).idle == pytest.approx(1.0)
    assert recovery([run(1, died=10), run(13, 14)], workers=WORKERS[:1]).idle == 0


def test_a_recovery_beside_another_fault_is_marked():
    runs = [run(1, died=10), run(13, 14, pod="b")]
    assert recovery(runs, faults=[Fault("redis_flush", 12, 12)]).disturbed
    assert recovery(runs, faults=[Fault("apiserver_restart", 1, 6)]).disturbed, "its aftermath"
    assert not recovery(runs, faults=[Fault("apiserver_restart", 1, 4)]).disturbed
    assert not recovery(runs, faults=[Fault("worker_kill", 10, 10, hits_workers_only=True)]).disturbed


def test_a_recovery_during_which_another_worker_ends_is_marked():
    runs = [run(1, died=10), run(23, 24, pod="c")]
    workers = [*WORKERS, Worker("c", 1, 0, 100, slots=1)]
    end = lambda at, target: [Fault("pod_delete_now", at, at, target, hits_workers_only=True)]  # noqa: E731
    assert recovery(runs, workers, end(12, "b, busy with other")).disturbed
    assert not recovery(runs, workers, end(9, "b, busy with other")).disturbed
    assert not recovery(runs, workers, end(10.1, "a, busy with job")).disturbed, "it is this death"
    assert not recovery(runs, workers, end(12, "forged a result")).disturbed


def test_only_runs_that_died_recover():
    assert recoveries([run(1, 2, "ConnectionError"), run(3, 4)], WORKERS, []) == []
    assert recoveries([run(1, died=5)], WORKERS, []) == []


def test_a_worker_is_free_while_one_of_its_slots_is():
    two = [Worker("b", 1, 0, 100, slots=2)]
    runs = [run(0, 50, pod="b"), run(2, 6, pod="b")]
    assert idle_seconds((0, 10), runs, two) == pytest.approx(10 - (6 + BACK - 2))


# === Load ===


def test_a_seed_makes_the_same_jobs_again():
    first, second = (load.plan(random.Random(7), "x", 300, 60) for _ in range(2))
    assert first == second
    assert len({job.name for job in first}) == 300
    assert all(0.2 <= job.body["spec"]["inputs"]["seconds"] <= 8 for job in first)
    assert {job.body["spec"]["inputs"].get("fail") for job in first} == {None, "transient", "permanent"}
    assert any(job.cancel_after is not None for job in first)


def test_the_limits_of_a_job_are_read_from_its_body():
    body = load.crew.job("x", retryPolicy={"maxRetries": 1, "nonRetryable": ["ValueError"]})
    assert load.asked(body, 5.0, None) == Job("x", 5.0, max_retries=1, non_retryable=("ValueError",))
