"""Names with numbers are sorted as people sort them."""

from __future__ import annotations

from actionprep.datasets.natural_order import natural_key


def test_numbers_in_names_sort_as_numbers():
    assert sorted(["cam10", "cam2", "10", "9", "cam02"], key=natural_key) == ["9", "10", "cam02", "cam2", "cam10"]
