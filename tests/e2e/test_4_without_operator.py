"""What the operator is for: the same happens to the same tasks on the same stock workers, with it and without.

The guard of the example is off, which would help in both cases.
"""

import time

import pytest

import celery_side
import crew
import kube
import operators
import workers

pytestmark = pytest.mark.usefixtures("clean")

TAKEOVER_LIMIT = 10
UNTOUCHED = 15
VISIBILITY_TIMEOUT = 10
LONGER = 20


@pytest.fixture(scope="module", autouse=True)
def stock_workers(installation):
    """Two workers as Celery comes."""
    with workers.at_least(2):
        workers.set_env(CREWJOB_GUARD="0")
        try:
            yield
        finally:
            workers.set_env(CREWJOB_GUARD=None, VISIBILITY_TIMEOUT=None)


@pytest.fixture(scope="module")
def nobody_operates(stock_workers):
    operators.scale(0)
    yield
    operators.scale(1)


def sent_by_operator(name: str, seconds: float) -> str:
    crew.start(crew.job(name, inputs={"seconds": seconds}))
    return crew.in_phase(name, "Running")["taskID"]


def sent_by_celery(name: str, seconds: float):
    from backend.tasks import run_crew_task

    return run_crew_task.apply_async((name, {"topic": f"topic of {name}", "seconds": seconds}, True))


def kill_its_worker(task: str, executions) -> tuple[float, str]:
    """Kills the worker that has begun a task; returns when, and the node name of the other worker."""
    node = kube.until("a worker has begun it", lambda: executions.last_begin.get(task)).node
    (other,) = {f"crew@{pod['metadata']['name']}" for pod in crew.worker_pods()} - {node}
    return workers.kill(workers.pod_of(node)), other


def outlive_the_visibility_timeout(task: str, executions, app) -> None:
    """Waits until kombu takes a running task for abandoned; then the other worker looks for such tasks, as it does
    whenever it connects, and every 100 seconds."""
    began = kube.until("a worker has begun it", lambda: executions.last_begin.get(task))
    (other,) = [pod for pod in crew.worker_pods() if f"crew@{pod['metadata']['name']}" != began.node]
    kube.until("it runs for longer", lambda: time.time() - began.at > VISIBILITY_TIMEOUT + 2)
    workers.disconnect(other, app.backend.client)
    node = f"crew@{other['metadata']['name']}"
    kube.until("the other worker is connected again", lambda: celery_side.answers(app, node))


def test_the_operator_has_a_killed_workers_task_run_elsewhere(executions, figure):
    task = sent_by_operator("orphan-stock", 8)
    killed_at, _ = kill_its_worker(task, executions)
    kube.until("it runs again", lambda: executions.begun[task] == 2, seconds=30, every=0.05)
    took = time.monotonic() - killed_at
    figure(f"stock workers, one killed: with the operator its task ran again after {took:.1f} s")
    assert took < TAKEOVER_LIMIT
    status = crew.in_phase("orphan-stock", "Succeeded")
    assert (status["workerLosses"], executions.begun[task]) == (1, 2)


def test_the_operator_keeps_a_task_with_its_worker_for_longer_than_the_visibility_timeout(app, executions, figure):
    workers.set_env(VISIBILITY_TIMEOUT=str(VISIBILITY_TIMEOUT))
    with operators.auditing_every(3):
        task = sent_by_operator("long", LONGER)
        outlive_the_visibility_timeout(task, executions, app)
        status = crew.in_phase("long", "Succeeded")
    assert (status["attempts"], executions.begun[task]) == (1, 1)
    figure(f"a task of {LONGER} s, visibility timeout {VISIBILITY_TIMEOUT} s: with the operator begun once")


def test_celery_alone_runs_a_task_twice_that_takes_longer(nobody_operates, app, executions, figure):
    workers.set_env(VISIBILITY_TIMEOUT=str(VISIBILITY_TIMEOUT))
    task = sent_by_celery("long-of-celery", LONGER).id
    try:
        outlive_the_visibility_timeout(task, executions, app)
        kube.until("it is begun again while it runs", lambda: executions.begun[task] == 2, seconds=10)
        figure(f"a task of {LONGER} s, visibility timeout {VISIBILITY_TIMEOUT} s: with Celery alone begun twice")
    finally:
        celery_side.drop(app, task)


def test_celery_alone_leaves_a_killed_workers_task_where_nobody_runs_it(nobody_operates, app, executions, figure):
    workers.set_env(VISIBILITY_TIMEOUT=None)
    task = sent_by_celery("orphan-of-celery", 8).id
    try:
        killed_at, free = kill_its_worker(task, executions)
        is_left = lambda: celery_side.deliveries_in_flight(app, task) and executions.begun[task] == 1
        assert celery_side.answers(app, free, within=5), "the other worker is not free"
        assert sent_by_celery("another", 0.2).get(timeout=10)["status"] == "completed"
        kube.holds("its message is in flight, and nobody runs it", is_left, UNTOUCHED)
        waited = time.monotonic() - killed_at
        timeout = app.conf.broker_transport_options["visibility_timeout"]
        figure(f"the same with Celery alone: not in {waited:.0f} s beside a free worker; it waits for {timeout} s")
    finally:
        celery_side.drop(app, task)
