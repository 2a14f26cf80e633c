"""Draw skeleton layouts as standing figures with their joints' numbers and names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actionprep.datasets.skeletons import Skeleton, joint_positions, skeleton
from actionprep.show.colors import LIGHT
from actionprep.show.files import write_picture
from actionprep.show.text import put_text, text_width

_MANY = 40
"""A layout with more joints is drawn finer, and its joints are not named."""

_BITS = 4


def draw_layouts(layouts: Sequence[str | Skeleton], out: str | Path) -> Path:
    """Write a picture of some layouts side by side; returns where it is."""
    return write_picture(np.concatenate([draw_layout(layout) for layout in layouts], axis=1), Path(out))


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
        for index, (x, y) in enumerate(points):
            put_text(image, str(index), (x + 8, y - 8), size=name_size, color=LIGHT.ink, halo=LIGHT.ground)
    head = f"{layout.name} · {layout.num_joints} joints, {len(layout.limbs)} limbs" if labels else ""
    if head:
        put_text(image, head, (size, 1.2 * size), size=size, color=LIGHT.ink, bold=True)
    for index, name in enumerate(names):
        place = (figure + size, 3.2 * size + index * step)
        put_text(image, name, place, size=name_size, color=layout.joint_colors[index])
    return image


def _places(layout: Skeleton, height: int, width: int) -> np.ndarray:
    """Where the joints are drawn, (K, 2) px."""
    known = joint_positions()
    unknown = [joint for joint in layout.joints if joint not in known]
    row = {joint: ((at + 1) / (len(unknown) + 1) - 0.5, 1.06) for at, joint in enumerate(unknown)}
    places = np.array([known.get(joint) or row[joint] for joint in layout.joints])
    return places * height * 0.86 + [width / 2, height * 0.065]
