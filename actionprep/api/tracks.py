"""The point tracks of one view, as labeled arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from actionprep.datasets.store.reader import ItemReader


@dataclass(frozen=True)
class Tracks:
    """Point tracks of one view, cut into windows that are each seeded anew.

    xy          (W, T, N, 2) float32  pixels of the source image, x then y
    visible     (W, T, N) bool        by the rule of the tracker's authors
    visibility  (W, T, N) float32     as the tracker gives it, in [0, 1]
    confidence  (W, T, N) float32     likewise
    valid       (W, N) bool           which of the N slots hold a point
    frame       (W, T) int32          index of each frame in the view; -1 after its end
    frame_valid (W, T) bool           which frames of the window exist
    time        (W, T) float64        seconds on the recording's clock
    region      (W, 4) float32        box x0, y0, x1, y1 of the foreground, px
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


def read_tracks(item: ItemReader) -> Tracks:
    """The point tracks of an item, read into memory."""
    from actionprep.datasets.products.tracks import visible

    attributes = item.attributes
    visibility, confidence = item["visibility"][:], item["confidence"][:]
    return Tracks(
        xy=item["xy"][:],
        visible=visible(visibility, confidence, rule=attributes["visible_rule"], above=attributes["visible_above"]),
        visibility=visibility,
        confidence=confidence,
        valid=item["valid"][:].astype(bool),
        frame=item["frame"][:],
        frame_valid=item["frame_valid"][:].astype(bool),
        time=item["time"][:],
        region=item["region"][:],
        attributes=attributes,
    )
