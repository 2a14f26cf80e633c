"""Write, sync and delete the folders of a store on a disk of this machine."""

from __future__ import annotations

import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from actionprep.datasets.paths import check_link

# If the syncs of an item take longer than this, the rest of them runs in threads.
_SLOW_SYNC_S = 0.02
_DRAFT = re.compile(r"\d+-[0-9a-f]{32}")


def check_links(root: Path, place: Path) -> None:
    """Raise SetupError where a symbolic link from the root to a place leads nowhere."""
    for folder in (*reversed(place.parents), place):
        if folder == root or folder.is_relative_to(root):
            check_link(folder)


def is_like_an_item(folder: Path) -> bool:
    """Whether a folder is an item, also one whose metadata is damaged or lost, or is empty."""
    return folder.is_dir() and (
        (folder / "zarr.json").exists() or any(folder.glob("*/zarr.json")) or not any(folder.iterdir())
    )


def clear_drafts(partial: Path) -> None:
    """Delete the drafts in a folder that a link may lead to, and the folder if nothing else is in it."""
    if partial.is_symlink():
        return
    for draft in partial.iterdir():
        if _DRAFT.fullmatch(draft.name):
            delete(draft)
    with suppress(OSError):
        partial.rmdir()


def delete(path: Path) -> None:
    """Delete a folder with its content, or a link or file; never the target of a link."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Sync all files and folders of a draft.

    On a fast disk, threads take longer to start than the syncs. On a slow one, several syncs share a write of its journal.
    """
    places = [place for place, _, _ in os.walk(folder)]
    waiting = [entry.path for place in places for entry in os.scandir(place) if entry.is_file()] + places
    begun = time.perf_counter()
    while waiting and time.perf_counter() - begun < _SLOW_SYNC_S:
        sync(waiting.pop(0))
    if waiting:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(sync, waiting))


def sync(path: str | Path) -> None:
    """Write a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
