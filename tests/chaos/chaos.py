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
import story  # noqa: E402
import verdict  # noqa: E402

CHART = crew.PROJECT / "charts/crewjob-operator"
GUARD = "CREWJOB_GUARD"
CLASSES = {"stock": "0", "guarded": "1"}
STORIES = 12
WORKERS = 2
VALUES = {
    "operator": {"replicas": 2, "log": {"filter": "info,crewjob=debug"}},
    "redis": {"bundled": {"enabled": True}},
    "defaultPool": {"concurrency": 2, "minReplicas": WORKERS, "maxReplicas": 4, "scaleDownDelay": "15s"},
    # Two children of Celery fit in, one that hoards does not.
    "worker": {"resources": {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "640Mi"}}},
}


@dataclass(frozen=True)
class Extent:
    """How much is tried, per class of workers."""

    jobs: int
    seconds: float
    pause: tuple[float, float]
    settle: float
    deck: list[str]


LONG = Extent(500, 300, (2.0, 6.0), 300, faults.DECK)
SHORT = Extent(40, 40, (1.5, 3.5), 300, list(faults.KINDS))


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
    values = folder / "values.json"
    values.write_text(json.dumps(VALUES))
    options = ["--create-namespace", "--wait", "--timeout", "3m", "--values", str(values)]
    kube.helm("install", kube.RELEASE, str(CHART), *options)
    kube.until("the pool is ready", lambda: crew.ready("default"))


def use_workers(class_: str, folder: Path, say) -> Path:
    """Rolls out workers of this class that record what they do; returns where."""
    records = folder / class_
    records.mkdir(mode=0o777)
    records.chmod(0o777)
    (container,) = kube.get("deployment", kube.WORKER)["spec"]["template"]["spec"]["containers"]
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
    patch = {"spec": {"template": {"spec": {"containers": [change], "volumes": [volume]}}}}
    kube.kubectl("patch", "deployment", kube.WORKER, "--type=strategic", "--patch", json.dumps(patch))
    kube.until("the workers take tasks", lambda: ready_workers(records) >= WORKERS, seconds=120)
    try:
        kube.until("the workers of another class have gone", lambda: not others(records), seconds=30)
    except AssertionError:
        # A worker that hangs does not hear that it is to stop, and its grace period is longer than all of this.
        stubborn = others(records)
        say(f"{class_}: {', '.join(stubborn)} does not stop and is ended by force")
        kube.kubectl("delete", "pod", *stubborn, "--grace-period=0", "--force", "--ignore-not-found")
    return records


def others(records: Path) -> set[str]:
    """Pods of workers that do not record there."""
    return {pod["metadata"]["name"] for pod in crew.worker_pods()} - {worker.pod for worker in ground.workers(records)}


def ready_workers(records: Path) -> int:
    return sum(ground.takes_tasks(worker) for worker in ground.workers(records))


# === One class of workers ===


def try_class(class_: str, extent: Extent, seed: int, folder: Path, say) -> Outcome:
    crew.remove_all()
    kube.until("no job is left", lambda: not kube.items("crewjobs"))
    records = use_workers(class_, folder, say)
    say(f"{class_}: {ready_workers(records)} workers take tasks")
    logs = ground.Logs(ground.state_dir(), kube.NAMESPACE)
    history = story.History()
    plan = load.plan(random.Random(f"{seed} jobs {class_}"), class_, extent.jobs, extent.seconds)
    jobs = load.Load(plan)
    try:
        cluster = [str(bed.CLUSTER), "--name", os.environ["CHAOS_CLUSTER"]]
        broken = faults.Faults(random.Random(f"{seed} faults {class_}"), cluster, records, jobs, say)
        broken.go_on(time.time() + extent.seconds, extent.pause, extent.deck)
        broken.mend()
        jobs.finish()
        say(f"{class_}: {len(broken.done)} faults; {len(jobs.created)} jobs are to end now")
        settle(class_, extent.settle, records, say)
    finally:
        jobs.stop()
        history.stop()
        logs.stop()
    return assess(class_, jobs.asked(), broken, records, logs, history)


def settle(class_: str, seconds: float, records: Path, say) -> None:
    """Waits until every job has ended and nothing runs, or until that should long have happened."""
    deadline, said = time.monotonic() + seconds, 0.0
    while True:
        text = load.insist("get", "crewjobs", "-l", f"test={class_}", "-o", "jsonpath={.items[*].status.phase}")
        phases = Counter(text.split())
        open_ = sum(count for phase, count in phases.items() if phase not in verdict.FINAL)
        if not open_ and not any(ground.is_at_work(run, within=3) for run in ground.runs(records)):
            return
        if time.monotonic() > deadline:
            say(f"{class_}: {open_} jobs have not ended after {seconds:.0f} s of quiet")
            return
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"{class_}: {dict(phases)}")
        time.sleep(1)


def assess(class_: str, jobs: list[verdict.Job], broken: faults.Faults, records: Path, logs, history) -> Outcome:
    statuses = {item["metadata"]["name"]: item for item in kube.items("crewjobs", f"test={class_}")}
    runs, workers = ground.runs(records), ground.workers(records)
    by_job: dict[str, list[verdict.Run]] = {}
    for run in runs:
        by_job.setdefault(run.job, []).append(run)
    findings = []
    for job in jobs:
        said = status_of(statuses.get(job.name, {}))
        findings += [(job, finding) for finding in verdict.judge(job, said, by_job.get(job.name, []), broken.lost_data)]
    phases = Counter(status_of(item).phase for item in statuses.values())
    recoveries = verdict.recoveries(runs, workers, broken.done)
    unknown = sum(status_of(item).reason == "NoResult" for item in statuses.values())
    outcome = Outcome(class_, broken.done, phases, unknown, len(runs), findings, recoveries)
    teller = story.Teller(statuses, by_job, broken.done, logs, history, broken.redis)
    outcome.stories = [teller.tell(job, what) for job, what in worth_telling(outcome, jobs)]
    return outcome


def worth_telling(outcome: Outcome, jobs: list[verdict.Job]) -> list[tuple[verdict.Job, list[str]]]:
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
    return [(of_name[name], what) for name, what in wrong.items()]


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
