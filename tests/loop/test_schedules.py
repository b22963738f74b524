"""A schedule makes one job for each of its times, whatever becomes of the operator, and loses none silently."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from servers import CREWJOB, Refused

from waiting import settles, until

API = {"apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewSchedule"}
RUN_NOW = "crewjob.dev/run-now"


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def minute(back: int = 0) -> datetime:
    return now().replace(second=0) - timedelta(minutes=back)


def name_of(at: datetime, schedule: str = "s") -> str:
    return f"{schedule}-{at:%Y%m%d-%H%M}"


@pytest.fixture
def schedules(bed):
    yield Schedules(bed.a)
    bed.a.delete("crewschedules")


class Schedules:
    def __init__(self, tenant):
        self.tenant = tenant

    def make(self, name: str = "s", lines=("* * * * *",), template=None, **spec) -> dict:
        # No minute begins while a test prepares what it looks at.
        until("a minute has begun not long ago", lambda: now().second < 40, 25)
        spec = {"schedules": list(lines), "template": template or {"spec": {"topic": "bees"}}, **spec}
        return self.tenant.create("crewschedules", {**API, "metadata": {"name": name}, "spec": spec})

    def status(self, name: str = "s") -> dict:
        return (self.tenant.get("crewschedules", name) or {}).get("status", {})

    def ready(self, name: str = "s") -> dict:
        return next(iter(self.status(name).get("conditions", [])), {})

    def change(self, name: str = "s", **spec) -> None:
        self.tenant.patch("crewschedules", name, {"spec": spec})

    def asks(self, value: str, name: str = "s") -> None:
        self.tenant.patch("crewschedules", name, {"metadata": {"annotations": {RUN_NOW: value}}})

    def misses(self, minutes: int, name: str = "s", **spec) -> datetime:
        """As if no operator had been there for so long. The first time that was missed."""
        until("it was looked at", lambda: self.status(name).get("decidedUntil"))
        first = minute(minutes - 1)
        self.tenant.patch("crewschedules", name, {"status": {"decidedUntil": stamp(minute(minutes))}}, "status")
        self.change(name, **(spec or {"jitter": "0s", "history": {"succeeded": 100, "failed": 100, "cancelled": 100}}))
        return first

    def jobs(self, name: str = "s") -> list[str]:
        return sorted(job["metadata"]["name"] for job in self.tenant.items("crewjobs", f"?labelSelector=crewjob.dev/schedule={name}"))

    def skipped(self, name: str = "s") -> dict[str, int]:
        return {it["reason"]: it["count"] for it in self.status(name).get("skipped", [])}


def test_a_job_is_made_when_its_time_comes_with_what_the_template_says(bed, schedules):
    template = {
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "x"}},
        "spec": {"topic": "bees", "priority": 9, "inputs": {"deep": [1, {"a": None}]}},
    }
    made = schedules.make(template=template)
    until("a minute begins", lambda: schedules.jobs(), 70)
    [name] = schedules.jobs()
    assert name in (name_of(minute()), name_of(minute(1)))
    job = bed.a.get("crewjobs", name)
    assert job["spec"]["priority"] == 9 and job["spec"]["inputs"] == {"deep": [1, {"a": None}]}
    assert job["metadata"]["labels"] == {"team": "a", "crewjob.dev/schedule": "s"}
    planned = job["metadata"]["annotations"].pop("crewjob.dev/planned-at")
    assert re.sub(r"[-:TZ]", "", planned)[:12] == name[2:].replace("-", "") and job["metadata"]["annotations"] == {"note": "x"}
    [owner] = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("CrewSchedule", made["metadata"]["uid"], True)
    status = until("it is recorded", lambda: schedules.status().get("lastScheduleTime") and schedules.status())
    assert (status["made"], status["active"], status["lastScheduleTime"]) == (1, [name], planned)
    assert len(status["nextScheduleTimes"]) == 3 and schedules.ready()["status"] == "True"
    printed = bed.a.kubectl("get", "crewsched", "s")
    assert "* * * * *" in printed and "AsExpected" in printed


def test_all_missed_times_are_made_up_for_though_the_operator_is_killed_again_and_again(bed, schedules):
    schedules.make(suspend=True)
    until("it rests", lambda: schedules.ready().get("reason") == "Suspended")
    first = schedules.misses(12, suspend=True, overlap="Allow", catchUp={"policy": "All"}, history={"succeeded": 100})
    bed.operator.kill()
    # It has never rested, as far as the next leader can see.
    bed.a.patch("crewschedules", "s", {"status": {"rests": None}}, "status")
    schedules.change(suspend=False)
    for _ in range(4):
        bed.operator.start()
        before = len(schedules.jobs())
        until("some are made", lambda before=before: len(schedules.jobs()) > before or len(schedules.jobs()) >= 12)
        bed.operator.kill()
    bed.operator.start()
    until("all are made", lambda: len(schedules.jobs()) >= 12)
    expected = [name_of(first + timedelta(minutes=n)) for n in range(12)]
    assert schedules.jobs()[:12] == expected
    status = until("that is recorded", lambda: schedules.status()["made"] == len(schedules.jobs()) and schedules.status())
    assert "skipped" not in status


def test_of_missed_times_the_latest_is_made_and_the_others_are_counted_and_told(bed, schedules):
    schedules.make(lines=["*/1 * * * *"])
    schedules.misses(90)
    until("one is made", lambda: schedules.jobs())
    skipped = until("the others are counted", schedules.skipped)
    # A minute may begin meanwhile.
    assert skipped["TooLate"] in (29, 30, 31) and skipped["Superseded"] in (59, 60, 61)
    uid = bed.a.get("crewschedules", "s")["metadata"]["uid"]
    told = lambda: bed.a.items("events", f"?fieldSelector=involvedObject.uid={uid}")  # noqa: E731
    until("an Event tells", lambda: any("catchUp.window" in event["message"] for event in told()))
    assert {event["reason"] for event in told()} == {"TimeSkipped"}


def test_a_time_at_which_an_earlier_job_runs_is_skipped_or_waits_or_ends_that_job(bed, schedules):
    bed.a.pool(bed.redis)
    for name, overlap in [("skips", "Skip"), ("queues", "Queue"), ("cancels", "CancelRunning")]:
        schedules.make(name, overlap=overlap, catchUp={"policy": "All"})
        first = schedules.misses(3, name)
        first_name = name_of(first, name)
        until("the first is made", lambda name=name, first=first_name: schedules.jobs(name)[:1] == [first])
    until("two are skipped", lambda: schedules.skipped("skips").get("Overlap", 0) >= 2)
    assert len(schedules.jobs("skips")) == 1
    until("two wait", lambda: len(schedules.status("queues").get("queued", [])) >= 2)
    assert len(schedules.jobs("queues")) == 1
    [first] = schedules.jobs("queues")
    bed.a.change(first, cancel=True)
    until("its end lets the next one begin", lambda: len(schedules.jobs("queues")) == 2, 15)
    settles("one at a time", lambda: len(schedules.jobs("queues")) == 2, 2)
    until("all three are made", lambda: len(schedules.jobs("cancels")) >= 3)
    *earlier, last = schedules.jobs("cancels")
    for job in earlier:
        bed.a.in_phase(job, "Cancelled")
    assert bed.a.status(last).get("phase") in ("Pending", "Queued")


def test_a_schedule_is_suspended_resumed_and_asked_for_a_job_by_annotation(bed, schedules):
    schedules.make(suspend=True, catchUp={"policy": "All"})
    until("it rests", lambda: schedules.ready().get("reason") == "Suspended")
    schedules.misses(30, suspend=True)
    schedules.asks("first")
    until("a job is made", lambda: len(schedules.jobs()) == 1)
    schedules.asks("first")
    settles("it is the only one", lambda: len(schedules.jobs()) == 1, 1)
    schedules.asks("second")
    until("another is made", lambda: len(schedules.jobs()) == 2)
    assert all(re.fullmatch(r"s-run-[0-9a-f]{10}", name) for name in schedules.jobs())
    schedules.change(suspend=False)
    skipped = until("what has passed is counted", schedules.skipped)
    assert list(skipped) == ["Suspended"] and skipped["Suspended"] in (29, 30, 31)


def test_a_schedule_pauses_when_its_jobs_fail_and_goes_on_when_it_is_changed(bed, schedules):
    bed.a.pool(bed.redis)
    schedules.make(pauseAfterFailures=2, overlap="Allow", catchUp={"policy": "All"})
    first = schedules.misses(2, history={"failed": 0})
    until("two are made", lambda: len(schedules.jobs()) >= 2)
    for name in [name_of(first), name_of(first + timedelta(minutes=1))]:
        # What the operator would record.
        end = {"phase": "Failed", "finishedAt": stamp(now()), "observedGeneration": 1}
        bed.a.patch("crewjobs", name, {"status": end}, "status")
    until("it pauses", lambda: schedules.ready().get("reason") == "SchedulePaused")
    assert schedules.ready()["status"] == "False" and len(schedules.jobs()) >= 2, "what decides the pause is kept"
    schedules.change(pauseAfterFailures=3)
    until("it goes on", lambda: schedules.ready().get("reason") == "AsExpected")


def test_what_the_api_server_cannot_check_is_said_with_its_field_and_harms_no_other_schedule(bed, schedules):
    schedules.make("line", lines=["@daily", "0 0 30 2 *"])
    schedules.make("zone", timeZone="Europe/Atlantis")
    schedules.make("good")
    for name, said in [("line", "spec.schedules[1]"), ("zone", "spec.timeZone")]:
        condition = until("it is said", lambda name=name: schedules.ready(name))
        assert (condition["status"], condition["reason"]) == ("False", "ScheduleInvalid")
        assert said in condition["message"]
    until("the other works", lambda: schedules.ready("good").get("status") == "True")
    schedules.change("line", schedules=["@daily"])
    until("it is mended", lambda: schedules.ready("line").get("status") == "True")


def test_a_job_that_the_api_server_refuses_is_tried_again_until_its_window_is_over(bed, schedules):
    label = {"metadata": {"labels": {"no valid label": "x"}}, "spec": {"topic": "bees"}}
    schedules.make(template=label)
    schedules.asks("now")
    condition = until("it is said", lambda: schedules.ready().get("reason") == "JobNotCreated" and schedules.ready())
    assert "no valid label" in condition["message"]
    schedules.change(template={"metadata": {"labels": {"no valid label": None, "team": "a"}}})
    until("it is made", lambda: schedules.jobs())
    until("that is said", lambda: schedules.ready().get("status") == "True")


def test_a_name_that_belongs_to_another_job_costs_that_time_only(bed, schedules):
    schedules.make(overlap="Allow", catchUp={"policy": "All"}, suspend=True)
    until("it rests", lambda: schedules.ready().get("reason") == "Suspended")
    bed.operator.stop()
    taken = minute(2)
    bed.a.job(name_of(taken))
    bed.a.patch("crewschedules", "s", {"status": {"decidedUntil": stamp(minute(4)), "rests": None}}, "status")
    schedules.change(suspend=False)
    bed.operator.start()
    until("later ones are made", lambda: name_of(taken + timedelta(minutes=1)) in schedules.jobs())
    assert name_of(taken - timedelta(minutes=1)) in schedules.jobs() and name_of(taken) not in schedules.jobs()
    assert schedules.skipped() == {"NameTaken": 1}


def test_jobs_go_with_their_schedule_and_finished_ones_with_the_history(bed, schedules):
    schedules.make(overlap="Allow", catchUp={"policy": "All"})
    first = schedules.misses(5, history={"succeeded": 2})
    until("five are made", lambda: len(schedules.jobs()) >= 5)
    for n in range(5):
        end = {"phase": "Succeeded", "finishedAt": stamp(first + timedelta(minutes=n)), "observedGeneration": 1}
        bed.a.patch("crewjobs", name_of(first + timedelta(minutes=n)), {"status": end}, "status")
    until("a success is recorded", lambda: schedules.status().get("lastSuccessTime"))
    settles("none is deleted within two minutes of its making", lambda: len(schedules.jobs()) >= 5, 2)


def ctl(bed, *words: str) -> subprocess.CompletedProcess:
    env = {"KUBECONFIG": str(bed.control_plane.kubeconfig), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [CREWJOB, "ctl", "-n", bed.a.namespace, "schedule", *words], env=env, capture_output=True, text=True, timeout=30
    )


def test_the_command_line_lists_runs_suspends_and_backfills(bed, schedules):
    schedules.make("nightly", lines=["30 2 * * *"], timeZone="Europe/Berlin")
    until("it was looked at", lambda: schedules.ready("nightly"))
    listed = ctl(bed, "list").stdout
    assert "nightly" in listed and "Europe/Berlin" in listed and "AsExpected" in listed
    name = re.fullmatch(r"crewjob\.crewjob\.dev/(nightly-run-\w+) is to be made\n", ctl(bed, "run", "nightly").stdout)[1]
    until("it is made", lambda: schedules.jobs("nightly") == [name])
    assert ctl(bed, "suspend", "nightly").stdout == "crewschedule.crewjob.dev/nightly suspended\n"
    until("it rests", lambda: schedules.ready("nightly")["reason"] == "Suspended")
    assert ctl(bed, "resume", "nightly").returncode == 0
    upcoming = ctl(bed, "next", "nightly", "--count", "3").stdout.splitlines()
    assert len(upcoming) == 4 and all("02:30" in line for line in upcoming[1:])
    since = ["--from", "2026-10-24T00:00:00Z", "--to", "2026-10-26T12:00:00Z"]
    planned = ["nightly-20261024-0030", "nightly-20261025-0030", "nightly-20261026-0130"]
    assert ctl(bed, "backfill", "nightly", *since, "--dry-run").stdout.split() == planned
    assert len(schedules.jobs("nightly")) == 1
    assert ctl(bed, "backfill", "nightly", *since, "--yes").returncode == 0
    assert schedules.jobs("nightly") == sorted([*planned, name])
    again = ctl(bed, "backfill", "nightly", *since, "--yes")
    assert again.returncode == 0 and again.stderr.count("exists already") == 3
    missing = ctl(bed, "run", "none")
    assert missing.returncode == 1 and "schedule list" in missing.stderr
    future = ctl(bed, "backfill", "nightly", "--from", "2026-10-24T00:00:00Z", "--to", "2126-10-24T00:00:00Z")
    assert future.returncode == 2 and "--to" in future.stderr


def test_a_name_that_is_no_label_of_jobs_is_refused(bed, schedules):
    with pytest.raises(Refused) as refused:
        schedules.make("n" * 64)
    assert "63 characters" in json.dumps(refused.value.args, default=str)
