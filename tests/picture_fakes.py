"""Small stores of pictures in which a bright square moves, for tests of what reads pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from recordings import write_video
from training_fakes import MOTIONS, make_store, table_of, write_snippets

from actionprep.datasets.store.zarr_store import Store
from actionprep.training.recipes import Recipe

FPS = 10.0
FILMED = (48, 64)
"""Height and width of the videos that `film` writes."""


def moving_square(
    direction: tuple[float, float], *, frames: int = 12, size: tuple[int, int] = (24, 32), seed: int = 0
) -> np.ndarray:
    """(T, H, W, 3) uint8: a reddish square of 6 pixels on a dim ground, one pixel a frame."""
    rng = np.random.default_rng(seed)
    height, width = size
    pictures = np.full((frames, height, width, 3), 40, np.uint8)
    x, y = width / 2 + rng.integers(-2, 3), height / 2 + rng.integers(-2, 3)
    for frame in range(frames):
        left = int(np.clip(x - 3 + direction[0] * (frame - frames / 2), 0, width - 6))
        top = int(np.clip(y - 3 + direction[1] * (frame - frames / 2), 0, height - 6))
        pictures[frame, top : top + 6, left : left + 6] = (220, 120, 60)
    return pictures


def write_lowres(store: Store, recording: str, view: str, pictures: np.ndarray, *, start: float = 0.0) -> None:
    """One item of the product lowres, in one size."""
    made = {"stage": "lowres", "version": 1, "settings": {"sizes": [24]}, "inputs": {}}
    with store.write("lowres", recording, view, fingerprint=f"{recording}{view}", provenance=made) as item:
        item.write(f"rgb_{min(pictures.shape[1:3])}", pictures, axes=("time", "y", "x", "channel"))
        item.write("time", start + np.arange(len(pictures)) / FPS, axes=("time",))
        item.write("status", np.zeros(len(pictures), np.uint8), axes=("time",))
        item.attributes.update(sizes={}, source_height=240, source_width=320)


def write_frames(
    store: Store,
    recording: str,
    view: str,
    pictures: np.ndarray,
    *,
    which: str = "all",
    index: np.ndarray | None = None,
) -> None:
    """One item of the product frames, raw; index: which frames of the video these are."""
    index = np.arange(len(pictures)) if index is None else np.asarray(index)
    made = {"stage": "frames", "version": 1, "settings": {"which": which}, "inputs": {}}
    with store.write("frames", recording, view, fingerprint=f"{recording}{view}", provenance=made) as item:
        item.write("rgb", pictures[index], axes=("time", "y", "x", "channel"))
        item.write("time", index / FPS, axes=("time",))
        item.write("status", np.zeros(len(index), np.uint8), axes=("time",))
        item.write("index", index, axes=("time",))
        item.attributes.update(which=which, storage="raw", height=pictures.shape[1], width=pictures.shape[2])


def make_picture_store(
    folder: Path,
    *,
    product: str = "lowres",
    subjects: int = 4,
    views: tuple[str, ...] = ("0",),
    names: tuple[str, ...] = tuple(MOTIONS),
    repeats: int = 1,
) -> Store:
    """Every subject does every motion; recordings are called like s1_left_0, as in `training_fakes`."""
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
                    pictures = moving_square(MOTIONS[label], seed=10 * len(recordings) + int(view))
                    if product == "lowres":
                        write_lowres(store, name, view, pictures)
                    else:
                        write_frames(store, name, view, pictures)
    write_snippets(store, table_of(recordings, labels, of_subject, seconds=1.2, names=names))
    return store


def film(path: Path, *clips: tuple[str, int]) -> Path:
    """A video of a moving square, clip after clip; a clip: its motion, of MOTIONS, and its seed."""
    pictures = [moving_square(MOTIONS[motion], size=FILMED, seed=seed) for motion, seed in clips]
    return write_video(path, np.concatenate(pictures), rate=int(FPS), codec="mpeg4")


def write_halved_films(store: Store, *, subjects: int, settings: dict[str, object]) -> tuple[list[str], list[str]]:
    """What the stage lowres makes, with these settings, of films of which each subject (s0, s1, …) does every motion.

    Returns names of the recordings, such as s0_left, and their labels.
    """
    made = {"stage": "lowres", "version": 1, "settings": settings, "inputs": {}}
    names, labels = [], []
    for subject in range(subjects):
        for label in MOTIONS:
            names.append(f"s{subject}_{label}")
            labels.append(label)
            pictures = moving_square(MOTIONS[label], size=FILMED, seed=len(names))[:, ::2, ::2]
            with store.write("lowres", names[-1], "0", fingerprint=names[-1], provenance=made) as item:
                item.write("rgb_24", pictures, axes=("time", "y", "x", "channel"))
                item.write("time", np.arange(len(pictures)) / FPS, axes=("time",))
    return names, labels


def tiny_pixels(name: str = "i3d-small", **changes: object) -> Recipe:
    """A recipe on pictures small enough for tests; changes by dotted names with __ for the dot."""
    tables = {
        "recipe": {"name": "tiny", "model": name, "product": "lowres", "epochs": 2, "batch": 4},
        "sizes": {"width_multiplier": 0.0625, "dropout": 0.0},
        "input": {"frames": 4, "size": 16},
    }
    recipe = Recipe.from_tables(tables, where="the tests' recipe")
    return recipe.changed({name.replace("__", "."): value for name, value in changes.items()})


def motion_recipe(**changes: object) -> Recipe:
    """A recipe that learns the motions of `moving_square` in about ten steps, with any starting weights."""
    settings = {
        "batch": 9,
        "input__channels": "motion",
        "input__frames": 8,
        "input__size": 24,
        "optimizer__learning_rate": 0.01,
    }
    return tiny_pixels(**{**settings, **changes})


def make_tracks_and_lowres(path: Path) -> Store:
    """Tracks and small frames of the same recordings, of four subjects."""
    store = make_store(path, subjects=4)
    for number, key in enumerate(store.items("tracks")):
        label = key.recording.split("_")[1]
        write_lowres(store, key.recording, key.view, moving_square(MOTIONS[label], seed=number))
    return store
