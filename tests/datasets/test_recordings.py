"""Views of a recording and their clocks."""

from __future__ import annotations

import pytest


def test_times_are_on_the_recordings_clock(full):
    times = full.view("day1/seq_04", "0").times
    assert times[0] == 1.5
    assert times[-1] == pytest.approx(1.5 + 249 / 25 * 1.00002)
    assert full.view("day1/seq_04", "left").span == pytest.approx((0.0, 3.0))
