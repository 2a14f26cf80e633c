"""One builder per store: a lock file that names its owner and that a dead owner loses."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from actionprep.errors import SetupError, UserError, discard, explained_disk_errors

# Owners whose process cannot be probed count as dead when the heartbeat is this old.
HEARTBEAT_S = 30.0
ABANDONED_S = 600.0
# Where a lock cannot appear whole, an empty one may be in the middle of being written.
WRITING_S = 2.0
# A lock file is smaller; a larger file is not read.
_MAX_BYTES = 1 << 16

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LockLostError(SetupError):
    """Another builder took the lock over: this one must not write any more."""


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


@dataclass(frozen=True)
class LockClaim:
    """Proof that a builder holds a lock; it can be sent to worker processes.

    Attributes:
        path: The lock file.
        token: The token that the file has while the builder holds the lock.
    """

    path: Path
    token: str

    def require_held(self) -> None:
        """Check that no other builder took the lock over.

        Raises:
            LockLostError: If the lock file names another builder. A file that is absent or cannot be read for the moment
                proves nothing.
        """
        try:
            owner = _read(self.path)
        except OSError:
            return
        if owner is not None and owner.token != self.token:
            raise LockLostError(
                f"Another builder took over the lock of this store: {owner}.\n"
                "This build stopped. Every committed item is whole. The other builder could not see this process and its "
                f"last heartbeat was older than {ABANDONED_S / 60:.0f} minutes, or somebody deleted {self.path}.\n"
                "Wait for the other builder, then run the same command again."
            )


class BuildLock:
    """A lock file; `touch` is its heartbeat."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.claim = LockClaim(path.absolute(), uuid.uuid4().hex)

    def acquire(self) -> None:
        """Take the lock, from a dead owner too."""
        with explained_disk_errors(self.path.parent):
            self._acquire()

    def _acquire(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.{self.claim.token}")
        try:
            draft.write_text(json.dumps(asdict(_Owner.of_this_process(self.claim.token))), encoding="utf-8")
            while True:
                try:
                    _appear(draft, self.path)
                    return
                except FileExistsError:
                    # The disk's own clock: that of another machine may differ from ours.
                    os.utime(draft)
                    self._refuse_or_clear(draft.stat().st_mtime)
        finally:
            discard(draft)

    def touch(self) -> None:
        """Show that the owner lives, unless another builder holds the lock by now."""
        # Somebody may have deleted it by hand, as the message of a refusal allows, or the disk may refuse for a moment.
        with suppress(OSError, LockLostError):
            self.claim.require_held()
            os.utime(self.path)

    def release(self) -> None:
        """Give the lock back, if it is still ours."""
        with suppress(OSError):
            owner = _read(self.path)
            if owner is not None and owner.token == self.claim.token:
                self.path.unlink(missing_ok=True)

    def _refuse_or_clear(self, now: float) -> None:
        if self.path.is_dir():
            raise UserError(f"{self.path} is a folder, where the lock file of the store is expected. Remove it.")
        owner = _read(self.path)
        if owner is None:
            return
        if _alive(owner, self.path, now):
            raise UserError(
                f"Another builder is at work on this store: {owner}.\n"
                f"Wait for it, or stop it; if it is gone for good, delete {self.path}."
            )
        # Move the dead owner's file aside first: of two newcomers only one finds it there.
        grave = self.path.with_name(f"{self.path.name}.dead-{uuid.uuid4().hex}")
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return
        buried = _read(grave)
        if buried is not None and buried.token != owner.token:
            # Between reading and moving somebody else took the lock over: put it back.
            with suppress(FileExistsError):
                os.link(grave, self.path)
        grave.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Owner:
    """Content of a lock file.

    Attributes:
        token: Unique for each lock that is taken.
        host: Name of the machine or container.
        boot: Boot id of the kernel, None where the system has none.
        pid_namespace: PID namespace in which `pid` counts, None where the system has none.
        process_start: Start of the process, as `_process_start` gives it.
        since: Time at which the lock was taken, in seconds since 1970.
    """

    token: str
    host: str
    boot: str | None
    pid_namespace: str | None
    pid: int
    process_start: str | None
    user: str
    command: str
    since: float

    @classmethod
    def of_this_process(cls, token: str) -> _Owner:
        return cls(
            token=token,
            host=socket.gethostname(),
            boot=_boot_id(),
            pid_namespace=_pid_namespace(),
            pid=os.getpid(),
            process_start=_process_start(os.getpid()),
            user=os.environ.get("USER") or os.environ.get("USERNAME") or str(os.getuid()),
            command=" ".join(Path(part).name if at == 0 else part for at, part in enumerate(sys.argv))[:200],
            since=time.time(),
        )

    @classmethod
    def parse(cls, found: Any) -> _Owner | None:
        """The owner that a JSON document names, None if a field is missing or has a value that no builder writes."""
        if not isinstance(found, dict):
            return None
        # Earlier versions wrote neither boot id nor namespace.
        values: dict[str, Any] = {one.name: found.get(one.name) for one in fields(cls)}
        texts = all(isinstance(values[name], str) for name in ("token", "host", "user", "command"))
        absent = all(
            values[name] is None or isinstance(values[name], str) for name in ("boot", "pid_namespace", "process_start")
        )
        pid, since = values["pid"], values["since"]
        numbers = type(pid) is int and 0 < pid < 2**31 and type(since) in (int, float) and math.isfinite(since)
        return cls(**values) if texts and absent and numbers else None

    def __str__(self) -> str:
        age = max(0.0, time.time() - self.since)
        return f"process {self.pid} of {self.user} on {self.host} ({self.command}), since {_duration(age)}"


_UNREADABLE = _Owner("unreadable", "?", None, None, 0, None, "?", "?", 0.0)
"""Stands for a file that is not a lock of ours, or one that was cut short: nobody can be alive behind it."""


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
        file.write(draft.read_text(encoding="utf-8"))


def _read(path: Path) -> _Owner | None:
    """The owner in a lock file; None when there is no file."""
    deadline = time.monotonic() + WRITING_S
    try:
        while True:
            with open(path, "rb") as file:
                content = file.read(_MAX_BYTES)
            if content or time.time() - path.stat().st_mtime > WRITING_S or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        # Large integers, deep nesting and foreign encodings are errors of other kinds than broken JSON.
        return _Owner.parse(json.loads(content.decode("utf-8"))) or _UNREADABLE
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OverflowError):
        return _UNREADABLE


def _alive(owner: _Owner, path: Path, now: float) -> bool:
    """Whether the owner of a lock may still be at work; now: the time by the clock of the lock's disk."""
    if owner == _UNREADABLE:
        return False
    ours = (socket.gethostname(), _boot_id(), _pid_namespace())
    if (owner.host, owner.boot, owner.pid_namespace) == ours:
        # A pid is used again after a while, so the process must also have started when the owner did.
        start = _process_start(owner.pid)
        return start is not None and start == owner.process_start
    # Elsewhere, in another container or before a reboot, a process id is the name of another process, or of none.
    try:
        return now - path.stat().st_mtime < ABANDONED_S
    except FileNotFoundError:
        return False


def _boot_id() -> str | None:
    """An id of the kernel since it booted; None on systems without one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _pid_namespace() -> str | None:
    """The namespace in which process ids of this process count; None on systems without one."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


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
