"""Facts of videos: frame times, rates, warnings, digest."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numbered_videos import B_FRAMES, read_numbers, write_numbered

from actionprep.pipeline.probe import probe
from actionprep.pipeline.video import VideoReader

pytestmark = pytest.mark.usefixtures("_no_thread_stays")


def test_variable_frame_times_and_the_start_come_from_the_container(tmp_path: Path) -> None:
    pts = 500 + np.cumsum([0, 40, 40, 7, 40, 300, 40, 40, 13, 40])
    for suffix in ("mp4", "mkv"):
        path = write_numbered(
            tmp_path / f"v.{suffix}", "libx264", 10, options=B_FRAMES, pts=pts, time_base=Fraction(1, 1000)
        )
        facts = probe(path)
        assert facts.times == pytest.approx((pts - 500) / 1000, abs=1e-4)
        assert facts.start == pytest.approx(0.5, abs=1e-3)
        assert facts.fps == pytest.approx(25)
        assert [n for block in VideoReader(path).blocks() for n in read_numbers(block.rgb)] == list(range(10))


def test_a_stream_without_any_times_is_spread_evenly_and_says_so(videos: dict[str, Path]) -> None:
    facts = probe(videos["h264-bare.h264"])
    assert facts.warnings == ("the container has no frame times: frames are placed evenly at 25 per second",)


def test_the_digest_is_of_the_bytes(videos: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "a name with: a colon.mp4"
    copy.write_bytes(videos["h264-b-frames.mp4"].read_bytes())
    assert probe(copy).digest == probe(videos["h264-b-frames.mp4"]).digest
    assert probe(videos["vp8.webm"]).digest != probe(copy).digest
