"""The state of a job under a Celery worker: the folder that each attempt finds as the last one left it.

The native worker has the same, under the same key on Redis: a hash `<global_keyprefix>crewjob-state:<job>` with the
run that may save it, the version of the task, the time, and an archive: a tar file, compressed with gzip. So an attempt
on one kind of worker goes on where the last one stopped on the other kind, if both say the same `version`.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from .calls import SoftTimeLimitExceeded

RETENTION = 86_400
"""Seconds that a state is kept after it was saved, unless its job succeeds."""
LIMIT = 16 << 20
"""Most bytes of an archive."""
ENTRIES = 10_000
DEEPEST = 32
RATIO = 100
TRIES = 4

OPEN = """
local function read(key)
  local archive = redis.call('HGET', key, 'archive')
  return archive and {redis.call('HGET', key, 'version') or '', redis.call('HGET', key, 'saved') or '', archive}
end
redis.call('HDEL', KEYS[1], 'run')
if ARGV[3] == '1' then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'run', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return read(KEYS[1]) or (KEYS[2] and read(KEYS[2])) or {'', '', ''}
"""
SAVE = """
local run = redis.call('HGET', KEYS[1], 'run')
if run and run ~= ARGV[1] then return false end
local time = redis.call('TIME')
local saved = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'version', ARGV[3], 'saved', saved, 'archive', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return tonumber(saved)
"""
DROP = """
local run = redis.call('HGET', KEYS[1], 'run')
if run and run ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""

Inventory = dict[str, tuple[int, int]]
"""The paths in a folder, each with size and time of the last change."""


class StateError(Exception):
    """A state cannot be copied or read."""


class State:
    """The state of one job while a run works on it. What goes wrong with it is said to `warn`, and the run goes on."""

    def __init__(self, redis: Any, prefix: str, job: str, run: str, version: str, warn: Callable[[str], None]):
        self.folder = Path(tempfile.mkdtemp(prefix="crewjob-state-"))
        self.resumed = False
        self._redis, self._prefix, self._run, self._version, self._warn = redis, prefix, run, version, warn
        self._key = self._named(job)
        self._saved: Inventory = {}
        self._is_known = False
        self._said: dict[str, object] = {}
        self._began_without = ""

    def report(self) -> dict[str, object]:
        """What is known of it, as the native worker says it in a result document; empty where that is nothing."""
        return self._said and {"resumed": self.resumed, **self._said}

    def has(self, problem: str) -> None:
        """Says what is wrong with it."""
        self._said["problem"] = problem[:256]
        self._warn(problem)

    def begins_without(self, problem: str) -> None:
        """Says why the run begins without what was saved."""
        self._began_without = problem[:256]
        self.has(problem)

    def open(self, other: str | None = None, anew: bool = False) -> None:
        """Makes this run the only one that may save the state, and puts what is saved into the folder; of the job
        `other` where nothing is. With `anew` what was saved is deleted."""
        self._is_known = True
        keys = [self._key, *([self._named(other)] if other else [])]
        try:
            found = self._redis.eval(OPEN, len(keys), *keys, self._run, RETENTION, int(anew))
            version, saved, archive = (bytes(part) if isinstance(part, bytes) else str(part).encode() for part in found)
            if not archive:
                return
            if version.decode(errors="replace") != self._version:
                self.begins_without("another version of the task has saved the state; the run has begun without it")
                return
            unpack(archive, self.folder)
            self._saved, self.resumed = inventory(self.folder), True
            self._note(int(saved or 0), len(archive))
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            self.begins_without(f"reading the state failed, and the run has begun without it: {error}")
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)

    def save(self) -> None:
        """Saves a whole copy of the folder, if anything has changed."""
        try:
            now = inventory(self.folder)
            if now == self._saved:
                return
            archive, now = copied(self.folder, now)
            saved = self._redis.eval(SAVE, 1, self._key, self._run, RETENTION, self._version, archive)
            if saved is None:
                self.has("a later run of the job has begun; only that one saves its state")
                return
            self._saved, self._is_known = now, True
            self._note(int(saved), len(archive))
            self._said.pop("problem", None)
            if self._began_without:
                self._said["problem"] = self._began_without
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            self.has(f"saving the state failed, and what was saved before counts: {error}")

    def drop(self) -> None:
        """Deletes what is saved: the job has succeeded."""
        if not self._is_known:
            return
        try:
            self._redis.eval(DROP, 1, self._key, self._run)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            self._warn(f"deleting the state failed; it is deleted when its time is over: {error}")

    def close(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _note(self, milliseconds: int, size: int) -> None:
        at = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
        self._said.update(saved_at=at.isoformat(), bytes=size)

    def _named(self, job: str) -> str:
        return f"{self._prefix}crewjob-state:{job}"


def inventory(folder: Path) -> Inventory:
    """The plain files and folders that are there."""
    found: Inventory = {}
    folders = [(folder, 0)]
    while folders:
        at, depth = folders.pop()
        for entry in os.scandir(at):
            try:
                about = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            is_folder = stat.S_ISDIR(about.st_mode)
            if not is_folder and not stat.S_ISREG(about.st_mode):
                continue
            if len(found) == ENTRIES or depth == DEEPEST:
                raise StateError(f"the state has more than {ENTRIES} files, or folders nested deeper than {DEEPEST}")
            path = os.path.relpath(entry.path, folder)
            found[path] = (0 if is_folder else about.st_size, about.st_mtime_ns)
            if is_folder:
                folders.append((Path(entry.path), depth + 1))
    return found


def copied(folder: Path, now: Inventory) -> tuple[bytes, Inventory]:
    """An archive of the folder, and what is in it. Begins again while files change."""
    for _ in range(TRIES):
        if (archive := pack(folder, now)) is not None and inventory(folder) == now:
            return archive, now
        time.sleep(0.025)
        now = inventory(folder)
    raise StateError("the state changed while it was copied")


def pack(folder: Path, now: Inventory) -> bytes | None:
    """An archive of what the inventory lists; None where something has changed since."""
    if sum(size for size, _ in now.values()) > LIMIT * RATIO:
        raise StateError(f"the state has more than {LIMIT * RATIO} bytes when it is decompressed")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT) as archive:
        for path, (size, changed) in sorted(now.items()):
            member = tarfile.TarInfo(path)
            member.mtime = changed // 1_000_000_000
            member.pax_headers = {"mtime": f"{changed // 1_000_000_000}.{changed % 1_000_000_000:09}"}
            try:
                about = os.lstat(folder / path)
                is_folder = stat.S_ISDIR(about.st_mode)
                member.mode = 0o700 if is_folder or about.st_mode & 0o100 else 0o600
                if is_folder:
                    member.type = tarfile.DIRTYPE
                    archive.addfile(member)
                    continue
                # What has become a link or a pipe since must not be followed, or waited for.
                descriptor = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                with os.fdopen(descriptor, "rb") as file:
                    now_there = os.fstat(descriptor)
                    if not stat.S_ISREG(now_there.st_mode) or now_there.st_size != size:
                        return None
                    member.size = size
                    archive.addfile(member, file)
            except OSError:
                # It changes. What is wrong for good is met again, and told by its inventory.
                return None
            if out.tell() > LIMIT:
                break
    if out.tell() > LIMIT:
        raise StateError(f"the state has more than {LIMIT} bytes when it is compressed")
    return out.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Writes the files of an archive into an empty folder. Refuses what is no plain file or folder inside it."""
    most, inside, entries = len(archive) * RATIO + (1 << 20), 0, 0
    folders = []
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r|gz") as members:
        for member in members:
            path, entries = PurePosixPath(member.name), entries + 1
            if entries > ENTRIES or len(path.parts) > DEEPEST:
                raise StateError(f"the state has more than {ENTRIES} files, or folders nested deeper than {DEEPEST}")
            if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.isdir()):
                raise StateError(f"the saved state holds {member.name!r}, which is no plain file or folder inside it")
            at = folder / path
            changed = nanoseconds(member)
            if member.isdir():
                at.mkdir(mode=0o700, parents=True, exist_ok=True)
                folders.append((at, changed))
                continue
            inside += member.size
            if inside > most:
                raise StateError(f"the state has more than {most} bytes when it is decompressed")
            at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700 if member.mode & 0o100 else 0o600)
            with os.fdopen(descriptor, "wb") as file, members.extractfile(member) or io.BytesIO() as content:
                shutil.copyfileobj(content, file)
            os.utime(at, ns=(changed, changed))
    # A file that is written into a folder changes it.
    for at, changed in folders:
        os.utime(at, ns=(changed, changed))


def nanoseconds(member: tarfile.TarInfo) -> int:
    """The time of the last change, as exact as the archive has it."""
    seconds, _, rest = member.pax_headers.get("mtime", f"{member.mtime}").partition(".")
    return int(seconds) * 1_000_000_000 + int(f"{rest[:9]:0<9}")
