"""The guard under the name that it has as a single file: `include=["crewjob_guard"]` is `include=["crewjob.guard"]`."""

from crewjob.guard import *  # noqa: F403
