"""Hold the views of a recording against each other on their frame times: offset, drift, dropped frames, worst error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.datasets.catalog import Catalog

# Clocks of cameras differ by tens of parts per million, cheap ones by a few hundred; more is another frame rate.
MAX_DRIFT_PPM = 2000.0


@dataclass(frozen=True, slots=True)
class ViewAlignment:
    """One view against the reference view.

    offset:    first frame of the view minus first frame of the reference, in s on the recording's clock.
    drift:     how much longer its frame period is than the reference's, in parts per million; None when the frame rates
               differ or a view has too few frames to tell.
    dropped:   frames missing between its first and last, judged by gaps that are whole numbers of its median period.
    max_error: largest distance, in s, from a frame of the reference in the common time to this view's nearest frame.
    """

    view: str
    offset: float
    drift: float | None
    dropped: int
    max_error: float


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the views of one recording lie to each other.

    common:   the time that all views cover, in s; None when there is none.
    problems: what is worse than the tolerance, in words; empty when the views are aligned.
    drifts:   views whose frames come at another pace, so that clocks may drift apart by more than the tolerance, in words.
              Frame times tell when each frame was taken, so that this is no problem unless they are wrong.
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


def align(times_by_view: Mapping[str, np.ndarray], *, tolerance: float, reference: str | None = None) -> Alignment:
    """Compare frame times of the views of one recording. Nothing is resampled or moved.

    times_by_view: (T,) float64 each, ascending frame times in seconds on the recording's clock.
    tolerance:     seconds. reference: a view; the first when None.

    Reported as problems: no common time; a frame of the reference further than the tolerance from any frame of a view
    (frames dropped, or a rate too low); and clocks that run apart, seen where two views have the same number of frames,
    as cameras with a common trigger have, and still end further apart than they began by more than the tolerance.

    Raises ValueError for a view without frames.
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
    found, drifts = [], []
    for view, given in times_by_view.items():
        times = np.asarray(given, np.float64)
        max_error = 0.0
        if common:
            inside = base[(base >= onset) & (base < end)]
            max_error = float(frames_near(times, inside)[1].max(initial=0.0))
        found.append(
            ViewAlignment(
                view, float(times[0] - base[0]), _drift(times, base), int(_slots(times)[-1]) + 1 - len(times), max_error
            )
        )
        if max_error > tolerance:
            at = float(inside[int(frames_near(times, inside)[1].argmax())])
            problems.append(
                f"view '{view}' has no frame within {tolerance:g} s of {at:.3f} s: the nearest is {max_error:.3f} s "
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
            lost = abs(found[-1].drift or 0.0) * 1e-6 * (end - onset)
            if common and lost > tolerance:
                drifts.append(
                    f"frames of view '{view}' come {found[-1].drift:+.0f} ppm later each than those of view '{reference}': "
                    f"{lost:.3f} s over the {end - onset:.1f} s that they share. If the cameras have one rate, name the "
                    "drift in the table of offsets"
                )
    return Alignment(reference, tolerance, common, tuple(found), tuple(problems), tuple(drifts))


def frames_near(times: np.ndarray, at: np.ndarray, *, tolerance: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The frame of a view nearest to each instant.

    times (T,) ascending frame times, at (Q,) instants, both seconds on the recording's clock.
    Returns index (Q,) int64, the earlier frame where two are equally near and -1 where none is within the tolerance,
    and error (Q,) float64, the distance to the nearest frame in seconds, always as a positive number.

    Raises ValueError when there are no frames.
    """
    times, at = np.asarray(times, np.float64), np.asarray(at, np.float64)
    if not len(times):
        raise ValueError("There are no frames to look among.")
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
    """Alignment of the readable views of a recording; None when fewer than two have frames.

    views: only these, by name.
    """
    wanted = None if views is None else set(views)
    times = {
        view.id: view.times
        for view in catalog.views_of(recording)
        if view.status == "ok" and view.num_frames and (wanted is None or view.id in wanted)
    }
    return align(times, tolerance=tolerance) if len(times) > 1 else None


def require_aligned(
    catalog: Catalog, recordings: Iterable[str], *, tolerance: float, views: Iterable[str] | None = None
) -> None:
    """Raise UserError when recordings are not aligned, for work that takes several views at one instant."""
    views = None if views is None else list(views)
    bad = []
    for recording in recordings:
        found = align_recording(catalog, recording, tolerance=tolerance, views=views)
        if found is not None and not found.ok:
            bad.append((recording, found))
    if bad:
        recording, found = bad[0]
        others = f" {len(bad) - 1} more recordings are not aligned either." if len(bad) > 1 else ""
        raise UserError(
            f"The views of recording '{recording}' are not aligned to {tolerance:g} s: "
            f"{'; '.join(found.problems)}.{others}\n"
            "Under [study] in actionprep.toml, name a table with each view's clock (offsets), raise the tolerance, or "
            "go on as it is with allow_misaligned = true."
        )


def _slots(times: np.ndarray) -> np.ndarray:
    """Number of each frame had none been dropped: each step is a whole number of median periods, at least one."""
    period = frame_interval(times)
    if period <= 0:
        return np.arange(len(times))
    return np.concatenate([[0], np.cumsum(np.maximum(np.rint(np.diff(times) / period), 1))]).astype(np.int64)


def _drift(times: np.ndarray, base: np.ndarray) -> float | None:
    if len(times) < 3 or len(base) < 3:
        return None
    period, base_period = (float(np.polyfit(_slots(one), one - one[0], 1)[0]) for one in (times, base))
    if base_period <= 0:
        return None
    drift = (period / base_period - 1) * 1e6
    return drift if abs(drift) <= MAX_DRIFT_PPM else None


def _no_common_time(times_by_view: Mapping[str, np.ndarray]) -> str:
    spans = ", ".join(f"'{view}' {times[0]:.3f} to {times[-1]:.3f} s" for view, times in times_by_view.items())
    return f"no instant is seen by all views ({spans})"
