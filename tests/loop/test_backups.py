"""What becomes of jobs that are restored from a backup, with the commands as docs/backups.md prints them."""

import os
import re
import subprocess

from servers import CLUSTER, HERE
from waiting import holds, until

PAGE = (HERE.parents[1] / "docs/backups.md").read_text()
FINISHED, UNFINISHED = [f"done-{n}" for n in range(3)], ["waits"]


def printed(bed, folder, begins: str) -> None:
    """Runs the commands of the page that begin so."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    block = next(block for block in blocks if block.startswith(begins)).replace("-n crewjob", f"-n {bed.a.namespace}")
    kubectl = folder / "kubectl"
    kubectl.write_text(f'#!/bin/sh\nexec {CLUSTER} --name {bed.control_plane.command[2]} kubectl "$@"\n')
    kubectl.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def finish(bed, crew_worker) -> None:
    """Some jobs have ended, and one waits."""
    bed.a.pool(bed.redis)
    worker = crew_worker()
    for name in FINISHED:
        bed.a.job(name)
    for name in FINISHED:
        bed.a.in_phase(name, "Succeeded")
    worker.stop()
    for name in UNFINISHED:
        bed.a.job(name)
        bed.a.in_phase(name, "Queued")


def lose_all(bed) -> None:
    bed.a.delete("crewjobs")
    until("they are gone, with their messages", lambda: not bed.a.items("crewjobs") and not bed.redis.messages())


def names(bed) -> set[str]:
    return {job["metadata"]["name"] for job in bed.a.items("crewjobs")}


def test_finished_jobs_of_a_backup_are_restored_suspended_and_the_others_run(bed, crew_worker, tmp_path):
    finish(bed, crew_worker)
    (tmp_path / "crewjobs.json").write_text(bed.a.kubectl("get", "crewjobs", "-o", "json"))
    lose_all(bed)
    printed(bed, tmp_path, "jq ")
    assert names(bed) == {*FINISHED, *UNFINISHED}
    bed.a.in_phase("waits", "Queued")
    for name in FINISHED:
        until(f"{name} is suspended", lambda name=name: bed.a.condition(name).get("reason") == "Suspended")
    holds("none of them is published", lambda: len(bed.redis.messages()) == 1, 3)
    bed.a.change(FINISHED[0], suspend=False)
    bed.a.in_phase(FINISHED[0], "Queued")


def test_a_backup_of_the_unfinished_jobs_holds_no_other(bed, crew_worker, tmp_path):
    finish(bed, crew_worker)
    printed(bed, tmp_path, "kubectl get crewjobs")
    lose_all(bed)
    text = (tmp_path / "unfinished.json").read_text()
    assert "waits" in text and "done-" not in text
