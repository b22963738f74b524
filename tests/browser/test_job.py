"""One job: where it stands, its attempts, its error, its result, its inputs, its log; and what strangers have written into it."""

import pytest
from objects import ago, condition
from playwright.sync_api import expect

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture
def fresh(bed, shown):
    # It would change what a test has written, for the jobs have no pool.
    bed.operator.stop()
    yield shown
    shown.clear()


def at(shown, name: str) -> str:
    return f"#/job/{shown.namespace}/{name}"


def test_the_attempts_the_error_and_the_conditions_of_a_failed_job_are_shown(look, admin, fresh):
    attempts = [
        {"number": 1, "outcome": "WorkerLost", "worker": "crew@one", "enqueuedAt": ago(900), "startedAt": ago(880), "finishedAt": ago(600), "message": "OOMKilled"},
        {"number": 2, "outcome": "Failed", "worker": "crew@two", "enqueuedAt": ago(590), "startedAt": ago(500), "finishedAt": ago(300), "errorType": "ValueError"},
    ]
    consumed = {"inputTokens": 1000, "outputTokens": 200, "requests": 3, "costUSD": "0.75"}
    attempts[1] |= {"resumed": True, "usage": consumed}
    error = {"type": "ValueError", "message": "no topic", "traceback": "Traceback:\n  line 1"}
    status = {"attempts": 2, "attemptHistory": attempts, "error": error, "queuedAt": ago(590), "startedAt": ago(500), "finishedAt": ago(300)}
    status |= {"usage": consumed, "state": {"savedAt": ago(310), "sizeBytes": 4096, "problem": "the state has more than 10 bytes"}}
    fresh.job("failed", "Failed", "RetriesExhausted", message="it was run twice", status=status, inputs={"secret": "of the user"})
    page = look(admin, at(fresh, "failed"))
    expect(page.locator("h1")).to_have_text("failed")
    rows = page.locator(".attempts > li")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("WorkerLost")
    expect(rows.nth(0)).to_contain_text("waited 20s, ran 4m 40s")
    expect(rows.nth(1)).to_contain_text("ValueError")
    expect(rows.nth(1)).to_contain_text("on crew@two, resumed, 3 requests, 1,200 tokens, 0.75 USD")
    details = page.locator("section", has=page.locator("#facts-title"))
    for text in ("3 requests, 1,200 tokens, 0.75 USD", "4,096 bytes, saved", "the state has more than 10 bytes"):
        expect(details).to_contain_text(text)
    expect(page.locator(".panel.error")).to_contain_text("Traceback")
    expect(page.locator("table.plain")).to_contain_text("RetriesExhausted")
    expect(page.locator("body")).not_to_contain_text("of the user")
    page.click("#inputs-summary")
    expect(page.locator("#inputs pre")).to_contain_text('"secret": "of the user"')


def test_what_explain_says_is_shown_with_what_is_to_be_done(look, admin, fresh):
    fresh.job("waits", "Pending", "PoolMissing", message="there is no CrewWorkerPool default")
    page = look(admin, at(fresh, "waits"))
    stands = page.locator("section", has=page.locator("#why-title"))
    expect(stands).to_contain_text("PoolNotFound")
    expect(stands).to_contain_text("To do")


def test_the_place_of_a_queued_job_follows_from_the_jobs_that_the_gateway_knows(look, admin, fresh, gateway):
    bands = [{"step": step, "depth": depth} for step, depth in ((0, 0), (3, 3), (6, 0), (9, 0))]
    ready = [condition("Ready", "True", "AsExpected")]
    fresh.pool(status={"depth": 3, "queues": [{"name": "crew_jobs", "depth": 3, "bands": bands}], "conditions": ready})
    for number, name in enumerate(["first", "second", "third"]):
        fresh.job(name, "Queued", status={"queue": "crew_jobs", "queuedAt": ago(100 - number * 10)})
    page = look(admin, at(fresh, "third"))
    expect(page.locator("#job-body")).to_contain_text("3 of 3 in queue crew_jobs, band 3: 2 ahead")


def test_progress_and_result_appear_as_they_come(look, admin, fresh):
    running = {"startedAt": ago(30), "queuedAt": ago(40), "attempts": 1, "taskID": "t", "worker": {"name": "crew@one"}}
    fresh.job("runs", "Running", "Started", status={**running, "progress": {"percent": 30, "message": "first draft"}})
    page = look(admin, at(fresh, "runs"))
    expect(page.locator("#progress")).to_contain_text("30 %")
    expect(page.locator(".attempts > li")).to_contain_text("runs since")
    fresh.status("runs", progress={"percent": 80, "message": "second draft"})
    expect(page.locator("#progress")).to_contain_text("80 %")
    fresh.status("runs", phase="Succeeded", finishedAt=ago(0), result={"value": {"title": "Tides"}, "sizeBytes": 17})
    expect(page.locator("#job-body")).to_contain_text('"title": "Tides"')
    expect(page.locator("#act-cancel")).to_have_count(0)


def test_a_result_that_is_elsewhere_is_said_to_be_there(look, admin, fresh):
    fresh.job("large", "Succeeded", status={"result": {"configMapName": "large-result", "sizeBytes": 50000}})
    fresh.job("huge", "Succeeded", status={"result": {"redisKey": "celery-task-meta-1", "sizeBytes": 5000000}})
    expect(look(admin, at(fresh, "large")).locator("#job-body")).to_contain_text("ConfigMap large-result")
    expect(look(admin, at(fresh, "huge")).locator("#job-body")).to_contain_text("celery-task-meta-1")


def test_markup_in_anything_that_a_job_says_is_shown_as_text(look, admin, fresh):
    attempt = {"number": 1, "outcome": "Failed", "worker": EVIL, "startedAt": ago(9), "finishedAt": ago(5), "message": EVIL[:128], "errorType": "<b>Error</b>"}
    status = {
        "attempts": 1,
        "error": {"type": "<b>Error</b>", "message": EVIL, "traceback": EVIL},
        "worker": {"name": EVIL},
        "attemptHistory": [attempt],
        "taskID": "<i>id</i>",
    }
    fresh.job("evil", "Failed", "TaskFailed", message=EVIL, topic=EVIL, inputs={EVIL: EVIL}, status=status)
    fresh.job("result", "Succeeded", topic=EVIL, status={"result": {"value": EVIL, "sizeBytes": 9}})
    page = look(admin, at(fresh, "evil"))
    expect(page.locator(".lead")).to_have_text(EVIL)
    page.click("#inputs-summary")
    expect(page.locator("#inputs pre")).to_contain_text("onerror")
    page.goto(page.url.split("#")[0] + at(fresh, "result"))
    expect(page.locator("section", has=page.locator("#result-title")).locator("pre")).to_have_text(EVIL)
    page.goto(page.url.split("#")[0] + f"#/jobs?namespace={fresh.namespace}&label={EVIL.replace('#', '')}")
    expect(page.locator("#chosen")).to_contain_text("<img")
    page.click("#clear")
    expect(page.locator("tbody")).to_contain_text("onerror")
    assert page.locator("main img, main script").count() == 0 and page.title() != "owned"


def test_a_job_that_is_not_there_or_not_for_the_caller_is_said_so(look, admin, reader, fresh):
    expect(look(admin, at(fresh, "absent")).locator("#job-body")).to_contain_text("There is no such job")
    fresh.job("other")
    expect(look(reader, at(fresh, "other")).locator("[role=alert]")).to_contain_text("forbidden")


def test_a_log_that_is_gone_says_why(look, admin, fresh):
    status = {"attempts": 1, "startedAt": ago(60), "finishedAt": ago(5), "worker": {"name": "crew@gone-pod", "podName": "gone-pod"}}
    fresh.job("logged", "Failed", status=status)
    page = look(admin, at(fresh, "logged"))
    page.click("#log-read")
    expect(page.locator("#log-about")).to_contain_text("the Pod gone-pod that ran attempt 1 is gone")
