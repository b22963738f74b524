"""The other screens: pools, schedules, the form, signing in; the keyboard, a telephone's width, a path prefix, pictures."""

import json
import os
import re
from pathlib import Path

import pytest
from gateway import Gateway
from objects import ago, condition
from playwright.sync_api import expect

from waiting import until

PHONE = (390, 844)


@pytest.fixture(scope="module", autouse=True)
def things(bed, shown):
    # It would say of the pools that it does not look into their namespace.
    bed.operator.stop()
    bands = [{"step": 0, "depth": 2}, {"step": 3, "depth": 97}, {"step": 6, "depth": 28}, {"step": 9, "depth": 0}]
    queues = [{"name": "crew_jobs", "depth": 127, "inFlight": 3, "bands": bands}]
    misfit = condition("GracePeriodTooShort", "True", "GracePeriodTooShort", "the Deployment gives its Pods 30 s")
    status = {"depth": 127, "inFlight": 3, "oldestQueuedAt": ago(700), "queues": queues, "replicas": {"desired": 5, "ready": 3, "busy": 2}}
    shown.pool(status={**status, "conditions": [condition("Ready", "True", "AsExpected"), misfit]}, maxReplicas=8)
    shown.pool("broken", status={"conditions": [condition("Ready", "False", "BrokerUnreachable", "Redis does not answer")]})
    skipped = [{"reason": "Overlap", "count": 3, "lastTime": ago(9000)}]
    times = {"nextScheduleTimes": [ago(-1200), ago(-4800)], "lastScheduleTime": ago(2400), "made": 812, "activeCount": 1, "skipped": skipped}
    shown.schedule("hourly", ["0 * * * *"], status={**times, "conditions": [condition("Ready", "True", "AsExpected")]}, timeZone="Europe/Berlin")
    running = {"startedAt": ago(90), "queuedAt": ago(120), "attempts": 1, "taskID": "t", "worker": {"name": "crew@worker-1"}}
    shown.job("tides", "Running", "Started", status={**running, "progress": {"percent": 40, "message": "second chapter"}}, topic="Tides and moons", inputs={"level": "school"})
    error = {"type": "ValueError", "message": "no such topic", "traceback": "Traceback (most recent call last):\n  File crew.py, line 12\nValueError: no such topic"}
    past = [
        {"number": 1, "outcome": "WorkerLost", "worker": "crew@worker-2", "enqueuedAt": ago(900), "startedAt": ago(880), "finishedAt": ago(600), "message": "OOMKilled"},
        {"number": 2, "outcome": "Failed", "worker": "crew@worker-1", "enqueuedAt": ago(590), "startedAt": ago(500), "finishedAt": ago(300), "errorType": "ValueError", "message": "no such topic"},
    ]
    shown.job("bees", "Failed", "RetriesExhausted", status={"attempts": 2, "error": error, "attemptHistory": past, "finishedAt": ago(300), "startedAt": ago(500)}, topic="A short history of bees in cities")
    for number, phase in enumerate(["Pending", "Queued", "Retrying", "Succeeded", "Succeeded", "Cancelled"]):
        status = {"attempts": 1, "startedAt": ago(400), "finishedAt": ago(100)} if phase in ("Succeeded", "Cancelled") else {}
        shown.job(f"job-{number}", phase, phase, status=status, topic="Introduction to machine learning", priority=number + 2)


def test_a_pool_shows_its_queues_by_band_its_workers_and_what_they_run_and_its_troubles(look, admin, shown):
    page = look(admin, f"#/pools?namespace={shown.namespace}")
    card = page.locator(".pool", has=page.get_by_role("heading", name="default"))
    expect(card).to_contain_text("3 of 5")
    expect(card.locator("table")).to_contain_text("97")
    expect(card.locator("thead th")).to_contain_text(["Queue", "Band 0", "Band 3", "Band 6", "Band 9", "Waiting", "In flight"])
    expect(card.locator(".workers")).to_contain_text("crew@worker-1")
    expect(card.locator(".workers a")).to_have_text("tides")
    expect(card.locator(".troubles")).to_contain_text("GracePeriodTooShort")
    expect(page.locator(".pool").first).to_contain_text("BrokerUnreachable")
    expect(page.locator(".pool").first).to_contain_text("Redis does not answer")


def test_a_schedule_shows_its_next_times_and_skips_and_is_run_and_suspended(look, admin, shown):
    page = look(admin, f"#/schedules?namespace={shown.namespace}")
    card = page.locator(".schedule")
    expect(card).to_contain_text("Europe/Berlin")
    expect(card).to_contain_text(re.compile("in 1[89]m"))
    expect(card).to_contain_text("3 Overlap: an earlier job had not ended")
    key = f"{shown.namespace}/hourly"
    page.locator(f"[id='run-{key}']").click()
    until("a job is asked for", lambda: "crewjob.dev/run-now" in (shown.tenant.get("crewschedules", "hourly")["metadata"].get("annotations") or {}))
    page.locator(f"[id='suspend-{key}']").click()
    expect(page.locator(f"[id='suspend-{key}']")).to_have_text("Resume")
    assert shown.tenant.get("crewschedules", "hourly")["spec"]["suspend"] is True
    page.locator(f"[id='suspend-{key}']").click()
    expect(page.locator(f"[id='suspend-{key}']")).to_have_text("Suspend")


def test_the_form_checks_and_submits_and_says_what_is_wrong(look, admin, bed):
    page = look(admin, f"#/submit?namespace={bed.a.namespace}")
    page.click("#submit")
    expect(page.locator("#topic-wrong")).to_have_text("What is it about?")
    page.fill("#topic", "Tides & Moons")
    page.fill("#inputs", "{ level: 1 }")
    page.click("#submit")
    expect(page.locator("#inputs-wrong")).to_contain_text("That is no JSON")
    page.fill("#inputs", '{ "level": 1 }')
    page.fill("#priority", "99")
    page.click("#check")
    expect(page.locator("#problem")).to_contain_text("spec.priority")
    page.fill("#priority", "9")
    page.click("#check")
    expect(page.locator("#notes")).to_contain_text("would take it")
    assert bed.a.items("crewjobs") == []
    page.click("#submit")
    expect(page.locator("h1")).to_have_text(re.compile("^tides-moons-"))
    [job] = bed.a.items("crewjobs")
    assert job["spec"]["inputs"] == {"level": 1} and job["spec"]["priority"] == 9
    page.click("#copy")
    expect(page.locator("#topic")).to_have_value("Tides & Moons")
    assert json.loads(page.locator("#inputs").input_value()) == {"level": 1}


def test_a_token_is_asked_for_kept_in_memory_and_forgotten(look, admin):
    page = look(None)
    page.fill("#token", "made-up")
    page.click("#sign-in")
    expect(page.locator("#token-wrong")).to_contain_text("does not take this token")
    page.fill("#token", f"Bearer {admin}")
    page.click("#sign-in")
    expect(page.locator("#user")).to_contain_text("system:serviceaccount:")
    stored = page.evaluate("JSON.stringify([Object.values(localStorage), Object.values(sessionStorage), document.cookie])")
    assert admin not in stored
    page.reload()
    expect(page.locator("#token")).to_be_visible()
    page.fill("#token", admin)
    page.check("#keep")
    page.click("#sign-in")
    expect(page.locator("#user")).to_contain_text("system:serviceaccount:")
    page.reload()
    expect(page.locator("#user")).to_contain_text("system:serviceaccount:")
    page.click("#sign-out")
    expect(page.locator("#token")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('crewjob-token')") is None


def test_all_of_it_is_reached_with_the_keyboard(look, admin, shown):
    page = look(admin, f"#/jobs?namespace={shown.namespace}")
    expect(page.locator("tbody tr")).to_have_count(8)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter-text"
    page.keyboard.type("bees")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("tbody tr")).to_have_count(8)
    page.keyboard.type("bees")
    expect(page.locator("tbody tr")).to_have_count(1)
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "whole":
            break
    shows = page.evaluate("getComputedStyle(document.activeElement.closest('tr')).outlineStyle")
    assert shows == "solid", "the focus is seen"
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("bees")
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement.id") != "act-retry":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#dialog")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "dialog-no", "the harmless answer has the focus"
    page.keyboard.press("Escape")
    expect(page.locator("#dialog")).not_to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("h1")).to_have_text("Jobs")


def test_everything_has_a_name_and_a_place_for_a_screen_reader(look, admin, shown):
    page = look(admin, f"#/jobs?namespace={shown.namespace}")
    for path in paths(shown).values():
        page.goto(page.url.split("#")[0] + path)
        expect(page.locator("main h1")).to_have_count(1)
        expect(page.locator("[aria-busy]")).to_have_count(0)
        nameless = page.evaluate("""() => [...document.querySelectorAll("button, a, input, select, textarea")].filter((it) => it.checkVisibility()
            && !(it.getAttribute("aria-label") || it.textContent.trim() || it.labels?.length || it.title)).map((it) => it.outerHTML)""")
        assert nameless == [], path
        assert page.evaluate("[...document.querySelectorAll('table')].every((it) => it.caption && it.querySelector('th[scope]'))"), path
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((it) => it.id)")
        assert len(ids) == len(set(ids)), path
    for landmark in ("header", "nav", "main", "[role=status]"):
        assert page.locator(landmark).count() >= 1


def paths(shown) -> dict[str, str]:
    place = shown.namespace
    return {
        "jobs": f"#/jobs?namespace={place}",
        "job-running": f"#/job/{place}/tides",
        "job-failed": f"#/job/{place}/bees",
        "pools": f"#/pools?namespace={place}",
        "schedules": f"#/schedules?namespace={place}",
        "submit": f"#/submit?namespace={place}",
    }


def test_no_screen_is_wider_than_a_telephone(look, admin, shown):
    page = look(admin, "#/jobs", size=PHONE)
    for name, path in paths(shown).items():
        page.goto(page.url.split("#")[0] + path)
        expect(page.locator("[aria-busy]")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], name
    page.goto(page.url.split("#")[0] + paths(shown)["jobs"])
    page.locator("tbody input[type=checkbox]").first.check()
    expect(page.locator("#actions")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_it_works_below_a_path(look, admin, bed, shown, tmp_path):
    below = Gateway(tmp_path, bed.control_plane.kubeconfig, bed.a.namespace, prefix="/tools/crewjob")
    try:
        page = look(admin, paths(shown)["jobs"], at=below.address)
        expect(page.locator("tbody tr")).to_have_count(8)
        expect(page.locator("#live")).to_have_text("Live")
        page.click("tbody a.whole >> text=tides")
        expect(page.locator("h1")).to_have_text("tides")
        assert "/tools/crewjob/#/job/" in page.url
    finally:
        below.stop()


def test_the_colours_can_be_chosen_and_stay(look, admin):
    page = look(admin, scheme="dark")
    ground = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
    dark = ground()
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "light" and ground() != dark
    page.reload()
    expect(page.locator("#theme")).to_have_text("Light")
    page.click("#theme")
    assert ground() == dark


@pytest.mark.skipif("BROWSER_SCREENSHOTS" not in os.environ, reason="no folder for pictures")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 860), PHONE], ids=["wide", "phone"])
def test_pictures_of_each_screen(look, admin, shown, scheme, size):
    folder = Path(os.environ["BROWSER_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    page = look(admin, "#/jobs", size=size, scheme=scheme)
    for name, path in paths(shown).items():
        page.goto(page.url.split("#")[0] + path)
        expect(page.locator("[aria-busy]")).to_have_count(0)
        page.screenshot(path=folder / f"{name}-{scheme}-{size[0]}.png", full_page=True)
    page = look(None, size=size, scheme=scheme)
    expect(page.locator("#token")).to_be_visible()
    page.screenshot(path=folder / f"sign-in-{scheme}-{size[0]}.png")
