"""Write files atomically: a reader sees the old content or the new content, and an error leaves no draft behind."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actionprep.datasets.paths import no_link
from actionprep.errors import discard


@contextmanager
def atomic_file(path: Path, *, sync: bool = False, fixed: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it replaces `path` when the block ends without an error.

    The folder is created if it is missing. The temporary path has the suffix of `path`, because some libraries choose the
    format by it.

    Args:
        path: File to write.
        sync: Whether the content is on the disk before it replaces the file.
        fixed: Whether the temporary name is always the same, so that the next attempt replaces what a killed process left.
            For large files that one process writes at a time.

    Raises:
        OSError: If the file cannot be written.
    """
    draft = path.with_name(f".{path.stem}.{'partial' if fixed else uuid.uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield no_link(draft)
        if sync:
            with open(draft, "rb") as written:
                os.fsync(written.fileno())
        os.replace(draft, path)
    finally:
        discard(draft)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to a file; see `atomic_file`."""
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
