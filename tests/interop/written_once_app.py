"""The functions of `written_once` in a Celery worker."""

import crewjob
import written_once
from tasks import app

work = crewjob.celery_task(app, written_once.work)
count = crewjob.celery_task(app, written_once.count)
