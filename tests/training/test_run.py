"""Folders of runs: each has one owner."""

import json
import multiprocessing
from pathlib import Path

import pytest

from actionprep.errors import SetupError
from actionprep.training.run import Run, claimed_folder


def claim(runs: Path, begin, claimed, names) -> None:
    begin.wait()
    with claimed_folder(runs, "tiny-20260102-030405") as folder:
        (folder / "recipe.toml").write_text("mine")
        names.put(folder.name)
    claimed.wait()


def test_processes_that_claim_one_name_at_once_get_a_folder_each(tmp_path):
    # Processes and not threads, as two commands are; a fork, since these import nothing heavy.
    context = multiprocessing.get_context("fork")
    begin, claimed, names = context.Barrier(6), context.Barrier(6), context.Queue()
    workers = [context.Process(target=claim, args=(tmp_path / "runs", begin, claimed, names)) for _ in range(6)]
    for worker in workers:
        worker.start()
    found = sorted(names.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    first = "tiny-20260102-030405"
    assert found == [first, *(f"{first}-{number}" for number in range(2, 7))]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == found


def test_a_folder_that_stays_empty_is_gone_again(tmp_path):
    with pytest.raises(ValueError, match="no snippets"), claimed_folder(tmp_path / "runs", "tiny"):
        raise ValueError("no snippets")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_place_where_no_folder_can_be_made_says_so(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(SetupError, match=r"Cannot write .*runs"), claimed_folder(tmp_path / "runs", "tiny"):
        pass


def test_tested_reads_the_names_of_earlier_versions(tmp_path):
    earlier = {"figures": {"a": 0.5}, "figures_at_thresholds": {"a": 0.75}, "frames": {"figures": {"a": 0.25}}}
    (tmp_path / "test.json").write_text(json.dumps(earlier))
    assert Run(tmp_path).tested == {
        "metrics": {"a": 0.5}, "metrics_at_thresholds": {"a": 0.75}, "frames": {"metrics": {"a": 0.25}}
    }  # fmt: skip
