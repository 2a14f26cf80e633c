"""Small videos with frame numbers encoded in the frames, and readers of these numbers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

CELL = 16
SIDE = 4 * CELL

COUNT = 40
X264 = {"preset": "ultrafast", "g": "12"}
B_FRAMES = {**X264, "x264-params": "bframes=3:b-adapt=0:scenecut=0"}
OPEN_GOP = {"preset": "medium", "g": "12", "x264-params": "open-gop=1:bframes=3:b-adapt=0:b-pyramid=normal:scenecut=0"}
HEVC = {"preset": "ultrafast", "g": "12", "x265-params": "log-level=none:bframes=3:open-gop=1:keyint=12"}
# File name: codec, its options, pixel format.
KINDS: dict[str, tuple[str, dict[str, str], str]] = {
    "h264-b-frames.mp4": ("libx264", B_FRAMES, "yuv420p"),
    "h264-one-keyframe.mp4": ("libx264", {**B_FRAMES, "g": "600"}, "yuv420p"),
    "h264-open-gop.mp4": ("libx264", OPEN_GOP, "yuv420p"),
    "h264-open-gop.mkv": ("libx264", OPEN_GOP, "yuv420p"),
    "h264-open-gop.ts": ("libx264", OPEN_GOP, "yuv420p"),
    "h264-refresh.mkv": ("libx264", {"preset": "medium", "x264-params": "intra-refresh=1:keyint=12"}, "yuv420p"),
    "h264-b-frames.avi": ("libx264", B_FRAMES, "yuv420p"),
    "h264-b-frames.flv": ("libx264", B_FRAMES, "yuv420p"),
    "h264-bare.h264": ("libx264", B_FRAMES, "yuv420p"),
    "hevc-open-gop.mp4": ("libx265", HEVC, "yuv420p"),
    "hevc-10-bit.mkv": ("libx265", HEVC, "yuv420p10le"),
    "vp8.webm": ("libvpx", {"g": "12", "deadline": "realtime", "cpu-used": "8"}, "yuv420p"),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}, "yuv420p"),
    "av1.mp4": ("libsvtav1", {"preset": "12", "crf": "15", "g": "12"}, "yuv420p"),
    "mpeg4-b-frames.avi": ("mpeg4", {"g": "12", "bf": "2"}, "yuv420p"),
    "mpeg4.avi": ("mpeg4", {"g": "12"}, "yuv420p"),
    "mpeg2.mpg": ("mpeg2video", {"g": "12", "bf": "2"}, "yuv420p"),
    "mjpeg.avi": ("mjpeg", {}, "yuvj420p"),
    "gray.mkv": ("ffv1", {}, "gray"),
    "rgb.mkv": ("ffv1", {}, "bgr0"),
    "prores.mov": ("prores_ks", {}, "yuv422p10le"),
}


def numbered_picture(number: int) -> np.ndarray:
    """(64, 64, 3) uint8: 16 black or white squares encode the number in binary, lowest bit first."""
    bits = (number >> np.arange(16)) & 1
    squares = np.where(bits, 235, 20).astype(np.uint8).reshape(4, 4)
    return np.repeat(squares.repeat(CELL, 0).repeat(CELL, 1)[..., None], 3, axis=2)


def read_number(image: np.ndarray) -> int:
    """Return the number encoded in an image of any size."""
    gray = image.mean(axis=-1) if image.ndim == 3 else image
    height, width = gray.shape
    rows, columns = (np.arange(4) * 2 + 1) * height // 8, (np.arange(4) * 2 + 1) * width // 8
    return int((gray[np.ix_(rows, columns)].reshape(-1) > 128) @ (1 << np.arange(16)))


def read_numbers(images: np.ndarray) -> list[int]:
    return [read_number(image) for image in images]


def write_numbered(
    path: Path,
    codec: str,
    count: int,
    *,
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rate: int = 25,
    pixel_format: str = "yuv420p",
    container_options: dict[str, str] | None = None,
    first: int = 0,
) -> Path:
    """Encode frames `first` to `first + count`. pts are in units of time_base; without them, frames are evenly at `rate`."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width = stream.height = SIDE
        stream.pix_fmt = pixel_format
        if time_base is not None:
            stream.codec_context.time_base = time_base
        for at in range(count):
            frame = av.VideoFrame.from_ndarray(numbered_picture(first + at), format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = int(pts[at]), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def find(videos: dict[str, Path], name: str) -> Path:
    """Write a video of KINDS, or skip the test if FFmpeg cannot write it."""
    if name not in videos:
        pytest.skip(f"this FFmpeg has no encoder {KINDS[name][0]}")
    return videos[name]
