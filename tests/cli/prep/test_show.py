"""The commands that draw."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from actionprep.cli.prep import app


def test_skeletons_command_writes_no_image_of_unknown_layouts(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["skeletons", "--to", "coco17", "--out", str(tmp_path / "x.png")])
    assert done.exit_code == 2
    done = CliRunner().invoke(app, ["skeletons", "coco17", "--to", "coc18", "--out", str(tmp_path / "x.png")])
    assert done.exit_code == 2
    assert not (tmp_path / "x.png").exists()
