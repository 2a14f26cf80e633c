"""Raw videos become a store for a prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recordings import moving_square, write_video

from actionprep.api import _store_of_videos
from actionprep.datasets.store import Store
from actionprep.errors import UserError

SETTINGS = {"tracks": {"tracker": "lk", "grid": 4, "window": 8, "stride": 8}}


def store_of(folder: Path, videos: list[Path], unseen: list[str]) -> Store:
    folder.mkdir()
    views = [str(number) for number in range(len(videos))]
    return _store_of_videos(folder, videos, SETTINGS, views, "tracks", 0, paths_from=folder, unseen=unseen)


def test_a_view_before_which_nothing_moves_takes_no_part_and_is_told(tmp_path: Path) -> None:
    clip = moving_square(24, height=48, width=64)
    moves = write_video(tmp_path / "moves.mp4", clip)
    stands = write_video(tmp_path / "stands.mp4", np.repeat(clip[:1], 24, axis=0))
    unseen: list[str] = []
    store = store_of(tmp_path / "a", [moves, stands], unseen)
    assert [key.view for key in store.items("tracks")] == ["0"]
    assert unseen == ["1"]
    with pytest.raises(UserError, match=r"Not every video could be made into tracks:\n0: The masks of view '0'"):
        store_of(tmp_path / "b", [stands], [])
    (tmp_path / "text.mp4").write_text("words")
    with pytest.raises(UserError, match=r"1: .*text\.mp4 is not a video"):
        store_of(tmp_path / "c", [moves, tmp_path / "text.mp4"], [])
