"""Draw tracks, masks and skeletons onto a picture: pure functions of arrays, in RGB.

Positions are pixels of the picture that is drawn on, x then y, with the center of the first pixel at (0, 0); `scaled`
brings positions from one size to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from actionprep.show.colors import ACCENT, DARK, LOST, Color, person_color, text_on
from actionprep.show.text import line_height, put_text, text_width

if TYPE_CHECKING:
    from actionprep.datasets.poses.skeletons import Skeleton

_BITS = 4  # OpenCV draws between pixels with fixed-point coordinates of this many bits
_RIM: Color = (16, 18, 22)
_FAR = 8000.0  # what lies farther out, in pixels, overflows its integers


def scaled(xy: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Positions (..., 2) on a picture that is scaled by (x, y): pixel centers go to where their area goes."""
    return (np.asarray(xy, np.float32)[..., :2] + 0.5) * np.asarray(scale, np.float32) - 0.5


def draw_tracks(picture: np.ndarray, xy: np.ndarray, visible: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Points with the trails they left, in a copy of the picture.

    xy (L, N, 2) px, oldest first, the last are the points now; visible (L, N) bool; colors (N, 3) uint8.
    Where a point is seen it is a dot in its color and so is its trail, which fades with age; where it is not, it is a
    gray ring and a thin gray trail. Positions that are not finite are left out.
    """
    import cv2

    canvas = np.array(picture, order="C")
    finite = np.isfinite(xy).all(axis=-1)
    places = _fixed(xy)
    radius = _dot_radius(picture.shape[0], xy[-1], finite[-1]) if len(xy) else 1.0
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


def quieted(picture: np.ndarray) -> np.ndarray:
    """A greyer copy, bright parts darker, on which colors stand out."""
    import cv2

    gray = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(picture, 0.34, gray, 0.44, 14))


def draw_mask(
    picture: np.ndarray, foreground: np.ndarray, *, color: Color = ACCENT, strength: float = 0.34
) -> np.ndarray:
    """Foreground tinted and outlined, the rest darkened, in a copy of the picture.

    foreground: (h, w) bool of any size; it is scaled to the picture.
    """
    import cv2

    height, width = picture.shape[:2]
    inside = np.ascontiguousarray(foreground, np.uint8) * 255
    if inside.shape != (height, width):
        shrinks = height < inside.shape[0] or width < inside.shape[1]
        inside = cv2.resize(inside, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    share = (inside.astype(np.float32) / 255)[..., None]
    tint = picture * (1 - strength) + np.array(color, np.float32) * strength
    canvas = np.rint(tint * share + picture * 0.6 * (1 - share)).astype(np.uint8)
    outlines, _ = cv2.findContours((inside >= 128).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    bright: Color = (min(255, color[0] + 90), min(255, color[1] + 87), min(255, color[2] + 80))
    cv2.drawContours(canvas, outlines, -1, bright, 2 if height >= 720 else 1, cv2.LINE_AA)
    return canvas


def draw_skeletons(
    picture: np.ndarray,
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
    """People's skeletons, in a copy of the picture.

    keypoints (M, K, 2) px, score (M, K), bbox (M, 4) px left, top, right, bottom; track_id (M); filled (M, K) bool.
    Limbs and joints have the colors of the layout (left, right, middle). Joints below `least_score` are left out,
    those below `sure_score` or filled in are rings with thin limbs. Each person has a tag with number and mean score,
    above the box (or the joints), which says so of a person who is all filled in.
    """
    import cv2

    canvas = np.array(picture, order="C")
    height = picture.shape[0]
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
    # Tags come last: no limb of a neighbor crosses them.
    for box, number, mean, guessed in tags:
        _draw_tag(canvas, box, number, mean, guessed=guessed)
    return canvas


def draw_volume(frame: np.ndarray, colors: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One time step of a heatmap volume as a picture: channels in their colors on a dark ground, the largest in front.

    frame (C, h, w) in [0, 1]; colors (C, 3); size (height, width) of the picture. Low values are lifted (to the power
    0.6) to be seen; the peak of a channel turns towards white.
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
    """Positions as OpenCV's fixed-point integers; what is not finite goes to a corner and must not be drawn."""
    near = np.clip(np.nan_to_num(xy, nan=-1.0, posinf=_FAR, neginf=-_FAR), -_FAR, _FAR)
    return np.rint(near * (1 << _BITS)).astype(np.int32)


def _dot_radius(height: int, xy: np.ndarray, finite: np.ndarray) -> float:
    """As large as the picture bears, and small enough that neighbors stay apart."""
    if not finite.any():
        return 1.0
    here = xy[finite]
    low, high = np.percentile(here, [5, 95], axis=0)
    spacing = float(np.sqrt(max(np.prod(np.maximum(high - low, 1.0)), 1.0) / len(here)))
    return _fit(height / 200, 0.2 * spacing, 1.2, 4.0)


def _fit(wanted: float, most: float, low: float, high: float) -> float:
    return float(np.clip(min(wanted, most), low, high))


def _draw_dots(canvas: np.ndarray, xy: np.ndarray, radius: float, colors: np.ndarray) -> None:
    """Discs with a dark rim, (n, 2) px, in place; edge pixels are mixed by the share of them that is covered."""
    pixels, dot, distance = _around(canvas, xy, radius + 2)
    disc = np.clip(radius + 0.5 - distance, 0, 1)[:, None]
    rim = 0.6 * np.clip(radius + 1.3 - distance, 0, 1)[:, None]
    under = canvas.reshape(-1, 3)
    mixed = under[pixels] * (1 - rim) + np.array(_RIM, np.float32) * rim
    under[pixels] = np.rint(mixed * (1 - disc) + colors[dot].astype(np.float32) * disc)


def _draw_rings(canvas: np.ndarray, xy: np.ndarray, radius: float, colors: np.ndarray) -> None:
    """Circles of one pixel's width, (n, 2) px, in place."""
    pixels, dot, distance = _around(canvas, xy, radius + 2, ring=radius)
    ring = np.clip(1.05 - np.abs(distance - radius), 0, 1)[:, None]
    under = canvas.reshape(-1, 3)
    under[pixels] = np.rint(under[pixels] * (1 - ring) + colors[dot].astype(np.float32) * ring)


def _around(
    canvas: np.ndarray, xy: np.ndarray, reach: float, *, ring: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels near places (n, 2): their flat indices, each once, the place that is theirs, and how far that is.

    A pixel that is near several places belongs to the one whose circle of radius `ring` is the nearest.
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
    # Of equal indices the last one written stays, so the nearest is written last.
    order = np.argsort(-np.abs(distance - ring), kind="stable")
    owner = np.full(height * width, -1, np.int64)
    owner[flat[order]] = order
    mine = owner[owner >= 0]
    return np.flatnonzero(owner >= 0), places[mine], distance[mine]


def _limb_width(thick: float, length: float, sure: bool) -> int:
    return max(1, round(min(thick if sure else thick / 2, 0.5 * length)))


def _reach(length: dict[tuple[int, int], float]) -> dict[int, float]:
    """Each joint's shortest limb: dots on fingers and faces must not swallow their neighbors."""
    found: dict[int, float] = {}
    for limb, long in length.items():
        for joint in limb:
            found[joint] = min(found.get(joint, np.inf), long)
    return found


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
