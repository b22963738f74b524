"""The list of jobs: filters, order, pages, and changes as they happen."""

import pytest
from objects import ago
from playwright.sync_api import expect

from waiting import until


@pytest.fixture(scope="module", autouse=True)
def jobs(bed, shown):
    """120 jobs that have succeeded, and one for each other phase. The operator would change these, for they have no pool."""
    bed.operator.stop()
    shown.job("waits", "Pending", "PoolMissing")
    shown.job("queued", "Queued", labels={"team": "a"}, priority=9)
    shown.job("runs", "Running", "Started", status={"progress": {"percent": 40}, "worker": {"name": "crew@pod-1"}, "startedAt": ago(60), "attempts": 1})
    shown.job("again", "Retrying", "BackingOff", status={"attempts": 2, "error": {"type": "ValueError", "message": "no topic"}})
    shown.job("failed", "Failed", "TaskFailed", status={"attempts": 4, "error": {"type": "KeyError", "message": "depth"}})
    shown.job("stopped", "Cancelled", "Cancelled", labels={"team": "b"})
    for number in range(120):
        shown.job(f"done-{number:03}", "Succeeded", "Succeeded", labels={"team": "a"}, poolRef={"name": "gpu" if number % 2 else "default"})


def here(shown, more: str = "") -> str:
    return f"#/jobs?namespace={shown.namespace}{more}"


def names(page) -> list[str]:
    return page.locator("tbody a.whole").all_inner_texts()


def shows(page, *expected: str) -> None:
    until(f"the list is {expected}", lambda: names(page) == list(expected), 10)


def test_every_phase_has_a_word_and_a_shape_of_its_own(look, admin, shown):
    page = look(admin, here(shown, "&phase=Pending&phase=Queued&phase=Running&phase=Retrying&phase=Failed&phase=Cancelled&sort=phase"))
    shows(page, "waits", "queued", "runs", "again", "failed", "stopped")
    badges = page.locator("tbody .badge")
    assert badges.all_inner_texts() == ["Pending", "Queued", "Running", "Retrying", "Failed", "Cancelled"]
    shapes = {badge.locator("svg").inner_html() for badge in badges.all()}
    assert len(shapes) == 6
    row = page.locator("tbody tr", has_text="runs").first
    assert row.locator("progress").get_attribute("value") == "40"
    assert "ValueError: no topic" in page.locator("tbody tr", has_text="again").first.inner_text()


def test_chips_menus_label_and_text_narrow_the_list_and_stand_in_the_address(look, admin, shown):
    page = look(admin, here(shown))
    expect(page.locator("#total")).to_have_text("126 jobs")
    page.click("#phase-Failed")
    shows(page, "failed")
    page.click("#phase-Queued")
    until("both phases are listed", lambda: sorted(names(page)) == ["failed", "queued"])
    assert page.locator("#phase-Queued").get_attribute("aria-pressed") == "true"
    page.fill("#add-label", "team=a")
    page.press("#add-label", "Enter")
    shows(page, "queued")
    assert "phase=Failed" in page.url and "label=team%3Da" in page.url
    page.get_by_label("label team=a: remove").click()
    page.click("#phase-Queued")
    shows(page, "failed")
    page.click("#clear")
    page.select_option("#add-namespace", shown.namespace)
    page.select_option("#add-reason", "PoolMissing")
    shows(page, "waits")
    page.go_back()
    expect(page.locator("#total")).to_have_text("126 jobs")
    page.fill("#filter-text", "KEYerror")
    shows(page, "failed")
    page.fill("#filter-text", "pod-1")
    shows(page, "runs")
    page.fill("#filter-text", "no such text")
    expect(page.locator("#list")).to_contain_text("No job matches")


def test_pages_follow_each_other_and_a_heading_sorts(look, admin, shown):
    page = look(admin, here(shown, "&phase=Succeeded&sort=name"))
    until("the first page", lambda: len(names(page)) == 50)
    assert names(page)[0] == "done-000"
    expect(page.locator("#previous")).to_be_disabled()
    page.click("#next")
    until("the second page", lambda: names(page)[:1] == ["done-050"])
    page.click("#next")
    until("the third page", lambda: names(page)[:1] == ["done-100"])
    assert len(names(page)) == 20
    expect(page.locator("#next")).to_be_disabled()
    expect(page.locator("#pager")).to_contain_text("101–120 of 120")
    page.click("#previous")
    until("the second page again", lambda: names(page)[:1] == ["done-050"])
    page.click("#sort-name")
    until("the last one comes first", lambda: names(page)[:1] == ["done-119"])
    assert page.locator("th.of-name[aria-sort]").get_attribute("aria-sort") == "descending"


def test_a_change_is_shown_within_seconds_and_the_focus_stays(look, admin, shown):
    page = look(admin, here(shown, "&name=live"))
    expect(page.locator("#live")).to_have_text("Live")
    shown.job("live", "Queued")
    shows(page, "live")
    page.locator("tbody a.whole").focus()
    shown.status("live", phase="Running", startedAt=ago(1), attempts=1)
    until("it runs", lambda: page.locator("tbody .badge").inner_text() == "Running", 10)
    assert page.evaluate("document.activeElement.textContent") == "live"
    shown.tenant.delete("crewjobs", "live")
    until("it is gone", lambda: names(page) == [], 10)


def test_nothing_is_asked_while_the_tab_is_hidden_and_what_was_missed_is_shown_afterwards(look, admin, shown):
    page = look(admin, here(shown, "&name=missed"))
    expect(page.locator("#live")).to_have_text("Live")
    # A headless browser hides no tab: the page is told so.
    hide = "(is) => { Object.defineProperty(document, 'hidden', { value: is, configurable: true }); document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    expect(page.locator("#live")).to_have_text("Paused")
    asked = []
    page.on("request", lambda made: asked.append(made.url))
    shown.job("missed", "Queued")
    page.wait_for_timeout(2500)
    assert (asked, names(page)) == ([], [])
    page.evaluate(hide, False)
    shows(page, "missed")
    expect(page.locator("#live")).to_have_text("Live")
    shown.tenant.delete("crewjobs", "missed")


def test_a_caller_sees_and_counts_only_what_it_may_list(look, gateway, bed, reader, admin, shown):
    bed.a.job("own", suspend=True)
    page = look(reader, "#/jobs")
    shows(page, "own")
    expect(page.locator("#total")).to_have_text("1 job")
    assert page.locator("#add-namespace option").all_inner_texts() == ["Namespace", f"{bed.a.namespace} (1)"]
    refused = gateway.get(f"api/jobs?namespace={shown.namespace}", reader)
    assert refused.problem == "forbidden" and "You may not list crewjobs in the namespace" in refused.text
    absent = gateway.get("api/jobs?namespace=no-such-namespace", reader)
    assert absent.problem == "forbidden", "whether a namespace exists is not said"
    assert gateway.get(f"api/jobs/events?namespace={shown.namespace}", reader).problem == "forbidden"
    assert gateway.get("api/jobs").problem == gateway.get("api/jobs", "made-up").problem == "unauthenticated"


def test_what_a_query_cannot_mean_is_refused_with_its_word(gateway, admin):
    for query, word in [("limit=0", "limit"), ("limit=9999", "limit"), ("sort=topic", "sort"), ("nmaespace=a", "nmaespace"), ("continue=x", "continue")]:
        answer = gateway.get(f"api/jobs?{query}", admin)
        assert answer.status == 400 and word in answer.json["detail"], (query, answer)
