"""Draw tracks, masks and skeletons onto RGB images. All functions are pure functions of arrays.

Positions are (x, y) in pixels of the image that is drawn on. The center of the first pixel is (0, 0). `scaled` converts
positions between image sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.label_colors import Color
from actionprep.show.colors import ACCENT, DARK, LOST, person_color, text_on
from actionprep.show.text import line_height, put_text, text_width

if TYPE_CHECKING:
    from actionprep.datasets.poses.skeletons import Skeleton

_BITS = 4  # OpenCV draws between pixels with fixed-point coordinates of this many bits
_RIM: Color = (16, 18, 22)
_FAR = 8000.0  # positions beyond this, in pixels, would overflow OpenCV's integers


def scaled(xy: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Scale positions (..., 2) by (x, y) factors. Pixel centers move with the area of their pixel."""
    return (np.asarray(xy, np.float32)[..., :2] + 0.5) * np.asarray(scale, np.float32) - 0.5


def draw_tracks(image: np.ndarray, xy: np.ndarray, visible: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Draw points with their trails.

    A visible point is a dot in its color with a trail that fades with age. An occluded point is a gray ring with a thin
    gray trail. Non-finite positions are skipped.

    Args:
        image: RGB image, shape (H, W, 3), uint8.
        xy: Positions in pixels, oldest first, shape (L, N, 2).
        visible: Visibility, shape (L, N), bool.
        colors: RGB colors, shape (N, 3), uint8.

    Returns:
        A copy of the image with the drawing.
    """
    import cv2

    canvas = np.array(image, order="C")
    finite = np.isfinite(xy).all(axis=-1)
    places = _fixed(xy)
    radius = _dot_radius(image.shape[0], xy[-1], finite[-1]) if len(xy) else 1.0
    width = 2 if radius >= 2.4 else 1
    moved = np.abs(np.diff(places, axis=0)).sum(axis=-1) > (1 << _BITS) // 3
    for step in range(len(xy) - 1):
        drawn = np.flatnonzero(finite[step] & finite[step + 1] & moved[step])
        if not len(drawn):
            continue
        seen = visible[step] & visible[step + 1]
        over = canvas.copy()
        for point in drawn:
            ends = places[step : step + 2, point].tolist()
            color = colors[point].tolist() if seen[point] else LOST
            cv2.line(over, ends[0], ends[1], color, width if seen[point] else 1, cv2.LINE_AA, _BITS)
        strength = 0.15 + 0.7 * (step + 1) / (len(xy) - 1)
        cv2.addWeighted(over, strength, canvas, 1 - strength, 0, dst=canvas)
    if len(xy):
        lost, seen = finite[-1] & ~visible[-1], finite[-1] & visible[-1]
        _draw_rings(canvas, xy[-1, lost], radius + 0.4, np.broadcast_to(np.array(LOST), (int(lost.sum()), 3)))
        _draw_dots(canvas, xy[-1, seen], radius, colors[seen])
    return canvas


def quieted(image: np.ndarray) -> np.ndarray:
    """Return a darker, less saturated copy of an image, on which colors are easy to see."""
    import cv2

    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(image, 0.34, gray, 0.44, 14))


def draw_mask(
    image: np.ndarray, foreground: np.ndarray, *, color: Color = ACCENT, strength: float = 0.34
) -> np.ndarray:
    """Tint and outline the foreground, and darken the rest.

    Args:
        image: RGB image, shape (H, W, 3), uint8.
        foreground: Mask of any size, shape (h, w), bool. It is scaled to the image.
        color: Color of the tint and the outline.
        strength: Opacity of the tint.

    Returns:
        A copy of the image with the drawing.
    """
    import cv2

    height, width = image.shape[:2]
    inside = np.ascontiguousarray(foreground, np.uint8) * 255
    if inside.shape != (height, width):
        shrinks = height < inside.shape[0] or width < inside.shape[1]
        inside = cv2.resize(inside, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    share = (inside.astype(np.float32) / 255)[..., None]
    tint = image * (1 - strength) + np.array(color, np.float32) * strength
    canvas = np.rint(tint * share + image * 0.6 * (1 - share)).astype(np.uint8)
    outlines, _ = cv2.findContours((inside >= 128).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    bright: Color = (min(255, color[0] + 90), min(255, color[1] + 87), min(255, color[2] + 80))
    cv2.drawContours(canvas, outlines, -1, bright, 2 if height >= 720 else 1, cv2.LINE_AA)
    return canvas


def draw_skeletons(
    image: np.ndarray,
    keypoints: np.ndarray,
    score: np.ndarray,
    layout: Skeleton,
    *,
    track_id: Sequence[int] | np.ndarray | None = None,
    bbox: np.ndarray | None = None,
    filled: np.ndarray | None = None,
    least_score: float = 0.05,
    sure_score: float = 0.3,
) -> np.ndarray:
    """Draw the skeletons of several persons.

    Limbs and joints have the colors of the layout (left, right, middle). Joints below `least_score` are skipped. Joints
    below `sure_score`, or filled in, are rings with thin limbs. Each person has a tag with number and mean score above
    the box (or the joints). The tag marks persons whose joints are all filled in.

    Args:
        image: RGB image, shape (H, W, 3), uint8.
        keypoints: Positions in pixels, shape (M, K, 2).
        score: Confidence in [0, 1], shape (M, K).
        layout: The skeleton layout.
        track_id: Person numbers, shape (M,); -1 for unidentified persons.
        bbox: Boxes as left, top, right, bottom in pixels, shape (M, 4).
        filled: Joints that were filled in, shape (M, K), bool.
        least_score: Joints below this score are skipped.
        sure_score: Joints below this score are drawn as rings.

    Returns:
        A copy of the image with the drawing.
    """
    import cv2

    canvas = np.array(image, order="C")
    height = image.shape[0]
    points = np.asarray(keypoints, np.float32)[..., :2]
    seen = (np.asarray(score) >= max(least_score, 1e-6)) & np.isfinite(points).all(axis=-1)
    places = _fixed(points)
    tags = []
    for person in range(len(points)):
        shown = seen[person]
        if not shown.any():
            continue
        made = np.zeros_like(shown) if filled is None else np.asarray(filled, bool)[person]
        guessed = bool(made[shown].all())
        sure = shown & (np.asarray(score[person]) >= sure_score) & ~made
        limbs = [
            (limb, color)
            for limb, color in zip(layout.limbs, layout.limb_colors, strict=True)
            if shown[list(limb)].all()
        ]
        length = {(a, b): float(np.hypot(*(points[person, a] - points[person, b]))) for (a, b), _ in limbs}
        thick = _fit(height / 130, 0.22 * float(np.median(list(length.values()))) if length else 3.0, 1.2, 6.0)
        for (a, b), _ in limbs:
            bold = _limb_width(thick, length[a, b], bool(sure[a] and sure[b]))
            cv2.line(
                canvas,
                places[person, a].tolist(),
                places[person, b].tolist(),
                _RIM,
                bold + 2,
                cv2.LINE_AA,
                _BITS,
            )
        for (a, b), color in limbs:
            bold = _limb_width(thick, length[a, b], bool(sure[a] and sure[b]))
            cv2.line(canvas, places[person, a].tolist(), places[person, b].tolist(), color, bold, cv2.LINE_AA, _BITS)
        reach = _reach(length)
        for joint in np.flatnonzero(shown):
            radius = _fit(0.9 * thick, 0.3 * reach.get(int(joint), np.inf), 1.0, 6.0)
            draw = _draw_dots if sure[joint] else _draw_rings
            draw(canvas, points[person, joint][None], radius, np.array([layout.joint_colors[joint]]))
        box = _box(points[person, shown]) if bbox is None or not np.any(bbox[person]) else bbox[person]
        number = -1 if track_id is None else int(track_id[person])
        tags.append((box, number, float(np.mean(np.asarray(score)[person][shown])), guessed))
    # Tags are drawn last, so that no limb crosses them.
    for box, number, mean, guessed in tags:
        _draw_tag(canvas, box, number, mean, guessed=guessed)
    return canvas


def draw_volume(frame: np.ndarray, colors: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw one time step of a heatmap volume on a dark background.

    Each pixel has the color of its largest channel. Low values are raised (power 0.6) to be visible. Peaks turn towards
    white.

    Args:
        frame: Heatmaps in [0, 1], shape (C, h, w).
        colors: RGB colors of the channels, shape (C, 3).
        size: Height and width of the image in pixels.

    Returns:
        RGB image, shape (height, width, 3), uint8.
    """
    import cv2

    channel = frame.argmax(axis=0)
    value = np.take_along_axis(frame, channel[None], axis=0)[0].clip(0, 1)[..., None].astype(np.float32)
    color = np.asarray(colors, np.float32)[channel]
    color = color + (255 - color) * 0.75 * value**3
    small = np.array(DARK.ground, np.float32) + (color - np.array(DARK.ground, np.float32)) * value**0.6
    height, width = size
    if height % frame.shape[1] == 0 and width % frame.shape[2] == 0:
        large = small.repeat(height // frame.shape[1], 0).repeat(width // frame.shape[2], 1)
    else:
        large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.rint(large.clip(0, 255)).astype(np.uint8)


def _fixed(xy: np.ndarray) -> np.ndarray:
    """Convert positions to OpenCV's fixed-point integers. Non-finite ones go to a corner and must not be drawn."""
    near = np.clip(np.nan_to_num(xy, nan=-1.0, posinf=_FAR, neginf=-_FAR), -_FAR, _FAR)
    return np.rint(near * (1 << _BITS)).astype(np.int32)


def _dot_radius(height: int, xy: np.ndarray, finite: np.ndarray) -> float:
    """Radius of a dot: proportional to the image, and small enough that neighbors do not touch."""
    if not finite.any():
        return 1.0
    points = xy[finite]
    low, high = np.percentile(points, [5, 95], axis=0)
    spacing = float(np.sqrt(max(np.prod(np.maximum(high - low, 1.0)), 1.0) / len(points)))
    return _fit(height / 200, 0.2 * spacing, 1.2, 4.0)


def _fit(wanted: float, most: float, low: float, high: float) -> float:
    return float(np.clip(min(wanted, most), low, high))


def _draw_dots(canvas: np.ndarray, xy: np.ndarray, radius: float, colors: np.ndarray) -> None:
    """Draw antialiased discs with a dark rim at xy (n, 2) in pixels, in place."""
    pixels, dot, distance = _around(canvas, xy, radius + 2)
    disc = np.clip(radius + 0.5 - distance, 0, 1)[:, None]
    rim = 0.6 * np.clip(radius + 1.3 - distance, 0, 1)[:, None]
    under = canvas.reshape(-1, 3)
    mixed = under[pixels] * (1 - rim) + np.array(_RIM, np.float32) * rim
    under[pixels] = np.rint(mixed * (1 - disc) + colors[dot].astype(np.float32) * disc)


def _draw_rings(canvas: np.ndarray, xy: np.ndarray, radius: float, colors: np.ndarray) -> None:
    """Draw antialiased circles, one pixel wide, at xy (n, 2) in pixels, in place."""
    pixels, dot, distance = _around(canvas, xy, radius + 2, ring=radius)
    ring = np.clip(1.05 - np.abs(distance - radius), 0, 1)[:, None]
    under = canvas.reshape(-1, 3)
    under[pixels] = np.rint(under[pixels] * (1 - ring) + colors[dot].astype(np.float32) * ring)


def _around(
    canvas: np.ndarray, xy: np.ndarray, reach: float, *, ring: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pixels near points (n, 2).

    A pixel near several points belongs to the point with the nearest circle of radius `ring`.

    Returns:
        Flat pixel indices (each once), the index of their point, and the distance to it in pixels.
    """
    height, width = canvas.shape[:2]
    span = np.arange(-int(np.ceil(reach)), int(np.ceil(reach)) + 1)
    middle = np.rint(xy).astype(np.int64)
    x = middle[:, 0, None, None] + span
    y = middle[:, 1, None, None] + span[:, None]
    away = np.hypot(x - xy[:, 0, None, None], y - xy[:, 1, None, None]).astype(np.float32)
    inside = (away <= reach) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    places = np.broadcast_to(np.arange(len(xy))[:, None, None], away.shape)[inside]
    flat, distance = (y * width + x)[inside], away[inside]
    # Of equal indices the last write wins, so the nearest point is written last.
    order = np.argsort(-np.abs(distance - ring), kind="stable")
    owner = np.full(height * width, -1, np.int64)
    owner[flat[order]] = order
    mine = owner[owner >= 0]
    return np.flatnonzero(owner >= 0), places[mine], distance[mine]


def _limb_width(thick: float, length: float, sure: bool) -> int:
    return max(1, round(min(thick if sure else thick / 2, 0.5 * length)))


def _reach(length: dict[tuple[int, int], float]) -> dict[int, float]:
    """Length of each joint's shortest limb, which limits its dot: dots on fingers and faces must not cover neighbors."""
    shortest: dict[int, float] = {}
    for limb, long in length.items():
        for joint in limb:
            shortest[joint] = min(shortest.get(joint, np.inf), long)
    return shortest


def _box(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _draw_tag(canvas: np.ndarray, box: np.ndarray, number: int, mean: float, *, guessed: bool) -> None:
    import cv2

    height, width = canvas.shape[:2]
    size = int(np.clip(height / 42, 10, 18))
    name = f"{number}  {mean:.2f}" if number >= 0 else f"{mean:.2f}"
    text = f"{name} filled in" if guessed else name
    color = person_color(number)
    room = round(0.35 * size)
    wide, high = text_width(text, size, bold=True) + 2 * room, line_height(size)
    left = int(np.clip((box[0] + box[2]) / 2 - wide / 2, 0, max(0, width - wide)))
    top = int(np.clip(box[1] - high - 0.6 * size, 0, max(0, height - high)))
    if left + wide < 0 or top > height or not np.isfinite(box).all():
        return
    if number >= 0:
        corners = ((box[0], box[1]), (box[2], box[3]))
        low, high_corner = (_fixed(np.array(corner, np.float32)).tolist() for corner in corners)
        over = canvas.copy()
        cv2.rectangle(over, low, high_corner, color, 1, cv2.LINE_AA, _BITS)
        cv2.addWeighted(over, 0.7, canvas, 0.3, 0, dst=canvas)
    cv2.rectangle(canvas, (left, top), (left + wide, top + high), color, -1)
    put_text(canvas, text, (left + room, top + high / 2), size=size, color=text_on(color), bold=True)
