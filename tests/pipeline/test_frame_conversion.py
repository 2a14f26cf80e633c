"""Tests of the orientation, the colors and the size of converted frames."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import COUNT, read_number, read_numbers

from actionprep.pipeline.probe import probe
from actionprep.pipeline.video import VideoReader

pytestmark = pytest.mark.usefixtures("_no_thread_stays")


def test_rotation_metadata_is_applied(tmp_path: Path) -> None:
    for degrees in (0, 90, 180, -90):
        path = tmp_path / f"{degrees}.mp4"
        image = np.zeros((48, 80, 3), np.uint8)
        image[:24, :40] = 255  # white in the upper left quarter of what is stored
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
            stream.set_display_rotation(degrees)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
        facts = probe(path)
        turned = np.rot90(image, degrees // 90)  # counterclockwise, as ffprobe counts
        assert (facts.height, facts.width) == turned.shape[:2]
        assert (facts.rotation, facts.mirrored) == (degrees, False)
        [block] = VideoReader(path).blocks()
        assert np.abs(block.rgb[0].astype(int) - turned).mean() < 3
        assert np.abs(block.gray[0].astype(int) - turned[..., 0]).mean() < 3
        small = block.resized(facts.height // 2, facts.width // 2)
        assert np.abs(small[0].astype(int) - turned[::2, ::2]).mean() < 6


def test_mirrored_metadata_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "mirror.mp4"
    image = np.zeros((48, 80, 3), np.uint8)
    image[:24, :40] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        stream.set_display_rotation(0, hflip=True)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    [block] = VideoReader(path).blocks()
    assert probe(path).mirrored
    assert np.abs(block.rgb[0].astype(int) - image[:, ::-1]).mean() < 3


def color_video(path: Path, pixel_format: str, *, full: bool, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Write one lossless frame of soft colors in a pixel format, and return the RGB image."""
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([40 + 2 * x, 60 + 3 * y, 200 - x - y], -1).clip(0, 255).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format=pixel_format, dst_color_range="JPEG" if full else "MPEG", dst_colorspace="ITU601"
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        stream.codec_context.color_range = 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return image


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le", "bgr0", "yuva420p"]
)
def test_colors_luma_and_sizes_are_right_in_every_format(tmp_path: Path, pixel_format: str, full: bool) -> None:
    image = color_video(tmp_path / "c.mkv", pixel_format, full=full).astype(float)
    [block] = VideoReader(tmp_path / "c.mkv").blocks()
    assert np.abs(block.rgb[0] - image).mean() < 2.5
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(block.gray[0] - luma).mean() < 1.5
    quarter = image.reshape(12, 4, 16, 4, 3).mean((1, 3))
    for filter in ("area", "bilinear", "bicubic"):
        assert np.abs(block.resized(12, 16, filter)[0] - quarter).mean() < 4
    assert block.resized(12, 16) is block.resized(12, 16)
    assert block.resized(48, 64) is block.rgb


def test_odd_sizes_keep_every_row_and_column(tmp_path: Path) -> None:
    image = color_video(tmp_path / "odd.mkv", "yuv420p", full=False, size=(47, 63)).astype(float)
    [block] = VideoReader(tmp_path / "odd.mkv").blocks()
    assert block.rgb.shape == (1, 47, 63, 3)
    assert block.gray.shape == (1, 47, 63)
    error = np.abs(block.rgb[0] - image)
    assert max(error[-1].mean(), error[:, -1].mean()) < 5
    assert block.resized(21, 33).shape == (1, 21, 33, 3)
    assert block.resized(95, 131).shape == (1, 95, 131, 3)


def test_every_filter_averages_when_it_shrinks(tmp_path: Path) -> None:
    """Fine stripes become gray, not wider stripes."""
    stripes = np.repeat((np.arange(256) % 2 * 255).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    with av.open(str(tmp_path / "s.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 64, "yuv444p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stripes, format="rgb24")))
        container.mux(stream.encode(None))
    [block] = VideoReader(tmp_path / "s.mkv").blocks()
    for filter in ("area", "bilinear", "bicubic"):
        assert block.resized(16, 64, filter)[0, :, 4:-4].std() < 12


def test_frames_are_converted_once_and_on_demand(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from actionprep.pipeline.frame_conversion import Converter

    calls: list[int] = []
    convert = Converter.rgb

    def counted(self: Converter, frames: list[object], *size: object) -> np.ndarray:
        calls.append(len(frames))
        return convert(self, frames, *size)

    monkeypatch.setattr(Converter, "rgb", counted)
    [block] = VideoReader(videos["h264-b-frames.mp4"]).blocks(size=COUNT)
    assert calls == []
    assert read_numbers(block.rgb_at(np.array([3, 9]))) == [3, 9]
    taken = block.take(np.array([8, 11]))
    assert (taken.index.tolist(), read_numbers(taken.rgb)) == ([8, 11], [8, 11])
    assert calls == [2, 2]
    assert read_number(block.rgb[4]) == read_number(block.rgb[4]) == 4
    block.resized(32, 32)
    block.resized(32, 32)
    assert calls == [2, 2, COUNT, COUNT]
    assert np.array_equal(block.rgb_at(np.array([5])), block.rgb[5:6])
    assert calls == [2, 2, COUNT, COUNT]
