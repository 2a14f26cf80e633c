"""Tests of real files that are hard to read, compared with decoding the complete stream with PyAV."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from actionprep.errors import InputError
from actionprep.pipeline.decoding import CONCEALED
from actionprep.pipeline.probe import probe
from actionprep.pipeline.video import VideoReader


@dataclass(frozen=True)
class Expected:
    """Expected properties of a file; gap is the usual interval between frames in seconds."""

    frames: int
    size: tuple[int, int]  # width, height for display
    codec: str
    gap: Fraction
    last: float
    header: int | None
    rotation: int = 0
    start: float = 0.0
    stream: int = 0
    pixels: str = "yuv420p"
    concealed: int = 0
    warnings: int = 0


HARD = {
    "hard_videos/decord/flipping_a_pancake.mkv": Expected(310, (426, 240), "h264", Fraction(1, 30), 10.3, None),
    "hard_videos/decord/unordered.mov": Expected(4, (50, 50), "h264", Fraction(1, 32), 3 / 32, 4),
    "hard_videos/decord/video_0.mov": Expected(3, (568, 320), "h264", Fraction(1, 30), 2 / 30, 3),
    "hard_videos/decord/video_90.mov": Expected(3, (320, 568), "h264", Fraction(1, 30), 2 / 30, 3, rotation=-90),
    "hard_videos/made_truncated/testsrc2_mpeg4_first50pct.avi": Expected(
        15, (1280, 720), "mpeg4", Fraction(1, 30), 14 / 30, 30, concealed=1, warnings=1
    ),
    "hard_videos/made_truncated/v_Diving_g01_c03_first60pct.avi": Expected(
        123, (320, 240), "mpeg4", Fraction(1001, 30000), 122 * 1001 / 30000, 214, concealed=1, warnings=1
    ),
    "hard_videos/made_vfr/v_BenchPress_g01_c02_vfr.mp4": Expected(102, (320, 240), "h264", Fraction(1, 25), 7.08, 102),
    "hard_videos/mmaction2/S001C001P001R001A001_rgb.avi": Expected(
        103, (1920, 1080), "h264", Fraction(1, 30), 102 / 30, 103
    ),
    "hard_videos/torchcodec/av1_video.mkv": Expected(125, (640, 360), "av1", Fraction(1, 25), 4.96, None),
    "hard_videos/torchcodec/bt709_full_range.mp4": Expected(
        30, (1280, 720), "h264", Fraction(1, 30), 29 / 30, 30, pixels="yuvj420p"
    ),
    "hard_videos/torchcodec/h265_10bits.mp4": Expected(
        30, (200, 200), "hevc", Fraction(1, 30), 29 / 30, 30, pixels="yuv420p10le"
    ),
    "hard_videos/torchcodec/h265_video.mp4": Expected(10, (128, 128), "hevc", Fraction(1, 10), 0.9, 10),
    # Two video streams, of which players take the larger.
    "hard_videos/torchcodec/nasa_13013.mp4": Expected(
        390, (480, 270), "h264", Fraction(1001, 30000), 389 * 1001 / 30000, 390, stream=3, warnings=1
    ),
    "hard_videos/torchcodec/nasa_13013_rotated.mp4": Expected(
        17, (270, 480), "h264", Fraction(1001, 30000), 16 * 1001 / 30000, 17, rotation=90
    ),
    "hard_videos/torchcodec/test_non_zero_start.mp4": Expected(
        12, (200, 112), "h264", Fraction(1, 30), 11 / 30, 12, start=8.333
    ),
    "hard_videos/torchcodec/testsrc2_444_10bit_hevc.mp4": Expected(
        25, (321, 241), "hevc", Fraction(1, 25), 0.96, 25, pixels="yuv444p10le"
    ),
    "hard_videos/torchcodec/testsrc2_mpeg4.avi": Expected(30, (1280, 720), "mpeg4", Fraction(1, 30), 29 / 30, 30),
    "hard_videos/torchcodec/testsrc2_odd_height_vp9.mp4": Expected(25, (320, 241), "vp9", Fraction(1, 25), 0.96, 25),
    "hard_videos/torchcodec/testsrc2_odd_width_mpeg2.mp4": Expected(
        10, (121, 80), "mpeg2video", Fraction(1, 25), 0.36, 10
    ),
    "hard_videos/torchcodec/testsrc2_vp8.webm": Expected(30, (1280, 720), "vp8", Fraction(1, 30), 0.967, None),
    # Packed B-frames and sound.
    "ucf101_clips/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi": Expected(
        164, (320, 240), "mpeg4", Fraction(1, 25), 6.52, 164
    ),
    "ucf101_clips/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c02.avi": Expected(
        123, (320, 240), "mpeg4", Fraction(1, 25), 4.88, 123
    ),
    "ucf101_clips/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c03.avi": Expected(
        259, (320, 240), "mpeg4", Fraction(1, 25), 10.32, 259
    ),
    "ucf101_clips/BenchPress/v_BenchPress_g01_c01.avi": Expected(151, (320, 240), "mpeg4", Fraction(1, 25), 6.0, 151),
    "ucf101_clips/BenchPress/v_BenchPress_g01_c02.avi": Expected(180, (320, 240), "mpeg4", Fraction(1, 25), 7.16, 180),
    "ucf101_clips/BenchPress/v_BenchPress_g01_c03.avi": Expected(104, (320, 240), "mpeg4", Fraction(1, 25), 4.12, 104),
    **{
        f"ucf101_clips/Diving/v_Diving_g01_c0{clip}.avi": Expected(
            frames, (320, 240), "mpeg4", Fraction(1001, 30000), (frames - 1) * 1001 / 30000, frames
        )
        for clip, frames in ((1, 259), (2, 282), (3, 214))
    },
}


def plain_decoding(path: Path, stream: int) -> list[av.VideoFrame]:
    """Return all frames in the order of the decoder, which is the order of display."""
    with av.open(str(path)) as container:
        return list(container.decode(container.streams[stream]))


@pytest.mark.parametrize("name", HARD)
def test_a_hard_file_gives_what_it_must(shared_data: Path, name: str) -> None:
    path, expected = shared_data / name, HARD[name]
    facts = probe(path)
    assert (facts.num_frames, (facts.width, facts.height)) == (expected.frames, expected.size)
    assert (facts.codec, facts.pixel_format, facts.stream) == (expected.codec, expected.pixels, expected.stream)
    assert (facts.rotation, facts.header_frames) == (expected.rotation, expected.header)
    assert len(facts.warnings) == expected.warnings
    assert facts.start == pytest.approx(expected.start, abs=1e-3)
    assert (facts.times[0], facts.times[-1]) == (0.0, pytest.approx(expected.last, abs=1e-6))
    [(gap, _)] = Counter(np.diff(facts.times).round(3)).most_common(1)
    assert gap == pytest.approx(float(expected.gap), abs=1.1e-3)
    assert facts.fps == pytest.approx(float(1 / expected.gap), rel=1e-9)

    plain = plain_decoding(path, expected.stream)
    assert len(plain) == expected.frames
    rng = np.random.default_rng(0)
    picked = np.unique(np.r_[0, expected.frames - 1, rng.integers(0, expected.frames, 4)])
    truth = np.stack([np.rot90(plain[at].to_ndarray(format="rgb24"), expected.rotation // 90) for at in picked])
    statuses, seen = [], []
    with VideoReader(path) as reader:
        for block in reader.blocks(size=16):
            statuses.append(block.status)
            inside = np.flatnonzero(np.isin(block.index, picked))
            seen.append(block.rgb_at(inside))
        status = np.concatenate(statuses)
        assert len(status) == expected.frames
        assert np.array_equal(np.concatenate(seen), truth)
        assert Counter(status.tolist())[CONCEALED] == expected.concealed
        assert np.count_nonzero(status) == expected.concealed
        short = expected.concealed or (expected.header or 0) > expected.frames
        assert (reader.shortfall is not None) == bool(short)
        order = rng.permutation(len(picked))
        assert np.array_equal(reader.frames_at(picked[order]), truth[order])


def test_the_variable_times_are_those_of_the_kept_frames(shared_data: Path) -> None:
    """Frames were dropped from 25 per second, so times are on that grid, and kept frames equal those of the original."""
    facts = probe(shared_data / "hard_videos/made_vfr/v_BenchPress_g01_c02_vfr.mp4")
    grid = facts.times * 25
    assert grid == pytest.approx(grid.round(), abs=1e-6)
    assert len(set(np.diff(grid.round()))) > 1
    original = VideoReader(shared_data / "ucf101_clips/BenchPress/v_BenchPress_g01_c02.avi")
    kept = VideoReader(shared_data / "hard_videos/made_vfr/v_BenchPress_g01_c02_vfr.mp4")
    originals = np.concatenate([block.resized(24, 32) for block in original.blocks()]).astype(int)
    copies = np.concatenate([block.resized(24, 32) for block in kept.blocks()]).astype(int)
    same = np.abs(copies - originals[grid.round().astype(int)]).mean()
    shifted = np.abs(copies - originals[np.minimum(grid.round().astype(int) + 3, len(originals) - 1)]).mean()
    assert same < 3 < shifted * 2


def test_a_cut_mp4_lacks_its_index(shared_data: Path) -> None:
    path = shared_data / "hard_videos/made_truncated/nasa_13013_first60pct.mp4"
    with pytest.raises(InputError) as problem:
        probe(path)
    assert problem.value.reason == (
        f"{path}: is an MP4 without its index (no 'moov' box), which is written when a recording ends: it was cut off, "
        "by 251024 bytes or more. Copy it again, or repair it with a tool for that."
    )


def test_sound_is_not_video(shared_data: Path) -> None:
    path = shared_data / "hard_videos/torchcodec/nasa_13013.mp4.audio.mp3"
    with pytest.raises(InputError) as problem:
        probe(path)
    assert problem.value.reason == f"{path}: has no video stream, only audio streams."


def test_every_hard_file_is_in_this_test(shared_data: Path) -> None:
    files = {
        str(path.relative_to(shared_data))
        for folder in ("hard_videos", "ucf101_clips")
        for path in (shared_data / folder).glob("*/*")
        if path.is_file()
    }
    unreadable = {
        "hard_videos/made_truncated/nasa_13013_first60pct.mp4",
        "hard_videos/torchcodec/nasa_13013.mp4.audio.mp3",
    }
    assert files == {*HARD, *unreadable}


def test_motion_jpeg_of_the_kinect_is_full_range(shared_data: Path) -> None:
    folder = shared_data / "utd_mhad_rgb/original_mjpeg"
    labels = (shared_data / "utd_mhad_rgb/labels.csv").read_text()
    for path in sorted(folder.glob("*.avi")):
        assert path.stem.removesuffix("_color") in labels
        facts = probe(path)
        assert (facts.width, facts.height, facts.fps, facts.pixel_format) == (640, 480, 15.0, "yuvj420p")
        assert facts.num_frames == facts.header_frames
        assert np.diff(facts.times) == pytest.approx(1 / 15)
        plain = plain_decoding(path, 0)
        last = facts.num_frames - 1
        with VideoReader(path) as reader:
            assert np.array_equal(reader.frames_at([last])[0], plain[last].to_ndarray(format="rgb24"))
            block = next(reader.blocks_at([5]))
            assert np.array_equal(block.gray[0], plain[5].to_ndarray(format="yuvj420p")[:480])
