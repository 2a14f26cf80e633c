"""Write point tracks as TAP-Vid pickles."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from actionprep.datasets.products.tracks import Tracks

_PICKLE_PROTOCOL = 4


@dataclass(frozen=True)
class TapVidClip:
    """Point tracks of one clip, as TAP-Vid stores them.

    Attributes:
        start: First frame of the clip in the view.
        frames: Indices of the frames in the view, shape (T,).
        points: Positions as fractions of width and height, x then y, float32 of shape (N, T, 2). (0, 0) is the upper
            left corner of the image and (1, 1) the lower right one.
        occluded: Whether a point is not visible, bool of shape (N, T).
    """

    start: int
    frames: NDArray[np.int64]
    points: NDArray[np.float32]
    occluded: NDArray[np.bool_]


def tapvid_clips(tracks: Tracks) -> Iterator[TapVidClip]:
    """Convert the windows of point tracks to TAP-Vid clips. Windows without points are left out.

    In the store, (0, 0) is the center of the first pixel. In TAP-Vid it is the corner of the image, so half a pixel is
    added before positions are divided by the size.

    References:
        Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video", NeurIPS 2022;
        https://github.com/google-deepmind/tapnet/tree/main/tapnet/tapvid
    """
    size = np.array([tracks.attributes["width"], tracks.attributes["height"]], np.float64)
    for window in range(len(tracks.xy)):
        frames, slots = np.flatnonzero(tracks.frame_valid[window]), np.flatnonzero(tracks.valid[window])
        if not len(frames) or not len(slots):
            continue
        chosen = np.ix_(frames, slots)
        xy = tracks.xy[window][chosen].astype(np.float64)
        known = np.isfinite(xy).all(-1)
        points = np.where(known[..., None], (xy + 0.5) / size, 0)
        yield TapVidClip(
            start=int(tracks.frame[window][frames[0]]),
            frames=tracks.frame[window][frames].astype(np.int64),
            points=points.transpose(1, 0, 2).astype(np.float32),
            occluded=~(tracks.visible[window][chosen] & known).T,
        )


def write_tapvid(path: Path, clips: dict[str, tuple[TapVidClip, NDArray[np.uint8] | None]]) -> None:
    """Write clips as one pickle: for each name a dict of `points`, `occluded` and, if given, `video`.

    Args:
        path: File to write.
        clips: Clips by name, with frames of shape (T, H, W, 3), or None.
    """
    content: dict[str, dict[str, Any]] = {}
    for name, (clip, video) in clips.items():
        content[name] = {"points": clip.points, "occluded": clip.occluded}
        if video is not None:
            content[name]["video"] = video
    path.write_bytes(pickle.dumps(content, protocol=_PICKLE_PROTOCOL))
