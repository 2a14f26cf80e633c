"""Convert decoded frames to arrays: orientation, range and size, with one swscale context per kind of result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from actionprep.pipeline.stage import ArrayBlock, Filter

# Integers, because the flags are slow to hash and are looked up for every frame.
_FILTERS = {
    "area": int(Interpolation.AREA),
    "bilinear": int(Interpolation.BILINEAR),
    "bicubic": int(Interpolation.BICUBIC),
}
_POINT, _BILINEAR = int(Interpolation.POINT), int(Interpolation.BILINEAR)
_FULL, _BT601 = int(ColorRange.JPEG), int(Colorspace.ITU601)

# 8-bit formats in which the first plane is luma only.
_PLANAR_LUMA = {
    *("yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "yuva420p", "yuva422p", "yuva444p"),
    *("yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p", "yuvj411p", "nv12", "nv21", "nv16", "nv24", "gray"),
}
# 8-bit formats with chroma of at most half the width of luma, and the format in which they are shrunk.
_HALF_CHROMA = {
    **dict.fromkeys(("yuv420p", "yuv422p", "yuv411p", "yuv410p", "nv12", "nv21", "nv16"), "yuv422p"),
    **dict.fromkeys(("yuvj420p", "yuvj422p", "yuvj411p"), "yuvj422p"),
}
_ALWAYS_FULL = {"yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p", "yuvj411p", "gray"}

# AVColorSpace values that swscale converts from. For the others it fails, and players fall back to BT.601.
_CONVERTIBLE = {0, 1, 2, 4, 5, 6, 7, 9}


@dataclass(frozen=True)
class Orientation:
    """How stored frames are turned for display: first transposed, then mirrored.

    Attributes:
        transposed: Whether rows and columns are exchanged.
        mirror_x: Whether the result is mirrored left to right.
        mirror_y: Whether the result is mirrored top to bottom.
        exact: Whether the stated angle is a multiple of 90 degrees.
    """

    transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False
    exact: bool = True

    @classmethod
    def of(cls, frame: Any) -> Self:
        """Read the display matrix of a decoded frame; other angles are rounded to a multiple of 90 degrees."""
        try:
            sides = list(frame.side_data)
        except ValueError:
            # PyAV does not know all types, such as EXIF, and then lists none.
            return cls._rotated(round(frame.rotation / 90) % 4, frame.rotation % 90 == 0)
        for side in sides:
            if side.type == SideDataType.DISPLAYMATRIX:
                a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(side), np.int32)[:5])
                transposed = abs(b) + abs(c) > abs(a) + abs(d)
                x, y = (c, b) if transposed else (a, d)
                exact = (a, d) == (0, 0) if transposed else (b, c) == (0, 0)
                return cls(transposed, x < 0, y < 0, exact)
        return cls()

    @classmethod
    def _rotated(cls, quarters: int, exact: bool) -> Self:
        """Return a rotation by quarter turns counterclockwise."""
        return cls(quarters in (1, 3), quarters in (2, 3), quarters in (1, 2), exact)

    @property
    def mirrored(self) -> bool:
        """Whether frames are reflected, which no rotation does."""
        return (self.mirror_x != self.mirror_y) != self.transposed

    @property
    def rotation(self) -> int:
        """Degrees counterclockwise (0, 90, 180, -90), as in ffprobe; of a reflection, those after mirroring in x."""
        if self.transposed:
            return 90 if self.mirror_y else -90
        return 180 if self.mirror_y else 0

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Turn images of shape (B, H, W, ...)."""
        if self == Orientation(exact=self.exact):
            return images
        if self.transposed:
            images = images.swapaxes(1, 2)
        if self.mirror_x:
            images = images[:, :, ::-1]
        if self.mirror_y:
            images = images[:, ::-1]
        return np.ascontiguousarray(images)


class Converter:
    """Convert decoded frames of one stream; not thread-safe.

    Frames of another size, after a change within the stream, are scaled to fit. Where their aspect ratio differs as
    well, they are letterboxed: centered, with black margins.

    Args:
        height: Height of the frames for display, in pixels.
        width: Width of the frames for display, in pixels.
        orientation: How stored frames are turned for display.

    Attributes:
        seconds: Time that blocks of frames spent on conversion.
    """

    def __init__(self, height: int, width: int, orientation: Orientation) -> None:
        self.height, self.width, self.orientation = height, width, orientation
        self.seconds = 0.0
        self._reformatters: dict[tuple[int, int, str, str, int], VideoReformatter] = {}

    def is_native(self, frame: Any) -> bool:
        """Return whether a decoded frame has the size of the stream's first frame."""
        return (frame.height, frame.width) == self._stored_size

    @property
    def _stored_size(self) -> tuple[int, int]:
        return (self.width, self.height) if self.orientation.transposed else (self.height, self.width)

    def rgb(
        self, frames: list[Any], height: int | None = None, width: int | None = None, filter: Filter = "bilinear"
    ) -> np.ndarray:
        """Convert frames to RGB in display orientation.

        Args:
            frames: Decoded frames.
            height: Height of the result; None uses the native height.
            width: Width of the result; None uses the native width.
            filter: How to scale; all filters are anti-aliased.

        Returns:
            Full-range RGB, uint8 of shape (B, height, width, 3).
        """
        size = (height or self.height, width or self.width)
        native = size == (self.height, self.width)
        if filter == "area" and size[0] >= self.height and size[1] >= self.width:
            filter = "bilinear"  # nothing to average when enlarging
        height, width = size[::-1] if self.orientation.transposed else size
        how = _FILTERS[filter]
        out = np.empty((len(frames), height, width, 3), np.uint8)
        for row, frame in enumerate(frames):
            if row and frame is frames[row - 1]:
                out[row] = out[row - 1]
            elif native and self.is_native(frame):
                self._scale(frame, frame.format.name, height, width, "rgb24", how, out[row])
            else:
                self._fit(frame, out[row], lambda frame, inside: self._resize(frame, how, inside))
        return self.orientation.apply(out)

    def _resize(self, frame: Any, how: int, out: np.ndarray) -> None:
        """Scale a frame to RGB of the size of `out`."""
        name, (height, width) = frame.format.name, out.shape[:2]
        if name in _HALF_CHROMA:
            # In two steps, size and then color: one step to rgb24 takes more than twice the time, and has chroma of
            # half the width as well.
            between = _HALF_CHROMA[name]
            small = self._reformat(frame, name, height, width, between, how)
            self._scale(small, between, height, width, "rgb24", _POINT, out)
        else:
            self._scale(frame, name, height, width, "gbrp", how, out)

    def _fit(self, frame: Any, out: np.ndarray, scale: Callable[[Any, np.ndarray], None]) -> None:
        """Scale a frame into `out`, with black margins where its aspect ratio is not that of the stream."""
        height, width = out.shape[:2]
        inner_height, inner_width = fitted_size(frame.height, frame.width, self._stored_size)
        rows = max(1, round(inner_height * height / self._stored_size[0]))
        columns = max(1, round(inner_width * width / self._stored_size[1]))
        if (rows, columns) == (height, width):
            scale(frame, out)
            return
        inside = np.empty((rows, columns, *out.shape[2:]), np.uint8)
        scale(frame, inside)
        top, left = (height - rows) // 2, (width - columns) // 2
        out[...] = 0
        out[top : top + rows, left : left + columns] = inside

    def gray(self, frames: list[Any]) -> np.ndarray:
        """Convert frames to full-range luma in display orientation, uint8 of shape (B, H, W)."""
        import cv2

        height, width = self._stored_size
        out = np.empty((len(frames), height, width), np.uint8)
        for row, frame in enumerate(frames):
            name = frame.format.name
            if not self.is_native(frame):
                self._fit(frame, out[row], self._resize_gray)
            elif name not in _PLANAR_LUMA:
                self._resize_gray(frame, out[row])
            elif name in _ALWAYS_FULL or frame.color_range == _FULL:
                out[row] = _plane(frame.planes[0], width)
            else:
                cv2.LUT(_plane(frame.planes[0], width), _full_range(), out[row])
        return self.orientation.apply(out)

    def _resize_gray(self, frame: Any, out: np.ndarray) -> None:
        self._scale(frame, frame.format.name, out.shape[0], out.shape[1], "gray", _BILINEAR, out)

    def _scale(self, frame: Any, name: str, height: int, width: int, to: str, how: int, out: np.ndarray) -> None:
        import cv2

        planes = self._reformat(frame, name, height, width, to, how).planes
        if to == "gbrp":
            green, blue, red = (_plane(plane, width) for plane in planes)
            cv2.merge((red, green, blue), out)
        else:
            rows = out.reshape(height, -1)
            rows[...] = _plane(planes[0], rows.shape[1])

    def _reformat(self, frame: Any, name: str, height: int, width: int, to: str, how: int) -> Any:
        key = (height, width, name, to, how)
        reformatter = self._reformatters.get(key)
        if reformatter is None:
            reformatter = self._reformatters[key] = VideoReformatter()
        return reformatter.reformat(
            frame,
            width=width,
            height=height,
            format=to,
            interpolation=how,
            src_colorspace=None if frame.colorspace in _CONVERTIBLE else _BT601,
            dst_color_range=_FULL if to in ("rgb24", "gbrp", "gray") else None,
            threads=1,
        )


class CroppedConverter:
    """Convert a rectangle of the frames of one stream: the pixels of the full frame, cut out.

    Args:
        full: Converts the full frames.
        box: Rectangle x, y, width, height in pixels of the frame for display.

    Attributes:
        seconds: Time that blocks of frames spent on conversion.
    """

    def __init__(self, full: Converter, box: tuple[int, int, int, int]) -> None:
        x, y, self.width, self.height = box
        self.seconds = 0.0
        self._full = full
        self._rows, self._columns = slice(y, y + self.height), slice(x, x + self.width)

    def is_native(self, frame: Any) -> bool:
        """Return whether a decoded frame has the size of the stream's first frame."""
        return self._full.is_native(frame)

    def rgb(
        self, frames: list[Any], height: int | None = None, width: int | None = None, filter: Filter = "bilinear"
    ) -> np.ndarray:
        """Convert the rectangle to RGB, uint8 of shape (B, height, width, 3); see `Converter.rgb`."""
        cut = np.ascontiguousarray(self._full.rgb(frames)[:, self._rows, self._columns])
        size = (height or self.height, width or self.width)
        if size == (self.height, self.width):
            return cut
        return ArrayBlock(cut, time=np.zeros(len(cut))).resized(*size, filter)

    def gray(self, frames: list[Any]) -> np.ndarray:
        """Convert the rectangle to full-range luma, uint8 of shape (B, H, W)."""
        return np.ascontiguousarray(self._full.gray(frames)[:, self._rows, self._columns])


def fitted_size(height: int, width: int, within: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size (height, width) of the same aspect ratio that fits, up to rounding to integer pixels.

    A difference of one pixel is no other aspect ratio: encoders round odd sizes.
    """
    scale = min(within[0] / height, within[1] / width)
    rows, columns = round(height * scale), round(width * scale)
    return (
        within[0] if abs(within[0] - rows) <= max(1, scale) else rows,
        within[1] if abs(within[1] - columns) <= max(1, scale) else columns,
    )


def _plane(plane: Any, row_bytes: int) -> np.ndarray:
    """Return a view of a plane without the padding of its rows, uint8 of shape (H, row_bytes)."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, :row_bytes]


@cache
def _full_range() -> np.ndarray:
    """Return the table from luma in [16, 235] (ITU-R BT.601) to [0, 255], rounded."""
    return np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)
