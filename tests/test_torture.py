"""Short runs of the long fault tests, and the counting of their trials."""

from __future__ import annotations

import importlib
import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def torture(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package, which is beside the tests and not installed."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    return importlib.import_module("torture.common")


def test_trials_stop_at_count(torture: ModuleType) -> None:
    trials = torture.Trials(3, 60.0, random.Random(0))
    assert list(trials) == [0, 1, 2]
    assert trials.done == 3


def test_trials_stop_after_ten_failures(torture: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    trials = torture.Trials(100, 60.0, random.Random(0))
    for number in trials:
        trials.check(number < 5, f"trial {number}")
    assert trials.done == 15
    assert trials.failures == [f"trial {number}" for number in range(5, 15)]
    assert "FAILED after 5 trials: trial 5" in capsys.readouterr().out


def test_trials_stop_at_time(torture: ModuleType) -> None:
    assert list(torture.Trials(100, 0.0, random.Random(0))) == []


def test_mutated_videos_differ_and_follow_the_seed(torture: ModuleType) -> None:
    mutated = importlib.import_module("torture.videos_mutated").mutated
    content = random.Random(1).randbytes(1000)
    copies = [mutated(content, random.Random(seed)) for seed in range(40)]
    assert copies == [mutated(content, random.Random(seed)) for seed in range(40)]
    assert sum(copy != content for copy in copies) >= 38
    assert {len(copy) == 1000 for copy in copies} == {True, False}


def test_flipped_bits_part_finds_all(torture: ModuleType, tmp_path: Path) -> None:
    part = importlib.import_module("torture.bits_flipped").PART
    result = torture.run_part("bits_flipped", part, tmp_path, count=6, seconds=60.0, seed=1)
    assert (result["count"], result["full_count"], result["failures"]) == (6, 1000, [])
    assert sum(result["facts"][kind] for kind in ("chunk", "metadata", "catalog") if kind in result["facts"]) > 0


def test_flipped_bits_part_notices_a_blind_verify(
    torture: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from actionprep.datasets.store.zarr_store import Store

    part = importlib.import_module("torture.bits_flipped").PART
    monkeypatch.setattr(Store, "verify", lambda self, keys=None: iter(()))
    result = torture.run_part("bits_flipped", part, tmp_path, count=8, seconds=60.0, seed=1)
    assert "verify found 0 damaged places" in result["failures"][0]


def test_results_of_all_parts_are_complete(torture: ModuleType) -> None:
    parts = importlib.import_module("torture.__main__").PARTS
    for path in torture.RESULTS.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        part = importlib.import_module(f"torture.{path.stem}").PART
        assert path.stem in parts
        assert (result["what"], result["unit"], result["full_count"]) == (part.what, part.unit, part.count)
