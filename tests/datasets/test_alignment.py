"""Alignment of views by frame times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_fakes import view

from actionprep.datasets.alignment import align, align_recording, frames_near, measure_alignment, require_aligned
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.recordings import Recording
from actionprep.errors import UserError


def at_rate(fps: float, seconds: float, start: float = 0.0) -> np.ndarray:
    return start + np.arange(round(seconds * fps)) / fps


def test_views_of_one_trigger_are_aligned():
    result = align({"0": at_rate(60, 2), "1": at_rate(60, 2)}, tolerance=0.001)
    assert result.ok
    assert result.common == pytest.approx((0.0, 2.0))
    assert [(entry.offset, entry.dropped, entry.max_error) for entry in result.views] == [(0.0, 0, 0.0)] * 2
    assert result.views[1].drift == pytest.approx(0.0, abs=1e-6)


def test_views_of_other_rates_and_lengths_are_aligned():
    result = align({"0": at_rate(30, 10), "1": at_rate(25, 8, 0.5)}, tolerance=0.021)
    assert result.ok
    assert result.common == pytest.approx((0.5, 8.5))
    assert result.views[1].drift is None
    assert result.views[1].offset == 0.5
    assert result.views[1].max_error <= 0.02 + 1e-9


def test_dropped_frames_are_counted_and_reported():
    times = np.delete(at_rate(50, 4), [60, 61, 62, 63, 64, 65, 66, 67, 100])
    result = align({"0": at_rate(50, 4), "1": times}, tolerance=0.05)
    assert result.views[1].dropped == 9
    assert result.views[1].max_error == pytest.approx(0.08)
    assert result.problems == ("view '1' has no frame within 0.05 s of 1.260 s: the nearest is 0.080 s away",)


def test_drift_is_measured_and_reported_where_views_have_equally_many_frames():
    slow = at_rate(30, 600) * (1 + 300e-6)
    result = align({"0": at_rate(30, 600), "1": slow}, tolerance=0.05)
    assert result.views[1].drift == pytest.approx(300, abs=0.01)
    assert result.problems == ("view '1' has as many frames as view '0' and its clock runs away from it by 0.180 s",)


def test_drift_is_seen_through_dropped_frames():
    slow = np.delete(at_rate(30, 600) * (1 + 300e-6), np.arange(500, 9000, 100))
    assert align({"0": at_rate(30, 600), "1": slow}, tolerance=0.05).views[1].drift == pytest.approx(300, abs=0.01)


def test_views_without_common_time_cannot_be_aligned():
    result = align({"0": at_rate(10, 1), "1": at_rate(10, 1, 5.0)}, tolerance=0.05)
    assert result.common is None
    assert result.problems == ("the views have no common time ('0' 0.000 to 0.900 s, '1' 5.000 to 5.900 s)",)


def test_alignment_includes_a_view_with_one_frame():
    assert align({"0": at_rate(10, 1), "1": np.array([0.3])}, tolerance=0.05).common is None


def test_a_view_without_frames_is_refused():
    with pytest.raises(ValueError, match=r"View '1' has no frames"):
        align({"0": at_rate(10, 1), "1": np.empty(0)}, tolerance=0.05)


@given(
    times=st.lists(st.integers(0, 1000), min_size=1, max_size=20, unique=True).map(sorted),
    at=st.lists(st.integers(-100, 1100), max_size=10),
    tolerance=st.integers(0, 100),
)
def test_the_nearest_frame_is_that_of_a_search_through_all(times, at, tolerance):
    index, error = frames_near(np.array(times, np.float64), np.array(at, np.float64), tolerance=tolerance)
    for time, frame, distance in zip(at, index, error, strict=True):
        distances = [abs(other - time) for other in times]
        assert distance == min(distances)
        assert frame == (distances.index(min(distances)) if distance <= tolerance else -1)


@st.composite
def recordings_of_views(draw: st.DrawFn) -> Catalog:
    """Catalogs of one recording with two to four views that differ in rate, start, clock and dropped frames."""
    views = []
    for id in range(draw(st.integers(2, 4))):
        fps = draw(st.sampled_from([10.0, 25.0, 30.0]))
        times = np.arange(draw(st.integers(2, 60))) / fps
        times = np.delete(times, draw(st.lists(st.integers(1, len(times) - 1), max_size=3)))
        offset, drift = draw(st.sampled_from([0.0, 0.02, 0.2, 3.0])), draw(st.sampled_from([0.0, 5e4]))
        views.append(view("a", str(id), offset=offset, drift=drift, frame_times=times, num_frames=len(times), fps=fps))
    return Catalog((Recording("a"),), tuple(views))


@given(catalog=recordings_of_views(), tolerance=st.sampled_from([0.01, 0.05, 0.2]))
def test_measure_alignment_of_pairs_is_that_of_align(catalog, tolerance):
    measured = measure_alignment(catalog, tolerance=tolerance)
    ids = [entry.id for entry in catalog.views]
    pairs = [(first, second) for at, first in enumerate(ids) for second in ids[at + 1 :]]
    bad = [pair for pair in pairs if not align_recording(catalog, "a", tolerance=tolerance, views=pair).ok]
    assert measured.misaligned == {"a": tuple(bad)}
    for number in range(2, len(ids) + 1):
        if measured.is_aligned("a", set(ids[:number])):
            assert align_recording(catalog, "a", tolerance=tolerance, views=ids[:number]).ok


def test_require_aligned_reads_the_measurement_of_the_scan(monkeypatch):
    views = (view("a", "0"), view("a", "1"), view("b", "0"), view("b", "1", offset=20.0))
    catalog = Catalog((Recording("a"), Recording("b")), views)
    catalog = replace(catalog, alignment=measure_alignment(catalog, tolerance=0.05))
    compared = []
    monkeypatch.setattr("actionprep.datasets.alignment.align", lambda times, **options: compared.append(times))
    require_aligned(catalog, ["a"], tolerance=0.05)
    require_aligned(catalog, ["b"], tolerance=0.05, views=["1"])
    assert compared == []


def test_work_on_several_views_stops_for_recordings_that_are_not_aligned():
    catalog = Catalog(
        (Recording("a"), Recording("b"), Recording("c")),
        (view("a", "0"), view("a", "1", offset=20.0), view("b", "0"), view("b", "1"), view("c", "0")),
    )
    with pytest.raises(UserError) as error:
        require_aligned(catalog, ["a", "b", "c"], tolerance=0.05)
    assert str(error.value) == (
        "The views of recording 'a' are not aligned to 0.05 s: the views have no common time ('0' 0.000 to 9.960 s, "
        "'1' 20.000 to 29.960 s).\nUnder [study] in actionprep.toml, name a table with each view's clock (offsets), "
        "raise the tolerance, or accept the recordings as they are with allow_misaligned = true."
    )
    require_aligned(catalog, ["b", "c"], tolerance=0.05)
    require_aligned(catalog, ["a"], tolerance=0.05, views=["1"])
    assert align_recording(catalog, "c", tolerance=0.05) is None
