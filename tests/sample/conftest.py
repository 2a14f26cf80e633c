"""A small sample study for all tests of the sample."""

from __future__ import annotations

import pytest

from actionprep.sample import SampleTruth, make_sample_study


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> SampleTruth:
    """Two recordings in seven views. View 3 has variable frame times, view 6 a clock offset."""
    return make_sample_study(tmp_path_factory.mktemp("sample"), seed=3, recordings=2, workers=0, views=7)
