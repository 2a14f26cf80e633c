"""Draw the frames of a snippet before and after a learned resizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actionprep.show.colors import ACCENT
from actionprep.show.sheet import Mark, Tile, draw_contact_sheet

_SIDE = 224


def draw_resized(
    stored: np.ndarray,
    resized: np.ndarray,
    theta: np.ndarray | None,
    *,
    title: str,
    details: Sequence[str] = (),
    columns: int = 6,
) -> np.ndarray:
    """Draw frames in two rows: before the resizer, with the region that theta reads, and after it.

    Args:
        stored: Frames before the resizer, uint8 RGB of shape (t, h, w, 3).
        resized: Frames after it, uint8 RGB of shape (T, H, W, 3).
        theta: Affine maps (2, 3) or (t, 2, 3) in coordinates from -1 to 1; None: no region is drawn.
        title: Title of the image.
        details: Phrases below the title.
        columns: Largest number of frames per row.

    Returns:
        RGB image, shape (H, W, 3), uint8.
    """
    rows: list[list[Tile]] = []
    for name, frames in (("before", stored), ("after", resized)):
        count = min(columns, len(frames))
        chosen = ((np.arange(count) + 0.5) * len(frames) / count).astype(int)
        tiles = []
        for index in chosen.tolist():
            image = _enlarged(frames[index])
            if name == "before" and theta is not None:
                _draw_region(image, theta if theta.ndim == 2 else theta[index])
            tiles.append(Tile(image.shape[:2], image, name=name, caption=f"frame {index}"))
        rows.append(tiles)
    legend = [] if theta is None else [Mark("square", ACCENT, "region that theta reads")]
    return draw_contact_sheet(rows, title=title, details=details, legend=legend)


def region_corners(theta: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the corners of the region that an affine map reads, in pixels of a frame.

    Args:
        theta: Affine map (2, 3) from output to input, in coordinates from -1 to 1 at the edges of the frame.
        height: Height of the frame.
        width: Width of the frame.

    Returns:
        x and y of the corners, shape (4, 2), clockwise from the upper left one of an identity map. (0, 0) is the upper
        left corner of the frame.
    """
    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], np.float64)
    return (corners @ theta.astype(np.float64).T + 1) / 2 * [width, height]


def _enlarged(frame: np.ndarray) -> np.ndarray:
    """Repeat the pixels of a small frame up to about 224 pixels."""
    factor = max(1, _SIDE // max(frame.shape[:2]))
    return np.ascontiguousarray(frame.repeat(factor, 0).repeat(factor, 1))


def _draw_region(image: np.ndarray, theta: np.ndarray) -> None:
    import cv2

    corners = np.rint(region_corners(theta, *image.shape[:2]) - 0.5).clip(-10_000, 10_000).astype(np.int32)
    cv2.polylines(image, [corners], isClosed=True, color=ACCENT, thickness=2)
