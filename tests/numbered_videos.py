"""Small videos whose frames say their number, and readers of that number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CELL = 16
SIDE = 4 * CELL


def numbered_picture(number: int) -> np.ndarray:
    """(64, 64, 3) uint8: 16 black or white squares spell the number in binary, lowest bit first."""
    bits = (number >> np.arange(16)) & 1
    squares = np.where(bits, 235, 20).astype(np.uint8).reshape(4, 4)
    return np.repeat(squares.repeat(CELL, 0).repeat(CELL, 1)[..., None], 3, axis=2)


def read_number(picture: np.ndarray) -> int:
    """The number that a picture of any size spells."""
    gray = picture.mean(axis=-1) if picture.ndim == 3 else picture
    height, width = gray.shape
    rows, columns = (np.arange(4) * 2 + 1) * height // 8, (np.arange(4) * 2 + 1) * width // 8
    return int((gray[np.ix_(rows, columns)].reshape(-1) > 128) @ (1 << np.arange(16)))


def read_numbers(pictures: np.ndarray) -> list[int]:
    return [read_number(picture) for picture in pictures]


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
    """Encode frames `first` to `first + count`; pts in units of time_base, evenly at `rate` where not given."""
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
