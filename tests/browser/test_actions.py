"""What is done with jobs, with the rights of the caller: on a real operator and Redis, and on many jobs at once."""

import pytest
from gateway import everywhere
from playwright.sync_api import expect

from waiting import until


@pytest.fixture
def pool(bed):
    bed.a.pool(bed.redis)


def at(tenant, name: str) -> str:
    return f"#/job/{tenant.namespace}/{name}"


def confirm(page, title: str) -> None:
    expect(page.locator("#dialog-title")).to_have_text(title)
    page.click("#dialog-yes")


def test_a_queued_job_is_suspended_resumed_moved_and_cancelled_from_its_screen(look, admin, bed, pool):
    bed.a.job("tides")
    bed.a.in_phase("tides", "Queued")
    page = look(admin, at(bed.a, "tides"))
    page.click("#act-suspend")
    confirm(page, "Suspend tides?")
    until("it is off the queue", lambda: bed.redis.messages() == [])
    expect(page.locator("#job-head .badge")).to_have_text("Pending")
    page.click("#act-resume")
    confirm(page, "Resume tides?")
    expect(page.locator("#job-head .badge")).to_have_text("Queued")
    page.click("#act-priority")
    page.fill("#new-priority", "10")
    confirm(page, "Change the priority of tides?")
    until("it is urgent", lambda: bed.a.get("crewjobs", "tides")["spec"]["priority"] == 10)
    page.click("#act-cancel")
    page.click("#dialog-no")
    assert not bed.a.get("crewjobs", "tides")["spec"].get("cancel"), "nothing is done without a confirmation"
    page.click("#act-cancel")
    confirm(page, "Cancel tides?")
    expect(page.locator("#job-head .badge")).to_have_text("Cancelled")
    page.click("#act-retry")
    confirm(page, "Run again tides?")
    made = until("there is another", lambda: [job for job in bed.a.items("crewjobs") if job["metadata"]["name"] != "tides"])
    assert made[0]["metadata"]["annotations"]["crewjob.dev/origin"] == "tides"
    assert made[0]["spec"]["priority"] == 10 and not made[0]["spec"].get("cancel")


def test_an_action_on_all_that_match_counts_them_first_and_touches_no_other(look, admin, bed, shown):
    for number in range(60):
        shown.job(f"bulk-{number:02}", "Queued", labels={"bulk": "yes"})
    shown.job("other", "Queued")
    shown.job("over", "Succeeded", labels={"bulk": "yes"})
    page = look(admin, f"#/jobs?namespace={shown.namespace}&label=bulk")
    expect(page.locator("#total")).to_have_text("61 jobs")
    page.check("#mark-page")
    page.click("#mark-all")
    expect(page.locator("#actions")).to_contain_text("All 61 jobs that match")
    page.click("#act-cancel")
    expect(page.locator("#dialog")).to_contain_text("1 further job")
    confirm(page, "Cancel 60 jobs?")
    expect(page.locator("#notes")).to_contain_text("60 jobs cancelled")
    cancelled = {job["metadata"]["name"] for job in shown.tenant.items("crewjobs") if job["spec"].get("cancel")}
    assert cancelled == {f"bulk-{number:02}" for number in range(60)}
    shown.clear()


def test_no_more_jobs_are_changed_than_were_confirmed_and_each_refusal_is_said(gateway, admin, bed, shown):
    for name in ("one", "two", "three"):
        shown.job(name, "Queued")
    until("they are known", lambda: gateway.jobs(admin, f"?namespace={shown.namespace}")["total"] == 3)
    asked = {"action": "suspend", "filter": f"namespace={shown.namespace}", "expected": 2}
    answer = gateway.act(admin, asked)
    assert answer.problem == "conflict" and answer.json["count"] == "3", answer
    assert not any(job["spec"].get("suspend") for job in shown.tenant.items("crewjobs"))
    names = [{"namespace": shown.namespace, "name": name} for name in ("one", "absent")]
    answer = gateway.act(admin, {"action": "suspend", "jobs": names, "expected": 2})
    one, absent = answer.json["results"]
    assert (one["done"], absent["done"]) == (True, False) and "absent" in absent["message"]
    for wrong in ({"action": "delete", "jobs": names}, {"action": "priority", "jobs": names, "priority": 11}, {"action": "cancel"},
                  {"action": "cancel", "jobs": [{"namespace": "..", "name": "x/y"}], "expected": 1}, {"action": "cancel", "jobs": names}):
        answer = gateway.act(admin, wrong)
        assert answer.status == 400, (wrong, answer)
    shown.clear()


def test_buttons_that_the_api_server_would_refuse_are_off_and_say_why(look, reader, bed, gateway):
    bed.a.job("mine", suspend=True)
    page = look(reader, at(bed.a, "mine"))
    cancel = page.locator("#act-cancel")
    expect(cancel).to_have_attribute("aria-disabled", "true")
    assert "You may not patch crewjobs" in cancel.get_attribute("title")
    expect(page.locator("#refusals")).to_contain_text("You may not patch crewjobs")
    cancel.click(force=True)
    expect(page.locator("#dialog")).not_to_be_visible()
    names = [{"namespace": bed.a.namespace, "name": "mine"}]
    [result] = gateway.act(reader, {"action": "cancel", "jobs": names, "expected": 1}).json["results"]
    assert not result["done"] and "forbidden" in result["message"]
    assert not bed.a.get("crewjobs", "mine")["spec"].get("cancel")
    page.goto(page.url.split("#")[0] + f"#/submit?namespace={bed.a.namespace}")
    expect(page.locator("#submit")).to_have_attribute("aria-disabled", "true")


def test_a_filter_reaches_no_job_that_the_caller_may_not_list(gateway, bed, shown):
    may_change = [{"apiGroups": ["crewjob.dev"], "resources": ["crewjobs"], "verbs": ["patch"]}]
    blind = everywhere(bed.a, "blind", *may_change)
    shown.job("unseen", "Queued")
    answer = gateway.act(blind, {"action": "cancel", "filter": "", "dryRun": True})
    assert answer.status == 200 and answer.json == {"count": 0, "skipped": 0}
    shown.clear()


def test_a_request_of_another_site_is_refused(gateway, admin, bed):
    body = {"action": "cancel", "jobs": [{"namespace": bed.a.namespace, "name": "x"}], "expected": 1}
    assert gateway.act(admin, body, sec_fetch_site="cross-site").problem == "cross-site"
    assert gateway.act(admin, body, content_type="text/plain").problem == "unsupported-media-type"
