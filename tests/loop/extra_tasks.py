"""Tasks that the example does not have, but other applications do. Workers load it with `--include`."""

import time

from backend.celery_app import app
from celery import chain, group
from celery.exceptions import Ignore


@app.task(bind=True, max_retries=None)
def retries_by_itself(self, job_id, inputs, bypass_cache=False):
    """Retries until as many runs as `inputs.own_retries` are behind it; then fails if `inputs.fails`."""
    run = self.request.retries
    if run < inputs["own_retries"]:
        raise self.retry(exc=ConnectionError("not yet"), countdown=0.5)
    if inputs.get("fails"):
        raise ValueError("not ever")
    return run


@app.task
def returns_what_json_has_no_form_for(job_id, inputs, bypass_cache=False):
    """Does its work, and returns an object as crews do whose framework has a class for it."""
    return object()


@app.task
def ends_without_a_word(job_id, inputs, bypass_cache=False):
    """Ends as a task does that wants to leave no result."""
    time.sleep(inputs["seconds"])
    raise Ignore()


@app.task(bind=True, max_retries=None)
def retries_once(self, job_id, inputs, bypass_cache=False):
    """Retries by itself after `inputs.before` seconds; then it returns after `inputs.after` seconds."""
    if self.request.retries == 0:
        time.sleep(inputs["before"])
        raise self.retry(exc=ConnectionError("later"), countdown=inputs.get("countdown", 0))
    time.sleep(inputs.get("after", 0))
    return "done"


@app.task
def step(seconds, value):
    """One step of what a task replaces itself by."""
    time.sleep(seconds)
    return value


@app.task(bind=True)
def replaces_itself(self, job_id, inputs, bypass_cache=False):
    """Replaces itself, after `inputs.before` seconds, by steps that take `inputs.seconds` each."""
    time.sleep(inputs["before"])
    steps = [step.si(inputs["seconds"], value) for value in (1, 2)]
    raise self.replace({"chain": chain(*steps), "group": group(*steps), "task": steps[1]}[inputs["by"]])


@app.task
def sleeps(job_id, inputs, bypass_cache=False):
    """Keeps its worker busy for `inputs.seconds`."""
    time.sleep(inputs["seconds"])


@app.task(rate_limit="6/m")
def runs_every_ten_seconds(job_id, inputs, bypass_cache=False):
    """One after the other, however many there are."""
    return job_id
