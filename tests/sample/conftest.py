"""One small sample study for all tests of the sample."""

from __future__ import annotations

import pytest

from actionprep.sample import SampleTruth, make_sample_study


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> SampleTruth:
    """Two recordings in seven views, among them the one with variable frame times (3) and with a clock offset (6)."""
    return make_sample_study(tmp_path_factory.mktemp("sample"), seed=3, recordings=2, workers=0, views=7)
