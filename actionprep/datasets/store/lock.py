"""One builder per store: a lock file that names its owner and that a dead owner loses."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from actionprep.errors import UserError, explained_disk_errors

# Owners on another machine cannot be probed: theirs counts as dead when nobody has touched the file for so long.
HEARTBEAT_S = 30.0
ABANDONED_S = 600.0
# Where a lock cannot appear whole, an empty one may be in the middle of being written.
WRITING_S = 2.0

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@contextmanager
def build_lock(path: Path) -> Iterator[BuildLock]:
    """Hold the lock at `path` while the block runs.

    Raises UserError with the owner's name and the lock's age when a living builder holds it.
    """
    lock = BuildLock(path)
    lock.acquire()
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_S):
            lock.touch()

    # Its own thread: one long view must not make the owner look dead to another machine.
    heart = threading.Thread(target=beat, name="lock-heartbeat", daemon=True)
    heart.start()
    try:
        yield lock
    finally:
        stop.set()
        lock.release()


class BuildLock:
    """A lock file; `touch` is its heartbeat."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._token = uuid.uuid4().hex

    def acquire(self) -> None:
        """Take the lock, from a dead owner too."""
        with explained_disk_errors(self.path.parent):
            self._acquire()

    def _acquire(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mine = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "user": os.environ.get("USER") or os.environ.get("USERNAME") or str(os.getuid()),
            "command": " ".join(Path(part).name if at == 0 else part for at, part in enumerate(sys.argv))[:200],
            "since": time.time(),
        }
        draft = self.path.with_name(f"{self.path.name}.{self._token}")
        draft.write_text(json.dumps(mine))
        try:
            while True:
                try:
                    _appear(draft, self.path)
                    return
                except FileExistsError:
                    self._refuse_or_clear()
        finally:
            draft.unlink(missing_ok=True)

    def touch(self) -> None:
        """Say that the owner lives."""
        # Somebody may have deleted it by hand, as the message of a refusal allows, or the disk may refuse for a moment.
        with suppress(OSError):
            os.utime(self.path)

    def release(self) -> None:
        """Give the lock back, if it is still ours."""
        owner = _read(self.path)
        if owner is not None and owner.get("token") == self._token:
            self.path.unlink(missing_ok=True)

    def _refuse_or_clear(self) -> None:
        owner = _read(self.path)
        if owner is None:
            return
        if _alive(owner, self.path):
            age = time.time() - float(str(owner["since"]))
            raise UserError(
                f"Another builder is at work on this store: process {owner['pid']} of {owner['user']} on {owner['host']} "
                f"({owner['command']}), since {_duration(age)}.\n"
                f"Wait for it, or stop it; if it is gone for good, delete {self.path}."
            )
        # Move the dead owner's file aside first: of two newcomers only one finds it there.
        grave = self.path.with_name(f"{self.path.name}.dead-{uuid.uuid4().hex}")
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return
        buried = _read(grave)
        if buried is not None and buried.get("token") != owner.get("token"):
            # Between reading and moving somebody else took the lock over: put it back.
            with suppress(FileExistsError):
                os.link(grave, self.path)
        grave.unlink(missing_ok=True)


def _appear(draft: Path, path: Path) -> None:
    """Give the draft's content that name too; raises FileExistsError where the name is taken."""
    try:
        # A hard link appears whole or not at all.
        os.link(draft, path)
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    # Disks without hard links (exFAT, some network folders) know at least who was first to make a file.
    with open(path, "x", encoding="utf-8") as file:
        file.write(draft.read_text())


def _read(path: Path) -> dict[str, object] | None:
    try:
        while not (text := path.read_text()) and time.time() - path.stat().st_mtime < WRITING_S:
            time.sleep(0.05)
        found = json.loads(text)
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if isinstance(found, dict) and {"token", "host", "pid", "user", "command", "since"} <= found.keys():
        return found
    # Not a lock of ours, or one cut short: nobody can be alive behind it.
    return {"token": "unreadable", "host": socket.gethostname(), "pid": 0, "user": "?", "command": "?", "since": 0.0}


def _alive(owner: dict[str, object], path: Path) -> bool:
    if owner["host"] == socket.gethostname():
        pid = int(str(owner["pid"]))
        # A pid is used again after a while, so the process must also have started when the owner did.
        return pid > 0 and _process_start(pid) is not None and _process_start(pid) == owner.get("process_start")
    try:
        return time.time() - path.stat().st_mtime < ABANDONED_S
    except FileNotFoundError:
        return False


def _process_start(pid: int) -> str | None:
    """When a process of this machine started, as a text to compare; None when there is no such process."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        try:  # no /proc (macOS): only whether it lives can be told
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return "running"
        return "running"
    return None if fields[0] == "Z" else fields[19]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
