"""Contact sheets: one view at many moments, or several views at the same moments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actionprep.show.products import legend_of
from actionprep.show.scenes import Scene
from actionprep.show.sheet import Tile, columns_for, draw_contact_sheet, row_height

WIDTH = 1720
"""Total width of the images of a row in pixels."""


def contact_sheet(scenes: Sequence[Scene], *, title: str, kind: str, columns: int = 6, rows: int = 4) -> np.ndarray:
    """Draw a contact sheet of one view at up to columns x rows times, or of several views at up to `rows` times.

    The times are evenly spaced; with several views, over the interval that all of them cover. Each view shows its frame
    nearest to that time. The caption has the frame's own time.

    Args:
        scenes: One scene per view.
        title: Title of the sheet.
        kind: Product name, which selects the legend.
        columns: Maximum number of images side by side.
        rows: Maximum number of rows.

    Returns:
        RGB image, shape (H, W, 3), uint8.
    """
    if len(scenes) == 1:
        return _of_one(scenes[0], title=title, kind=kind, columns=columns, rows=rows)
    return _of_many(scenes, title=title, kind=kind, columns=columns, rows=rows)


def spread(total: int, count: int) -> np.ndarray:
    """Choose `count` of `total` indices, the middles of equal parts; all if there are not more."""
    if total <= count:
        return np.arange(total)
    return ((np.arange(count) + 0.5) * total / count).astype(int)


def common_moments(scenes: Sequence[Scene], count: int) -> np.ndarray:
    """Choose evenly spaced frame times of the first view within the interval that all views cover.

    If the views do not overlap, the times cover the interval from the first view's start to the last view's end.
    """
    low = max(float(scene.times[0]) for scene in scenes)
    high = min(float(scene.times[-1]) for scene in scenes)
    if high < low:
        low = min(float(scene.times[0]) for scene in scenes)
        high = max(float(scene.times[-1]) for scene in scenes)
    lead = scenes[0].times
    inside = lead[(lead >= low - 1e-6) & (lead <= high + 1e-6)]
    if len(inside):
        return inside[spread(len(inside), count)]
    return low + (np.arange(count) + 0.5) * (high - low) / count


def _of_one(scene: Scene, *, title: str, kind: str, columns: int, rows: int) -> np.ndarray:
    moments = spread(len(scene), columns * rows).tolist()
    across = columns_for(len(moments), columns)
    height = row_height([scene.aspect] * max(across, min(columns, 3)), WIDTH, high=_tallest(scene))
    if height >= 2 * scene.images.height:
        # Integer multiples keep the pixels of tiny images equal in size.
        height -= height % scene.images.height
    size = (height, max(2, round(height * scene.aspect)))
    tiles = [
        Tile(size, image, caption=f"{scene.times[moment]:.3f} s", remark=_remark(scene, moment))
        for moment, image in zip(moments, scene.draw(moments, *size), strict=True)
    ]
    lines = [tiles[first : first + across] for first in range(0, len(tiles), across)]
    return draw_contact_sheet(lines, title=title, details=scene.details, legend=legend_of(kind))


def _of_many(scenes: Sequence[Scene], *, title: str, kind: str, columns: int, rows: int) -> np.ndarray:
    times = common_moments(scenes, rows)
    across = columns_for(len(scenes), columns)
    folds = [list(range(first, min(first + across, len(scenes)))) for first in range(0, len(scenes), across)]
    most = max(_tallest(scene) for scene in scenes)
    height = min(row_height([scenes[at].aspect for at in fold], WIDTH, high=most) for fold in folds)
    columns_of_tiles = [_tiles_at(scene, times, height) for scene in scenes]
    lines = [[columns_of_tiles[at][moment] for at in fold] for moment in range(len(times)) for fold in folds]
    return draw_contact_sheet(lines, title=title, details=_details(scenes), legend=legend_of(kind), group=len(folds))


def _details(scenes: Sequence[Scene]) -> list[str]:
    """Details that all views share, then those of single views."""
    common = [phrase for phrase in scenes[0].details if all(phrase in scene.details for scene in scenes)]
    particular = []
    for scene in scenes:
        rest = [phrase for phrase in scene.details if phrase not in common]
        if rest:
            particular.append(f"{scene.name}: {', '.join(rest)}")
    return [*common, *particular]


def _tiles_at(scene: Scene, times: np.ndarray, height: int) -> list[Tile]:
    size = (height, max(2, round(height * scene.aspect)))
    moments = [scene.nearest(float(time)) for time in times]
    distinct = list(dict.fromkeys(moment for moment in moments if moment is not None))
    drawn = dict(zip(distinct, scene.draw(distinct, *size), strict=True))
    tiles = []
    for time, moment in zip(times, moments, strict=True):
        if moment is None:
            tiles.append(Tile(size, None, name=scene.name, reason=f"no frame at {time:.3f} s"))
        else:
            caption = f"{scene.times[moment]:.3f} s"
            tiles.append(Tile(size, drawn[moment], name=scene.name, caption=caption, remark=_remark(scene, moment)))
    return tiles


def _tallest(scene: Scene) -> int:
    """Maximum height of a tile: enlarged only as far as overlays become easier to see."""
    return int(np.clip(3 * scene.images.height, 256, 640))


def _remark(scene: Scene, moment: int) -> str:
    return scene.remark(moment) or f"frame {scene.numbers[moment]}"
