"""Truncated and damaged files of a run, and full disks."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from training_fakes import tiny_recipe

from actionprep.errors import SetupError, UserError
from actionprep.training.run import Run


def test_metrics_cut_anywhere_are_whole_rows_or_damaged(tmp_path):
    run = Run(tmp_path)
    rows = [{"phase": "validate", "epoch": at, "train_loss": 1.25, "val_accuracy": 0.5} for at in range(3)]
    run.write_metrics(rows)
    whole = (tmp_path / "metrics.csv").read_text()
    damaged = []
    for end in range(len(whole)):
        (tmp_path / "metrics.csv").write_text(whole[:end])
        try:
            result = run.metrics
        except UserError as error:
            damaged.append(str(error))
        else:
            assert [row["epoch"] for row in result] == list(range(len(result)))
    # The cuts before the last comma of each row.
    assert len(damaged) == 3 * len("validate,0,1.25")
    pattern = (
        r"metrics\.csv is damaged: line [234] has [123] cells, expected 4 with a phase and an epoch\. Delete that line"
    )
    assert all(re.search(pattern, message) for message in damaged)
    assert run.metrics[:2] == rows[:2]


@pytest.mark.parametrize("content", [b"phase,epoch\nvalidate,\xff\n", b'phase,epoch\n"validate,0\n', b"\0\0"])
def test_metrics_that_are_no_table_are_damaged(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    if content == b"\0\0":
        assert Run(tmp_path).metrics == []
        return
    with pytest.raises(UserError, match=r"metrics\.csv"):
        _ = Run(tmp_path).metrics


def test_recipe_without_its_last_tables_is_damaged(tmp_path):
    text = tiny_recipe().to_toml()
    (tmp_path / "recipe.toml").write_text(text)
    assert Run(tmp_path).recipe == tiny_recipe()
    (tmp_path / "recipe.toml").write_text(text[: text.index("[optimizer]")])
    with pytest.raises(UserError, match=r"recipe\.toml is damaged: it has no table \[optimizer\]"):
        _ = Run(tmp_path).recipe
    (tmp_path / "recipe.toml").write_text(text[: text.index("[optimizer]") + 7])
    with pytest.raises(UserError, match=r"recipe\.toml is not valid TOML"):
        _ = Run(tmp_path).recipe


def test_full_disk_leaves_no_draft_of_the_split(tmp_path, monkeypatch):
    def full(self, *_, **__):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SetupError, match=r"Cannot write .*split\.csv: No space left on device"):
        Run(tmp_path).write_table("split.csv", [{"row": 1}])
    assert list(tmp_path.iterdir()) == []
