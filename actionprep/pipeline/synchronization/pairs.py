"""Estimate offset and drift between two signals: correlation in windows, then a robust line through the lags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.pipeline.synchronization.signals import Signal

MAX_DRIFT_PPM = 300.0
"""Largest drift that is searched, in parts per million."""
DRIFT_TOLERANCE_PPM = 20.0
"""A drift counts as known if its 95 % interval is at most this far on either side."""
MAX_RUNNER_UP = 0.75
"""Largest second peak of the correlation, relative to the best one, that leaves the best one certain."""
MIN_CORRELATION = 0.15
MIN_INLIERS = 0.5
_GAP = 4
"""Gaps of more than this number of median intervals are not interpolated."""
_DRIFT_STEP_PPM = 25.0
_BAND = 0.2
"""Standard deviation of the band that is correlated, in cycles per median interval of the slower signal."""


@dataclass(frozen=True, slots=True)
class PairEstimate:
    """Clock of view b relative to that of view a: time_a = offset + time_b * (1 + drift * 1e-6).

    Attributes:
        offset: Offset in s.
        drift: Drift in parts per million; None if the signals are too short or too different for it. `offset` is then
            that of a drift of 0.
        lag: Lag in s at `center`.
        center: Time of b in s for which the lag is known best.
        lag_error: Standard error of `lag` in s.
        drift_error: Standard error of the drift in parts per million; infinite if there are too few windows.
        confidence: 0 to 1: share of the windows that agree, times the lead of the best correlation over the second.
        reason: Why the estimate is unsure; "" if it is sure.
        window_time: (W,) centers of the windows in s of b.
        window_lag: (W,) lag of each window in s.
        agrees: (W,) bool, whether the window is within the robust fit.
        lags: (L,) lags of `correlation` in s.
        correlation: (L,) mean correlation of all windows with the drift taken out, times the root of the share of samples
            that have a partner at that lag.
    """

    offset: float
    drift: float | None
    lag: float
    center: float
    lag_error: float
    drift_error: float
    confidence: float
    reason: str
    window_time: np.ndarray
    window_lag: np.ndarray
    agrees: np.ndarray
    lags: np.ndarray
    correlation: np.ndarray

    @property
    def sure(self) -> bool:
        """Whether the offset is known to half a frame."""
        return not self.reason


def estimate_pair(a: Signal, b: Signal, *, max_offset: float = 5.0) -> PairEstimate:
    """Estimate the clock of signal b relative to signal a.

    Both signals are resampled to half the shorter median interval, smoothed to the bandwidth of the slower one, and
    their spectra are flattened.
    Windows of b are correlated with a at all lags; samples in gaps do not count. The sum of the windows' correlations
    along each line of lag against time gives the coarse offset and drift. Each window's peak near that line, refined
    by a parabola, gives a lag; a line is fitted with Tukey's biweight.

    Args:
        a: Signal of the reference.
        b: Signal to compare with it.
        max_offset: Largest offset that is searched, in s.

    Returns:
        The estimate. It is unsure, with a reason, if the peak is weak or ambiguous, windows disagree, or the error is
        larger than half a frame.
    """
    period = max(frame_interval(a.time, default=np.inf), frame_interval(b.time, default=np.inf), a.finest, b.finest)
    step = max(min(frame_interval(a.time, default=np.inf), frame_interval(b.time, default=np.inf)) / 2, 0.002)
    if len(a.time) < 8 or len(b.time) < 8:
        return _nothing("there are too few frames", b)
    time_a, value_a, mask_a = _resampled(a, step, period)
    time_b, value_b, mask_b = _resampled(b, step, period)
    shift = round(max_offset / step)
    shortest = min(time_a[-1] - time_a[0], time_b[-1] - time_b[0])
    length = max(8, round(float(np.clip(shortest / 12, 3.0, 10.0)) / step))
    length = min(length, len(time_b))
    ahead = round(float(time_a[0] - time_b[0]) / step)
    centers, curves, weights = [], [], []
    for first in range(0, len(time_b) - length + 1, length):
        part = slice(first, first + length)
        curve, count = _correlation(value_a, mask_a, value_b[part], mask_b[part], first - ahead - shift, 2 * shift + 1)
        if count.any():
            centers.append(float(time_b[first] + (length - 1) / 2 * step))
            curves.append(curve)
            weights.append(count)
    if not curves:
        return _nothing(f"the views share no time within {max_offset:g} s, or one of them does not change", b)
    lags = (np.arange(2 * shift + 1) - shift - ahead) * step + float(time_a[0] - time_b[0])
    center = float(np.average(centers, weights=[count.max() for count in weights]))
    return _fit(np.array(centers), np.array(curves), np.array(weights), lags, center, period)


def _fit(
    centers: np.ndarray, curves: np.ndarray, weights: np.ndarray, lags: np.ndarray, center: float, period: float
) -> PairEstimate:
    step = float(lags[1] - lags[0])
    away = centers - center
    drift, stack = _best_stack(away, curves, weights, lags)
    best = int(np.argmax(stack))
    peak = float(stack[best])
    runner_up = _runner_up(stack, best)
    near = max(2, round(max(period, 0.06) * 1.5 / step))
    matches, used, uncertain = [], [], []
    for row, curve in enumerate(curves):
        middle = best + round(away[row] * drift * 1e-6 / step)
        low, high = max(middle - near, 1), min(middle + near + 1, len(lags) - 1)
        if high <= low or not weights[row, low:high].all():
            continue
        k = low + int(np.argmax(curve[low:high]))
        if curve[k] < 0.1 or not curve[k - 1] <= curve[k] >= curve[k + 1]:
            continue
        matches.append(float(lags[k]) + _parabola(curve[k - 1 : k + 2]) * step)
        used.append(row)
        uncertain.append(_lag_error(curve[k - 1 : k + 2], step, float(weights[row, k]) * step / period))
    times, measured = away[used], np.array(matches)
    strength = np.array([curves[row].max() for row in used])
    line = _robust_line(times, measured, strength)
    agrees = np.abs(line.residuals) <= max(3 * line.scale, step)
    share = float(agrees.sum() / len(curves)) if len(measured) else 0.0
    lead = 1 - max(runner_up, 0.0) / peak if peak > 0 else 0.0
    confidence = float(np.clip(share * lead, 0, 1))
    known = 1.96 * line.slope_error <= DRIFT_TOLERANCE_PPM * 1e-6
    lag, error, slope = (
        (line.level, line.level_error, line.slope)
        if known
        else _level(measured, strength, np.array(uncertain), lags[best])
    )
    reason = _doubt(peak, runner_up, share, error, period, known, float(np.ptp(centers)))
    return PairEstimate(
        offset=lag - slope * center,
        drift=slope * 1e6 if known else None,
        lag=lag,
        center=center,
        lag_error=error,
        drift_error=line.slope_error * 1e6,
        confidence=confidence,
        reason=reason,
        window_time=times + center,
        window_lag=measured,
        agrees=agrees,
        lags=lags,
        correlation=stack,
    )


def _doubt(
    peak: float, runner_up: float, share: float, error: float, period: float, drift_known: bool, span: float
) -> str:
    if peak < MIN_CORRELATION:
        return f"the signals hardly correlate ({peak:.2f})"
    if runner_up > MAX_RUNNER_UP * peak:
        return f"another offset fits nearly as well (correlation {runner_up:.2f} and {peak:.2f})"
    if share < MIN_INLIERS:
        return f"only {share:.0%} of the windows agree"
    if 1.96 * error > period / 2:
        return f"the offset is uncertain by {1.96 * error:.3f} s"
    if not drift_known and span / 2 * MAX_DRIFT_PPM * 1e-6 > period / 2:
        return "the drift is uncertain"
    return ""


@dataclass(frozen=True, slots=True)
class _Line:
    level: float
    slope: float
    level_error: float
    slope_error: float
    scale: float
    residuals: np.ndarray


def _robust_line(times: np.ndarray, lags: np.ndarray, strength: np.ndarray) -> _Line:
    """Fit level + slope * time by iterated least squares with Tukey's biweight."""
    if len(lags) < 4:
        scatter = lags - np.median(lags) if len(lags) else lags
        return _Line(float(np.median(lags)) if len(lags) else 0.0, 0.0, np.inf, np.inf, 0.0, scatter)
    design = np.stack([np.ones_like(times), times], axis=1)
    weight = strength.copy()
    scale = 0.0
    for _ in range(20):
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(design * root, lags * root[:, 0], rcond=None)[0]
        residuals = lags - design @ solution
        scale = max(1.4826 * float(np.median(np.abs(residuals))), 1e-5)
        weight = strength * np.clip(1 - (residuals / (4.685 * scale)) ** 2, 0, None) ** 2
        if (weight > 0).sum() < 3:
            break
    kept = weight > 0
    spread = float(np.sqrt((residuals[kept] ** 2).sum() / max(int(kept.sum()) - 2, 1)))
    normal = design[kept].T @ design[kept]
    errors = spread * np.sqrt(np.diag(np.linalg.pinv(normal)))
    if np.linalg.matrix_rank(normal) < 2:
        errors = np.array([np.inf, np.inf])
    return _Line(float(solution[0]), float(solution[1]), float(errors[0]), float(errors[1]), scale, residuals)


def _level(lags: np.ndarray, strength: np.ndarray, errors: np.ndarray, coarse: float) -> tuple[float, float, float]:
    """Lag, standard error and slope 0, for signals that are too short for a drift."""
    if not len(lags):
        return float(coarse), np.inf, 0.0
    middle = float(np.median(lags))
    scale = max(1.4826 * float(np.median(np.abs(lags - middle))), 1e-4)
    kept = np.abs(lags - middle) <= 3 * scale
    lag = float(np.average(lags[kept], weights=strength[kept]))
    single = float(1 / np.sqrt((1 / errors[kept] ** 2).sum()))
    return lag, max(single, scale / float(np.sqrt(kept.sum()))), 0.0


def _lag_error(peak: np.ndarray, step: float, samples: float) -> float:
    """Standard error of the lag of one window from the height and curvature of its peak, for noise that is white."""
    height, bend = float(peak[1]), float(2 * peak[1] - peak[0] - peak[2]) / step**2
    return float(np.sqrt((1 - min(height, 0.999) ** 2) / (max(samples, 1) * height * max(bend, 1e-12))))


def _best_stack(
    away: np.ndarray, curves: np.ndarray, weights: np.ndarray, lags: np.ndarray
) -> tuple[float, np.ndarray]:
    """Drift with the highest peak of the summed correlations, and their mean along the lines of that drift."""
    step = float(lags[1] - lags[0])
    curves = np.arctanh(np.clip(curves, -0.999, 0.999)) * weights
    most = weights.max(axis=1).sum()
    needed = 0.4 * most
    best: tuple[float, float, np.ndarray] | None = None
    tried = np.arange(-MAX_DRIFT_PPM, MAX_DRIFT_PPM + 1, _DRIFT_STEP_PPM)
    if np.ptp(away) * MAX_DRIFT_PPM * 1e-6 < step:
        tried = np.zeros(1)
    for drift in tried[np.argsort(np.abs(tried), kind="stable")]:
        total, count = np.zeros(len(lags)), np.zeros(len(lags))
        for moved, curve, weight in zip(np.rint(away * drift * 1e-6 / step).astype(int), curves, weights, strict=True):
            to = slice(max(-moved, 0), len(lags) - max(moved, 0))
            source = slice(max(moved, 0), len(lags) - max(-moved, 0))
            total[to] += curve[source]
            count[to] += weight[source]
        # Chance correlations grow as the common time shrinks, by the root of the number of samples.
        mean = np.tanh(np.where(count >= needed, total / np.maximum(count, 1), -1)) * np.sqrt(count / most)
        if best is None or mean.max() > best[0] + 1e-9:
            best = (float(mean.max()), float(drift), mean)
    assert best is not None
    return best[1], best[2]


def _runner_up(stack: np.ndarray, best: int) -> float:
    """Highest value outside of the peak: the samples around it above half its height, and as many again."""
    low = high = best
    while low > 0 and stack[low - 1] > stack[best] / 2:
        low -= 1
    while high < len(stack) - 1 and stack[high + 1] > stack[best] / 2:
        high += 1
    low, high = low - (best - low) - 1, high + (high - best) + 2
    outside = np.concatenate([stack[: max(low, 0)], stack[high:]])
    return float(outside.max(initial=0.0))


def _correlation(
    a: np.ndarray, mask_a: np.ndarray, b: np.ndarray, mask_b: np.ndarray, first: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pearson correlation of b with a at `count` positions from `first`, over samples valid in both.

    Returns:
        Correlation and number of common samples; both are 0 where less than half of b has a partner.

    References:
        Padfield, "Masked Object Registration in the Fourier Domain", IEEE Trans. Image Processing 2012.
    """
    from scipy.signal import correlate

    index = np.arange(first, first + count + len(b) - 1)
    inside = (index >= 0) & (index < len(a))
    clipped = np.clip(index, 0, len(a) - 1)
    valid = (mask_a[clipped] & inside).astype(np.float64)
    part = a[clipped]
    part = np.where(valid > 0, part - part[valid > 0].mean() if valid.any() else 0.0, 0.0)
    own = mask_b.astype(np.float64)
    window = np.where(mask_b, b - b[mask_b].mean() if mask_b.any() else 0.0, 0.0)

    def slide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray(correlate(x, y, mode="valid", method="fft"))

    number = np.rint(slide(valid, own))
    enough = number >= max(4, 0.5 * len(b))
    n = np.where(enough, number, 1)
    sum_a, sum_b = slide(part, own), slide(valid, window)
    spread_a = slide(part**2, own) - sum_a**2 / n
    spread_b = slide(valid, window**2) - sum_b**2 / n
    power = np.maximum(spread_a, 0) * np.maximum(spread_b, 0)
    floor = 1e-9 * max(float((part**2).sum() * (window**2).sum()), 1e-300)
    enough &= power > floor
    result = (slide(part, window) - sum_a * sum_b / n) / np.sqrt(np.where(enough, power, 1))
    return np.where(enough, result.clip(-1, 1), 0.0), np.where(enough, number, 0.0)


def _resampled(signal: Signal, step: float, period: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, values and mask on an even grid, smoothed with a Gaussian of 0.8 `period`; gaps are masked."""
    from scipy.ndimage import gaussian_filter1d

    time = np.arange(signal.time[0], signal.time[-1] + step / 2, step)
    value = np.interp(time, signal.time, signal.value)
    after = np.clip(np.searchsorted(signal.time, time), 1, len(signal.time) - 1)
    mask = signal.time[after] - signal.time[after - 1] <= _GAP * frame_interval(signal.time, default=np.inf)
    return time, _whitened(gaussian_filter1d(value, 0.8 * period / step, mode="nearest"), mask, period / step), mask


def _whitened(value: np.ndarray, mask: np.ndarray, samples: float) -> np.ndarray:
    """Flatten the spectrum by an autoregressive model, because slow changes hardly locate a lag.

    The filter is the inverse root of the smoothed spectrum, within the band that both signals have. Its phase is 0, so
    that it adds no delay.

    Args:
        value: (T,) samples.
        mask: (T,) valid samples.
        samples: Longer median interval of the two signals, in samples.

    References:
        Knapp and Carter, "The Generalized Correlation Method for Estimation of Time Delay", IEEE Trans. ASSP 1976.
    """
    centered = np.where(mask, value - value[mask].mean(), 0.0) if mask.any() else value
    power = np.abs(np.fft.rfft(centered, 2 * len(centered))) ** 2
    width = max(3, len(power) // 100)
    smooth = np.convolve(np.pad(power, width, mode="reflect"), np.ones(2 * width + 1) / (2 * width + 1), mode="valid")
    frequency = np.fft.rfftfreq(2 * len(centered))
    band = np.exp(-0.5 * (frequency * samples / _BAND) ** 2)
    gain = band / np.sqrt(smooth + 1e-3 * max(float(smooth.max()), 1e-300))
    return np.asarray(np.fft.irfft(np.fft.rfft(centered, 2 * len(centered)) * gain)[: len(centered)])


def _parabola(values: np.ndarray) -> float:
    """Position of the vertex through three samples, in samples from the middle one."""
    left, middle, right = (float(value) for value in values)
    bend = left - 2 * middle + right
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5))


def _nothing(reason: str, b: Signal) -> PairEstimate:
    none = np.empty(0)
    center = float(b.time.mean()) if len(b.time) else 0.0
    return PairEstimate(0.0, None, 0.0, center, np.inf, np.inf, 0.0, reason, none, none, none.astype(bool), none, none)
