"""Chosen frames on disk: the schema of the product `keyframes`, its writer and its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.products.schema import Array, Product

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter

KEYFRAMES = Product(
    "keyframes",
    (
        Array("index", "int64", ("keyframe",), None, "position in the video, from 0"),
        Array("time", "float64", ("keyframe",), "s", "frame times on the recording's clock"),
        Array(
            "score",
            "float32",
            ("keyframe",),
            None,
            "motion at the frame for the samplers motion and scenes, else 1; 0 for frames that short = mask adds",
        ),
    ),
    {
        "sampler": "name of the frame sampler",
        "num_frames": "number of frames of the video",
        "known_ahead": "whether the frames can be chosen without decoding",
    },
)


def write_keyframes(item: ItemWriter, index: np.ndarray, time: np.ndarray, score: np.ndarray) -> None:
    """Write the arrays of an item.

    Args:
        item: Item to write to.
        index: Positions of the K keyframes in the video, int64 of shape (K,).
        time: Their times in seconds on the recording's clock, shape (K,).
        score: Motion at each of them, shape (K,).
    """
    for name, values in (("index", index), ("time", time), ("score", score)):
        KEYFRAMES[name].write(item, values)


def read_keyframe_index(item: ItemReader) -> np.ndarray:
    """Return the positions of the keyframes in the video, int64 of shape (K,)."""
    return np.asarray(item["index"][:])
