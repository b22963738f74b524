"""What a job's records say about how it was treated. Pure: values in, findings out; `test_verdict.py` shows the rules.

Two things are known of a job: its status, which the operator wrote, and its runs, which the workers recorded where no
fault reaches. A finding is where they do not fit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

FINAL = ("Succeeded", "Failed", "Cancelled")

# How long after a result was stored it may still be unread when Redis loses everything: a leader that died takes up to
# ten seconds to be followed. What was lost earlier than that could have been read.
UNREAD = 15.0
# Clocks are one, but a status is written after what it tells.
SLACK = 1.0
# A worker death within this time after a fault of another kind says more about that fault than about the recovery.
AFTERMATH = 5.0

LOST = "lost"
WRONG = "wrong_status"
TWICE = "run_twice"
EXCUSED = "run_twice_excused"


@dataclass(frozen=True)
class Job:
    """What was asked for."""

    name: str
    created_at: float
    cancelled_at: float | None = None
    max_retries: int = 3
    max_worker_losses: int = 3
    non_retryable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """What the operator says of it."""

    phase: str = ""
    reason: str = ""
    task: str = ""
    attempts: int = 0
    finished_at: float | None = None


@dataclass(frozen=True)
class Run:
    """One run of the job's task, as the worker recorded it."""

    job: str
    task: str
    pod: str
    pid: int
    begin: float
    last_beat: float
    """The process was alive then."""
    end: float | None = None
    how: str | None = None
    """`ok`, or the type of the exception that ended it."""
    stored: float | None = None
    """When its outcome was in the result backend."""

    @property
    def succeeded(self) -> bool:
        return self.how == "ok"

    @property
    def failed(self) -> bool:
        return self.how is not None and not self.succeeded

    @property
    def interrupted(self) -> bool:
        """Its process died before the outcome was anywhere."""
        return self.stored is None

    @property
    def over(self) -> float:
        """Until when it was at work for certain: storing the outcome is part of it."""
        return self.stored if self.stored is not None else max(self.last_beat, self.end or self.begin)


@dataclass(frozen=True)
class Finding:
    kind: str
    what: str


def judge(job: Job, status: Status, runs: Iterable[Run], losses: Iterable[float]) -> list[Finding]:
    """Everything that is wrong with a job. `losses` are the times at which Redis lost all it held."""
    runs, losses = sorted(runs, key=lambda run: run.begin), sorted(losses)
    if status.phase not in FINAL:
        return [Finding(LOST, f"never ended: {status.phase or 'no status'}"), *repetitions(runs, losses)]
    by_phase = {"Succeeded": succeeded, "Failed": failed, "Cancelled": cancelled}
    return [*by_phase[status.phase](job, status, runs, losses), *repetitions(runs, losses)]


def succeeded(job: Job, status: Status, runs: list[Run], losses: list[float]) -> list[Finding]:
    well = [run for run in runs if run.succeeded]
    if not well:
        what = "Succeeded, and no run ended well"
        return [Finding(LOST, what), Finding(WRONG, what)]
    if status.task not in {run.task for run in well}:
        return [Finding(WRONG, f"Succeeded with task {status.task}, which is none of those that ended well")]
    return []


def failed(job: Job, status: Status, runs: list[Run], losses: list[float]) -> list[Finding]:
    readable = readable_result(runs, losses, before=status.finished_at)
    if readable:
        return [Finding(WRONG, f"Failed/{status.reason}, and the result from {readable.pod} was there to read")]
    # A failure that could not be stored at once may be stored by the worker's main process, which is not recorded.
    failures = [run.how for run in runs if run.failed]
    died = sum(run.interrupted for run in runs)
    legitimate = {
        "RetriesExhausted": len(failures) > job.max_retries,
        "NonRetryableError": any(how in job.non_retryable for how in failures),
        "WorkerLost": died > job.max_worker_losses,
        # The jobs of a chaos run do not ask for another run when it cannot be known how one ended.
        "NoResult": any(is_lost_unread(run, losses, status.finished_at) for run in runs),
    }
    if legitimate.get(status.reason, False):
        return []
    budget = f"{len(failures)} failed runs of {job.max_retries + 1}, {died} worker deaths of {job.max_worker_losses}"
    return [Finding(WRONG, f"Failed/{status.reason}, and budget was left: {budget}")]


def cancelled(job: Job, status: Status, runs: list[Run], losses: list[float]) -> list[Finding]:
    findings = []
    if job.cancelled_at is None:
        findings.append(Finding(WRONG, "Cancelled, although its cancel was never asked for"))
    elif readable := readable_result(runs, losses, before=status.finished_at):
        findings.append(Finding(WRONG, f"Cancelled, and the result from {readable.pod} was there before"))
    if status.finished_at is not None and any(run.begin > status.finished_at + SLACK for run in runs):
        findings.append(Finding(WRONG, "Cancelled, and run afterwards"))
    return findings


def is_lost_unread(run: Run, losses: list[float], before: float | None) -> bool:
    """Whether it cannot be known how a run ended: its outcome was never stored, or lost before it could be read."""
    if run.stored is None:
        # Of a child process that died only its worker tells, in Redis.
        return run.end is not None or any(run.over - SLACK <= loss <= run.over + UNREAD for loss in losses)
    until = run.stored + UNREAD if before is None else min(before, run.stored + UNREAD)
    return any(run.stored - SLACK <= loss <= until for loss in losses)


def readable_result(runs: list[Run], losses: list[float], before: float | None) -> Run | None:
    """A run whose success lay in Redis long enough to be read before the job was said to have ended."""
    for run in runs:
        if not run.succeeded or run.stored is None or before is None or run.stored > before - SLACK:
            continue
        if not any(run.stored - SLACK <= loss <= before for loss in losses):
            return run
    return None


def repetitions(runs: list[Run], losses: list[float]) -> list[Finding]:
    """Runs that began while another was at work, or after one had ended well."""
    findings = []
    for number, later in enumerate(runs):
        for earlier in runs[:number]:
            if later.begin < earlier.over:
                findings.append(Finding(TWICE, f"begun at {later.pod} while the run at {earlier.pod} was at work"))
            elif not earlier.succeeded:
                continue
            elif earlier.stored is None:
                # The crew was done, but its process died or Redis was away before the result was stored: it is
                # known nowhere else, so running the job again is the only way not to lose it.
                findings.append(Finding(EXCUSED, f"the result from {earlier.pod} was never stored"))
            elif is_lost_unread(earlier, losses, later.begin):
                # Redis was emptied before the operator could have read the result. Nothing else knows of it, so the
                # job has to run again.
                findings.append(Finding(EXCUSED, f"the result from {earlier.pod} was lost with Redis' data"))
            else:
                findings.append(Finding(TWICE, f"begun at {later.pod} after the run at {earlier.pod} had ended well"))
    return findings


# === How long a job of a dead worker waits ===


@dataclass(frozen=True)
class Worker:
    """A worker, from when it took tasks until it was told to stop or died."""

    pod: str
    pid: int
    begin: float
    until: float
    slots: int


@dataclass(frozen=True)
class Fault:
    """What was done to the installation, and until when."""

    kind: str
    began: float
    ended: float
    target: str = ""
    """Of a fault of a worker its Pod comes first, and a comma."""
    hits_workers_only: bool = False

    @property
    def pod(self) -> str:
        return self.target.partition(",")[0]


@dataclass(frozen=True)
class Recovery:
    """A run was interrupted by the death of its process, and the job was run again."""

    job: str
    died: float
    resumed: float
    idle: float
    """Seconds of that time during which a worker elsewhere had nothing to do."""
    disturbed: bool
    """Whether something else than workers was broken in that time, or another worker, which may have had the message."""

    dead: Run = field(compare=False)


def recoveries(runs: Iterable[Run], workers: Iterable[Worker], faults: Iterable[Fault]) -> list[Recovery]:
    """One for each run that died, if its job ran again."""
    runs, workers = sorted(runs, key=lambda run: run.begin), list(workers)
    faults, pods = list(faults), {worker.pod for worker in workers}
    others = [fault for fault in faults if not fault.hits_workers_only]
    by_job: dict[str, list[Run]] = {}
    for run in runs:
        by_job.setdefault(run.job, []).append(run)
    found = []
    for of_job in by_job.values():
        for dead, following in zip(of_job, of_job[1:], strict=False):
            if not dead.interrupted or following.begin <= dead.over:
                continue
            span = (dead.over, following.begin)
            disturbed = any(fault.began <= span[1] and fault.ended + AFTERMATH >= span[0] for fault in others)
            # The copy of a run that died may be put aside on the next worker. Its death is a second recovery.
            disturbed |= any(span[0] < it.began < span[1] and it.pod in pods - {dead.pod} for it in faults)
            idle = idle_seconds(span, [run for run in runs if run is not following], workers)
            found.append(Recovery(dead.job, *span, idle, disturbed, dead))
    return found


def idle_seconds(span: tuple[float, float], runs: list[Run], workers: list[Worker]) -> float:
    """For how long of the span at least one living worker had a free slot."""
    began, ended = span
    busy = [run for run in runs if run.begin < ended and run.over > began]
    edges = {began, ended}
    for at in (*(t for run in busy for t in (run.begin, run.over)), *(t for w in workers for t in (w.begin, w.until))):
        if began < at < ended:
            edges.add(at)
    times = sorted(edges)
    total = 0.0
    for start, stop in zip(times, times[1:], strict=False):
        middle = (start + stop) / 2
        for worker in workers:
            if not worker.begin <= middle <= worker.until:
                continue
            taken = sum(run.pod == worker.pod and run.begin <= middle <= run.over for run in busy)
            if taken < worker.slots:
                total += stop - start
                break
    return total
