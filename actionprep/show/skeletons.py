"""Draw skeleton layouts as standing persons with joint numbers and names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actionprep.datasets.poses.skeletons import Skeleton, joint_positions, skeleton
from actionprep.show.colors import LIGHT
from actionprep.show.files import write_image
from actionprep.show.text import put_text, text_width

_MANY = 40
"""Layouts with more joints are drawn with thin lines and without names."""

_IN_A_ROW = 4
_BITS = 4


def draw_layouts(layouts: Sequence[str | Skeleton], out: str | Path) -> Path:
    """Draw layouts side by side, at most four per row, and write the image.

    Returns:
        The path of the image.
    """
    images = [draw_layout(layout) for layout in layouts]
    rows = [np.concatenate(images[first : first + _IN_A_ROW], axis=1) for first in range(0, len(images), _IN_A_ROW)]
    width = max(row.shape[1] for row in rows)
    filled = [np.pad(row, [(0, 0), (0, width - row.shape[1]), (0, 0)], constant_values=LIGHT.ground[0]) for row in rows]
    return write_image(np.concatenate(filled, axis=0), Path(out))


def draw_layout(layout: str | Skeleton, *, height: int = 720, labels: bool = True) -> np.ndarray:
    """Draw a layout as a standing person who faces the viewer (the person's left is on the right of the image).

    Joints are labeled with their index; up to 40 joints are also listed by name. Joints without a known position
    (`layouts/_positions.toml`) are drawn in a row below.

    Args:
        layout: Name or definition of the layout.
        height: Height of the image in pixels.
        labels: Draw the title, joint numbers and names.

    Returns:
        RGB image, shape (height, W, 3), uint8.
    """
    import cv2

    layout = skeleton(layout)
    small = layout.num_joints > _MANY
    size = max(9, height // 48)
    step = min(1.6 * size, (height - 5.0 * size) / max(layout.num_joints, 1))
    names = [f"{index} {joint}" for index, joint in enumerate(layout.joints)] if labels and not small else []
    name_size = max(7, min(size, int(step / 1.15)))
    body_width = round(height * 0.78)
    listed = max((text_width(name, name_size) for name in names), default=0)
    image = np.full((height, body_width + (listed + 2 * size if names else 0), 3), LIGHT.ground, np.uint8)
    points = _joint_xy(layout, height, body_width)
    fixed = np.rint(points * (1 << _BITS)).astype(int).tolist()
    for (a, b), color in zip(layout.limbs, layout.limb_colors, strict=True):
        cv2.line(image, fixed[a], fixed[b], color, 1 if small else 3, cv2.LINE_AA, _BITS)
    radius = (2 if small else 6) << _BITS
    for center, color in zip(fixed, layout.joint_colors, strict=True):
        cv2.circle(image, center, radius, color, -1, cv2.LINE_AA, _BITS)
    if labels and not small:
        numbers = [str(index) for index in range(layout.num_joints)]
        widths = [text_width(number, name_size) for number in numbers]
        positions, far = _number_positions(points, widths, name_size)
        for start, position in zip(points[far], positions[far], strict=True):
            ends = np.rint(np.stack([start, position]) * (1 << _BITS)).astype(int).tolist()
            cv2.line(image, ends[0], ends[1], LIGHT.quiet, 1, cv2.LINE_AA, _BITS)
        for number, (x, y) in zip(numbers, positions, strict=True):
            put_text(image, number, (x, y), size=name_size, color=LIGHT.ink, anchor="middle", halo=LIGHT.ground)
    head = f"{layout.name} · {layout.num_joints} joints, {len(layout.limbs)} limbs" if labels else ""
    if head:
        put_text(image, head, (size, 1.2 * size), size=size, color=LIGHT.ink, bold=True)
    for index, name in enumerate(names):
        position = (body_width + size, 3.2 * size + index * step)
        put_text(image, name, position, size=name_size, color=layout.joint_colors[index])
    return image


def _number_positions(points: np.ndarray, widths: Sequence[int], height: int) -> tuple[np.ndarray, np.ndarray]:
    """Place the numbers of the joints.

    Each number takes the first position around its joint that covers no other number and no joint, else the position
    with the least overlap. The outermost joints choose first, so that numbers keep the order of their joints.

    Returns:
        Centers of the numbers in pixels, shape (K, 2), and which of them need a line to their joint, shape (K,).
    """
    taken: list[np.ndarray] = []
    centers, far = np.zeros_like(points), np.zeros(len(points), bool)
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
                covered += sum(_shared(box, np.concatenate([point - 6, point + 6])) for point in points)
                if best is None or covered < best[0]:
                    best = (covered, middle, away > 9.0)
            if best is not None and best[0] == 0:
                break
        assert best is not None
        taken.append(np.concatenate([best[1] - half, best[1] + half]))
        centers[index], far[index] = best[1:]
    return centers, far


_TURNS = (45, 90, 135, 0, 180, -45, -135, -90)
"""Directions in degrees, counterclockwise, starting outwards."""


def _shared(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection area of two boxes (x0, y0, x1, y1)."""
    wide, high = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(max(wide, 0) * max(high, 0))


def _joint_xy(layout: Skeleton, height: int, width: int) -> np.ndarray:
    """Positions of the joints in pixels, shape (K, 2)."""
    known = joint_positions()
    unknown = [joint for joint in layout.joints if joint not in known]
    row = {joint: ((at + 1) / (len(unknown) + 1) - 0.5, 1.06) for at, joint in enumerate(unknown)}
    positions = np.array([known.get(joint) or row[joint] for joint in layout.joints])
    return positions * height * 0.86 + [width / 2, height * 0.065]
