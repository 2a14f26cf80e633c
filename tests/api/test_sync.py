"""Estimated clocks of the views of a study: the command, its table, and its errors."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from prep_commands import actionprep, document

from actionprep.api import Study, open_study
from actionprep.api.new_study import make_study
from actionprep.api.sync import sync_views
from actionprep.errors import UserError

OFFSETS = {"left": 0.0, "right": 0.62, "top": -0.4}
RATES = {"left": 25, "right": 30, "top": 20}


def _level(time: np.ndarray) -> np.ndarray:
    """Brightness over time: sums of steps at random times, 25 to 225."""
    rng = np.random.default_rng(1)
    onsets, heights = np.sort(rng.uniform(-5, 40, 150)), rng.uniform(25, 225, 150)
    return heights[np.clip(np.searchsorted(onsets, time) - 1, 0, None)]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    folder = tmp_path / "videos" / "walk"
    folder.mkdir(parents=True)
    for view, offset in OFFSETS.items():
        with av.open(str(folder / f"{view}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=RATES[view])
            stream.width, stream.height, stream.pix_fmt = 32, 16, "gray"
            stream.codec_context.time_base = Fraction(1, RATES[view])
            for level in _level(offset + np.arange(24 * RATES[view]) / RATES[view]):
                image = np.full((16, 32), level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
            container.mux(stream.encode(None))
    make_study(tmp_path, {"videos": "videos", "pattern": "{recording}/{view}.mkv"})
    made = open_study(tmp_path)
    made.scan()
    return made


def test_sync_finds_saves_and_applies_offsets(study: Study):
    actual = document(study, "sync", "--signal", "brightness", "--save")
    [recording] = actual["recordings"]
    assert Path(recording["image"]).read_bytes()[:4] == b"\x89PNG"
    for row in recording["views"]:
        assert row["sure"]
        assert row["offset"] == pytest.approx(OFFSETS[row["view"]], abs=0.025)
    with (study.root / "offsets.csv").open(newline="") as file:
        assert {row["view"] for row in csv.DictReader(file)} == set(OFFSETS)
    again = open_study(study.root)
    again.scan()
    assert again.catalog.view("walk", "right").offset == pytest.approx(0.62, abs=0.025)
    assert all(abs(view.change) < 0.01 for view in sync_views(again, "walk", signal="brightness").views)


def test_sync_save_keeps_other_rows_of_the_table(study: Study):
    table = study.root / "clocks.csv"
    table.write_text("view,offset,note\ntop,9.5,all recordings\n", encoding="utf-8")
    study.folder.change("study", "offsets", "clocks.csv")
    assert actionprep(study, "sync", "--max-offset", "12", "--signal", "brightness", "--save").exit_code == 0
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert rows[0] == {"view": "top", "offset": "9.5", "note": "all recordings", "recording": "", "drift": ""}
    assert float(next(row for row in rows if row["recording"] and row["view"] == "top")["offset"]) == pytest.approx(
        -0.4, abs=0.025
    )


def test_sync_reports_unsure_views(study: Study):
    result = actionprep(study, "sync", "--signal", "brightness", "--max-offset", "0.2")
    assert "unsure" in result.stdout
    assert not (study.root / "offsets.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signal": "audio"}, "Recording 'walk': views left, right, top have no sound. Choose another --signal"),
        ({"signal": "joints"}, "views left, right, top have no stored poses. Run 'actionprep pose' first"),
        ({"signal": "sound"}, "No signal 'sound'. Signals: auto, audio, joints, motion, brightness."),
        ({"views": ["left"]}, "has 1 readable views to compare; 'sync' needs two"),
        ({"views": ["left", "top"], "reference": "right"}, "reference view 'right' is not one of the compared views"),
    ],
)
def test_sync_views_wrong_choices(study: Study, options: dict, message: str):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        sync_views(study, "walk", **options)
