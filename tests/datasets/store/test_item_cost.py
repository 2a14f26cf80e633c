"""Tests of what a stored item costs: folders, threads and syncs, and of the syncs that a commit needs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from actionprep.datasets.store import local_folders
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.zarr_store import Store

KEY = ItemKey("tracks", "seq_01", "0")
XY = np.random.default_rng(0).random((9, 4, 5, 2), np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def write(store: Store) -> None:
    with store.write(KEY.product, KEY.recording, KEY.view, fingerprint="f", provenance={}) as item:
        item.create("xy", shape=XY.shape[1:], dtype=XY.dtype, axes=("window", "t", "point", "axis"), chunk=4)
        item.append("xy", XY)
        item.write("time", np.arange(9.0), axes=("window",))


def test_item_makes_each_folder_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store)
    folders = {path for path in (Path(store.url) / KEY.path).rglob("*") if path.is_dir()}
    made: list[object] = []
    mkdir = os.mkdir
    monkeypatch.setattr(os, "mkdir", lambda path, *mode, **options: (made.append(path), mkdir(path, *mode, **options)))
    write(store)
    # Besides the folders of the item: the draft, and .partial and the folder above the item, which may exist.
    assert len(made) <= len(folders) + 4


def test_item_is_synced_before_it_is_visible(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync, rename = os.fsync, Path.rename

    def note_sync(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    def check_draft(draft: Path, target: Path) -> Path:
        if target == Path(store.url) / KEY.path:
            everything = {draft.stat().st_ino, *(path.stat().st_ino for path in draft.rglob("*"))}
            assert everything <= set(synced)
            synced.append(-1)
        return rename(draft, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", check_draft)
    write(store)
    assert synced[-2:] == [-1, (Path(store.url) / "tracks/seq_01").stat().st_ino]


@pytest.mark.parametrize("slow", [False, True])
def test_item_starts_threads_on_slow_disks_only(store: Store, monkeypatch: pytest.MonkeyPatch, *, slow: bool) -> None:
    if slow:
        monkeypatch.setattr(local_folders, "_SLOW_SYNC_S", 0.0)
    started: list[threading.Thread] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread), start(thread)))
    write(store)
    assert bool(started) == slow
    assert [damage for _, damage in store.verify()] == [None]
