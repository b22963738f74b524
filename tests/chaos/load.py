"""The jobs of a chaos run: which there are, and sending them while the installation is being broken."""

import json
import random
import subprocess
import threading
import time
from dataclasses import dataclass

import crew
import kube
from verdict import Job

LABEL = "test"
PATIENCE = 120


@dataclass(frozen=True)
class Planned:
    """A job, when it is created after the start, and when it is cancelled after that, if it is."""

    at: float
    body: dict
    cancel_after: float | None = None

    @property
    def name(self) -> str:
        return self.body["metadata"]["name"]


def plan(dice: random.Random, label: str, count: int, seconds: float, stem: str = "") -> list[Planned]:
    """Jobs of 0.2 to 8 seconds at random times; some fail once, some for good, some are cancelled."""
    times = sorted(dice.uniform(0, seconds) for _ in range(count))
    return [planned(dice, f"{stem or label}-{number:04}", label, at) for number, at in enumerate(times)]


def planned(dice: random.Random, name: str, label: str, at: float) -> Planned:
    shortest, longest = dice.choices([(0.2, 1), (1, 3), (3, 8)], weights=[5, 3, 2])[0]
    inputs = {"seconds": round(dice.uniform(shortest, longest), 2)}
    # Faults alone must not use up what a job may lose: what fails for that reason was counted wrong.
    retry = {"maxWorkerLosses": 20, "backoff": {"initial": "200ms", "max": "2s"}}
    cancel_after = None
    fate = dice.choices(
        ["well", "fails once", "fails always", "fails for good", "cancelled", "large"], weights=[78, 6, 3, 3, 6, 4]
    )[0]
    if fate == "fails once":
        inputs |= {"fail": "transient", "fail_runs": 1}
    elif fate == "fails always":
        inputs["fail"] = "transient"
        retry["maxRetries"] = 1
    elif fate == "fails for good":
        inputs["fail"] = "permanent"
        retry["nonRetryable"] = ["ValueError"]
    elif fate == "cancelled":
        cancel_after = round(dice.uniform(0, 8), 2)
    elif fate == "large":
        inputs["result_bytes"] = 8000
    body = crew.job(name, label, inputs=inputs, retryPolicy=retry, priority=dice.randint(0, 10), bypassCache=True)
    return Planned(at, body, cancel_after)


def asked(body: dict, created_at: float, cancelled_at: float | None) -> Job:
    """What the verdict has to know of a job."""
    policy = body["spec"].get("retryPolicy", {})
    return Job(
        name=body["metadata"]["name"],
        created_at=created_at,
        cancelled_at=cancelled_at,
        max_retries=policy.get("maxRetries", 3),
        max_worker_losses=policy.get("maxWorkerLosses", 3),
        non_retryable=tuple(policy.get("nonRetryable", ())),
    )


def insist(*arguments: str, given: str | None = None, fine: str = "\0") -> str:
    """kubectl, again and again while the API server does not answer. A refusal that contains `fine` is none."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            done = kube.run(["kubectl", "-n", kube.NAMESPACE, "--request-timeout=20s", *arguments], given)
        except subprocess.TimeoutExpired:
            continue
        complaints = [line for line in done.stderr.splitlines() if line.strip() and fine not in line]
        if done.returncode == 0 or not complaints:
            return done.stdout
        if time.monotonic() > deadline:
            raise TimeoutError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        time.sleep(0.5)


class Load:
    """Creates jobs as planned and cancels some, in threads of its own."""

    def __init__(self, plan: list[Planned], namespace: str = kube.NAMESPACE):
        self.plan = plan
        self.namespace = namespace
        self.bodies: dict[str, dict] = {}
        self.created: dict[str, float] = {}
        self.cancelled: dict[str, float] = {}
        self.error: Exception | None = None
        self.began = time.time()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.guarded, args=[work]) for work in (self.create, self.cancel)]
        for thread in self.threads:
            thread.start()

    def guarded(self, work) -> None:
        try:
            work()
        except Exception as error:
            self.error = self.error or error

    def submit(self, *bodies: dict) -> None:
        """Creates jobs now."""
        for body in bodies:
            self.bodies[body["metadata"]["name"]] = body
            self.created[body["metadata"]["name"]] = time.time()
        insist("create", "-f", "-", "-n", self.namespace, given=kube.as_list(bodies), fine="(AlreadyExists)")

    def create(self) -> None:
        waiting = list(self.plan)
        while waiting and not self.stopped.wait(max(0.0, self.began + waiting[0].at - time.time())):
            # Whatever has become due meanwhile goes in one request.
            due = [job for job in waiting if self.began + job.at <= time.time()]
            self.submit(*(job.body for job in due))
            waiting = waiting[len(due) :]

    def cancel(self) -> None:
        doomed = [job for job in self.plan if job.cancel_after is not None]
        for job in sorted(doomed, key=lambda job: job.at + job.cancel_after):
            if self.stopped.wait(max(0.0, self.began + job.at + job.cancel_after - time.time())):
                return
            if job.name not in self.created:
                continue
            self.cancelled[job.name] = time.time()
            change = json.dumps({"spec": {"cancel": True}})
            named = ["crewjob", job.name, "-n", self.namespace]
            insist("patch", *named, "--type=merge", "--patch", change, fine="(NotFound)")

    def finish(self) -> None:
        """Waits for the last job of the plan to be created."""
        for thread in self.threads:
            thread.join()
        if self.error:
            raise self.error

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(PATIENCE)

    def asked(self) -> list[Job]:
        return [asked(self.bodies[name], at, self.cancelled.get(name)) for name, at in self.created.items()]
