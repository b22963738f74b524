"""An API server that is slow, refuses, resets or says nothing: nothing is lost, and the operator leads on afterwards."""

import time

import pytest

from proxy import Front, Line
from waiting import holds, until

LEADS_WITHIN = 30
FAULT_SECONDS = 12


@pytest.fixture(scope="module")
def line(bed):
    yield from through(bed, Line)


@pytest.fixture(scope="module")
def front(bed):
    yield from through(bed, Front)


def through(bed, kind):
    folder = bed.folder / kind.__name__
    folder.mkdir()
    proxy = kind(bed.control_plane, folder)
    direct, bed.operator.kubeconfig = bed.operator.kubeconfig, proxy.kubeconfig
    bed.operator.restart()
    yield proxy
    proxy.recover()
    bed.operator.stop()
    bed.operator.kubeconfig = direct
    proxy.stop()
    bed.operator.start()


@pytest.fixture(autouse=True)
def no_fault_left(request):
    yield
    for name in {"line", "front"} & set(request.fixturenames):
        request.getfixturevalue(name).recover()


class Work:
    """Jobs before, while and after the API server cannot be used; the test itself reaches it directly."""

    def __init__(self, bed):
        self.bed = bed
        bed.a.pool(bed.redis)
        for name in ("waits", "ends", "deleted"):
            bed.a.job(name)
        self.tasks = {name: bed.a.task(name) for name in ("waits", "ends", "deleted")}
        for name in self.tasks:
            bed.a.in_phase(name, "Queued")
        self.began = len(bed.operator.log.read_text())

    def goes_on(self):
        for number in range(5):
            self.bed.a.job(f"new-{number}")
        self.bed.a.delete("crewjobs", "deleted")
        self.bed.a.delete("crewjobs", "new-4")
        message = self.bed.redis.take(self.tasks["ends"])
        self.bed.redis.store(self.tasks["ends"], "SUCCESS", 1)
        self.bed.redis.acknowledge(message)

    def is_right(self):
        a, redis = self.bed.a, self.bed.redis
        assert a.in_phase("ends", "Succeeded")["result"]["value"] == 1
        waiting = ["waits", *(f"new-{number}" for number in range(4))]
        for name in waiting:
            assert "messageLosses" not in a.in_phase(name, "Queued")
        wanted = sorted(a.task(name) for name in waiting)
        queued = lambda: sorted(message["headers"]["id"] for message in redis.messages())  # noqa: E731
        until("each job that waits has one message, deleted ones have none", lambda: queued() == wanted)
        holds("that stays so", lambda: queued() == wanted, seconds=3)
        assert "leadership lost" not in self.bed.operator.log.read_text()[self.began :], "it has started over"


def through_the_fault(bed, seconds: float, unready: bool = True):
    """Waits for the fault to be over; says so as soon as the operator tells that it is not ready."""
    began = time.monotonic()
    if unready:
        until("it says that it is not ready, and why", lambda: "[-] lease: leading pauses" in is_unready(bed), 15)
    while time.monotonic() - began < seconds:
        assert bed.operator.get("/livez")[0] == 200, "a restart would not help"
        time.sleep(0.5)


def is_unready(bed):
    status, report = bed.operator.get("/readyz")
    return report if status == 503 else ""


def leads_again(bed):
    until("the operator leads and is ready again", bed.operator.ready, LEADS_WITHIN)
    assert bed.operator.metric("crewjob_leading") == 1


def test_jobs_survive_an_api_server_that_says_nothing_and_never_closes_a_connection(bed, line):
    work = Work(bed)
    line.stall()
    work.goes_on()
    through_the_fault(bed, FAULT_SECONDS)
    line.recover()
    leads_again(bed)
    work.is_right()


def test_jobs_survive_an_api_server_that_resets_every_connection(bed, line):
    work = Work(bed)
    line.reset()
    work.goes_on()
    through_the_fault(bed, FAULT_SECONDS)
    line.recover()
    leads_again(bed)
    work.is_right()


def test_jobs_go_on_with_an_api_server_that_answers_seconds_late(bed, line):
    work = Work(bed)
    line.delay = 0.7  # each way
    work.goes_on()
    through_the_fault(bed, FAULT_SECONDS, unready=False)
    assert bed.operator.metric("crewjob_leading") == 1
    line.recover()
    leads_again(bed)
    work.is_right()


def test_a_result_that_comes_while_the_end_of_its_job_is_recorded_is_noted_as_late(bed, line):
    bed.a.pool(bed.redis)
    bed.a.job("crew")
    task = bed.a.in_phase("crew", "Queued")["taskID"]
    line.delay = 0.7
    bed.a.change("crew", cancel=True)
    bed.a.in_phase("crew", "Cancelled")
    # The operator hears of the result first, and then that the end is recorded.
    bed.redis.store(task, "SUCCESS", 1)
    assert until("it is noted", lambda: bed.a.condition("crew", "LateResult"), 20)["status"] == "True"
    assert bed.a.status("crew")["phase"] == "Cancelled"


@pytest.mark.parametrize("status, headers", [(500, ""), (503, "Retry-After: 1\r\n"), (429, "Retry-After: 60\r\n")])
def test_jobs_survive_an_api_server_that_refuses_everything(bed, front, status, headers):
    work = Work(bed)
    front.answer("", status, headers)
    work.goes_on()
    through_the_fault(bed, FAULT_SECONDS)
    front.recover()
    leads_again(bed)
    work.is_right()


@pytest.mark.parametrize("status", [0, 500])
def test_a_deleted_job_whose_read_fails_is_read_again_until_its_message_is_off_redis(bed, front, status):
    bed.a.pool(bed.redis)
    bed.a.job("deleted")
    task = bed.a.task("deleted")
    bed.a.in_phase("deleted", "Queued")
    before = front.answered
    front.answer(r"^GET /\S*/crewjobs/deleted ", status)
    until("the watch goes on", bed.operator.ready)
    bed.a.delete("crewjobs", "deleted")
    until("it is read more than once", lambda: front.answered >= before + 3)
    assert bed.redis.queued(task), "that it is deleted is not known yet"
    front.recover()
    until("its message is taken off", lambda: not bed.redis.queued(task), LEADS_WITHIN)


def test_an_operator_without_rights_on_the_lease_is_not_ready_and_names_the_missing_right(bed, front):
    bed.operator.stop()
    before = bed.operator.log.read_text().count("claiming the Lease failed")
    front.answer("/leases", 403)
    bed.operator.start(leading=False)
    report = until("it says that it is not ready", lambda: is_unready(bed))
    until("it names the Lease", lambda: "[-] lease: Lease" in is_unready(bed))
    holds("it stays so", lambda: is_unready(bed), seconds=4)
    said = bed.operator.log.read_text().count("claiming the Lease failed") - before
    assert said <= 2, f"said {said} times: {report}"
    assert bed.operator.get("/livez")[0] == 200
    front.recover()
    leads_again(bed)


def test_a_watch_that_is_broken_is_named_with_the_time_and_deployments_are_not_forgotten(bed, front):
    bed.a.deployment()
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    until("the pool is ready", lambda: bed.a.pool_condition("Ready").get("status") == "True")
    until("the Deployment is known", bed.operator.ready)
    front.answer(r"^GET /apis/apps/v1/namespaces/\S*/deployments", 410)
    # All connections were cut, and the other watches begin again.
    broken = "[!] watches: deployments in"

    def others_are_served():
        status, report = bed.operator.get("/readyz")
        return report if status == 200 and broken in report else None

    report = until("this watch is named, and other tenants are served", others_are_served)
    assert " since 2" in report, report
    holds("the Deployment is known", lambda: bed.a.pool_condition("Ready").get("status") == "True", seconds=5)
    front.recover()
    until("all watches work", lambda: "[+] watches:" in bed.operator.get("/readyz")[1], LEADS_WITHIN)


def test_a_pool_without_its_redis_is_shown_and_does_not_make_the_operator_unready(bed):
    bed.a.pool(bed.redis)
    bed.redis.stop()
    report = until("the pool is shown", lambda: r if "[!] pools:" in (r := bed.operator.get("/readyz")[1]) else None)
    assert f"{bed.a.namespace}/default: Broker" in report and bed.operator.ready()
    bed.redis.start()
    until("it is gone from there", lambda: "[+] pools: 1 connected" in bed.operator.get("/readyz")[1])


def test_no_job_is_looked_at_before_all_unfinished_jobs_are_listed(bed, front):
    bed.operator.stop()
    bed.a.pool(bed.redis, ready=False)
    names = [f"job-{number}" for number in range(20)]
    for name in names:
        bed.a.job(name, topic="x" * 1000)
    front.cut_off_after(r"GET /apis/crewjob\.dev/v1alpha1/crewjobs\?.*watch", 16_000)
    bed.operator.start()
    until("some of the jobs are known", lambda: bed.operator.metric("crewjob_jobs_live") >= 1)
    until("their pool is ready", lambda: "pool connected" in bed.operator.said())
    is_untouched = lambda: not bed.redis.messages() and bed.operator.metric("crewjob_api_writes_total", write="JobStatus") == 0  # noqa: E731
    holds("none is published, and no status is written", is_untouched, seconds=2)
    front.recover()
    for name in names:
        bed.a.in_phase(name, "Queued", seconds=30)


def test_an_operator_that_starts_goes_on_saying_why_no_worker_starts_until_all_pods_are_listed(bed, front):
    bed.a.deployment(replicas=1)
    name = bed.a.pod()["metadata"]["name"]
    status = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}, "ready": False}
    bed.a.runs(name, ready=False, worker=status)
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"})
    bed.a.job("crew")
    reasons = lambda: (bed.a.condition("crew").get("reason"), bed.a.pool_condition("WorkersNotStarting").get("reason"))  # noqa: E731
    until("job and pool say it", lambda: reasons() == ("ImageNotPulled", "ImageNotPulled"))
    bed.operator.stop()
    listing = r"^GET /api/v1/namespaces/\S*/pods"
    front.answer(listing, 500)
    before = front.answered
    bed.operator.start()
    until("Pods are asked for", lambda: front.answered > before)
    holds("both say it on", lambda: reasons() == ("ImageNotPulled", "ImageNotPulled"), seconds=5)
    assert bed.operator.metric("crewjob_api_writes_total", write="JobStatus") == 0
    front.recover()
    until("the operator is ready", bed.operator.ready)
    holds("both say it on", lambda: reasons() == ("ImageNotPulled", "ImageNotPulled"), seconds=3)
    assert bed.operator.metric("crewjob_api_writes_total", write="JobStatus") == 0
