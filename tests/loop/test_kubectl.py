"""`kubectl crewjob` with a real API server and operator: what it prints, and its exit status."""

import functools
import json
import os
import signal
import subprocess
import zipfile

import pytest
from proxy import Front
from servers import CREWJOB

from waiting import until


@pytest.fixture
def ctl(bed):
    """Runs a verb in the namespace of `a`, and returns how it ended."""

    def ctl(*arguments, stdin=subprocess.DEVNULL, **options):
        return subprocess.run(command(bed, *arguments), stdin=stdin, capture_output=True, text=True, timeout=60, **options)

    return ctl


def command(bed, *arguments):
    kubeconfig = ("--kubeconfig", str(bed.control_plane.kubeconfig), "-n", bed.a.namespace)
    return [str(CREWJOB), "ctl", *arguments, *kubeconfig]


@pytest.fixture
def pool(bed):
    bed.a.pool(bed.redis)


def ended(bed, name, status="SUCCESS", result=None):
    """Lets the job's task end as a worker would end it, and waits for the end of the job."""
    end(bed, name, status, result)
    bed.a.in_phase(name, "Succeeded", "Failed")


def end(bed, name, status="SUCCESS", result=None):
    """Lets the job's task end as a worker would end it."""
    task = bed.a.task(name)
    until("its message waits", lambda: bed.redis.queued(task))
    message = bed.redis.take(task)
    bed.redis.store(task, status, {"answer": 42} if result is None else result)
    bed.redis.acknowledge(message)


def failed(bed, name):
    ended(bed, name, "FAILURE", {"exc_type": "ValueError", "exc_message": ["no tea"]})


NO_RETRIES = {"retryPolicy": {"maxRetries": 0}}


def test_a_job_is_run_and_followed_to_its_end_and_its_result_is_printed(bed, pool, ctl):
    run = ("run", "--topic", "Tea", "--name", "tea", "--input", "cups=3", "--follow")
    following = subprocess.Popen(command(bed, *run), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert following.stdout.readline() == "crewjob.crewjob.dev/tea created\n"
        ended(bed, "tea")
        _, said = following.communicate(timeout=30)
    finally:
        following.kill()
    assert following.returncode == 0, said
    # A short job has one write of its status: it need not be seen in every phase.
    first, *_, last = said.splitlines()
    assert first.startswith(("tea is Pending", "tea is Queued")) and last.startswith("tea is Succeeded"), said
    spec = bed.a.get("crewjobs", "tea")["spec"]
    assert (spec["topic"], spec["inputs"]) == ("Tea", {"cups": 3})
    result = ctl("result", "tea")
    assert (result.returncode, json.loads(result.stdout)) == (0, {"answer": 42})


def test_the_exit_status_of_waiting_is_that_of_the_job(bed, pool, ctl):
    for name in ("good", "bad", "ugly", "late"):
        bed.a.job(name, **NO_RETRIES)
    ended(bed, "good")
    failed(bed, "bad")
    assert "is to be cancelled" in ctl("cancel", "ugly").stdout
    bed.a.in_phase("ugly", "Cancelled")
    assert [ctl("wait", name).returncode for name in ("good", "bad", "ugly")] == [0, 1, 3]
    late = ctl("wait", "late", "--timeout", "300ms")
    assert late.returncode == 4 and "goes on" in late.stderr and "Queued" in late.stderr
    assert ctl("wait", "good", "ugly", "bad").returncode == 3, "that of the first that did not succeed"
    result = ctl("result", "bad")
    assert result.returncode == 1 and "ValueError: no tea" in result.stderr and not result.stdout


def test_what_is_not_there_and_what_makes_no_sense_is_said_with_what_to_do(bed, ctl):
    missing = ctl("get", "nothing")
    assert missing.returncode == 1 and "no CrewJob nothing" in missing.stderr and "kubectl crewjob list" in missing.stderr
    assert ctl("run").returncode == 2
    assert "KEY=VALUE" in (bad := ctl("run", "--topic", "t", "--input", "depth")).stderr and bad.returncode == 2
    assert "give names" in (none := ctl("cancel")).stderr and none.returncode == 2
    refused = ctl("run", "--topic", "t", "--name", "Not_A_Name")
    assert refused.returncode == 1 and "metadata.name" in refused.stderr
    assert "no CrewJobs in the namespace" in ctl("list").stderr
    unreachable = subprocess.run([str(CREWJOB), "ctl", "list", "--kubeconfig", "/nothing"], capture_output=True, text=True)
    assert unreachable.returncode == 1 and "reading the kubeconfig" in unreachable.stderr


def test_jobs_are_listed_by_phase_label_and_pool_and_printed_in_every_form(bed, pool, ctl):
    for name in ("one", "two", "three"):
        bed.a.job(name, **NO_RETRIES)
    ended(bed, "one")
    bed.a.in_phase("two", "Queued")
    bed.a.in_phase("three", "Queued")
    names = lambda *options: {line.split()[0] for line in ctl("list", "--no-headers", *options).stdout.splitlines()}  # noqa: E731
    assert names() == {"one", "two", "three"}
    assert names("--phase", "Succeeded") == {"one"}
    assert names("--phase", "Succeeded", "--phase", "Queued") == {"one", "two", "three"}
    assert names("--pool", "another") == names("-l", "team=a") == set()
    assert names("--since", "1h") == {"one", "two", "three"}
    heading, row = ctl("get", "one", "-o", "wide").stdout.splitlines()
    assert heading.split()[:3] == ["NAME", "PHASE", "REASON"] and "topic of one" in row and "Succeeded" in row
    assert json.loads(ctl("get", "one", "-o", "json").stdout)["status"]["phase"] == "Succeeded"
    assert len(json.loads(ctl("list", "-o", "json").stdout)["items"]) == 3
    assert "phase: Succeeded" in ctl("get", "one", "-o", "yaml").stdout
    assert ctl("get", "one", "two", "-o", "name").stdout == "crewjob.crewjob.dev/one\ncrewjob.crewjob.dev/two\n"
    assert bed.a.namespace in ctl("list", "-A").stdout
    assert [job["metadata"]["name"] for job in json.loads(ctl("list", "--phase", "Succeeded", "-o", "json").stdout)["items"]] == ["one"]


def test_a_job_that_no_operator_has_seen_is_listed_as_pending(bed, ctl):
    bed.operator.stop()
    try:
        bed.a.job("unseen")
        name, phase, *_ = ctl("list", "--phase", "Pending", "--no-headers").stdout.split()
        assert (name, phase) == ("unseen", "Pending")
    finally:
        bed.operator.start()


def test_a_watch_that_is_not_allowed_is_said_at_once_and_one_that_breaks_is_begun_again(bed, pool, ctl, tmp_path):
    bed.a.job("tea", **NO_RETRIES)
    front = Front(bed.control_plane, tmp_path)
    through = ("--kubeconfig", str(front.kubeconfig), "-n", bed.a.namespace)
    try:
        front.answer(r"watch=true", 403)
        refused = subprocess.run([str(CREWJOB), "ctl", "wait", "tea", *through], capture_output=True, text=True, timeout=20)
        assert refused.returncode == 1 and "following the CrewJob tea" in refused.stderr, refused
        front.recover()
        waiting = subprocess.Popen([str(CREWJOB), "ctl", "wait", "tea", "-f", *through], stderr=subprocess.PIPE, text=True)
        assert "tea is" in waiting.stderr.readline()
        front.cut()
        ended(bed, "tea")
        assert waiting.wait(30) == 0
    finally:
        front.stop()


def test_a_selection_of_jobs_is_changed_only_when_that_is_confirmed(bed, pool, ctl):
    for name in ("one", "two", "done"):
        bed.a.job(name)
    ended(bed, "done")
    unconfirmed = ctl("suspend", "--all")
    assert unconfirmed.returncode == 2 and "--yes" in unconfirmed.stderr
    assert not bed.a.get("crewjobs", "one")["spec"]["suspend"]
    changed = ctl("suspend", "--all", "--yes")
    assert changed.returncode == 0 and "done" not in changed.stdout, changed
    for name in ("one", "two"):
        until(f"{name} says that it is suspended", lambda: bed.a.condition(name).get("reason") == "Suspended")
        bed.a.in_phase(name, "Pending")
    assert ctl("resume", "one").returncode == ctl("priority", "9", "one").returncode == 0
    bed.a.in_phase("one", "Queued")
    assert bed.a.get("crewjobs", "one")["spec"]["priority"] == 9
    assert bed.a.get("crewjobs", "two")["spec"]["suspend"]
    over = ctl("cancel", "done")
    assert over.returncode == 0 and "Succeeded already" in over.stderr
    both = ctl("cancel", "nothing", "two", "neither")
    assert both.returncode == 1 and "no CrewJob nothing" in both.stderr and "no CrewJob neither" in both.stderr
    bed.a.in_phase("two", "Cancelled")


def test_a_failed_job_is_run_again_as_a_new_one_that_names_it(bed, pool, ctl):
    bed.a.job("tea", inputs={"cups": 3}, **NO_RETRIES)
    bed.a.job("fine", **NO_RETRIES)
    failed(bed, "tea")
    ended(bed, "fine")
    refused = ctl("retry", "fine")
    assert refused.returncode == 1 and "run --from fine" in refused.stderr
    again = ctl("retry", "--failed")
    assert again.returncode == 0 and again.stdout.endswith("created from tea\n"), again
    name = again.stdout.split()[0].removeprefix("crewjob.crewjob.dev/")
    made = bed.a.get("crewjobs", name)
    assert made["metadata"]["annotations"]["crewjob.dev/origin"] == "tea"
    assert made["spec"]["inputs"] == {"cups": 3} and made["spec"]["topic"] == "topic of tea"
    ended(bed, name)
    assert ctl("retry", "--failed", "--since", "24h", "--phase", "Queued").stdout == ""


def test_inputs_come_from_a_file_and_a_dry_run_creates_nothing(bed, ctl, tmp_path):
    (tmp_path / "inputs.yaml").write_text("depth: 3\nstyle: dry\n")
    dry = ctl("run", "--topic", "t", "--inputs-file", str(tmp_path / "inputs.yaml"), "--input", "depth=4", "--dry-run", "-o", "json")
    assert json.loads(dry.stdout)["spec"]["inputs"] == {"depth": 4, "style": "dry"}, dry.stderr
    assert bed.a.items("crewjobs") == []
    (tmp_path / "list").write_text("[1]")
    refused = ctl("run", "--topic", "t", "--inputs-file", str(tmp_path / "list"))
    assert refused.returncode == 2 and "object of inputs" in refused.stderr


WORKER = "worker-7d4b9c5f6d-x2x7q"
LOG = """2026-03-01T10:00:59.9Z another task
2026-03-01T10:01:00.1Z crew begins
2026-03-01T10:01:03Z \x1b[1mtokens\x1b[0m 12
2026-03-01T10:01:09Z crew ends
2026-03-01T10:01:11Z the next task
"""


@pytest.fixture
def ran(bed, ctl, tmp_path):
    """A job that a worker begins as its status says, and a Pod with a log, of which the test is the kubelet."""
    front = Front(bed.control_plane, tmp_path)
    front.answer(rf"GET \S*/pods/{WORKER}/log", 200, body=LOG)
    bed.operator.stop()
    bed.a.job("tea")
    bed.a.deployment()
    bed.a.pod()
    bed.a.runs()
    container = bed.a.get("pods", WORKER)["status"]["containerStatuses"][0]["containerID"]
    worker = {"name": f"crew@{WORKER}", "podName": WORKER, "containerID": container}

    def state(phase, **status):
        begun = {"attempts": 1, "startedAt": "2026-03-01T10:01:00Z", "worker": worker}
        bed.a.patch("crewjobs", "tea", {"status": {"phase": phase, **begun, **status}}, "status")

    try:
        yield state, ("--kubeconfig", str(front.kubeconfig), "-n", bed.a.namespace)
    finally:
        front.stop()
        bed.operator.start()


def logs(through, *options):
    return subprocess.Popen([str(CREWJOB), "ctl", "logs", "tea", *options, *through], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_logs_waits_for_a_worker_and_prints_what_its_container_wrote_during_the_attempt(ran):
    state, through = ran
    waiting = logs(through, "--follow")
    assert waiting.stderr.readline() == "waiting for a worker: tea is Pending\n"
    state("Running")
    assert waiting.stdout.readline() == "crew begins\n"
    state("Succeeded", finishedAt="2026-03-01T10:01:10Z")
    # What was read ahead for a line is in these files, where `communicate` does not look.
    printed, said = waiting.stdout.read(), waiting.stderr.read()
    assert (waiting.wait(30), said) == (0, "")
    assert printed.startswith("\x1b[1mtokens\x1b[0m 12\ncrew ends\n"), "in a pipe as it was written"
    printed, said = logs(through).communicate(timeout=30)
    assert printed.splitlines()[0] == "crew begins" and printed.splitlines()[-1] == "crew ends", said
    assert logs(through, "--tail", "1", "--timestamps").communicate(timeout=30)[0] == "2026-03-01T10:01:09Z crew ends\n"
    assert logs(through, "--grep", "^crew (b|x)").communicate(timeout=30)[0] == "crew begins\n"


def test_logs_says_which_attempts_there_were_and_that_a_pod_is_gone(bed, ran):
    state, through = ran

    def refused(*options):
        ended = logs(through, *options)
        printed, said = ended.communicate(timeout=30)
        assert printed == "" and ended.returncode in (1, 2), (ended.returncode, printed, said)
        return said

    assert "regular expression" in refused("--grep", "(")
    state("Failed", finishedAt="2026-03-01T10:01:10Z")
    assert "no attempt 2; known are: 1" in refused("--attempt", "2")
    state("Failed", finishedAt="2026-03-01T10:01:10Z", worker={"name": "crew@gone", "podName": "gone", "containerID": None})
    assert "the Pod gone that ran attempt 1 is gone, and its log with it" in refused()
    bed.a.job("held", suspend=True)
    bed.a.patch("crewjobs", "held", {"status": {"phase": "Cancelled"}}, "status")
    never = subprocess.run([str(CREWJOB), "ctl", "logs", "held", *through], capture_output=True, text=True, timeout=30)
    assert never.returncode == 1 and "no worker ran held: it is Cancelled" in never.stderr


def test_versions_are_told_with_what_does_not_fit_together(bed, ctl):
    told = ctl("version")
    assert told.returncode == 0 and "crewjobs.crewjob.dev: as this program has it" in told.stdout, told
    assert json.loads(ctl("version", "--client", "-o", "json").stdout)["crds"] == []
    labels = {"app.kubernetes.io/part-of": "crewjob", "app.kubernetes.io/component": "operator", "app.kubernetes.io/version": "9.9.9"}
    bed.a.deployment("operator")
    bed.a.patch("deployments", "operator", {"metadata": {"labels": labels}})
    told = ctl("version", "-o", "json")
    found = json.loads(told.stdout)
    assert told.returncode == 1 and found["operators"][0]["version"] == "9.9.9" and "9.9.9" in found["findings"][0]


def test_verbs_options_and_the_names_of_jobs_are_completed(bed, ctl, tmp_path):
    bed.a.job("tea")
    bed.a.job("toast")
    where = ("--kubeconfig", str(bed.control_plane.kubeconfig), "-n", bed.a.namespace)

    def completed(*words):
        return subprocess.run([str(CREWJOB), "ctl", "__complete", "--", *words], capture_output=True, text=True, timeout=20).stdout

    assert "\nlogs\tPrint" in completed("") and completed("").endswith(":4\n")
    assert completed(*where, "cancel", "te") == "tea\tPending\n:4\n"
    assert completed(*where, "cancel", "tea", "").count("\n") == 3
    assert completed("--kubeconfig", "/nothing", "cancel", "") == ":4\n", "no error in the middle of a line"
    assert completed("run", "--inputs-file", "") == ":0\n"
    helper = ctl("completion").stdout
    assert helper.startswith("#!/bin/sh\n")
    (tmp_path / "kubectl-crewjob").symlink_to(CREWJOB)
    (tmp_path / "kubectl_complete-crewjob").write_text(helper)
    (tmp_path / "kubectl_complete-crewjob").chmod(0o755)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    shown = subprocess.run(["kubectl_complete-crewjob", *where, "get", "to"], capture_output=True, text=True, env=path, timeout=20)
    assert shown.stdout == "toast\tPending\n:4\n", shown
    script = subprocess.run([str(CREWJOB), "completion", "bash"], capture_output=True, text=True)
    assert script.returncode == 0 and "_crewjob()" in script.stdout


def test_events_of_a_job_and_its_pool_are_listed(bed, ctl):
    bed.a.job("tea")
    bed.a.in_phase("tea", "Pending")
    until("an Event says why it waits", lambda: bed.a.warnings("crewjobs", "tea"))
    found = ctl("events", "tea")
    assert found.returncode == 0 and "crewjob/tea" in found.stdout and "PoolNotFound" in found.stdout, found


def test_what_reads_its_output_may_stop_and_a_signal_ends_it(bed, pool, ctl):
    for number in range(3):
        bed.a.job(f"job-{number}")
    reader, writer = os.pipe()
    os.close(reader)
    stopped = subprocess.run(command(bed, "list"), stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30)
    os.close(writer)
    assert (stopped.returncode, stopped.stderr) == (0, "")
    waiting = subprocess.Popen(command(bed, "wait", "job-0", "--follow"), stderr=subprocess.PIPE, text=True)
    assert "job-0 is" in waiting.stderr.readline()
    # A shell starts what is in the background so that it ignores SIGINT.
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(10) == -signal.SIGTERM


def test_as_a_plugin_of_kubectl_it_goes_by_its_name(bed, tmp_path):
    plugin = tmp_path / "kubectl-crewjob"
    plugin.symlink_to(CREWJOB)
    shown = subprocess.run([plugin, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "kubectl crewjob" in shown.stdout and "retry" in shown.stdout


def test_explain_says_what_keeps_a_job_and_where_it_waits(bed, ctl):
    explained = lambda name: json.loads(ctl("explain", name, "-o", "json").stdout)  # noqa: E731
    bed.a.job("tea")
    bed.a.in_phase("tea", "Pending")
    missing = explained("tea")
    assert (missing["reason"], missing["blocked"], missing["position"]) == ("PoolNotFound", True, None)
    assert "create the CrewWorkerPool default" in missing["remedy"]
    bed.a.pool(bed.redis)
    bed.a.in_phase("tea", "Queued")
    bed.a.job("toast", priority=9)
    bed.a.job("held", suspend=True)
    bed.a.in_phase("toast", "Queued")
    until("the pool counts both messages", lambda: bed.a.pool_status().get("depth") == 2)
    waits = explained("tea")
    assert waits["position"] == {"queue": "crew_jobs", "band": 3, "ahead": 1, "foreign": 0, "depth": 2}, waits
    assert explained("toast")["position"]["ahead"] == 0
    (message,) = bed.redis.client.lrange("crew_jobs\x06\x163", 0, 0)
    foreign = "00000000-0000-4000-8000-000000000001"
    bed.redis.client.lpush("crew_jobs", message.replace(bed.a.task("tea").encode(), foreign.encode()))
    until("the pool counts that of another producer", lambda: bed.a.pool_status().get("depth") == 3)
    assert explained("toast")["position"]["foreign"] == 1
    until("it is said to be suspended", lambda: bed.a.condition("held").get("reason") == "Suspended")
    assert explained("held")["remedy"] == "kubectl crewjob resume held"
    text = ctl("explain", "tea")
    assert text.returncode == 0 and text.stdout.startswith("job:      tea (Queued)\nreason:   ") and "position: 3 of 3" in text.stdout


def test_explain_says_when_a_job_begins_and_ends_from_how_long_others_ran(bed, pool, ctl):
    bed.operator.stop()
    try:
        status = {"ready": 1, "busy": 1, "desired": 1}
        bed.a.patch("crewworkerpools", "default", {"status": {"replicas": status}}, "status")
        at = lambda second: f"2026-03-01T10:{second // 60:02}:{second % 60:02}Z"  # noqa: E731
        for name, phase, times in (
            ("one", "Succeeded", {"startedAt": at(0), "finishedAt": at(50)}),
            ("two", "Succeeded", {"startedAt": at(60), "finishedAt": at(130)}),
            ("first", "Queued", {"queuedAt": at(1), "firstQueuedAt": at(1)}),
            ("second", "Queued", {"queuedAt": at(2), "firstQueuedAt": at(2)}),
        ):
            bed.a.job(name)
            seen = {"observedGeneration": 1, "attempts": 1, "queue": "crew_jobs", "taskID": bed.a.task(name)}
            bed.a.patch("crewjobs", name, {"status": {"phase": phase, **seen, **times}}, "status")
        expected = json.loads(ctl("explain", "second", "-o", "json").stdout)["expected"]
        assert (expected["startsInSeconds"], expected["endsInSeconds"], expected["takesSeconds"]) == (60, 120, 60)
        assert "begins in 60s, ends in 2m; a run takes 60s on the average" in ctl("explain", "second").stdout
    finally:
        bed.operator.start()


@pytest.fixture
def chart(bed, ctl):
    """The Deployment of the chart, of which the loop has no more than the operator itself and its Lease."""
    version = json.loads(ctl("version", "--client", "-o", "json").stdout)["client"]
    labels = {"app.kubernetes.io/part-of": "crewjob", "app.kubernetes.io/component": "operator", "app.kubernetes.io/version": version}
    bed.a.deployment("operator", replicas=1)
    bed.a.patch("deployments", "operator", {"metadata": {"labels": labels}})
    bed.a.patch("deployments", "operator", {"status": {"replicas": 1, "availableReplicas": 1, "readyReplicas": 1}}, "status")
    # The rights of the chart are the business of its own tests; here its account has all, or none.
    bindings, name = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", f"operator-{bed.a.namespace}"
    account = {"kind": "ServiceAccount", "name": "default", "namespace": bed.a.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    request = bed.control_plane.request
    request("POST", bindings, {"metadata": {"name": name}, "roleRef": role, "subjects": [account]})
    revoke = functools.cache(lambda: request("DELETE", f"{bindings}/{name}"))
    yield revoke
    revoke()


def test_doctor_finds_nothing_where_all_is_well_and_lets_a_job_come_back(bed, chart, pool, ctl):
    bed.a.job("waits")
    bed.a.in_phase("waits", "Queued")
    well = ctl("doctor")
    assert well.returncode == 0 and well.stdout.startswith("nothing is wrong with the 2 objects looked at"), well
    trying = subprocess.Popen(command(bed, "doctor", "--enqueue", "-o", "json"), stdout=subprocess.PIPE, text=True)
    try:
        tried = lambda: next((job["metadata"]["name"] for job in bed.a.items("crewjobs") if job["metadata"]["name"] != "waits"), None)  # noqa: E731
        until("a job is tried", tried)
        name = tried()
        assert bed.a.get("crewjobs", name)["spec"]["task"] == "backend.tasks.health_check"
        end(bed, name)
        printed, _ = trying.communicate(timeout=30)
    finally:
        trying.kill()
    assert trying.returncode == 0 and json.loads(printed)["findings"] == []
    assert tried() is None, "it is deleted again"
    late = json.loads(ctl("doctor", "--enqueue", "--timeout", "2s", "-o", "json").stdout)["findings"]
    assert [found["reason"] for found in late] == ["CheckFailed"] and "Queued" in late[0]["what"]


def test_doctor_finds_what_was_planted_and_says_how_to_mend_it(bed, chart, ctl, tmp_path):
    bed.a.deployment("worker", containers=[{"name": "worker", "image": "worker", "command": ["sh", "-c", "celery worker"]}])
    bed.a.pool(bed.redis, deploymentRef={"name": "worker"}, queues=[{"name": "crew_jobs"}])
    bed.a.pool(bed.redis, "twin")
    bed.a.pool_with("nowhere", "broken")
    bed.a.job("lost", poolRef={"name": "none"})
    bed.a.job("lost-too", poolRef={"name": "none"})
    bed.a.in_phase("lost-too", "Pending")
    bed.a.patch("deployments", "operator", {"status": {"availableReplicas": 0, "readyReplicas": 0}}, "status")

    def found():
        return {(it["object"].split("/")[-1], it["reason"]): it["what"] for it in json.loads(ctl("doctor", "-o", "json").stdout)["findings"]}

    expected = {
        ("operator", "OperatorNotAvailable"), ("worker", "ShellTakesSignals"), ("default", "QueueShared"),
        ("twin", "QueueShared"), ("broken", "SecretNotFound"), ("crewjobs", "PoolNotFound"),
    }  # fmt: skip
    until("all of it is found", lambda: expected <= found().keys())
    said = found()
    assert "2 jobs wait" in said["crewjobs", "PoolNotFound"] and "`exec`" in said["worker", "ShellTakesSignals"]
    shown = ctl("doctor")
    assert shown.returncode == 1 and shown.stdout.splitlines()[0].split()[:2] == ["OBJECT", "FINDING"]
    front = Front(bed.control_plane, tmp_path)
    try:
        front.answer(r"GET \S*/(crewworkerpools|leases)", 403)
        through = ("--kubeconfig", str(front.kubeconfig), "-n", bed.a.namespace)
        refused = subprocess.run([str(CREWJOB), "ctl", "doctor", *through], capture_output=True, text=True, timeout=30)
        assert "could not look at CrewWorkerPools" in refused.stderr and "could not look at the Lease" in refused.stderr, refused
    finally:
        front.stop()


def test_doctor_finds_the_rights_that_the_operator_lacks_or_says_that_it_may_not_ask(bed, chart, pool, ctl, tmp_path):
    found = lambda: [it for it in json.loads(ctl("doctor", "-o", "json").stdout)["findings"] if it["reason"] == "RightsMissing"]  # noqa: E731
    assert found() == []
    chart()
    until("the rights are gone", lambda: len(found()) == 2)
    everywhere, here = sorted(it["what"] for it in found())[::-1]
    assert "in the whole cluster: create crewjobs, delete crewjobs, get crewjobs" in everywhere
    assert f"in the namespace {bed.a.namespace}: " in here
    for right in ("create leases", "update leases crewjob-operator", "patch deployments/scale", "get secrets redis-default"):
        assert right in here, here
    front = Front(bed.control_plane, tmp_path)
    try:
        front.answer(r"POST \S*/subjectaccessreviews", 403)
        through = ("--kubeconfig", str(front.kubeconfig), "-n", bed.a.namespace)
        refused = subprocess.run([str(CREWJOB), "ctl", "doctor", *through], capture_output=True, text=True, timeout=30)
        assert "could not look at the rights of deployment/" in refused.stderr, refused
    finally:
        front.stop()


def test_a_wide_list_says_where_queued_jobs_wait_and_top_how_many_jobs_started_and_ended(bed, pool, ctl):
    for name, priority in {"second": 5, "first": 10, "third": 0}.items():
        bed.a.job(name, priority=priority)
    for name in ("first", "second", "third"):
        bed.a.in_phase(name, "Queued")
    heading = ctl("list", "-o", "wide").stdout.splitlines()[0].split()
    assert heading[7] == "POSITION"
    position = lambda: {row[0]: row[7] for row in map(str.split, ctl("list", "-o", "wide", "--no-headers").stdout.splitlines())}  # noqa: E731
    until("they stand in line", lambda: position() == {"first": "1", "second": "2", "third": "3"})
    shown = ctl("explain", "third").stdout
    assert "3 of 3" in shown, shown
    end(bed, "first")
    bed.a.in_phase("first", "Succeeded")
    until("the others move up", lambda: position() == {"first": "-", "second": "1", "third": "2"})
    heading, row, *_ = [line.split() for line in ctl("top").stdout.splitlines()]
    assert row[heading.index("ENDED/MIN")] == "1", row


def test_top_shows_pools_and_queues_once_in_a_pipe(bed, pool, ctl):
    bed.a.job("tea")
    until("the pool counts the message", lambda: bed.a.pool_status().get("depth") == 1)
    shown = ctl("top", "-A")
    cells = [line.split() for line in shown.stdout.splitlines()]
    assert shown.returncode == 0 and cells[0][:3] == ["NAMESPACE", "POOL", "READY"], shown
    assert cells[1][:3] == [bed.a.namespace, "default", "yes"] and ["crew_jobs", "1", "0", "3:1"] in cells


def test_a_report_holds_what_a_bug_report_needs_and_no_input(bed, chart, pool, ctl, tmp_path):
    bed.a.job("tea", topic="private topic", inputs={"audience": "private"}, **NO_RETRIES)
    failed(bed, "tea")
    file = tmp_path / "report.zip"
    written = ctl("report", str(file))
    assert (written.returncode, written.stdout) == (0, f"{file}\n"), written
    with zipfile.ZipFile(file) as report:
        content = {name: report.read(name).decode() for name in report.namelist()}
    assert {"versions.json", "doctor.json", "crewjobs.json", "crewworkerpools.json", "crewschedules.json", "pods.json", "events.json", "unread.txt"} <= content.keys()
    assert "private" not in "".join(content.values()) and "ValueError" in content["crewjobs.json"]
    assert json.loads(content["crewworkerpools.json"])[0]["metadata"]["name"] == "default"
    again = ctl("report", str(file))
    assert again.returncode == 1 and f"writing {file}" in again.stderr, "no file is overwritten"
    ctl("report", str(tmp_path / "open.zip"), "--with-inputs")
    with zipfile.ZipFile(tmp_path / "open.zip") as report:
        assert b"private topic" in report.read("crewjobs.json")


def test_cost_sums_up_what_jobs_consumed_by_what_is_asked_for(bed, ctl):
    usage = {"inputTokens": 10, "outputTokens": 2, "requests": 1, "costUSD": "0.25"}
    bed.a.pool(bed.redis)
    for name, customer in (("one", "acme"), ("two", "acme"), ("three", "other")):
        bed.a.job(name, labels={"customer": customer}, suspend=True)
        status = {"usage": usage | {"models": [{"model": "m", **usage}]}}
        bed.a.patch("crewjobs", name, {"status": status}, "status")
    bed.a.job("silent", suspend=True)
    rows = lambda *options: [line.split() for line in ctl("cost", *options).stdout.splitlines()]
    assert rows() == [
        ["MODEL", "JOBS", "REQUESTS", "INPUT", "CACHED", "OUTPUT", "USD"],
        ["m", "3", "3", "30", "0", "6", "0.75"],
    ]
    assert rows("--by", "label=customer", "--no-headers") == [
        ["acme", "2", "2", "20", "0", "4", "0.5"],
        ["other", "1", "1", "10", "0", "2", "0.25"],
        ["(all)", "3", "3", "30", "0", "6", "0.75"],
    ]
    said = ctl("cost", "--by", "pool", "-l", "customer=acme", "-o", "json")
    assert json.loads(said.stdout)[0] | {"key": "default", "jobs": 2, "costUSD": "0.5"} == json.loads(said.stdout)[0]
    assert "1 of the jobs have not reported" in ctl("cost").stderr
    refused = ctl("cost", "--by", "moon")
    assert refused.returncode == 2 and "label=NAME" in refused.stderr
