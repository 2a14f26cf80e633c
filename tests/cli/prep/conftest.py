"""A small scanned study for the commands to work on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from recordings import moving_square, write_video

from actionprep.api import Study, make_study, open_study


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of 48 frames seen by two cameras, scanned; in the second nothing moves before camera 1."""
    root = tmp_path_factory.mktemp("made")
    for number, name in enumerate(("first", "second")):
        for view in range(2):
            clip = moving_square(48, height=48, width=64, speed=1 + view, seed=number)
            if (name, view) == ("second", 1):
                clip = np.repeat(clip[:1], 48, axis=0)
            write_video(root / f"videos/{name}/cam{view}.mp4", clip)
    (root / "segments.csv").write_text("recording,onset,offset,label\nfirst,0.0,0.6,wave\n")
    given = {"pattern": "{recording}/cam{view}.mp4", "segments": ("segments.csv",)}
    study, _ = make_study(root, given, force=True)
    for key, value in {"tracker": "lk", "grid": 4, "window": 8, "stride": 8}.items():
        study.folder.change("tracks", key, value)
    study.folder.change("lowres", "sizes", (16,))
    study.scan()
    return root


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Study:
    shutil.copytree(made, tmp_path / "study")
    return open_study(tmp_path / "study")
