"""Tests of reading videos: all frames in order, and any frame by index."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import B_FRAMES, COUNT, KINDS, X264, find, numbered_picture, read_numbers, write_numbered

from actionprep.errors import InputError, UserError
from actionprep.pipeline.probe import probe
from actionprep.pipeline.video import VideoReader

pytestmark = pytest.mark.usefixtures("_no_thread_stays")


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_comes_once_and_in_order(videos: dict[str, Path], name: str) -> None:
    facts = probe(find(videos, name))
    reader = VideoReader(videos[name])
    blocks = list(reader.blocks(size=7, offset=100.0))
    assert [number for block in blocks for number in read_numbers(block.rgb)] == list(range(COUNT))
    assert np.concatenate([block.index for block in blocks]).tolist() == list(range(COUNT))
    assert not np.concatenate([block.status for block in blocks]).any()
    assert np.concatenate([block.time for block in blocks]) == pytest.approx(np.arange(COUNT) / 25 + 100, abs=1.1e-3)
    assert (facts.num_frames, facts.fps, reader.shortfall) == (COUNT, pytest.approx(25), None)
    assert facts.duration == pytest.approx(COUNT / 25, abs=1e-3)
    assert (facts.width, facts.height, facts.rotation) == (64, 64, 0)


@pytest.mark.parametrize("name", KINDS)
def test_any_frame_is_the_right_frame(videos: dict[str, Path], name: str) -> None:
    rng = np.random.default_rng(len(name))
    with VideoReader(find(videos, name)) as reader:
        for wanted in [rng.permutation(COUNT)[:5] for _ in range(6)] + [np.array([3, 3, 39, 0]), np.arange(20, 32)]:
            assert read_numbers(reader.frames_at(wanted)) == wanted.tolist()
        some = [5, 6, 17, 30]
        blocks = list(reader.blocks_at(some[::-1], size=3))
        assert [len(block) for block in blocks] == [3, 1]
        assert [n for block in blocks for n in read_numbers(block.rgb)] == some
        assert np.concatenate([block.time for block in blocks]) == pytest.approx(reader.times[some])


@pytest.mark.parametrize("name", ["h264-open-gop.mp4", "hevc-open-gop.mp4", "vp9.webm", "mjpeg.avi", "mpeg4.avi"])
def test_reading_on_does_not_begin_again(videos: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded from the beginning")

    monkeypatch.setattr(VideoReader, "_picked_from_start", never)
    with VideoReader(find(videos, name)) as reader:
        assert read_numbers(reader.frames_at([30, 2, 33, 31])) == [30, 2, 33, 31]
        assert read_numbers(reader.frames_at([34, 35, 36])) == [34, 35, 36]


@pytest.mark.parametrize("name", ["h264-b-frames.mp4", "hevc-10-bit.mkv", "mpeg4-b-frames.avi", "vp9.webm"])
def test_the_number_of_threads_changes_no_pixel(videos: dict[str, Path], name: str) -> None:
    entry, many = (
        np.concatenate([block.rgb for block in VideoReader(find(videos, name), threads=threads).blocks()])
        for threads in (1, 3)
    )
    assert np.array_equal(entry, many)


def test_frames_that_do_not_exist_are_an_error(videos: dict[str, Path]) -> None:
    path = videos["h264-b-frames.mp4"]
    with VideoReader(path) as reader, pytest.raises(UserError) as error:
        reader.frames_at([0, 40])
    assert str(error.value) == f"No frame 40 in {path}. It has frames 0 to 39."


def test_no_frames_are_an_empty_array(videos: dict[str, Path]) -> None:
    with VideoReader(videos["mpeg4.avi"]) as reader:
        assert reader.frames_at([]).shape == (0, 64, 64, 3)
        assert list(reader.blocks_at([])) == []


def test_the_times_of_the_recording_replace_those_of_the_file(videos: dict[str, Path]) -> None:
    clock = 7 + np.arange(COUNT) / 24.9
    reader = VideoReader(videos["vp8.webm"], times=clock)
    assert np.array_equal(np.concatenate([block.time for block in reader.blocks()]), clock)


def test_a_file_that_changed_since_the_scan_is_a_problem(videos: dict[str, Path]) -> None:
    path = videos["vp8.webm"]
    with pytest.raises(InputError) as error:
        VideoReader(path, times=np.arange(39.0))
    assert error.value.reason == (
        f"{path}: the catalog has 39 frames of it and the file now has 40. It changed since it was scanned: run "
        "'actionprep scan' again."
    )


def test_what_an_edit_list_cuts_away_is_not_there(videos: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    with (
        av.open(str(videos["h264-b-frames.mp4"])) as complete,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as cut,
    ):
        stream = complete.streams.video[0]
        copied = cut.add_stream_from_template(stream)
        for packet in complete.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts - 10 * packet.duration, packet.dts - 10 * packet.duration
                packet.stream = copied
                cut.mux(packet)
    facts = probe(path)
    assert (facts.num_frames, facts.start, facts.warnings) == (COUNT - 10, 0.0, ())
    with VideoReader(path) as reader:
        assert [n for block in reader.blocks() for n in read_numbers(block.rgb)] == list(range(10, COUNT))
        assert read_numbers(reader.frames_at([20, 0])) == [30, 10]


def test_b_frames_that_the_header_denies_are_shown_in_their_order(tmp_path: Path) -> None:
    """An AVI that starts without B-frames: its times follow the order of storage, and only the decoder knows the display order."""
    parts = [
        write_numbered(tmp_path / "plain.h264", "libx264", 60, options={**X264, "bf": "0"}),
        write_numbered(tmp_path / "b.h264", "libx264", 40, options=B_FRAMES, first=60),
    ]
    path = tmp_path / "both.avi"
    with av.open(str(path), "w") as joined:
        stream, at = None, 0
        for part in parts:
            with av.open(str(part)) as container:
                source = container.streams.video[0]
                stream = stream or joined.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.size:
                        packet.pts = packet.dts = at
                        packet.time_base, packet.stream, at = Fraction(1, 25), stream, at + 1
                        joined.mux(packet)
    with VideoReader(path) as reader:
        shown = [n for block in reader.blocks() for n in read_numbers(block.rgb)]
        # A decoder that learns of B-frames late may have to let one go; what it shows is in order all the same.
        assert shown == sorted(shown)
        assert read_numbers(reader.frames_at([99, 70, 81])) == [shown[99], shown[70], shown[81]]


def test_a_stream_that_changes_its_size_keeps_the_first(tmp_path: Path) -> None:
    streams = b""
    for side in (64, 96):
        part = tmp_path / f"{side}.h264"
        with av.open(str(part), "w") as container:
            stream = container.add_stream("libx264", rate=25, options=X264)
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            for number in range(3):
                image = np.kron(numbered_picture(number)[::16, ::16, 0], np.ones((side // 4, side // 4), np.uint8))
                frame = np.repeat(image[..., None], 3, 2).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        streams += part.read_bytes()
    path = tmp_path / "both.h264"
    path.write_bytes(streams)
    [block] = VideoReader(path).blocks()
    assert block.rgb.shape == (6, 64, 64, 3)
    assert read_numbers(block.rgb) == [0, 1, 2, 0, 1, 2]
    assert block.gray.shape == (6, 64, 64)
    assert block.resized(32, 32).shape == (6, 32, 32, 3)


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libx264", "mp4", {"x264-params": "tff=1:bframes=2"}),
        ("libx264", "ts", {"flags": "+ildct+ilme", "x264-params": "bff=1:bframes=2"}),
        ("mpeg2video", "mpg", {"flags": "+ildct+ilme"}),
    ],
)
def test_interlaced_video_is_read_picture_by_picture(
    tmp_path: Path, codec: str, container: str, options: dict[str, str]
) -> None:
    path = write_numbered(tmp_path / f"v.{container}", codec, 30, options=options)
    with av.open(str(path)) as opened:
        assert all(frame.interlaced_frame for frame in opened.decode(video=0))
    facts = probe(path)
    assert np.allclose(facts.times, np.arange(30) / 25)
    with VideoReader(path, times=facts.times) as reader:
        assert [number for block in reader.blocks(size=7) for number in read_numbers(block.rgb)] == list(range(30))
        assert reader.shortfall is None
