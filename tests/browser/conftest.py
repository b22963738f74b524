"""The page in a browser: one Chromium for each process of pytest, and a gateway for each file of tests."""

import json
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "loop"), str(HERE.parent / "e2e")]

from playwright.sync_api import expect, sync_playwright  # noqa: E402

import waiting  # noqa: E402
from fixtures import *  # noqa: E402, F403
from gateway import READ, WRITE, Gateway, everywhere, rules  # noqa: E402
from gateways import Account  # noqa: E402
from objects import Objects  # noqa: E402

waiting.SECONDS = 30
expect.set_options(timeout=15_000)

CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
CHROMIUM += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

# Violations of the page's policy, where the page itself can hear of them.
LISTEN = "addEventListener('securitypolicyviolation', (event) => console.error('policy: ' + event.violatedDirective + ' ' + event.blockedURI));"


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["BROWSER"], args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def gateway(bed):
    gateway = Gateway(bed.folder / "gateway", bed.control_plane.kubeconfig, bed.a.namespace)
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def shown(bed):
    """A namespace that no operator looks into, so that what a test writes into a status stays."""
    objects = Objects(bed.tenant(f"{bed.name}-shown"))
    yield objects
    objects.clear()


@pytest.fixture(scope="module")
def admin(bed):
    """The token of a caller that may do everything with jobs, pools and schedules."""
    return everywhere(bed.a, "admin", *rules(WRITE))


@pytest.fixture(scope="module")
def reader(bed):
    """The token of a caller that may read in one namespace."""
    return Account(bed.a, "reader", *rules(READ)).token


@pytest.fixture
def look(chromium, gateway, request):
    """Opens the page: `look(token, "#/jobs", width=…)`. In the end no policy was violated, and no other site was asked."""
    contexts, problems = [], []
    origin = f"http://127.0.0.1:{gateway.port}"

    def opened(token=None, path="#/jobs", size=(1280, 860), scheme="light", at=None, headers=None):
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce")
        contexts.append(context)
        context.set_default_timeout(15_000)
        context.set_extra_http_headers(headers or {})
        context.add_init_script(LISTEN)
        if token:
            context.add_init_script(f"sessionStorage.getItem('seen') || sessionStorage.setItem('crewjob-token', {json.dumps(token)}); sessionStorage.setItem('seen', '1')")
        page = context.new_page()
        own = at or gateway.address
        allowed = own.split("/", 3)[2]
        page.on("request", lambda made: made.url.split("/", 3)[2] == allowed or problems.append(f"asked {made.url}"))
        page.on("pageerror", lambda error: problems.append(f"failed: {error}"))
        page.on("console", lambda said: problems.append(said.text) if "policy" in said.text.lower() else None)
        page.goto(own + path)
        return page

    yield opened
    if getattr(request.node, "failed", False) and os.environ.get("BROWSER_SCREENSHOTS") and contexts:
        contexts[-1].pages[0].screenshot(path=Path(os.environ["BROWSER_SCREENSHOTS"]) / f"failed-{request.node.name}.png")
    for context in contexts:
        context.close()
    assert not problems, (origin, problems)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.failed = report.failed
        if report.failed and "gateway" in item.fixturenames:
            report.sections.append(("the gateway's log", item.funcargs["gateway"].log.read_text()[-4000:]))
    return report
