"""Lock file that allows one builder per store. It names its owner, and a dead owner loses it."""

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from actionprep.errors import SetupError, UserError, discard, explained_disk_errors

# Owners whose process cannot be probed count as dead when the heartbeat is this old.
HEARTBEAT_S = 30.0
ABANDONED_S = 600.0
# On disks without hard links, an empty lock file may be in the middle of being written.
WRITING_S = 2.0
# A lock file is smaller; a larger file is not read.
_MAX_BYTES = 1 << 16

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LockLostError(SetupError):
    """Another builder took over the lock: this one must stop writing."""


@contextmanager
def build_lock(path: Path) -> Iterator[BuildLock]:
    """Hold the lock at `path` while the block runs.

    Args:
        path: The lock file.

    Yields:
        The lock.

    Raises:
        UserError: If a running builder holds the lock; the message contains its owner and age.
    """
    with hold(BuildLock(path)) as lock:
        yield lock


class Claim(Protocol):
    """Proof that a builder holds the lock of a store, which can be sent to worker processes."""

    def require_held(self) -> None:
        """Raise LockLostError if another builder took over the lock."""


class Lock(Protocol):
    """Lock of a store."""

    @property
    def claim(self) -> Claim:
        """Proof that this builder holds it."""

    def acquire(self) -> None:
        """Take the lock, also from a dead owner; raises UserError while a running builder holds it."""

    def touch(self) -> None:
        """Update the heartbeat, unless another builder holds the lock."""

    def release(self) -> None:
        """Release the lock, if this builder still holds it."""


_AnyLock = TypeVar("_AnyLock", bound=Lock)


@contextmanager
def hold(lock: _AnyLock) -> Iterator[_AnyLock]:
    """Hold a lock while the block runs, with a heartbeat."""
    lock.acquire()
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_S):
            lock.touch()

    # A separate thread, so that the owner of a long task does not look dead to other machines.
    heart = threading.Thread(target=beat, name="lock-heartbeat", daemon=True)
    heart.start()
    try:
        yield lock
    finally:
        stop.set()
        lock.release()


@dataclass(frozen=True)
class LockClaim:
    """Proof that a builder holds a lock, which can be sent to worker processes.

    Attributes:
        path: The lock file.
        token: The token that the file has while the builder holds the lock.
    """

    path: Path
    token: str

    def require_held(self) -> None:
        """Check that no other builder took over the lock.

        Raises:
            LockLostError: If the lock file names another builder. A missing or temporarily unreadable file is ignored.
        """
        try:
            owner = _read(self.path)
        except OSError:
            return
        if owner is not None and owner.token != self.token:
            raise lost_to(owner, self.path)


class BuildLock:
    """A lock file; `touch` is its heartbeat."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.claim = LockClaim(path.absolute(), uuid.uuid4().hex)

    def acquire(self) -> None:
        """Take the lock, also from a dead owner."""
        with explained_disk_errors(self.path.parent):
            self._acquire()

    def _acquire(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.{self.claim.token}")
        try:
            draft.write_text(json.dumps(asdict(LockOwner.of_this_process(self.claim.token))), encoding="utf-8")
            while True:
                try:
                    _appear(draft, self.path)
                    return
                except FileExistsError:
                    # Use the clock of the disk, because clocks of machines differ.
                    os.utime(draft)
                    self._refuse_or_clear(draft.stat().st_mtime)
        finally:
            discard(draft)

    def touch(self) -> None:
        """Update the heartbeat, unless another builder holds the lock."""
        # The file may have been deleted by hand, as the error message suggests, or the disk may fail temporarily.
        with suppress(OSError, LockLostError):
            self.claim.require_held()
            os.utime(self.path)

    def release(self) -> None:
        """Release the lock, if this builder still holds it."""
        with suppress(OSError):
            owner = _read(self.path)
            if owner is not None and owner.token == self.claim.token:
                self.path.unlink(missing_ok=True)

    def _refuse_or_clear(self, now: float) -> None:
        if self.path.is_dir():
            raise UserError(f"{self.path} is a folder, but must be the lock file of the store. Remove it.")
        owner = _read(self.path)
        if owner is None:
            return
        if is_alive(owner, lambda: _heartbeat_age(self.path, now)):
            raise held_by(owner, self.path)
        # Move the dead owner's file away first: only one of two competing builders can.
        grave = self.path.with_name(f"{self.path.name}.dead-{uuid.uuid4().hex}")
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return
        buried = _read(grave)
        if buried is not None and buried.token != owner.token:
            # Another builder took over the lock between reading and moving: restore it.
            with suppress(FileExistsError):
                os.link(grave, self.path)
        grave.unlink(missing_ok=True)


@dataclass(frozen=True)
class LockOwner:
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
    def of_this_process(cls, token: str) -> LockOwner:
        """Describe this process."""
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
    def parse(cls, document: Any) -> LockOwner | None:
        """Parse the owner in a JSON document; None if a field is missing or invalid."""
        if not isinstance(document, dict):
            return None
        # Earlier versions wrote neither boot id nor namespace.
        values: dict[str, Any] = {field.name: document.get(field.name) for field in fields(cls)}
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


UNREADABLE = LockOwner("unreadable", "?", None, None, 0, None, "?", "?", 0.0)
"""Owner of a foreign or truncated file, which no running builder can have written."""


def _appear(draft: Path, path: Path) -> None:
    """Create `path` with the content of the draft atomically; raises FileExistsError if it exists."""
    try:
        # A hard link is atomic.
        os.link(draft, path)
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    # On disks without hard links (exFAT, some network folders), at least only one process can create a file.
    with open(path, "x", encoding="utf-8") as file:
        file.write(draft.read_text(encoding="utf-8"))


def _read(path: Path) -> LockOwner | None:
    """Read the owner in a lock file; None if the file does not exist."""
    deadline = time.monotonic() + WRITING_S
    try:
        while True:
            with open(path, "rb") as file:
                content = file.read(_MAX_BYTES)
            if content or time.time() - path.stat().st_mtime > WRITING_S or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return owner_in(content)
    except FileNotFoundError:
        return None


def owner_in(content: bytes) -> LockOwner:
    """Owner in the content of a lock; `UNREADABLE` if no builder can have written it."""
    try:
        return LockOwner.parse(json.loads(content.decode("utf-8"))) or UNREADABLE
    except (ValueError, RecursionError, OverflowError):
        # Large integers, deep nesting and other encodings raise other errors than invalid JSON.
        return UNREADABLE


def lost_to(owner: LockOwner, lock: object) -> LockLostError:
    """Return the error of a builder whose lock another one took over."""
    return LockLostError(
        f"Another builder took over the lock of this store: {owner}.\n"
        "This build stopped. Committed items are complete. The other builder could not see this process and its "
        f"last heartbeat was older than {ABANDONED_S / 60:.0f} minutes, or somebody deleted {lock}.\n"
        "Wait for the other builder, then run the same command again."
    )


def held_by(owner: LockOwner, lock: object) -> UserError:
    """Return the error of a builder that finds the lock of a running one."""
    return UserError(
        f"Another builder is using this store: {owner}.\nWait for it, or stop it. If it no longer runs, delete {lock}."
    )


def is_alive(owner: LockOwner, heartbeat_age: Callable[[], float | None]) -> bool:
    """Whether the owner of a lock may still be running.

    Args:
        owner: The owner.
        heartbeat_age: Returns the seconds since its last heartbeat by the clock of the disk; None if the lock is gone.
    """
    if owner == UNREADABLE:
        return False
    ours = (socket.gethostname(), _boot_id(), _pid_namespace())
    if (owner.host, owner.boot, owner.pid_namespace) == ours:
        # Process ids are reused, so the start time must match as well.
        start = _process_start(owner.pid)
        return start is not None and start == owner.process_start
    # On another machine, in another container or before a reboot, the process id means something else.
    age = heartbeat_age()
    return age is not None and age < ABANDONED_S


def _heartbeat_age(path: Path, now: float) -> float | None:
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return None


def _boot_id() -> str | None:
    """Return the boot id of the kernel; None on systems without one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _pid_namespace() -> str | None:
    """Return the PID namespace of this process; None on systems without one."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _process_start(pid: int) -> str | None:
    """Return the start time of a local process as text, for comparison; None if the process does not exist."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        try:  # no /proc (macOS): only check whether the process exists
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
