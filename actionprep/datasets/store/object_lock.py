"""Lock of a store in an S3 bucket: an object that is created only where there is none, and replaced only unchanged."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass

from actionprep.datasets.store.lock import LockLostError, LockOwner, held_by, is_alive, lost_to, owner_in
from actionprep.datasets.store.object_files import ExistsError, ObjectFiles
from actionprep.errors import SetupError

NAME = ".lock"

# Tokens of locks that this process has released: the storage may have been out of reach at that time.
_released: set[str] = set()


@dataclass(frozen=True)
class ObjectLockClaim:
    """Proof that a builder holds the lock of a store in a bucket, which can be sent to worker processes.

    Attributes:
        files: Objects of the store.
        token: The token that the lock has while the builder holds it.
    """

    files: ObjectFiles
    token: str

    def require_held(self) -> None:
        """Check that this builder holds the lock.

        Raises:
            LockLostError: If the lock names another builder or is gone. The next owner of the lock deletes data that are
                not committed, so nothing may be committed without it.
        """
        content = self.files.read(NAME)
        where = f"{self.files.url}/{NAME}"
        if content is None:
            raise LockLostError(
                f"The lock of this store, {where}, was deleted during the build. This build stopped. Committed items are "
                "complete; run the same command again."
            )
        owner = owner_in(content)
        if owner.token != self.token:
            raise lost_to(owner, where)


class ObjectLock:
    """The object `.lock` of a store. It names its owner and is written again as a heartbeat."""

    def __init__(self, files: ObjectFiles) -> None:
        self._files = files
        self._beats = 0
        self.claim = ObjectLockClaim(files, uuid.uuid4().hex)
        self._owner = LockOwner.of_this_process(self.claim.token)

    def acquire(self) -> None:
        """Take the lock, also from a dead owner.

        Raises:
            UserError: If a running builder holds the lock; the message contains its owner and age.
        """
        while True:
            with suppress(ExistsError):
                self._files.write(NAME, self._content(), condition="absent")
                return
            current = self._files.read_tagged(NAME)
            if current is None:
                continue
            content, tag, beat = current
            owner = owner_in(content)
            if owner.token == self.claim.token:
                return  # the request was sent again after a lost answer
            if owner.token not in _released and is_alive(owner, lambda beat=beat: self._now() - beat):  # type: ignore[misc]
                raise held_by(owner, f"{self._files.url}/{NAME}")
            # Only one of several builders can replace the dead owner's lock, and none that beats again meanwhile.
            with suppress(ExistsError):
                self._files.replace(NAME, self._content(), tag)
                return

    def touch(self) -> None:
        """Update the heartbeat, unless another builder holds the lock."""
        with suppress(SetupError, ExistsError):
            current = self._files.read_tagged(NAME)
            if current is not None and owner_in(current[0]).token == self.claim.token:
                self._files.replace(NAME, self._content(), current[1])

    def release(self) -> None:
        """Release the lock, if this builder still holds it."""
        _released.add(self.claim.token)
        with suppress(SetupError):
            content = self._files.read(NAME)
            if content is not None and owner_in(content).token == self.claim.token:
                self._files.delete([NAME])

    def _content(self) -> bytes:
        # Each heartbeat has other content, so that its tag differs.
        self._beats += 1
        return json.dumps({**asdict(self._owner), "beats": self._beats}).encode()

    def _now(self) -> float:
        """Time by the clock of the storage, because clocks of machines differ."""
        draft = f"{NAME}.{self.claim.token}"
        self._files.write(draft, b"")
        try:
            written = self._files.read_tagged(draft)
        finally:
            self._files.delete([draft])
        assert written is not None
        return written[2]
