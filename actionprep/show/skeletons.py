"""Draw skeleton layouts as standing figures with their joints' numbers and names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actionprep.datasets.poses.skeletons import Skeleton, joint_positions, skeleton
from actionprep.show.colors import LIGHT
from actionprep.show.files import write_image
from actionprep.show.text import put_text, text_width

_MANY = 40
"""A layout with more joints is drawn finer, and its joints are not named."""

_IN_A_ROW = 4
_BITS = 4


def draw_layouts(layouts: Sequence[str | Skeleton], out: str | Path) -> Path:
    """Write a picture of some layouts side by side, at most four in a row; returns where it is."""
    figures = [draw_layout(layout) for layout in layouts]
    rows = [np.concatenate(figures[first : first + _IN_A_ROW], axis=1) for first in range(0, len(figures), _IN_A_ROW)]
    width = max(row.shape[1] for row in rows)
    filled = [np.pad(row, [(0, 0), (0, width - row.shape[1]), (0, 0)], constant_values=LIGHT.ground[0]) for row in rows]
    return write_image(np.concatenate(filled, axis=0), Path(out))


def draw_layout(layout: str | Skeleton, *, height: int = 720, labels: bool = True) -> np.ndarray:
    """The layout as a standing figure that faces the viewer (its left is on the picture's right).

    Returns (height, W, 3) RGB. Joints carry their index; up to 40 joints are also listed by name. Joints whose names
    have no known place (`layouts/_positions.toml`) stand on a row below.
    """
    import cv2

    layout = skeleton(layout)
    small = layout.num_joints > _MANY
    size = max(9, height // 48)
    step = min(1.6 * size, (height - 5.0 * size) / max(layout.num_joints, 1))
    names = [f"{index} {joint}" for index, joint in enumerate(layout.joints)] if labels and not small else []
    name_size = max(7, min(size, int(step / 1.15)))
    figure = round(height * 0.78)
    listed = max((text_width(name, name_size) for name in names), default=0)
    image = np.full((height, figure + (listed + 2 * size if names else 0), 3), LIGHT.ground, np.uint8)
    points = _places(layout, height, figure)
    fixed = np.rint(points * (1 << _BITS)).astype(int).tolist()
    for (a, b), color in zip(layout.limbs, layout.limb_colors, strict=True):
        cv2.line(image, fixed[a], fixed[b], color, 1 if small else 3, cv2.LINE_AA, _BITS)
    radius = (2 if small else 6) << _BITS
    for place, color in zip(fixed, layout.joint_colors, strict=True):
        cv2.circle(image, place, radius, color, -1, cv2.LINE_AA, _BITS)
    if labels and not small:
        numbers = [str(index) for index in range(layout.num_joints)]
        widths = [text_width(number, name_size) for number in numbers]
        places, far = _number_places(points, widths, name_size)
        for start, place in zip(points[far], places[far], strict=True):
            ends = np.rint(np.stack([start, place]) * (1 << _BITS)).astype(int).tolist()
            cv2.line(image, ends[0], ends[1], LIGHT.quiet, 1, cv2.LINE_AA, _BITS)
        for number, (x, y) in zip(numbers, places, strict=True):
            put_text(image, number, (x, y), size=name_size, color=LIGHT.ink, anchor="middle", halo=LIGHT.ground)
    head = f"{layout.name} · {layout.num_joints} joints, {len(layout.limbs)} limbs" if labels else ""
    if head:
        put_text(image, head, (size, 1.2 * size), size=size, color=LIGHT.ink, bold=True)
    for index, name in enumerate(names):
        place = (figure + size, 3.2 * size + index * step)
        put_text(image, name, place, size=name_size, color=layout.joint_colors[index])
    return image


def _number_places(points: np.ndarray, widths: Sequence[int], height: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the middles of the joints' numbers go, (K, 2) px, and which stand so far off that a line must lead there.

    Each takes the first place around its joint where it covers no other number and no joint, else the freest one. The
    outermost joints choose first, and outside first, so that numbers stand in the order of their joints.
    """
    taken: list[np.ndarray] = []
    found, far = np.zeros_like(points), np.zeros(len(points), bool)
    outward = points[:, 0] - (points[:, 0].min() + points[:, 0].max()) / 2
    for index in np.argsort(-np.abs(outward), kind="stable"):
        joint, half = points[index], np.array([widths[index] + 2, height + 2]) / 2
        best: tuple[float, np.ndarray, bool] | None = None
        for away in (9.0, 22.0, 36.0, 50.0):
            for turn in np.radians(_TURNS):
                side = np.array([np.cos(turn) * (-1 if outward[index] < 0 else 1), -np.sin(turn)])
                middle = joint + side * away + half * np.sign(np.round(side, 6))
                box = np.concatenate([middle - half, middle + half])
                covered = sum(_shared(box, other) for other in taken)
                covered += sum(_shared(box, np.concatenate([one - 6, one + 6])) for one in points)
                if best is None or covered < best[0]:
                    best = (covered, middle, away > 9.0)
            if best is not None and best[0] == 0:
                break
        assert best is not None
        taken.append(np.concatenate([best[1] - half, best[1] + half]))
        found[index], far[index] = best[1:]
    return found, far


_TURNS = (45, 90, 135, 0, 180, -45, -135, -90)
"""Directions in degrees, from outwards counterclockwise."""


def _shared(a: np.ndarray, b: np.ndarray) -> float:
    """Area that two boxes (x0, y0, x1, y1) share."""
    wide, high = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(max(wide, 0) * max(high, 0))


def _places(layout: Skeleton, height: int, width: int) -> np.ndarray:
    """Where the joints are drawn, (K, 2) px."""
    known = joint_positions()
    unknown = [joint for joint in layout.joints if joint not in known]
    row = {joint: ((at + 1) / (len(unknown) + 1) - 0.5, 1.06) for at, joint in enumerate(unknown)}
    places = np.array([known.get(joint) or row[joint] for joint in layout.joints])
    return places * height * 0.86 + [width / 2, height * 0.065]
