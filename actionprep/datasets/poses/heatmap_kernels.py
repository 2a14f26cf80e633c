"""Draw heatmaps on the CPU with compiled loops. Each joint or limb changes only the pixels of its window.

The loops release the GIL, so that `heatmaps` can give each thread a part of the batch. The compiled code is cached on
disk. Values under 1e-7 may be 0.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# exp(-16.2) is under 1e-7: pixels further than this many variances (half squared distances) away stay 0.
_FAR = 16.2
_STEP = 8
# These options do not change values: inputs have no NaN, and a fused multiply-add rounds once less.
_FAST = {"nnan", "nsz", "contract"}


@njit(nogil=True, cache=True)
def _window(low, high, reach, far, length):  # type: ignore[no-untyped-def]
    """Return the first pixel of a window and the one after the last.

    Bounds are truncated towards zero, as in the published code. If reach < 0, the window has all pixels nearer than
    `far`.
    """
    if reach < 0:
        first, last = math.ceil(max(low - far, 0.0)), math.floor(min(high + far, length - 0.5))
        return int(min(first, length)), int(max(last, -1.0)) + 1
    # Clamped before truncation, because distant positions would overflow an integer.
    return int(min(max(low - reach, 0.0), length)), int(min(max(high + reach, -2.0), length - 0.5)) + 1


@njit(nogil=True, cache=True, fastmath=_FAST)
def _gauss(z):  # type: ignore[no-untyped-def]
    """Return exp(-z) for 0 <= z <= 17 with an error below 1e-8, in a form that compilers vectorize.

    It is the series of exp(-z / 16), squared four times.
    """
    y = z * (-1.0 / 16.0)
    p = 1.0 + y * (1.0 + y * (1 / 2 + y * (1 / 6 + y * (1 / 24 + y * (1 / 120 + y * (1 / 720))))))
    p *= p
    p *= p
    p *= p
    return p * p


@njit(nogil=True, cache=True, fastmath=_FAST)
def _draw_joint(image, x, y, score, inverse, reach, far, scale, half, wide):  # type: ignore[no-untyped-def]
    height, width = image.shape
    left, right = _window(x, x, reach, far, width)
    top, bottom = _window(y, y, reach, far, height)
    if left >= right or top >= bottom:
        return
    for i in range(left, right):
        wide[i] = _gauss(min((i - x) ** 2 * inverse, 17.0))
    for j in range(top, bottom):
        row = _gauss(min((j - y) ** 2 * inverse, 17.0)) * score * scale
        line = image[j]
        for i in range(left, right):
            value = row * wide[i] + half
            before = line[i]
            line[i] = value if value > before else before


@njit(nogil=True, cache=True, fastmath=_FAST)
def _draw_limb(image, ax, ay, bx, by, score, inverse, reach, far, scale, half):  # type: ignore[no-untyped-def]
    height, width = image.shape
    left, right = _window(min(ax, bx), max(ax, bx), reach, far, width)
    top, bottom = _window(min(ay, by), max(ay, by), reach, far, height)
    dx, dy = bx - ax, by - ay
    per_length = 1 / (dx * dx + dy * dy)
    slope = dx / dy if abs(dy) > 1e-9 else 0.0
    # Largest distance of pixels from the limb's line, measured along the row.
    reach_row = far * math.sqrt(1 + slope * slope) + abs(slope)
    weight = score * scale
    for j in range(top, bottom):
        first, last = left, right
        if abs(dy) > 1e-9:
            middle = ax + min(max((j - ay) / dy, 0.0), 1.0) * dx
            first = max(left, int(max(middle - reach_row, 0.0)))
            last = min(right, int(min(max(middle + reach_row, -1.0), width)) + 1)
        line = image[j]
        up = j - ay
        start, step = (up * dy - ax * dx) * per_length, dx * per_length
        # Steps have a fixed number of pixels, so that compilers unroll them. Drawing a pixel twice has no effect.
        for base in range(first, last, _STEP):
            begin = max(min(base, width - _STEP), 0)
            for c in range(min(_STEP, width)):
                i = begin + c
                x = np.float64(i)
                along = start + x * step
                along = along if along > 0.0 else 0.0
                along = along if along < 1.0 else 1.0
                off_x, off_y = x - ax - along * dx, up - along * dy
                z = (off_x * off_x + off_y * off_y) * inverse
                value = _gauss(z if z < 17.0 else 17.0) * weight + half
                value = value if (i >= left) & (i < right) else 0.0
                before = line[i]
                line[i] = value if value > before else before


@njit(nogil=True, cache=True)
def _drawable(x, y, score, least):  # type: ignore[no-untyped-def]
    return score >= least and math.isfinite(x) and math.isfinite(y)


@njit(nogil=True, cache=True)
def draw_joints(xy, score, out, clear, sigma, reach, least, scale, half):  # type: ignore[no-untyped-def]
    """Draw joints into a volume.

    Args:
        xy: Positions in pixels of the grid, shape (B, M, T, K, 2).
        score: Scores, shape (B, M, T, K).
        out: Volume to draw into, shape (B, P, K, T, H, W); P is 1 for merged persons, or M.
        clear: Whether to set each image to zero before it is drawn.
        sigma: Standard deviation of the Gaussian in pixels.
        reach: Half of the window in pixels; below 0 for no window.
        least: Lowest score that is drawn.
        scale: Factor of the values.
        half: Added to the values before they are stored, for rounding.
    """
    batch, persons, frames, joints = score.shape
    inverse = 1 / (2 * sigma * sigma)
    far = math.sqrt(_FAR / inverse)
    wide = np.empty(out.shape[5], np.float64)
    planes = out.shape[1]
    for b in range(batch):
        for p in range(planes):
            first, last = (p, p + 1) if planes > 1 else (0, persons)
            for k in range(joints):
                for t in range(frames):
                    image = out[b, p, k, t]
                    if clear:
                        image[:] = 0
                    for m in range(first, last):
                        x, y = np.float64(xy[b, m, t, k, 0]), np.float64(xy[b, m, t, k, 1])
                        s = np.float64(score[b, m, t, k])
                        if _drawable(x, y, s, least):
                            _draw_joint(image, x, y, s, inverse, reach, far, scale, half, wide)


@njit(nogil=True, cache=True)
def draw_limbs(xy, score, limbs, out, clear, sigma, reach, least, scale, half):  # type: ignore[no-untyped-def]
    """Draw limbs (L, 2) between joints into a volume (B, P, L, T, H, W). Arguments are those of `draw_joints`."""
    batch, persons, frames, _ = score.shape
    inverse = 1 / (2 * sigma * sigma)
    far = math.sqrt(_FAR / inverse)
    wide = np.empty(out.shape[5], np.float64)
    planes = out.shape[1]
    for b in range(batch):
        for p in range(planes):
            first, last = (p, p + 1) if planes > 1 else (0, persons)
            for n in range(len(limbs)):
                start, other = limbs[n, 0], limbs[n, 1]
                for t in range(frames):
                    image = out[b, p, n, t]
                    if clear:
                        image[:] = 0
                    for m in range(first, last):
                        ax, ay = np.float64(xy[b, m, t, start, 0]), np.float64(xy[b, m, t, start, 1])
                        bx, by = np.float64(xy[b, m, t, other, 0]), np.float64(xy[b, m, t, other, 1])
                        sa, sb = np.float64(score[b, m, t, start]), np.float64(score[b, m, t, other])
                        if not (_drawable(ax, ay, sa, least) and _drawable(bx, by, sb, least)):
                            continue
                        if (bx - ax) ** 2 + (by - ay) ** 2 < 1.0:
                            _draw_joint(image, ax, ay, sa, inverse, reach, far, scale, half, wide)
                        else:
                            s = min(sa, sb)
                            _draw_limb(image, ax, ay, bx, by, s, inverse, reach, far, scale, half)
