"""The guides, followed as they are written: every command and manifest is run, or needs Pods and is checked as far as it can be."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from guide import PROJECT, Block, Reader, blocks
from servers import CREWJOB, Redis

INSTALL = "docs/guides/install.md"
GUIDES = sorted(str(path.relative_to(PROJECT)) for path in (PROJECT / "docs/guides").glob("*.md"))
FOLLOWED = [guide for guide in GUIDES if any(block.use.startswith("run") for block in blocks(guide))]


@pytest.fixture
def reader(control_plane, tmp_path):
    redis = Redis(tmp_path / "redis")
    reader = Reader(control_plane, tmp_path, redis.url)
    try:
        yield reader
    finally:
        reader.leave()
        redis.stop()


@pytest.mark.parametrize("guide", FOLLOWED)
def test_what_a_guide_says_can_be_done(reader, guide):
    reader.follow(INSTALL)
    if guide != INSTALL:
        reader.follow(guide)


@pytest.mark.parametrize("guide", GUIDES)
def test_no_command_and_no_manifest_of_a_guide_is_left_out_by_these_tests(guide):
    for block in blocks(guide):
        known = ("run", "pods") if block.language == "sh" else ("run",)
        assert block.language == "text" or block.use.partition(" ")[0] in known, f"{block.place} is run by no test"
        assert block.language in ("sh", "text") or block.use.partition(" ")[2], f"{block.place} has no name of a file"
    fences = (PROJECT / guide).read_text().count("\n```")
    assert fences == 2 * len(blocks(guide)), f"{guide} has a fence that is not read"


NEED_PODS = [block for guide in GUIDES for block in blocks(guide) if block.use == "pods"]


@pytest.mark.parametrize("block", NEED_PODS, ids=lambda block: block.place)
def test_commands_that_need_pods_are_ones_that_their_programs_know(block: Block):
    assert subprocess.run(["bash", "-n", "-c", block.text]).returncode == 0
    for line in block.text.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line)
        if (program, words[0]) == ("kubectl", "crewjob"):
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            told = subprocess.run([CREWJOB, "ctl", words[1], "--help"], capture_output=True, text=True)
            assert told.returncode == 0 and all(option in told.stdout for option in options), block.place
        else:
            # Tried with Pods by the end-to-end tests, in their own words.
            assert (program, words[0]) in TRIED, f"{block.place}: no test runs {program} {words[0]}"
            assert re.search(TRIED[program, words[0]], E2E), block.place


E2E = "".join(path.read_text() for path in Path(PROJECT / "tests/e2e").glob("*.py"))
TRIED = {
    ("helm", "test"): r'kube\.helm\("test", kube\.RELEASE, "--logs"',
    ("helm", "upgrade"): r'"upgrade", kube\.RELEASE, str\(CHART\), "--wait"',
}
