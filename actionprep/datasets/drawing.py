"""Pictures of poses: a layout, skeletons over a frame, a heatmap volume over time. RGB uint8 arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionprep.datasets.skeletons import Skeleton, joint_positions, skeleton
from actionprep.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PERSON_COLORS = ((255, 225, 25), (0, 200, 255), (255, 80, 200), (170, 255, 100), (255, 150, 80), (190, 160, 255))


def draw_layout(layout: str | Skeleton, *, height: int = 720, labels: bool = True) -> NDArray[np.uint8]:
    """The layout as a standing figure that faces the viewer (its left is on the picture's right).

    Returns (height, W, 3) RGB. Joints carry their index; up to 40 joints are also listed by name. Joints whose names
    have no known place (`layouts/_positions.toml`) stand on a row below.
    """
    import cv2

    layout = skeleton(layout)
    known = joint_positions()
    unknown = [joint for joint in layout.joints if joint not in known]
    row = {joint: ((i + 1) / (len(unknown) + 1) - 0.5, 1.06) for i, joint in enumerate(unknown)}
    names_shown = labels and layout.num_joints <= 40
    width = int(height * (0.75 + (0.62 if names_shown else 0)))
    image = np.full((height, width, 3), 255, np.uint8)
    scale, left, top = height * 0.86, height * 0.375, height * 0.05
    places = [known.get(joint) or row[joint] for joint in layout.joints]
    points = [(round(left + x * scale), round(top + y * scale)) for x, y in places]
    small = layout.num_joints > 40
    for (a, b), color in zip(layout.limbs, layout.limb_colors, strict=True):
        cv2.line(image, points[a], points[b], color, 1 if small else 3, cv2.LINE_AA)
    for index, (point, color) in enumerate(zip(points, layout.joint_colors, strict=True)):
        cv2.circle(image, point, 2 if small else 5, color, -1, cv2.LINE_AA)
        if labels and not small:
            place = (point[0] + 6, point[1] - 4)
            cv2.putText(image, str(index), place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    cv2.putText(image, layout.name, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    if names_shown:
        step = min(24, (height - 40) / layout.num_joints)
        for index, (joint, color) in enumerate(zip(layout.joints, layout.joint_colors, strict=True)):
            place = (int(height * 0.78), round(32 + step * index))
            size = 0.5 if step > 17 else 0.38
            cv2.putText(image, f"{index} {joint}", place, cv2.FONT_HERSHEY_SIMPLEX, size, color, 1, cv2.LINE_AA)
    return image


def draw_poses(
    frame: NDArray[np.uint8],
    keypoints: ArrayLike,
    score: ArrayLike,
    layout: str | Skeleton,
    *,
    track_id: Sequence[int] | None = None,
    filled: Sequence[bool] | None = None,
    least_score: float = 0.05,
) -> NDArray[np.uint8]:
    """Skeletons over one frame, in a copy of it.

    frame (H, W, 3) RGB; keypoints (M, K, 2 or more) px; score (M, K): joints under `least_score` are left out, weaker
    joints are drawn thinner. track_id (M): written beside the head with the mean score; filled (M): persons that were
    filled in are drawn hollow.
    """
    import cv2

    layout = skeleton(layout)
    points = np.asarray(keypoints, np.float32)[..., :2]
    seen = np.asarray(score, np.float32)
    if points.shape[:2] != seen.shape or points.shape[1] != layout.num_joints:
        raise UserError(
            f"Skeleton '{layout.name}' has {layout.num_joints} joints: expected keypoints (M, {layout.num_joints}, "
            "2) with "
            f"score (M, {layout.num_joints}), got {points.shape} with {seen.shape}."
        )
    image = np.array(frame, copy=True)
    unit = max(1, round(max(image.shape[:2]) / 480))
    for person in range(len(points)):
        shown = seen[person] >= max(least_score, 1e-6)
        if not shown.any():
            continue
        # Far-away joints would overflow the drawing's integers: they are clipped well outside the picture.
        place = np.clip(points[person], -1e4, 1e4).round().astype(int)
        for (a, b), color in zip(layout.limbs, layout.limb_colors, strict=True):
            if shown[a] and shown[b]:
                weak = min(seen[person, a], seen[person, b]) < 0.3
                cv2.line(image, tuple(place[a]), tuple(place[b]), color, unit if weak else 2 * unit, cv2.LINE_AA)
        hollow = filled is not None and bool(filled[person])
        for joint in np.flatnonzero(shown):
            color = layout.joint_colors[joint]
            cv2.circle(image, tuple(place[joint]), 2 * unit, color, unit if hollow else -1, cv2.LINE_AA)
        if track_id is not None:
            top = place[shown][place[shown][:, 1].argmin()]
            text = f"{int(track_id[person])}: {float(seen[person][shown].mean()):.2f}"
            spot = (int(top[0]) + 4 * unit, int(top[1]) - 6 * unit)
            ink = _PERSON_COLORS[int(track_id[person]) % len(_PERSON_COLORS)]
            cv2.putText(image, text, spot, cv2.FONT_HERSHEY_SIMPLEX, 0.45 * unit, (0, 0, 0), 3 * unit, cv2.LINE_AA)
            cv2.putText(image, text, spot, cv2.FONT_HERSHEY_SIMPLEX, 0.45 * unit, ink, unit, cv2.LINE_AA)
    return image


def heatmap_montage(
    volume: Any, layout: str | Skeleton | None = None, *, columns: int = 8, zoom: int = 3, frames: int = 16
) -> NDArray[np.uint8]:
    """A heatmap volume over time: one tile a frame, channels merged by maximum in the colour of their side.

    volume (C, T, H, W) in [0, 1] or uint8; layout gives colours to joints, or to limbs where C is the number of limbs.
    At most `frames` frames, evenly spaced.
    """
    values = np.asarray(volume)
    if values.ndim != 4:
        raise UserError(f"A montage shows one volume (channels, T, H, W), got an array of shape {values.shape}.")
    values = values.astype(np.float32) / (255 if values.dtype == np.uint8 else 1)
    channels, total, height, width = values.shape
    colors = np.full((channels, 3), 255, np.float32)
    if layout is not None:
        layout = skeleton(layout)
        palette = {layout.num_joints: layout.joint_colors, len(layout.limbs): layout.limb_colors}
        # Where a layout has as many limbs as joints the colours differ little; joints win.
        if channels == layout.num_joints:
            palette[channels] = layout.joint_colors
        if channels in palette:
            colors = np.asarray(palette[channels], np.float32)
    chosen = np.linspace(0, total - 1, min(frames, total)).round().astype(int)
    rows = -(-len(chosen) // columns)
    columns = min(columns, len(chosen))
    sheet = np.full((rows * (height * zoom + 1), columns * (width * zoom + 1), 3), 60, np.uint8)
    for place, index in enumerate(chosen):
        tile = (values[:, index, :, :, None] * colors[:, None, None, :]).max(0).clip(0, 255).astype(np.uint8)
        tile = tile.repeat(zoom, 0).repeat(zoom, 1)
        y, x = (place // columns) * (height * zoom + 1), (place % columns) * (width * zoom + 1)
        sheet[y : y + height * zoom, x : x + width * zoom] = tile
    return sheet
