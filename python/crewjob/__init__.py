"""Functions as tasks of CrewJobs, written once.

    @crewjob.task(retry_for=(ConnectionError,))
    def research(job_id, inputs, bypass_cache=False):
        crewjob.progress({"percent": 0, "message": "researcher: at work"})
        crewjob.report_usage("gpt-5", input_tokens=1200, output_tokens=80, requests=1)
        return {"text": f"# {inputs['topic']}"}

    if __name__ == "__main__":
        crewjob.serve()                                     # a program that stays, for `crewjob worker`

    run_crew_task = crewjob.celery_task(app, research)      # a task of a Celery worker, in another module

`crewjob.guard` keeps a Celery worker from running one task twice. `crewjob.worker` has the exceptions by which the
native worker names failures of its own.
"""

from .calls import (
    Call,
    Job,
    SoftTimeLimitExceeded,
    checkpoint,
    current_call,
    progress,
    report_usage,
    state_dir,
)
from .celery_tasks import celery_task
from .server import serve
from .tasks import task

__all__ = [
    "Call",
    "Job",
    "SoftTimeLimitExceeded",
    "celery_task",
    "checkpoint",
    "current_call",
    "progress",
    "report_usage",
    "serve",
    "state_dir",
    "task",
]
