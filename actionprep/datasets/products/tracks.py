"""Point tracks on disk: the schema of the product `tracks`, its writer and its reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actionprep.datasets.products.schema import Array, Product

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter

_POINTS = ("window", "frame", "point")
_WINDOWS_PER_CHUNK = 8
_SMALL = 1024

TRACKS = Product(
    "tracks",
    (
        Array(
            "xy", "float32", (*_POINTS, "xy"), "px", "positions in pixels of the video", _WINDOWS_PER_CHUNK,
            "NaN in slots without a point and after the view's end",
        ),
        Array(
            "visibility", "float32", _POINTS, None, "raw, in [0, 1]; see visible_rule", _WINDOWS_PER_CHUNK,
            "0 where `xy` is NaN",
        ),
        Array(
            "confidence", "float32", _POINTS, None, "raw, in [0, 1]; see visible_rule", _WINDOWS_PER_CHUNK,
            "0 where `xy` is NaN",
        ),
        Array(
            "valid", "bool", ("window", "point"), None, "slots that hold a point", _WINDOWS_PER_CHUNK, "points come first"
        ),
        Array("frame", "int32", ("window", "frame"), None, "frame of the view, -1 after its end", _SMALL),
        Array(
            "frame_valid", "bool", ("window", "frame"), None, "frames that exist", _SMALL,
            "only a view shorter than a window lacks some",
        ),
        Array("time", "float64", ("window", "frame"), "s", "time on the recording's clock", _SMALL, "NaN after the end"),
        Array("start", "int32", ("window",), None, "first frame of the window", _SMALL),
        Array("seed", "int32", ("window",), None, "frame in which its points start", _SMALL),
        Array(
            "region", "float32", ("window", "box"), "px", "x0, y0, x1, y1 of the foreground of its frames", _SMALL,
            "the frame where there is no foreground",
        ),
    ),
    {
        "tracker": "point tracker",
        "grid": "grid size G; a window has up to G x G points",
        "visible_rule": "how it is decided whether a point is visible: by visibility, or visibility*confidence",
        "visible_above": "threshold of that rule",
        "width": "width of the video in pixels",
        "height": "height of the video in pixels",
        "region": "x0, y0, x1, y1 in pixels of the foreground of the view",
        "num_windows": "number of windows",
        "num_empty_windows": "number of windows without foreground in their seed frame",
        "num_points": "number of points in all windows",
        "visible_share": "share of points that are visible, over all frames but the seed; null without points",
        "survival_share": "share of points that are visible in the last frame of their window; null without points",
    },
)  # fmt: skip


@dataclass(frozen=True)
class Tracks:
    """Point tracks of one view, cut into windows that are each seeded on their own.

    Attributes:
        xy: Positions in pixels of the source image, x then y, shape (W, T, N, 2), float32.
        visible: Whether a point is visible, by the rule of the tracker's authors, shape (W, T, N), bool.
        visibility: Visibility as the tracker gives it, in [0, 1], shape (W, T, N), float32.
        confidence: Confidence as the tracker gives it, in [0, 1], shape (W, T, N), float32.
        valid: Which of the N slots hold a point, shape (W, N), bool.
        frame: Index of each frame in the view, -1 after its end, shape (W, T), int32.
        frame_valid: Which frames of the window exist, shape (W, T), bool.
        time: Seconds on the recording's clock, shape (W, T), float64.
        region: Box x0, y0, x1, y1 of the foreground in pixels, shape (W, 4), float32.
        attributes: Attributes of the item.
    """

    xy: np.ndarray
    visible: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray
    valid: np.ndarray
    frame: np.ndarray
    frame_valid: np.ndarray
    time: np.ndarray
    region: np.ndarray
    attributes: dict[str, Any]

    def __repr__(self) -> str:
        windows, frames, points = self.xy.shape[:3]
        made = f"{self.attributes.get('tracker')}, grid {self.attributes.get('grid')}"
        return f"Tracks({windows} windows x {frames} frames x {points} points; {int(self.valid.sum())} seeded; {made})"


def create_tracks(item: ItemWriter, *, num_frames: int, num_slots: int) -> None:
    """Begin the arrays of an item.

    Args:
        item: Item to write to.
        num_frames: Frames in a window.
        num_slots: Slots for points in a window.
    """
    sizes = {"frame": num_frames, "point": num_slots, "xy": 2, "box": 4}
    for array in TRACKS.arrays:
        array.create(item, tuple(sizes[axis] for axis in array.axes[1:]))


def append_window(item: ItemWriter, window: Mapping[str, Any]) -> None:
    """Append one window to an item.

    Args:
        item: Item to write to.
        window: Values of every array of the schema, without the axis `window`.
    """
    for array in TRACKS.arrays:
        item.append(array.name, np.asarray(window[array.name])[None])


def read_tracks(item: ItemReader, windows: slice = slice(None)) -> Tracks:
    """Read point tracks into memory.

    Args:
        item: Item of the product `tracks`.
        windows: Windows to read.
    """
    attributes = item.attributes
    visibility, confidence = item["visibility"][windows], item["confidence"][windows]
    return Tracks(
        xy=item["xy"][windows],
        visible=visible(
            visibility,
            confidence,
            rule=attributes.get("visible_rule", "visibility"),
            above=attributes.get("visible_above", 0.5),
        ),
        visibility=visibility,
        confidence=confidence,
        valid=item["valid"][windows].astype(bool),
        frame=item["frame"][windows],
        frame_valid=item["frame_valid"][windows].astype(bool),
        time=item["time"][windows],
        region=item["region"][windows],
        attributes=attributes,
    )


def visible(
    visibility: np.ndarray,
    confidence: np.ndarray,
    *,
    rule: Literal["visibility", "visibility*confidence"] = "visibility",
    above: float = 0.5,
) -> np.ndarray:
    """Decide which points are visible.

    Args:
        visibility: Visibility as the tracker gives it, of any shape.
        confidence: Confidence as the tracker gives it, of the same shape.
        rule: Attribute `visible_rule` of the item: the rule of the tracker's authors.
        above: Attribute `visible_above` of the item: their threshold. Other thresholds are possible.

    Returns:
        Bool, of the same shape. Points in frames after the end of the view are never visible.

    Raises:
        ValueError: If the rule is unknown.
    """
    if rule == "visibility":
        visible: np.ndarray = visibility > above
    elif rule == "visibility*confidence":
        visible = visibility * confidence > above
    else:
        raise ValueError(f"No rule '{rule}' for visible points. Rules: visibility, visibility*confidence.")
    return visible
