"""Readers of damaged files may only raise errors that name the file and the problem.

Each reader reads a small valid sample and then mutations of it, from a fixed seed. `python -m torture readers_mutated`
reads 2,000 of each.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import Trial
from reader_samples import READERS

from actionprep.datasets import hdf5_loops

ROUNDS = 50


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
def test_reader_raises_only_own_errors(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_loops, "_CHECK_S", hdf5_loops._CHECK_S)  # the trial changes it
    trial = Trial(READERS[name], tmp_path, seed=f"7 {name}")
    faults = {fault for fault in (trial.fault() for _ in range(ROUNDS)) if fault}
    assert not faults
