"""Small stores of point tracks. The classes are directions of motion."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actionprep.datasets.products.snippets import SnippetTable
from actionprep.datasets.store.zarr_store import Store
from actionprep.training.recipes import Recipe

MOTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0)}
FPS = 10.0


class InterruptedRunError(BaseException):
    """Raised by tests in place of a kill."""


def write_tracks(
    store: Store,
    recording: str,
    view: str,
    *,
    direction: tuple[float, float],
    num_windows: int = 2,
    window: int = 8,
    stride: int = 4,
    points: int = 12,
    seed: int = 0,
    start: float = 0.0,
    settings: dict | None = None,
) -> None:
    """Write tracks of points around (100, 80) that move at 20 px/s in one direction, with little noise."""
    rng = np.random.default_rng(seed)
    frame = np.arange(num_windows)[:, None] * stride + np.arange(window)
    time = start + frame / FPS
    place = rng.uniform(-30, 30, (num_windows, 1, points, 2)) + (100, 80)
    along = (time - start)[:, :, None, None] * 20 * np.asarray(direction)
    xy = (place + along + rng.normal(0, 0.2, (num_windows, window, points, 2))).astype(np.float32)
    valid = np.ones((num_windows, points), bool)
    valid[:, -2:] = False
    xy[:, :, -2:] = np.nan
    shape = (num_windows, window, points)
    visibility = np.where(valid[:, None], np.float32(1), np.float32(0)) * np.ones(shape, np.float32)
    arrays = {
        "xy": (xy, ("window", "frame", "point", "xy")),
        "visibility": (visibility, ("window", "frame", "point")),
        "confidence": (visibility, ("window", "frame", "point")),
        "valid": (valid, ("window", "point")),
        "frame": (frame.astype(np.int32), ("window", "frame")),
        "frame_valid": (np.ones((num_windows, window), bool), ("window", "frame")),
        "time": (time, ("window", "frame")),
        "start": (frame[:, 0].astype(np.int32), ("window",)),
        "seed": (frame[:, window // 2].astype(np.int32), ("window",)),
        "region": (np.tile(np.float32([60, 40, 140, 120]), (num_windows, 1)), ("window", "box")),
    }
    made = {"stage": "tracks", "version": 1, "settings": settings or {"grid": 4, "tracker": "lk"}, "inputs": {}}
    with store.write("tracks", recording, view, fingerprint=f"{recording}{view}{seed}", provenance=made) as item:
        for name, (values, axes) in arrays.items():
            item.write(name, values, axes=axes)
        item.attributes.update(tracker="lk", width=200, height=160, visible_rule="visibility", visible_above=0.5)


def table_of(
    recordings: list[str],
    labels: list[str],
    subjects: list[str],
    *,
    seconds: float,
    names: tuple[str, ...] = tuple(MOTIONS),
    target: np.ndarray | None = None,
    settings: dict | None = None,
) -> SnippetTable:
    """Return a table with one snippet per recording."""
    size = len(recordings)
    code = np.array([names.index(label) for label in labels], np.int32)
    one_hot = np.eye(len(names), dtype=np.uint8)[code] if target is None else target
    overlaps = one_hot.astype(np.float32)
    return SnippetTable(
        recording=np.arange(size, dtype=np.int32),
        onset=np.zeros(size),
        offset=np.full(size, seconds),
        label=code,
        target=one_hot,
        coverage=overlaps,
        iou=overlaps,
        segment_share=overlaps,
        labels=names,
        recordings=tuple(recordings),
        subjects=tuple(subjects),
        sessions=("",) * size,
        splits=("",) * size,
        sources=tuple((f"digest of {one}",) for one in recordings),
        settings={"length_s": None, "background": None, "multi_label": False} | (settings or {}),
        left_out={},
    )


def write_snippets(store: Store, table: SnippetTable, name: str = "default") -> None:
    """Write a table to a store."""
    made = {"stage": "snippets", "version": 1, "settings": {}, "inputs": {}}
    with store.write("snippets", name, fingerprint=f"snippets {name}", provenance=made) as item:
        for column in ("recording", "onset", "offset", "label"):
            item.write(column, getattr(table, column), axes=("snippet",))
        for column in ("target", "coverage", "iou", "segment_share"):
            item.write(column, getattr(table, column), axes=("snippet", "label"))
        item.attributes.update(table.attributes())


def write_split(store: Store, name: str, *, tested: str, val: str | None = None) -> None:
    """Write a split of the recordings of make_store that tests on one subject and validates on another or none."""
    recordings = list(SnippetTable.read(store.item("snippets", "default")).recordings)
    of_subject = {f"s{tested}": 3, f"s{val}": 2}
    part = np.array([[of_subject.get(one.split("_")[0], 1) for one in recordings]], np.uint8)
    made = {"stage": "split", "version": 1, "settings": {}, "inputs": {}}
    with store.write("split", name, fingerprint=name, provenance=made) as item:
        item.write("part", part, axes=("fold", "recording"))
        item.attributes.update(recordings=recordings, by="column", seed=0, groups=[], notes=[])


def make_store(
    folder: Path,
    *,
    subjects: int = 4,
    repeats: int = 1,
    views: tuple[str, ...] = ("0",),
    names: tuple[str, ...] = tuple(MOTIONS),
    seed: int = 0,
) -> Store:
    """Create a store where every subject does every motion `repeats` times. Recordings have names like s1_left_0."""
    store = Store(folder, create=True)
    recordings, labels, of_subject = [], [], []
    for subject in range(1, subjects + 1):
        for label in names:
            for repeat in range(repeats):
                name = f"s{subject}_{label}_{repeat}"
                recordings.append(name)
                labels.append(label)
                of_subject.append(str(subject))
                for view in views:
                    write_tracks(
                        store, name, view, direction=MOTIONS[label], seed=seed + 100 * len(recordings) + len(view)
                    )
    write_snippets(store, table_of(recordings, labels, of_subject, seconds=1.2, names=names))
    return store


def tiny_recipe(**changes: object) -> Recipe:
    """Return a recipe of a small view transformer. Changes have dotted names with __ for the dot."""
    base = {
        "recipe": {"name": "tiny", "model": "view-transformer", "product": "tracks", "epochs": 3, "batch": 4},
        "sizes": {"grid": 8, "channels": [4, 8], "width": 16, "layers": 1, "heads": 2, "dropout": 0.0},
        "input": {"frames": 8, "points": 8},
    }
    recipe = Recipe.from_tables(base, where="the tests' recipe")
    return recipe.changed({name.replace("__", "."): value for name, value in changes.items()})
