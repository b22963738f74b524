"""The chart's alerts, evaluated by Prometheus' promtool: when each fires and what it says, and when none does."""

import pytest
from chart import BUNDLED, PROJECT, find, render
from promtool import expect, promtool, series

RULES = find(render(BUNDLED, "monitoring.prometheusRule.enabled=true"), "PrometheusRule", "crewjob-operator")["spec"]
ALERTS = {rule["alert"]: rule for rule in RULES["groups"][0]["rules"]}
POOL = {"namespace": "team", "pool": "default"}
NONE = dict.fromkeys(ALERTS, [])


def of_pool(name: str, values: str, **labels: str) -> dict[str, str]:
    return series(f"crewjob_{name}", values, **POOL, **labels)


def served(for_minutes: int, **values: str) -> list[dict]:
    """A healthy operator, and its pool, but for these values."""
    steady = {"leading": 1, "broker_up": 1, "queue_depth": 3, "workers_stalled": 0, "replicas_desired": 2, "replicas_ready": 2}
    of = {name: f"{value}x{for_minutes}" for name, value in steady.items()} | values
    leading = series("crewjob_leading", of.pop("leading"))
    return [leading, *(of_pool(name, text) for name, text in of.items())]


def alert(name: str, summary: str, **labels: str) -> dict:
    said = {"summary": summary, "description": ALERTS[name]["annotations"]["description"]}
    for label, value in labels.items():
        said["description"] = said["description"].replace("{{ $labels.%s }}" % label, value)
    return {"exp_labels": {"severity": ALERTS[name]["labels"]["severity"], **labels}, "exp_annotations": said}


def fires(name: str, summary: str, given: list[dict], at: str, not_at: str, **labels: str) -> None:
    """This alert, and at `at` no other."""
    expect(RULES, given, {not_at: {name: []}, at: NONE | {name: [alert(name, summary, **labels)]}})


def test_the_guide_says_where_to_look_first_at_each_alert():
    guide = (PROJECT / "docs/guides/operate.md").read_text()
    assert [name for name in ALERTS if f"`{name}`" not in guide] == []


def test_prometheus_takes_the_rules_and_finds_nothing_to_say_of_them():
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml", rules=RULES)
    assert done.returncode == 0 and f"{len(ALERTS)} rules found" in done.stdout, done.stdout + done.stderr


def test_no_operator_that_leads_is_an_alert_after_two_minutes():
    labels = {"namespace": "crewjob", "job": "crewjob-operator"}
    given = [series("crewjob_leading", "1x4 0x9"), series("crewjob_leading", "0x14", pod="operator-b")]
    fires("CrewJobNoLeader", "No operator leads", given, "8m", "6m", **labels)


def test_no_operator_at_all_is_an_alert_too():
    fires("CrewJobNoLeader", "No operator leads", [series("crewjob_leading", "1x4 stale")], "8m", "6m")


def test_an_operator_of_another_installation_does_not_lead_for_this_one():
    given = [series("crewjob_leading", "0x9"), series("crewjob_leading", "1x9", namespace="other")]
    fires("CrewJobNoLeader", "No operator leads", given, "3m", "1m", namespace="crewjob", job="crewjob-operator")


def test_a_redis_that_cannot_be_used_is_an_alert_after_two_minutes_whichever_operator_leads():
    summary = "The Redis of pool team/default cannot be used"
    given = served(9, broker_up="1x4 0x1 stale", leading="1x5 0x4")
    given += [of_pool("broker_up", "_x5 0x5", pod="operator-b"), series("crewjob_leading", "0x5 1x4", pod="operator-b")]
    fires("CrewJobRedisDown", summary, given, "8m", "6m", **POOL)


def test_more_messages_than_the_bound_are_an_alert_after_ten_minutes():
    fires("CrewJobQueueDeep", "101 messages wait in pool team/default", served(20, queue_depth="101x20"), "11m", "9m", **POOL)


def test_a_job_that_has_waited_longer_than_the_bound_is_an_alert_five_minutes_later():
    summary = "A job of pool team/default has waited for 36m 0s"
    given = [*served(60), of_pool("oldest_queued_timestamp_seconds", "120x60")]
    fires("CrewJobWaitsLong", summary, given, "38m", "36m", **POOL)


@pytest.mark.parametrize(("failed", "share"), [("0+1x30", "9.1"), ("0+3x30", "23.1")])
def test_more_failed_attempts_than_the_bound_are_an_alert(failed, share):
    given = [*served(30), of_pool("attempts_total", "0+10x30", outcome="Succeeded"), of_pool("attempts_total", failed, outcome="Failed")]
    fires("CrewJobAttemptsFail", f"{share} % of the attempts in pool team/default fail", given, "10m", "4m", **POOL)


def test_workers_that_take_nothing_are_an_alert_after_ten_minutes():
    summary = "No worker takes the messages of pool team/default"
    fires("CrewJobNoConsumer", summary, served(20, workers_stalled="1x20"), "11m", "9m", **POOL)


def test_workers_that_do_not_start_although_messages_wait_are_an_alert_after_ten_minutes():
    summary = "No worker takes the messages of pool team/default"
    fires("CrewJobNoConsumer", summary, served(20, replicas_ready="0x20"), "11m", "9m", **POOL)


TAKEN_OFF = "Elements were taken off the queues of pool team/default that no worker survives"


def test_an_element_that_no_worker_survives_is_an_alert_for_a_quarter_of_an_hour():
    given = [*served(40), of_pool("quarantined_total", "0x4 1x35")]
    fires("CrewJobDeadLetters", TAKEN_OFF, given, "5m", "4m", **POOL)
    expect(RULES, given, {"25m": NONE})


def test_the_first_element_is_an_alert_also_where_its_counter_appears_with_it():
    given = [*served(40), of_pool("quarantined_total", "_x5 1x35")]
    fires("CrewJobDeadLetters", TAKEN_OFF, given, "5m", "4m", **POOL)
    expect(RULES, given, {"25m": NONE})


@pytest.mark.parametrize("reason", ["MessageLost", "WorkerLost", "NoResult", "ResultExpired"])
@pytest.mark.parametrize("counted", ["0x4 1x60", "_x5 1x60"])
def test_the_first_job_that_is_lost_is_an_alert_for_half_an_hour(reason, counted):
    given = [*served(60), series("crewjob_jobs_finished_total", counted, phase="Failed", reason=reason)]
    fires("CrewJobLosesJobs", f"Jobs failed because of {reason}", given, "5m", "4m", reason=reason)
    expect(RULES, given, {"45m": NONE})


@pytest.mark.parametrize(
    "given",
    [
        served(60, queue_depth="100x60"),
        served(60, queue_depth="100x20 101x9 100x30"),
        [*served(60), of_pool("oldest_queued_timestamp_seconds", "60+60x60")],
        [*served(35), of_pool("oldest_queued_timestamp_seconds", "120x35")],
        served(60, queue_depth="0x60", replicas_desired="0x60", replicas_ready="0x60"),
        served(60, queue_depth="5x60", replicas_ready="0x9 2x50"),
        served(60, workers_stalled="1x9 0x50"),
        [*served(60), of_pool("attempts_total", "0+96x60", outcome="Succeeded"), of_pool("attempts_total", "0+5x60", outcome="Failed")],
        [*served(60), of_pool("attempts_total", "0+1x60", outcome="Revoked"), of_pool("attempts_total", "0x60", outcome="Failed")],
        [*served(60), of_pool("quarantined_total", "0x60"), of_pool("attempts_total", "0x60", outcome="Failed")],
        [*served(60), series("crewjob_jobs_finished_total", "0+1x60", phase="Failed", reason="RetriesExhausted")],
    ],
)
def test_what_stays_within_the_bounds_or_is_over_soon_is_no_alert(given):
    expect(RULES, given, {f"{minute}m": NONE for minute in range(0, 60, 2) if minute < len_of(given)})


def len_of(given: list[dict]) -> int:
    return 60 if "x60" in given[0]["values"] else 35


def test_a_change_of_leader_is_no_alert():
    """Operator a, which has lost jobs days ago, is replaced; b has stood by, and leads half a minute later."""
    lost = {"phase": "Failed", "reason": "WorkerLost"}
    gone = [
        of_pool("quarantined_total", "7x1450 stale"),
        of_pool("attempts_total", "7x1450 stale", outcome="Failed"),
        series("crewjob_jobs_finished_total", "7x1450 stale", **lost),
        *served(0, leading="1x1450 stale", **{name: f"{value}x1450 stale" for name, value in STEADY.items()}),
    ]
    after = {"pod": "operator-b"}
    came = [
        series("crewjob_leading", "0x1451 1x60", **after),
        series("crewjob_jobs_finished_total", "0x1511", **lost, **after),
        *(of_pool(name, f"_x1452 {value}x60", **after) for name, value in STEADY.items()),
        of_pool("quarantined_total", "_x1452 0x60", **after),
        of_pool("attempts_total", "_x1452 0x60", outcome="Failed", **after),
    ]
    expect(RULES, gone + came, {f"{minute}m": NONE for minute in range(1445, 1510)})


STEADY = {"broker_up": 1, "queue_depth": 3, "workers_stalled": 0, "replicas_desired": 2, "replicas_ready": 2}


def test_a_gap_in_what_prometheus_has_read_is_no_alert():
    lost = series("crewjob_jobs_finished_total", "7x60 _x60 7x60", phase="Failed", reason="WorkerLost")
    off = of_pool("quarantined_total", "7x60 _x60 7x60")
    expect(RULES, [*served(180), lost, off], {f"{minute}m": NONE for minute in range(40, 180, 5)})


def test_a_pool_that_is_deleted_takes_its_alerts_with_it():
    every = {"broker_up": "0x30", "queue_depth": "500x30", "workers_stalled": "1x30", "oldest_queued_timestamp_seconds": "0x30"}
    given = [series("crewjob_leading", "1x60"), *(of_pool(name, f"{values} stale") for name, values in every.items())]
    given += [of_pool("attempts_total", "0+1x60", outcome="Failed"), of_pool("quarantined_total", "0x29 3x30")]
    pools = [name for name, rule in ALERTS.items() if "$labels.pool" in rule["annotations"]["summary"]]
    assert len(pools) == 6
    expect(RULES, given, {f"{minute}m": NONE for minute in range(36, 60)})
