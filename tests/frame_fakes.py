"""Recordings with a sequence of motions, their segments and windows across them, for tests of frame labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from study_fakes import view
from training_fakes import FPS, MOTIONS

from actionprep.datasets.catalog import Catalog
from actionprep.datasets.products.snippets import SnippetTable, write_snippets
from actionprep.datasets.recordings import Recording
from actionprep.datasets.segments import Segment
from actionprep.datasets.snippets import LabelRule, make_snippets
from actionprep.datasets.store.zarr_store import Store
from actionprep.training.recipes import Recipe

SECONDS = 6.0
FRAME_SIZES = {"hidden": 24, "layers": 1, "dropout": 0.0}


def motions_of(seed: int) -> tuple[Segment, ...]:
    """Return motions of 0.8 to 1.8 s in random order, some with a gap between them."""
    rng = np.random.default_rng(seed)
    found, at, before = [], 0.0, ""
    while at < SECONDS - 0.8:
        label = str(rng.choice([one for one in MOTIONS if one != before]))
        end = min(at + float(rng.integers(8, 19)) / 10, SECONDS)
        found.append(Segment(round(at, 6), round(end, 6), label))
        at, before = end + (0.3 if rng.random() < 0.3 else 0.0), label
    return tuple(found)


def write_changing_tracks(store: Store, recording: str, segments: tuple[Segment, ...], *, seed: int = 0) -> None:
    """Write tracks of points that move at 20 px/s in the direction of the current segment and rest in gaps."""
    rng = np.random.default_rng(seed)
    count, window, points = int(SECONDS * FPS), 8, 12
    time = np.arange(count) / FPS
    speed = np.zeros((count, 2))
    for one in segments:
        speed[(time >= one.onset - 1e-9) & (time < one.offset - 1e-9)] = np.multiply(MOTIONS[one.label], 20.0)
    path = np.cumsum(speed, axis=0) / FPS
    frame = np.arange(0, count - window + 1, 4)[:, None] + np.arange(window)
    # The same points in all windows, so that positions are continuous for an LSTM.
    place = rng.uniform(-10, 10, (points, 2)) + (100, 80)
    xy = place + path[frame][:, :, None]
    shape = xy.shape[:3]
    arrays = {
        "xy": (xy.astype(np.float32), ("window", "frame", "point", "xy")),
        "visibility": (np.ones(shape, np.float32), ("window", "frame", "point")),
        "confidence": (np.ones(shape, np.float32), ("window", "frame", "point")),
        "valid": (np.ones((len(frame), points), bool), ("window", "point")),
        "frame": (frame.astype(np.int32), ("window", "frame")),
        "frame_valid": (np.ones(frame.shape, bool), ("window", "frame")),
        "time": (time[frame], ("window", "frame")),
    }
    made = {"stage": "tracks", "version": 1, "settings": {"grid": 4, "tracker": "lk"}, "inputs": {}}
    with store.write("tracks", recording, "0", fingerprint=f"{recording}{seed}", provenance=made) as item:
        for name, (values, axes) in arrays.items():
            item.write(name, values, axes=axes)
        item.attributes.update(tracker="lk", width=200, height=160, visible_rule="visibility", visible_above=0.5)


def put_table(store: Store, table: SnippetTable, name: str = "default") -> None:
    """Write a table to a store, as the stage does."""
    made = {"stage": "snippets", "version": 4, "settings": {}, "inputs": {}}
    with store.write("snippets", name, fingerprint=f"snippets {name}", provenance=made) as item:
        write_snippets(table, item)


def changing_study(recordings: int) -> Catalog:
    """Return a catalog of recordings, each with a different subject."""
    names = [f"take_{number}" for number in range(recordings)]
    return Catalog(
        tuple(Recording(name, subject=str(number)) for number, name in enumerate(names)),
        tuple(view(name, seconds=SECONDS, fps=FPS) for name in names),
        {name: motions_of(number) for number, name in enumerate(names)},
    )


def make_changing_store(
    folder: Path,
    *,
    recordings: int = 6,
    length_s: float = 1.5,
    stride_s: float | None = None,
    rule: LabelRule = LabelRule(threshold=0.0, background="still"),
) -> Store:
    """Create a store of recordings take_0, take_1, … with windows across their motions."""
    store, study = Store(folder, create=True), changing_study(recordings)
    for number, recording in enumerate(study.recordings):
        write_changing_tracks(store, recording.id, study.segments[recording.id], seed=number)
    put_table(store, make_snippets(study, rule, length_s=length_s, stride_s=stride_s))
    return store


def frame_recipe(**changes: object) -> Recipe:
    """Return a recipe of a small track LSTM that learns frame labels. Changes have dotted names with __ for the dot."""
    base = {
        "recipe": {
            "name": "small", "model": "track-lstm", "product": "tracks", "targets": "frame", "epochs": 2, "batch": 8,
        },
        "sizes": FRAME_SIZES,
        "input": {"frames": 12, "points": 8, "overlap": 1},
        "optimizer": {"learning_rate": 0.01},
    }  # fmt: skip
    recipe = Recipe.from_tables(base, where="the tests' recipe")
    return recipe.changed({name.replace("__", "."): value for name, value in changes.items()})
