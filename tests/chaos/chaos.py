"""Breaks an installation at random while jobs flow through it, and judges what became of each. Runs in the cluster."""

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

import bed  # noqa: E402
import crew  # noqa: E402
import faults  # noqa: E402
import ground  # noqa: E402
import kube  # noqa: E402
import load  # noqa: E402
import operators  # noqa: E402
import report  # noqa: E402
import rival  # noqa: E402
import story  # noqa: E402
import verdict  # noqa: E402
from waiting import until

CHART = crew.PROJECT / "charts/crewjob-operator"
GUARD = "CREWJOB_GUARD"
CLASSES = {"stock": "0", "guarded": "1"}
STORIES = 12
WORKERS = 2
VALUES = {
    "operator": {"replicas": 2, "log": {"filter": "info,crewjob=debug"}},
    "poolNamespaces": [kube.NAMESPACE, rival.NAMESPACE],
    # A few large results, and the copies of them that are on the way to workers and operator.
    "redis": {"bundled": {"enabled": True, "maxmemory": "1gb", "resources": {"limits": {"memory": "2Gi"}}}},
    "defaultPool": {"concurrency": 2, "minReplicas": WORKERS, "maxReplicas": 4, "scaleDownDelay": "15s"},
    # Two children of Celery fit in, one that hoards does not.
    "worker": {"resources": {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "640Mi"}}},
}


@dataclass(frozen=True)
class Extent:
    """How much is tried, per class of workers. Another tenant has a fourth as many jobs."""

    jobs: int
    seconds: float
    pause: tuple[float, float]
    settle: float
    deck: list[str]
    flood: tuple[int, int]
    """Jobs that wait for a pool that does not exist: so many, and so many far too large ones, each of which takes two seconds."""


LONG = Extent(500, 300, (2.0, 6.0), 300, faults.DECK, (300, 10))
SHORT = Extent(40, 48, (1.5, 3.5), 300, list(faults.KINDS), (300, 4))


@dataclass
class Outcome:
    """What came of one class of workers."""

    name: str
    faults: list[verdict.Fault]
    phases: Counter[str]
    unknown: int
    runs: int
    findings: list[tuple[verdict.Job, verdict.Finding]]
    recoveries: list[verdict.Recovery]
    out_of_memory: int
    """Operators that took more memory than they may have."""
    stories: list[str] = field(default_factory=list)

    def count(self, kind: str) -> int:
        """Jobs with such a finding."""
        return len({job.name for job, finding in self.findings if finding.kind == kind})

    def slowest(self, disturbed: bool) -> verdict.Recovery | None:
        fitting = [recovery for recovery in self.recoveries if disturbed or not recovery.disturbed]
        return max(fitting, key=lambda recovery: recovery.idle, default=None)


# === The installation ===


def install(folder: Path) -> None:
    kube.run(["helm", "-n", kube.NAMESPACE, "uninstall", kube.RELEASE, "--wait", "--ignore-not-found"])
    kube.run(["kubectl", "-n", kube.NAMESPACE, "delete", "crewjobs,leases", "--all"])
    # Workers record in a folder of the node, which the standard that the end-to-end tests enforce forbids.
    kube.run(["kubectl", "label", "namespace", kube.NAMESPACE, "pod-security.kubernetes.io/enforce-"])
    rival.create_namespace()
    values = folder / "values.json"
    values.write_text(json.dumps(VALUES))
    options = ["--create-namespace", "--wait", "--timeout", "3m", "--values", str(values)]
    kube.helm("install", kube.RELEASE, str(CHART), *options)
    until("the pool is ready", lambda: crew.ready("default"))
    rival.install()


def use_workers(class_: str, folder: Path, say) -> Path:
    """Rolls out workers of this class that record what they do; returns where."""
    records = new_folder(folder / class_)
    containers = kube.get("deployment", kube.WORKER)["spec"]["template"]["spec"]["containers"]
    container = next(found for found in containers if found["name"] != faults.SIDECAR)
    arguments = container["args"]
    if "--include" not in arguments:
        arguments = [*arguments, "--include", "chaos_recorder"]
    env = {"PYTHONPATH": "/chaos", "CHAOS_FOLDER": f"/chaos/{class_}", GUARD: CLASSES[class_]}
    change = {
        "name": container["name"],
        "args": arguments,
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "volumeMounts": [{"name": "chaos", "mountPath": "/chaos"}],
    }
    volume = {"name": "chaos", "hostPath": {"path": str(folder), "type": "Directory"}}
    limits = {"cpu": "20m", "memory": "32Mi"}
    sidecar = {
        "name": faults.SIDECAR,
        "image": container["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
        "resources": {"requests": limits, "limits": limits},
        "securityContext": container.get("securityContext"),
    }
    # All at once: a rollout that spares the workers of before takes ten seconds for each.
    at_once = {"minReadySeconds": 0, "strategy": {"rollingUpdate": {"maxSurge": "100%"}}}
    patch = {"spec": {**at_once, "template": {"spec": {"containers": [change, sidecar], "volumes": [volume]}}}}
    kube.kubectl("patch", "deployment", kube.WORKER, "--type=strategic", "--patch", json.dumps(patch))
    theirs = new_folder(records_of_rival(records))
    rival.use_workers(theirs)
    until("the workers take tasks", lambda: ready_workers(records) >= WORKERS, seconds=120)
    try:
        until("the workers of another class have gone", lambda: not others(records), seconds=30)
    except AssertionError:
        # A worker that hangs does not hear that it is to stop, and its grace period is longer than all of this.
        stubborn = others(records)
        say(f"{class_}: {', '.join(stubborn)} does not stop and is ended by force")
        kube.kubectl("delete", "pod", *stubborn, "--grace-period=0", "--force", "--ignore-not-found")
    until("a worker of the other tenant takes tasks", lambda: ready_workers(theirs), seconds=120)
    return records


def new_folder(folder: Path) -> Path:
    """A folder that every container may write to."""
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    return folder


def records_of_rival(records: Path) -> Path:
    return records.with_name(f"{records.name}-{rival.NAMESPACE}")


def others(records: Path) -> set[str]:
    """Pods of workers that do not record there."""
    return {pod["metadata"]["name"] for pod in crew.worker_pods()} - {worker.pod for worker in ground.workers(records)}


def ready_workers(records: Path) -> int:
    return sum(ground.takes_tasks(worker) for worker in ground.workers(records))


# === One class of workers ===


def try_class(class_: str, extent: Extent, seed: int, folder: Path, say) -> Outcome:
    crew.remove_all()
    rival.remove_all()
    until("no job is left", lambda: not kube.items("crewjobs") and not rival.jobs(class_))
    records = use_workers(class_, folder, say)
    say(f"{class_}: {ready_workers(records)} workers take tasks")
    logs = ground.Logs(ground.state_dir(), kube.NAMESPACE)
    history = story.History()
    plan = load.plan(random.Random(f"{seed} jobs {class_}"), class_, extent.jobs, extent.seconds)
    stem = f"{class_}-{rival.NAMESPACE}"
    theirs = load.plan(random.Random(f"{seed} jobs {stem}"), class_, extent.jobs // 4, extent.seconds, stem)
    jobs, theirs = load.Load(plan), load.Load(theirs, rival.NAMESPACE)
    try:
        cluster = [str(bed.CLUSTER), "--name", os.environ["CHAOS_CLUSTER"]]
        broken = faults.Faults(random.Random(f"{seed} faults {class_}"), cluster, records, jobs, say, extent.flood)
        broken.go_on(time.time() + extent.seconds, extent.pause, extent.deck)
        broken.mend()
        jobs.finish()
        theirs.finish()
        rival.drain()
        count = len(jobs.created) + len(theirs.created)
        say(f"{class_}: {len(broken.done)} faults; {count} jobs are to end now")
        settle(class_, extent.settle, records, say)
    finally:
        jobs.stop()
        theirs.stop()
        history.stop()
        logs.stop()
    return assess(class_, jobs.asked(), theirs.asked(), broken, records, logs, history)


def settle(class_: str, seconds: float, records: Path, say) -> None:
    """Waits until every job has ended and nothing runs, or until that should long have happened."""
    deadline, said = time.monotonic() + seconds, 0.0
    while True:
        shown = ["-l", f"test={class_}", "-o", "jsonpath={.items[*].status.phase}"]
        text = [load.insist("-n", of, "get", "crewjobs", *shown) for of in (kube.NAMESPACE, rival.NAMESPACE)]
        phases = Counter(" ".join(text).split())
        open_ = sum(count for phase, count in phases.items() if phase not in verdict.FINAL)
        runs = [*ground.runs(records), *ground.runs(records_of_rival(records))]
        if not open_ and not any(ground.is_at_work(run, within=3) for run in runs):
            return
        if time.monotonic() > deadline:
            say(f"{class_}: {open_} jobs have not ended after {seconds:.0f} s of quiet")
            return
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"{class_}: {dict(phases)}")
        time.sleep(1)


def assess(
    class_: str, ours: list[verdict.Job], theirs: list[verdict.Job], broken: faults.Faults, records: Path, logs, history
) -> Outcome:
    items = [*kube.items("crewjobs", f"test={class_}"), *rival.jobs(class_)]
    statuses = {item["metadata"]["name"]: item for item in items}
    runs, workers = ground.runs(records), ground.workers(records)
    by_job: dict[str, list[verdict.Run]] = {}
    for run in [*runs, *ground.runs(records_of_rival(records))]:
        by_job.setdefault(run.job, []).append(run)
    findings = []
    # Nothing takes the other tenant's Redis away.
    for job, lost_data in [*((job, broken.lost_data) for job in ours), *((job, []) for job in theirs)]:
        said = status_of(statuses.get(job.name, {}))
        findings += [(job, finding) for finding in verdict.judge(job, said, by_job.get(job.name, []), lost_data)]
    jobs = [*ours, *theirs]
    phases = Counter(status_of(item).phase for item in statuses.values())
    recoveries = verdict.recoveries(runs, workers, broken.done)
    unknown = [name for name, item in statuses.items() if status_of(item).reason == "NoResult"]
    begun = sum(len(of_job) for of_job in by_job.values())
    outcome = Outcome(class_, broken.done, phases, len(unknown), begun, findings, recoveries, operators_out_of_memory())
    teller = story.Teller(statuses, by_job, broken.done, logs, history, broken.redis)
    outcome.stories = [teller.tell(job, what) for job, what in worth_telling(outcome, jobs, unknown)]
    return outcome


def operators_out_of_memory() -> int:
    """Containers of operators that the kernel has ended for their memory, as far as their Pods still tell."""
    statuses = [
        status
        for pod in kube.items("pods", "app.kubernetes.io/component=operator")
        for status in pod["status"].get("containerStatuses", [])
    ]
    states = [state for status in statuses for state in (status.get("state", {}), status.get("lastState", {}))]
    return sum(state.get("terminated", {}).get("reason") == "OOMKilled" for state in states)


def worth_telling(outcome: Outcome, jobs: list[verdict.Job], unknown: list[str]) -> list[tuple[verdict.Job, list[str]]]:
    """Jobs with what is to be said of them, the worst first."""
    wrong: dict[str, list[str]] = {}
    of_name = {job.name: job for job in jobs}
    for kind in (verdict.LOST, verdict.WRONG, verdict.TWICE, verdict.EXCUSED):
        for job, finding in outcome.findings:
            if finding.kind == kind:
                wrong.setdefault(job.name, []).append(f"{kind}: {finding.what}")
    for recovery in outcome.recoveries:
        if not recovery.disturbed and recovery.idle > report.RECOVERY_LIMIT:
            wrong.setdefault(recovery.job, []).append(f"slow recovery: {recovery.idle:.1f} s beside a free worker")
    for name in unknown:
        wrong.setdefault(name, []).append("its outcome was lost")
    return [(of_name[name], what) for name, what in wrong.items() if name in of_name]


def status_of(item: dict) -> verdict.Status:
    status = item.get("status", {})
    finished = status.get("finishedAt")
    conditions = {found["type"]: found for found in status.get("conditions", [])}
    ended = conditions.get("Complete" if status.get("phase") == "Succeeded" else "Failed", {})
    return verdict.Status(
        phase=status.get("phase", ""),
        reason=ended.get("reason", ""),
        task=status.get("taskID", ""),
        attempts=status.get("attempts", 0),
        finished_at=datetime.fromisoformat(finished).timestamp() if finished else None,
    )


# === All of it ===


def main() -> int:
    short = os.environ.get("CHAOS_SHORT") == "1"
    extent = SHORT if short else LONG
    extent = Extent(
        int(os.environ.get("CHAOS_JOBS") or extent.jobs),
        float(os.environ.get("CHAOS_SECONDS") or extent.seconds),
        extent.pause,
        float(os.environ.get("CHAOS_SETTLE") or extent.settle),
        extent.deck,
        extent.flood,
    )
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))
    classes = (os.environ.get("CHAOS_CLASSES") or ",".join(CLASSES)).split(",")
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    say(f"CHAOS_SEED={seed}: {extent.jobs} jobs in {extent.seconds:.0f} s for each of {', '.join(classes)}")
    # On the node, where the kubelet finds it and nothing of the cluster takes it away.
    folder = Path(tempfile.mkdtemp(prefix="crewjob-chaos-"))
    try:
        folder.chmod(0o755)
        shutil.copy(HERE / "chaos_recorder.py", folder)
        install(folder)
        say(f"installed; {operators.leader()} leads")
        outcomes = []
        for class_ in classes:
            outcomes.append(try_class(class_, extent, seed, folder, say))
            report.tell(outcomes[-1], STORIES)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report.show(outcomes, seed)


if __name__ == "__main__":
    sys.exit(main())
