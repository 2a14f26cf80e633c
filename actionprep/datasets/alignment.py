"""Compare the frame times of the views of a recording: offset, drift, dropped frames, largest error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.datasets.catalog import Catalog

MAX_DRIFT_PPM = 2000.0
"""Clocks of cameras differ by tens of parts per million, cheap ones by a few hundred; more is another frame rate."""


@dataclass(frozen=True, slots=True)
class ViewAlignment:
    """One view compared with the reference view.

    Attributes:
        view: Id of the view.
        offset: First frame of the view minus first frame of the reference, in s on the recording's clock.
        drift: How much longer its frame period is than the reference's, in parts per million; None if the frame rates
            differ or a view has too few frames.
        dropped: Frames missing between its first and last, from gaps that are whole numbers of its median period.
        max_error: Largest distance, in s, from a frame of the reference in the common time to this view's nearest frame.
    """

    view: str
    offset: float
    drift: float | None
    dropped: int
    max_error: float


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the views of one recording are aligned.

    Attributes:
        reference: View that the others are compared with.
        tolerance: Largest allowed error in s.
        common: Time that all views cover, in s; None if there is none.
        views: Each view compared with the reference.
        problems: Sentences about what exceeds the tolerance; empty if the views are aligned.
        drifts: Sentences about views with another frame period, so that clocks may drift apart by more than the
            tolerance. Frame times state when each frame was recorded, so that this is no problem unless they are wrong.
    """

    reference: str
    tolerance: float
    common: tuple[float, float] | None
    views: tuple[ViewAlignment, ...]
    problems: tuple[str, ...]
    drifts: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the views are aligned to the tolerance."""
        return not self.problems


@dataclass(frozen=True)
class MeasuredAlignment:
    """Alignment of all pairs of views, as a scan measured it.

    Views of which all pairs are aligned are aligned together: intervals that overlap in pairs have a common time, and a
    shorter common time has no larger errors.

    Attributes:
        tolerance: Largest allowed error in s.
        misaligned: For each recording with two or more readable views, the pairs that are not aligned.
    """

    tolerance: float
    misaligned: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    def is_aligned(self, recording: str, views: set[str] | None) -> bool:
        """Return whether these views of a recording, or all, are known to be aligned; False if that is not known."""
        pairs = self.misaligned.get(recording)
        return pairs is not None and not any(views is None or views.issuperset(pair) for pair in pairs)


def align(times_by_view: Mapping[str, np.ndarray], *, tolerance: float, reference: str | None = None) -> Alignment:
    """Compare frame times of the views of one recording. Nothing is resampled or moved.

    Problems are: no common time; a frame of the reference further than the tolerance from any frame of a view (frames
    dropped, or a rate too low); and clocks that run apart. The last shows where two views have the same number of
    frames, as cameras with a common trigger have, and still end further apart than they began by more than the
    tolerance.

    Args:
        times_by_view: (T,) float64 each, ascending frame times in seconds on the recording's clock.
        tolerance: Largest allowed error in s.
        reference: View to compare with; the first if None.

    Raises:
        ValueError: If a view has no frames.
    """
    for view, times in times_by_view.items():
        if not len(times):
            raise ValueError(f"View '{view}' has no frames.")
    reference = next(iter(times_by_view)) if reference is None else reference
    base = np.asarray(times_by_view[reference], np.float64)
    onset = max(float(times[0]) for times in times_by_view.values())
    end = min(float(times[-1]) + frame_interval(times) for times in times_by_view.values())
    common = (onset, end) if end > onset else None
    problems = [] if common else [_no_common_time(times_by_view)]
    views, drifts = [], []
    for view, given in times_by_view.items():
        times = np.asarray(given, np.float64)
        max_error = 0.0
        if common:
            inside = base[(base >= onset) & (base < end)]
            max_error = float(frames_near(times, inside)[1].max(initial=0.0))
        views.append(
            ViewAlignment(
                view, float(times[0] - base[0]), _drift(times, base), int(_slots(times)[-1]) + 1 - len(times), max_error
            )
        )
        if max_error > tolerance:
            worst = float(inside[int(frames_near(times, inside)[1].argmax())])
            problems.append(
                f"view '{view}' has no frame within {tolerance:g} s of {worst:.3f} s: the nearest is {max_error:.3f} s "
                "away"
            )
        if view != reference:
            apart = abs(float((times[-1] - base[-1]) - (times[0] - base[0])))
            triggered = abs(int(_slots(times)[-1]) - int(_slots(base)[-1])) <= 1
            slack = max(frame_interval(times), frame_interval(base))
            if triggered and apart > tolerance + slack:
                problems.append(
                    f"view '{view}' has as many frames as view '{reference}' and its clock runs away from it by "
                    f"{apart:.3f} s"
                )
                continue
            lost = abs(views[-1].drift or 0.0) * 1e-6 * (end - onset)
            if common and lost > tolerance:
                drifts.append(
                    f"frames of view '{view}' come {views[-1].drift:+.0f} ppm later each than those of view '{reference}': "
                    f"{lost:.3f} s over the {end - onset:.1f} s that they share. If the cameras have one rate, name the "
                    "drift in the table of offsets"
                )
    return Alignment(reference, tolerance, common, tuple(views), tuple(problems), tuple(drifts))


def frames_near(times: np.ndarray, at: np.ndarray, *, tolerance: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Find the frame of a view nearest to each time.

    Args:
        times: (T,) ascending frame times in seconds on the recording's clock.
        at: (Q,) times to look for, on the same clock.
        tolerance: Largest allowed distance in s; None for any.

    Returns:
        Index (Q,) int64, the earlier frame where two are equally near and -1 where none is within the tolerance; and
        error (Q,) float64, the distance to the nearest frame in seconds, never negative.

    Raises:
        ValueError: If there are no frames.
    """
    times, at = np.asarray(times, np.float64), np.asarray(at, np.float64)
    if not len(times):
        raise ValueError("There are no frames to choose from.")
    after = (
        np.clip(np.searchsorted(times, at), 1, max(len(times) - 1, 1))
        if len(times) > 1
        else np.zeros(len(at), np.int64)
    )
    before = np.maximum(after - 1, 0)
    index = np.where(np.abs(times[after] - at) < np.abs(times[before] - at), after, before).astype(np.int64)
    error = np.abs(times[index] - at)
    if tolerance is not None:
        index = np.where(error <= tolerance, index, -1)
    return index, error


def align_recording(
    catalog: Catalog, recording: str, *, tolerance: float, views: Iterable[str] | None = None
) -> Alignment | None:
    """Compare the readable views of a recording.

    Args:
        catalog: The catalog.
        recording: Id of the recording.
        tolerance: Largest allowed error in s.
        views: Names of the views to compare; all if None.

    Returns:
        The alignment; None if fewer than two views have frames.
    """
    times = _readable_times(catalog, recording, None if views is None else set(views))
    return align(times, tolerance=tolerance) if len(times) > 1 else None


def measure_alignment(catalog: Catalog, *, tolerance: float) -> MeasuredAlignment | None:
    """Compare every pair of readable views of every recording; None if no recording has two."""
    misaligned = {}
    for recording in catalog.recordings:
        times = _readable_times(catalog, recording.id, None)
        if len(times) > 1:
            timings = [_Timing.of(view, values) for view, values in times.items()]
            misaligned[recording.id] = tuple(
                (base.view, other.view)
                for base, other in combinations(timings, 2)
                if not _is_aligned_pair(base, other, tolerance)
            )
    return MeasuredAlignment(tolerance, misaligned) if misaligned else None


def require_aligned(
    catalog: Catalog, recordings: Iterable[str], *, tolerance: float, views: Iterable[str] | None = None
) -> None:
    """Check that recordings are aligned, for work that needs several views at one time.

    Uses the catalog's measurement of the last scan; only recordings with a pair of views that is not aligned are
    compared again.

    Raises:
        UserError: If a recording is not aligned.
    """
    wanted = None if views is None else set(views)
    measured = catalog.alignment
    bad = []
    for recording in recordings:
        if measured is not None and measured.tolerance == tolerance and measured.is_aligned(recording, wanted):
            continue
        alignment = align_recording(catalog, recording, tolerance=tolerance, views=wanted)
        if alignment is not None and not alignment.ok:
            bad.append((recording, alignment))
    if bad:
        recording, alignment = bad[0]
        others = {0: "", 1: " 1 more recording is not aligned either."}.get(
            len(bad) - 1, f" {len(bad) - 1} more recordings are not aligned either."
        )
        raise UserError(
            f"The views of recording '{recording}' are not aligned to {tolerance:g} s: "
            f"{'; '.join(alignment.problems)}.{others}\n"
            "Under [study] in actionprep.toml, name a table with each view's clock (offsets), raise the tolerance, or "
            "accept the recordings as they are with allow_misaligned = true."
        )


@dataclass(frozen=True, slots=True)
class _Timing:
    """Frame times of a view, and what a comparison needs of them."""

    view: str
    times: np.ndarray
    period: float
    last_slot: int

    @classmethod
    def of(cls, view: str, times: np.ndarray) -> _Timing:
        return cls(view, times, frame_interval(times), int(_slots(times)[-1]))


def _is_aligned_pair(base: _Timing, other: _Timing, tolerance: float) -> bool:
    """Return whether `align` finds no problem between two views, without its measurements."""
    onset = max(float(base.times[0]), float(other.times[0]))
    end = min(float(base.times[-1]) + base.period, float(other.times[-1]) + other.period)
    if end <= onset:
        return False
    inside = base.times[(base.times >= onset) & (base.times < end)]
    if float(frames_near(other.times, inside)[1].max(initial=0.0)) > tolerance:
        return False
    apart = abs(float((other.times[-1] - base.times[-1]) - (other.times[0] - base.times[0])))
    has_trigger = abs(other.last_slot - base.last_slot) <= 1
    return not (has_trigger and apart > tolerance + max(other.period, base.period))


def _readable_times(catalog: Catalog, recording: str, views: set[str] | None) -> dict[str, np.ndarray]:
    return {
        view.id: view.times
        for view in catalog.views_of(recording)
        if view.status == "ok" and view.num_frames and (views is None or view.id in views)
    }


def _slots(times: np.ndarray) -> np.ndarray:
    """Index of each frame if none had been dropped: each step is a whole number of median periods, at least one."""
    period = frame_interval(times)
    if period <= 0:
        return np.arange(len(times))
    return np.concatenate([[0], np.cumsum(np.maximum(np.rint(np.diff(times) / period), 1))]).astype(np.int64)


def _drift(times: np.ndarray, base: np.ndarray) -> float | None:
    if len(times) < 3 or len(base) < 3:
        return None
    period, base_period = (float(np.polyfit(_slots(values), values - values[0], 1)[0]) for values in (times, base))
    if base_period <= 0:
        return None
    drift = (period / base_period - 1) * 1e6
    return drift if abs(drift) <= MAX_DRIFT_PPM else None


def _no_common_time(times_by_view: Mapping[str, np.ndarray]) -> str:
    spans = ", ".join(f"'{view}' {times[0]:.3f} to {times[-1]:.3f} s" for view, times in times_by_view.items())
    return f"the views have no common time ({spans})"
