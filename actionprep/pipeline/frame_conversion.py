"""Turn decoded frames into arrays: orientation, range, size, with one swscale context for each kind of result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from actionprep.pipeline.stage import Filter

# Plain numbers: the flags themselves are slow to hash, and are looked up for every frame.
_FILTERS = {
    "area": int(Interpolation.AREA),
    "bilinear": int(Interpolation.BILINEAR),
    "bicubic": int(Interpolation.BICUBIC),
}
_POINT, _BILINEAR = int(Interpolation.POINT), int(Interpolation.BILINEAR)
_FULL, _BT601 = int(ColorRange.JPEG), int(Colorspace.ITU601)

# 8 bit formats whose first plane is luma alone.
_PLANAR_LUMA = {
    *("yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "yuva420p", "yuva422p", "yuva444p"),
    *("yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p", "yuvj411p", "nv12", "nv21", "nv16", "nv24", "gray"),
}
# 8 bit formats whose chroma has half the width of luma, or less, and the format to shrink them in.
_HALF_CHROMA = {
    **dict.fromkeys(("yuv420p", "yuv422p", "yuv411p", "yuv410p", "nv12", "nv21", "nv16"), "yuv422p"),
    **dict.fromkeys(("yuvj420p", "yuvj422p", "yuvj411p"), "yuvj422p"),
}
_ALWAYS_FULL = {"yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p", "yuvj411p", "gray"}

# AVColorSpace values that swscale converts from; for the others it refuses, and BT.601 is what players fall back on.
_CONVERTIBLE = {0, 1, 2, 4, 5, 6, 7, 9}


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is turned for display: first transposed, then mirrored.

    rotation: degrees counterclockwise (0, 90, 180, -90), as ffprobe prints them; mirrored: whether it is a reflection.
    """

    transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False
    exact: bool = True

    @classmethod
    def of(cls, frame: Any) -> Self:
        """Read the display matrix of a decoded frame; angles other than right ones go to the nearest."""
        for side in frame.side_data:
            if side.type == SideDataType.DISPLAYMATRIX:
                a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(side), np.int32)[:5])
                transposed = abs(b) + abs(c) > abs(a) + abs(d)
                x, y = (c, b) if transposed else (a, d)
                exact = (a, d) == (0, 0) if transposed else (b, c) == (0, 0)
                return cls(transposed, x < 0, y < 0, exact)
        return cls()

    @property
    def mirrored(self) -> bool:
        """Whether the picture is reflected, which no rotation is."""
        return (self.mirror_x != self.mirror_y) != self.transposed

    @property
    def rotation(self) -> int:
        """Degrees counterclockwise; of a reflection, those after it was mirrored left to right."""
        if self.transposed:
            return 90 if self.mirror_y else -90
        return 180 if self.mirror_y else 0

    def apply(self, pictures: np.ndarray) -> np.ndarray:
        """Turn (B, H, W, …) pictures."""
        if self == Orientation(exact=self.exact):
            return pictures
        if self.transposed:
            pictures = pictures.swapaxes(1, 2)
        if self.mirror_x:
            pictures = pictures[:, :, ::-1]
        if self.mirror_y:
            pictures = pictures[:, ::-1]
        return np.ascontiguousarray(pictures)


class Converter:
    """Converts decoded frames of one stream; not for several threads at once.

    height, width: size of the pictures for display. Frames of another size, after a change in the middle of a stream,
    are brought to it.
    """

    def __init__(self, height: int, width: int, orientation: Orientation) -> None:
        self.height, self.width, self.orientation = height, width, orientation
        self._reformatters: dict[tuple[int, int, str, str, int], VideoReformatter] = {}

    def rgb(
        self, frames: list[Any], height: int | None = None, width: int | None = None, filter: Filter = "bilinear"
    ) -> np.ndarray:
        """(B, height, width, 3) uint8, full range, in display orientation; the native size where none is given."""
        size = (height or self.height, width or self.width)
        native = size == (self.height, self.width)
        if filter == "area" and size[0] >= self.height and size[1] >= self.width:
            filter = "bilinear"  # nothing to average when enlarging
        height, width = size[::-1] if self.orientation.transposed else size
        how = _FILTERS[filter]
        out = np.empty((len(frames), height, width, 3), np.uint8)
        for at, frame in enumerate(frames):
            name = frame.format.name
            if at and frame is frames[at - 1]:
                out[at] = out[at - 1]
            elif native and (frame.height, frame.width) == (height, width):
                self._scale(frame, name, height, width, "rgb24", how, out[at])
            elif name in _HALF_CHROMA:
                # In two steps, size and then color: one step to rgb24 takes more than twice the time, and has chroma
                # of half the width as well.
                between = _HALF_CHROMA[name]
                small = self._reformat(frame, name, height, width, between, how)
                self._scale(small, between, height, width, "rgb24", _POINT, out[at])
            else:
                self._scale(frame, name, height, width, "gbrp", how, out[at])
        return self.orientation.apply(out)

    def gray(self, frames: list[Any]) -> np.ndarray:
        """(B, H, W) uint8 luma, full range, in display orientation."""
        import cv2

        height, width = (self.width, self.height) if self.orientation.transposed else (self.height, self.width)
        out = np.empty((len(frames), height, width), np.uint8)
        for at, frame in enumerate(frames):
            name = frame.format.name
            if name not in _PLANAR_LUMA or (frame.height, frame.width) != (height, width):
                self._scale(frame, name, height, width, "gray", _BILINEAR, out[at])
                continue
            luma = _plane(frame.planes[0], width)
            if name in _ALWAYS_FULL or frame.color_range == _FULL:
                out[at] = luma
            else:
                cv2.LUT(luma, _full_range(), out[at])
        return self.orientation.apply(out)

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


def _plane(plane: Any, row_bytes: int) -> np.ndarray:
    """(H, row_bytes) view of a plane without the padding of its lines."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, :row_bytes]


@cache
def _full_range() -> np.ndarray:
    """Luma from the range 16 to 235 (ITU-R BT.601) to 0 to 255, rounded."""
    return np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)
