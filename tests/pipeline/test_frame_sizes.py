"""Tests of streams with changing frame size: detection without full decoding, letterboxing and status."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from actionprep.pipeline.decoding import DECODED, LETTERBOXED
from actionprep.pipeline.frame_conversion import fitted_size
from actionprep.pipeline.probe import probe
from actionprep.pipeline.video import VideoReader

CODECS = {"libx264": {"bf": "0"}, "libx265": {"x265-params": "log-level=none:bframes=0"}, "mpeg2video": {"g": "12"}}


def disc(height: int, width: int, radius: float) -> np.ndarray:
    """Return a gray image with a white disc in the middle."""
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2 + 0.5) ** 2 + (y - height / 2 + 0.5) ** 2 < radius**2
    return np.repeat(np.where(inside, 235, 90).astype(np.uint8)[..., None], 3, axis=2)


def write_ts(path: Path, codec: str, size: tuple[int, int], start: int, radius: float) -> bytes:
    """Return 25 encoded frames of one size (height, width) that start at the given second."""
    with av.open(str(path), "w", format="mpegts", options={"mpegts_copyts": "1"}) as container:
        stream = container.add_stream(codec, rate=25, options=CODECS[codec])
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(disc(*size, radius), format="rgb24")
            frame.pts, frame.time_base = 25 * start + number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def write_change(folder: Path, codec: str, later: tuple[int, int], radius: float = 30) -> Path:
    """Write a stream of 96 x 128 (height x width) with another frame size from frame 25."""
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    path = folder / "change.ts"
    parts = (write_ts(folder / "a.ts", codec, (96, 128), 1, 30), write_ts(folder / "b.ts", codec, later, 2, radius))
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("codec", CODECS)
def test_probe_reports_a_size_change(tmp_path: Path, codec: str) -> None:
    path = write_change(tmp_path, codec, (128, 96))
    assert [warning for warning in probe(path).warnings if "size" in warning] == [
        "the frame size changes from 128 x 96 to 96 x 128 at frame 25 (1.000 s): all frames are scaled to the first "
        "size, with black margins where the shape differs"
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_probe_of_equal_parts_reports_no_size_change(tmp_path: Path, codec: str) -> None:
    assert not [warning for warning in probe(write_change(tmp_path, codec, (96, 128))).warnings if "size" in warning]


@pytest.mark.parametrize("size", [None, (48, 64), (64, 64)], ids=str)
def test_reader_letterboxes_another_shape(tmp_path: Path, size: tuple[int, int] | None) -> None:
    path = write_change(tmp_path, "libx264", (128, 96))
    with VideoReader(path) as reader:
        blocks = list(reader.blocks())
        status = np.concatenate([block.status for block in blocks])
        assert (status[:22] == DECODED).all()  # damage of the cut itself is concealed
        assert (status[27:] == LETTERBOXED).all()
        height, width = size or (96, 128)
        [image] = reader.frames_at([40], height=height, width=width)
        stored = blocks[1].resized(height, width)[40 - 32]
    assert (image == stored).all()
    # 128 rows are scaled to 96, so the disc of 60 px has 45, and 96 columns fill 72 of 128.
    bright = image[..., 0] > 160
    assert bright.any(axis=1).sum() == pytest.approx(45 * height / 96, abs=2)
    assert bright.any(axis=0).sum() == pytest.approx(45 * width / 128, abs=2)
    margin = round((128 - 72) / 2 * width / 128)
    assert (image[:, : margin - 1] == 0).all()
    assert (image[:, -margin + 1 :] == 0).all()
    assert (image[:, margin + 1 : -margin - 1] > 40).all()


def test_reader_gray_letterboxes_another_shape(tmp_path: Path) -> None:
    with VideoReader(write_change(tmp_path, "libx264", (128, 96))) as reader:
        gray = list(reader.blocks())[1].gray[40 - 32]
    assert (gray[:, :27] == 0).all()
    assert (gray[:, 29:-29] > 40).all()


def test_reader_scales_the_same_shape_without_margins(tmp_path: Path) -> None:
    path = write_change(tmp_path, "libx264", (192, 256), radius=60)
    with VideoReader(path) as reader:
        [before, after] = reader.frames_at([10, 40]).astype(int)
    assert np.abs(before - after)[8:-8, 8:-8].mean() < 6
    assert (after > 40).all()


@pytest.mark.parametrize(
    ("size", "within", "expected"),
    [
        ((128, 96), (96, 128), (96, 72)),
        ((96, 128), (96, 128), (96, 128)),
        ((360, 640), (1080, 1920), (1080, 1920)),
        ((1088, 1920), (1080, 1920), (1080, 1906)),
        ((480, 853), (720, 1280), (720, 1280)),
        ((100, 1000), (96, 128), (13, 128)),
    ],
)
def test_fitted_size(size: tuple[int, int], within: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted_size(*size, within) == expected
