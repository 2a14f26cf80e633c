"""Small stores of frames with a moving bright square, for tests of frame inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from recordings import write_video
from training_fakes import MOTIONS, make_store, table_of, write_snippets

from actionprep.datasets.store.zarr_store import Store
from actionprep.training.recipes import Recipe

FPS = 10.0
VIDEO_SIZE = (48, 64)
"""Height and width of the videos that `write_square_video` writes."""


def moving_square(
    direction: tuple[float, float], *, frames: int = 12, size: tuple[int, int] = (24, 32), seed: int = 0
) -> np.ndarray:
    """(T, H, W, 3) uint8: a reddish square of 6 pixels that moves one pixel per frame on a dark background."""
    rng = np.random.default_rng(seed)
    height, width = size
    images = np.full((frames, height, width, 3), 40, np.uint8)
    x, y = width / 2 + rng.integers(-2, 3), height / 2 + rng.integers(-2, 3)
    for frame in range(frames):
        left = int(np.clip(x - 3 + direction[0] * (frame - frames / 2), 0, width - 6))
        top = int(np.clip(y - 3 + direction[1] * (frame - frames / 2), 0, height - 6))
        images[frame, top : top + 6, left : left + 6] = (220, 120, 60)
    return images


def write_lowres(store: Store, recording: str, view: str, images: np.ndarray, *, start: float = 0.0) -> None:
    """Write an item of the product lowres, in one size."""
    made = {"stage": "lowres", "version": 1, "settings": {"sizes": [24]}, "inputs": {}}
    with store.write("lowres", recording, view, fingerprint=f"{recording}{view}", provenance=made) as item:
        item.write(f"rgb_{min(images.shape[1:3])}", images, axes=("time", "y", "x", "channel"))
        item.write("time", start + np.arange(len(images)) / FPS, axes=("time",))
        item.write("status", np.zeros(len(images), np.uint8), axes=("time",))
        item.attributes.update(sizes={}, source_height=240, source_width=320)


def write_frames(
    store: Store,
    recording: str,
    view: str,
    images: np.ndarray,
    *,
    which: str = "all",
    index: np.ndarray | None = None,
) -> None:
    """Write an item of the product frames with raw storage. index: frame numbers in the video."""
    index = np.arange(len(images)) if index is None else np.asarray(index)
    made = {"stage": "frames", "version": 1, "settings": {"which": which}, "inputs": {}}
    with store.write("frames", recording, view, fingerprint=f"{recording}{view}", provenance=made) as item:
        item.write("rgb", images[index], axes=("time", "y", "x", "channel"))
        item.write("time", index / FPS, axes=("time",))
        item.write("status", np.zeros(len(index), np.uint8), axes=("time",))
        item.write("index", index, axes=("time",))
        item.attributes.update(which=which, storage="raw", height=images.shape[1], width=images.shape[2])


def make_frame_store(
    folder: Path,
    *,
    product: str = "lowres",
    subjects: int = 4,
    views: tuple[str, ...] = ("0",),
    names: tuple[str, ...] = tuple(MOTIONS),
    repeats: int = 1,
) -> Store:
    """Create a store where every subject does every motion. Recordings have names like s1_left_0, as in `training_fakes`."""
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
                    images = moving_square(MOTIONS[label], seed=10 * len(recordings) + int(view))
                    if product == "lowres":
                        write_lowres(store, name, view, images)
                    else:
                        write_frames(store, name, view, images)
    write_snippets(store, table_of(recordings, labels, of_subject, seconds=1.2, names=names))
    return store


def write_square_video(path: Path, *clips: tuple[str, int]) -> Path:
    """Write a video of moving squares, one clip after another. A clip is a motion of MOTIONS and a seed."""
    images = [moving_square(MOTIONS[motion], size=VIDEO_SIZE, seed=seed) for motion, seed in clips]
    return write_video(path, np.concatenate(images), rate=int(FPS), codec="mpeg4")


def write_halved_videos(store: Store, *, subjects: int, settings: dict[str, object]) -> tuple[list[str], list[str]]:
    """Write what the stage lowres makes of videos in which each subject (s0, s1, …) does every motion.

    Returns:
        Names of the recordings, such as s0_left, and their labels.
    """
    made = {"stage": "lowres", "version": 1, "settings": settings, "inputs": {}}
    names, labels = [], []
    for subject in range(subjects):
        for label in MOTIONS:
            names.append(f"s{subject}_{label}")
            labels.append(label)
            images = moving_square(MOTIONS[label], size=VIDEO_SIZE, seed=len(names))[:, ::2, ::2]
            with store.write("lowres", names[-1], "0", fingerprint=names[-1], provenance=made) as item:
                item.write("rgb_24", images, axes=("time", "y", "x", "channel"))
                item.write("time", np.arange(len(images)) / FPS, axes=("time",))
    return names, labels


def tiny_pixels(name: str = "i3d-small", **changes: object) -> Recipe:
    """Return a small recipe on frames. Changes have dotted names with __ for the dot."""
    tables = {
        "recipe": {"name": "tiny", "model": name, "product": "lowres", "epochs": 2, "batch": 4},
        "sizes": {"width_multiplier": 0.0625, "dropout": 0.0},
        "input": {"frames": 4, "size": 16},
    }
    recipe = Recipe.from_tables(tables, where="the tests' recipe")
    return recipe.changed({name.replace("__", "."): value for name, value in changes.items()})


def motion_recipe(**changes: object) -> Recipe:
    """Return a recipe that learns the motions of `moving_square` in about ten steps, with any initial weights."""
    settings = {
        "batch": 9,
        "input__channels": "motion",
        "input__frames": 8,
        "input__size": 24,
        "optimizer__learning_rate": 0.01,
    }
    return tiny_pixels(**{**settings, **changes})


def make_tracks_and_lowres(path: Path) -> Store:
    """Create a store with tracks and lowres frames of the same recordings, of four subjects."""
    store = make_store(path, subjects=4)
    for number, key in enumerate(store.items("tracks")):
        label = key.recording.split("_")[1]
        write_lowres(store, key.recording, key.view, moving_square(MOTIONS[label], seed=number))
    return store
