"""Raw videos become a store for a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import moving_square, write_video

from actionprep.api import make_study
from actionprep.api.video_store import clocks_of, store_of_videos
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.run import pipeline_of

SETTINGS = {"tracks": {"tracker": "lk", "grid": 4, "window": 8, "stride": 8}}


def store_of(folder: Path, videos: list[Path], unseen: list[str], *, trained: dict[str, Any] | None = None) -> Store:
    folder.mkdir()
    named = {str(number): video for number, video in enumerate(videos)}
    clocks = clocks_of(trained or {}, named, {}, None)
    return store_of_videos(
        folder, "recording", named, SETTINGS, "tracks", 0, clocks=clocks, paths_from=folder, unseen=unseen
    )


def test_video_store_reports_and_skips_a_view_without_motion(tmp_path: Path) -> None:
    clip = moving_square(24, height=48, width=64)
    moves = write_video(tmp_path / "moves.mp4", clip)
    stands = write_video(tmp_path / "stands.mp4", np.repeat(clip[:1], 24, axis=0))
    unseen: list[str] = []
    store = store_of(tmp_path / "a", [moves, stands], unseen)
    assert [key.view for key in store.items("tracks")] == ["0"]
    assert unseen == ["1"]
    with pytest.raises(UserError, match=r"Not every video could be built into tracks:\n0: The masks of view '0'"):
        store_of(tmp_path / "b", [stands], [])
    (tmp_path / "text.mp4").write_text("words")
    with pytest.raises(UserError, match=r"1: .*text\.mp4 is not a video"):
        store_of(tmp_path / "c", [moves, tmp_path / "text.mp4"], [])


def test_video_store_aligns_views_as_in_the_training(tmp_path: Path) -> None:
    fast = write_video(tmp_path / "fast.mp4", moving_square(60, height=48, width=64), rate=30)
    slow = write_video(tmp_path / "slow.mp4", moving_square(12, height=48, width=64, speed=5), rate=6)
    with pytest.raises(UserError, match=r"not aligned to 0\.05 s: .*\n.*--offset VIEW=SECONDS.*--tolerance SECONDS"):
        store_of(tmp_path / "a", [fast, slow], [])
    store = store_of(tmp_path / "b", [fast, slow], [], trained={"tolerance": 0.1, "offsets": {"1": 0.04, "9": 1.0}})
    first = [float(store.item("tracks", "recording", view)["time"][0, 0]) for view in ("0", "1")]
    assert first == pytest.approx([0.0, 0.04])
    with pytest.raises(UserError, match=r"The offset for view '7' has no video\. Views with videos: 0\."):
        clocks_of({}, {"0": fast}, {"7": 1.0}, None)


def test_store_records_the_alignment_of_its_views(tmp_path: Path) -> None:
    for recording in ("one", "two"):
        for view in (0, 1):
            write_video(tmp_path / f"videos/{recording}/cam{view}.mp4", moving_square(20, height=48, width=64), rate=20)
    (tmp_path / "clocks.csv").write_text(
        "recording,view,offset\none,0,0\ntwo,0,0.5\none,1,0.02\ntwo,1,0.02\n", encoding="utf-8"
    )
    given = {"pattern": "{recording}/cam{view}.mp4", "offsets": "clocks.csv", "tolerance": 0.6}
    study, _ = make_study(tmp_path, given)
    study.scan()
    assert pipeline_of(study.store, "tracks")["clocks"] == {
        "tolerance": 0.6, "clock": "file", "allow_misaligned": False, "offsets": {"1": 0.02},
    }  # fmt: skip
    assert pipeline_of(Store(tmp_path / "elsewhere", create=True), "tracks")["clocks"] == {}
