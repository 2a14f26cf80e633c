"""Tests of the timings of a build."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from recordings import moving_square, write_video

from actionprep.api import Study, make_study
from actionprep.cli.prep.build_output import report_document
from actionprep.pipeline.lowres import Lowres
from actionprep.pipeline.timings import COMMIT, CONVERT, DECODE, FRAMES, HASH, WAIT, WRITE, Timings


@pytest.fixture
def study(tmp_path: Path) -> Study:
    for number in range(2):
        path = tmp_path / "videos" / "any" / f"clip_{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_square(24, height=48, width=64, speed=1 + number, seed=number))
    made, _ = make_study(tmp_path, {}, force=True)
    made.folder.change("lowres", "sizes", [16])
    return made


def test_timings_add_and_shares() -> None:
    timings = Timings(4.0, {"tracks": 2.0, CONVERT: 1.0}, {DECODE: 0.5})
    timings.add(Timings(4.0, {"tracks": 3.0}, {DECODE: 0.5, HASH: 0.1}))
    assert (timings.total, timings.parts, timings.beside) == (
        8.0, {"tracks": 5.0, CONVERT: 1.0}, {DECODE: 1.0, HASH: 0.1},
    )  # fmt: skip
    assert timings.shares() == {"tracks": 0.625, "other": 0.25, CONVERT: 0.125}
    assert timings.bare_rate(250) == 250.0


def test_timings_of_nothing() -> None:
    assert Timings().shares() == {}
    assert Timings().bare_rate(10) is None


def test_build_times_its_parts(study: Study) -> None:
    timings = study.build("lowres").timings
    assert set(timings.parts) == {FRAMES, CONVERT, "lowres", WAIT, COMMIT}
    assert set(timings.beside) == {DECODE, HASH, WRITE}
    assert min(*timings.parts.values(), *timings.beside.values()) >= 0
    assert 0 < sum(timings.parts.values()) <= timings.total
    assert sum(timings.shares().values()) == pytest.approx(1.0)


def test_slow_stage_gets_its_time(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    push = Lowres.push

    def slow_push(self, block, live):
        time.sleep(0.05)
        return push(self, block, live)

    monkeypatch.setattr(Lowres, "push", slow_push)
    timings = study.build("lowres").timings
    assert timings.parts["lowres"] >= 0.1  # two views, at least one block each
    assert timings.parts[CONVERT] < timings.parts["lowres"]


def test_report_document_has_timings(study: Study) -> None:
    report = study.build("lowres", workers=2)
    document = report_document(report)
    assert document["task_seconds"]["parts"] == report.timings.parts
    assert document["bare_decode_frames_per_s"] == pytest.approx(48 / report.timings.beside[DECODE])
