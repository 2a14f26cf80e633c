import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprep.training.inputs._frame_times import dense_frames, even_frames, even_shares, middle_first


@given(st.integers(1, 40), st.integers(1, 80))
def test_even_frames_are_the_middles_of_equal_parts(size, count):
    times = 2.0 + np.arange(count) / 25
    result = even_frames(times, 2.0, 2.0 + count / 25, even_shares(size))
    expected = [min(int((2 * part + 1) * count / (2 * size) + 1e-7), count - 1) for part in range(size)]
    assert result.tolist() == expected


@given(st.integers(1, 20), st.lists(st.floats(0, 1), min_size=20, max_size=20), st.floats(-0.9, 0.9))
def test_drawn_shares_rise_and_stay_inside(size, places, warp):
    result = even_shares(size, position=np.array(places[:size]), trim=(0.1, 0.2), warp=warp)
    assert (np.diff(result) >= -1e-12).all()
    assert result.min() >= 0.1 - 1e-12
    assert result.max() <= 0.8 + 1e-12


def test_the_last_start_of_a_dense_run_can_be_drawn():
    times = np.arange(33) / 30
    starts = {int(dense_frames(times, 32, start=start)[0]) for start in (0.0, 0.3, 0.7, 0.999)}
    assert starts == {0, 1}
    assert dense_frames(times[:32], 32, start=0.9).tolist() == list(range(32))


def test_a_single_dense_run_lies_in_the_middle():
    assert dense_frames(np.arange(20) / 10, 4, start=0.5).tolist() == [8, 9, 10, 11]


def test_a_rate_takes_frames_apart_whatever_the_video_has():
    for fps in (10, 30, 60):
        times = np.arange(4 * fps) / fps
        result = dense_frames(times, 8, start=0.0, rate=2.0)
        assert times[result].tolist() == pytest.approx(np.arange(8) / 2)


def test_dense_frames_repeats_a_short_snippet_or_its_last_frame():
    times = np.arange(3) / 10
    assert dense_frames(times, 7, start=0.5).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert dense_frames(times, 5, start=0.5, short="hold").tolist() == [0, 1, 2, 2, 2]
    assert dense_frames(times, 5, start=0.5, rate=10, short="hold").tolist() == [0, 1, 2, 2, 2]
    assert dense_frames(times, 5, start=0.5, rate=10).tolist() == [0, 1, 2, 0, 1]


def test_the_middle_comes_first():
    assert middle_first(1) == [0]
    assert middle_first(5) == [2, 1, 3, 0, 4]
    assert middle_first(4)[:2] == [1, 2]
