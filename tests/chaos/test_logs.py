"""How a chaos run follows the logs of containers."""

import os

from ground import Logs

LINE = "2026-01-01T00:00:00.000000Z stdout F {}\n"


def log_of(folder, pod: str, text: str) -> None:
    container = folder / "pod-logs" / f"crewjob_{pod}_uid" / "worker"
    container.mkdir(parents=True)
    (container / "0.log").write_text(LINE.format(text))


def test_the_folder_of_a_pod_that_is_deleted_while_it_is_listed_does_not_end_the_logs(tmp_path, monkeypatch):
    log_of(tmp_path, "gone", "not read")
    log_of(tmp_path, "kept", "read")
    scandir = os.scandir

    def race(path):
        if "crewjob_gone_uid/" in str(path):
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", race)
    logs = Logs(tmp_path, "crewjob")
    logs.stop()

    assert [text for _, _, text in logs.lines] == ["read"]
