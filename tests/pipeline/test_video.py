"""Reading videos: facts, every frame in order, any frame by index, and what comes of damage."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import numbered_picture, read_number, read_numbers, write_numbered

from actionprep.errors import InputProblem, UserError
from actionprep.pipeline.video import CONCEALED, DECODED, MISSING, VideoReader, probe

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


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    made = {}
    for name, (codec, options, pixel_format) in KINDS.items():
        if codec in av.codecs_available:
            made[name] = write_numbered(folder / name, codec, COUNT, options=options, pixel_format=pixel_format)
    return made


def find(videos: dict[str, Path], name: str) -> Path:
    if name not in videos:
        pytest.skip(f"this FFmpeg has no encoder {KINDS[name][0]}")
    return videos[name]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "decode-ahead"]


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
    one, many = (
        np.concatenate([block.rgb for block in VideoReader(find(videos, name), threads=threads).blocks()])
        for threads in (1, 3)
    )
    assert np.array_equal(one, many)


def test_frames_that_do_not_exist_are_an_error(videos: dict[str, Path]) -> None:
    path = videos["h264-b-frames.mp4"]
    with VideoReader(path) as reader, pytest.raises(UserError) as error:
        reader.frames_at([0, 40])
    assert str(error.value) == f"No frame 40 in {path}. It has frames 0 to 39."


def test_no_frames_are_an_empty_array(videos: dict[str, Path]) -> None:
    with VideoReader(videos["mpeg4.avi"]) as reader:
        assert reader.frames_at([]).shape == (0, 64, 64, 3)
        assert list(reader.blocks_at([])) == []


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


def test_the_times_of_the_recording_replace_those_of_the_file(videos: dict[str, Path]) -> None:
    clock = 7 + np.arange(COUNT) / 24.9
    reader = VideoReader(videos["vp8.webm"], times=clock)
    assert np.array_equal(np.concatenate([block.time for block in reader.blocks()]), clock)


def test_a_file_that_changed_since_the_scan_is_a_problem(videos: dict[str, Path]) -> None:
    path = videos["vp8.webm"]
    with pytest.raises(InputProblem) as error:
        VideoReader(path, times=np.arange(39.0))
    assert error.value.reason == (
        f"{path}: the catalogue has 39 frames of it and the file now has 40. It changed since it was scanned: run "
        "'actionprep scan' again."
    )


def test_what_an_edit_list_cuts_away_is_not_there(videos: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    with (
        av.open(str(videos["h264-b-frames.mp4"])) as whole,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as cut,
    ):
        stream = whole.streams.video[0]
        copied = cut.add_stream_from_template(stream)
        for packet in whole.demux(stream):
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
    """An AVI that begins without B-frames: its times are those of storage, and only the decoder knows the order."""
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


def test_a_stream_without_any_times_is_spread_evenly_and_says_so(videos: dict[str, Path]) -> None:
    facts = probe(videos["h264-bare.h264"])
    assert facts.warnings == ("the container has no frame times: frames are placed evenly at 25 per second",)


def test_rotation_metadata_is_applied(tmp_path: Path) -> None:
    for degrees in (0, 90, 180, -90):
        path = tmp_path / f"{degrees}.mp4"
        picture = np.zeros((48, 80, 3), np.uint8)
        picture[:24, :40] = 255  # white in the upper left quarter of what is stored
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
            stream.set_display_rotation(degrees)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        facts = probe(path)
        turned = np.rot90(picture, degrees // 90)  # counterclockwise, as ffprobe counts
        assert (facts.height, facts.width) == turned.shape[:2]
        assert (facts.rotation, facts.mirrored) == (degrees, False)
        [block] = VideoReader(path).blocks()
        assert np.abs(block.rgb[0].astype(int) - turned).mean() < 3
        assert np.abs(block.gray[0].astype(int) - turned[..., 0]).mean() < 3
        small = block.resized(facts.height // 2, facts.width // 2)
        assert np.abs(small[0].astype(int) - turned[::2, ::2]).mean() < 6


def test_mirrored_metadata_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "mirror.mp4"
    picture = np.zeros((48, 80, 3), np.uint8)
    picture[:24, :40] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        stream.set_display_rotation(0, hflip=True)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    [block] = VideoReader(path).blocks()
    assert probe(path).mirrored
    assert np.abs(block.rgb[0].astype(int) - picture[:, ::-1]).mean() < 3


def colour_video(path: Path, pixel_format: str, *, full: bool, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """One lossless frame of soft colours in this pixel format; returns the RGB picture that went in."""
    y, x = np.mgrid[: size[0], : size[1]]
    picture = np.stack([40 + 2 * x, 60 + 3 * y, 200 - x - y], -1).clip(0, 255).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
        format=pixel_format, dst_color_range="JPEG" if full else "MPEG", dst_colorspace="ITU601"
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        stream.codec_context.color_range = 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return picture


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le", "bgr0", "yuva420p"]
)
def test_colours_luma_and_sizes_are_right_in_every_format(tmp_path: Path, pixel_format: str, full: bool) -> None:
    picture = colour_video(tmp_path / "c.mkv", pixel_format, full=full).astype(float)
    [block] = VideoReader(tmp_path / "c.mkv").blocks()
    assert np.abs(block.rgb[0] - picture).mean() < 2.5
    luma = picture @ np.array([0.299, 0.587, 0.114])
    assert np.abs(block.gray[0] - luma).mean() < 1.5
    quarter = picture.reshape(12, 4, 16, 4, 3).mean((1, 3))
    for filter in ("area", "bilinear", "bicubic"):
        assert np.abs(block.resized(12, 16, filter)[0] - quarter).mean() < 4
    assert block.resized(12, 16) is block.resized(12, 16)
    assert block.resized(48, 64) is block.rgb


def test_odd_sizes_keep_every_row_and_column(tmp_path: Path) -> None:
    picture = colour_video(tmp_path / "odd.mkv", "yuv420p", full=False, size=(47, 63)).astype(float)
    [block] = VideoReader(tmp_path / "odd.mkv").blocks()
    assert block.rgb.shape == (1, 47, 63, 3)
    assert block.gray.shape == (1, 47, 63)
    error = np.abs(block.rgb[0] - picture)
    assert max(error[-1].mean(), error[:, -1].mean()) < 5
    assert block.resized(21, 33).shape == (1, 21, 33, 3)
    assert block.resized(95, 131).shape == (1, 95, 131, 3)


def test_every_filter_averages_when_it_shrinks(tmp_path: Path) -> None:
    """Fine stripes must become grey, not stripes of another width."""
    stripes = np.repeat((np.arange(256) % 2 * 255).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    with av.open(str(tmp_path / "s.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 64, "yuv444p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stripes, format="rgb24")))
        container.mux(stream.encode(None))
    [block] = VideoReader(tmp_path / "s.mkv").blocks()
    for filter in ("area", "bilinear", "bicubic"):
        assert block.resized(16, 64, filter)[0, :, 4:-4].std() < 12


def test_pictures_are_converted_once_and_only_when_asked_for(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from actionprep.pipeline.pictures import Converter

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


def test_a_stream_that_changes_its_size_keeps_the_first(tmp_path: Path) -> None:
    streams = b""
    for side in (64, 96):
        part = tmp_path / f"{side}.h264"
        with av.open(str(part), "w") as container:
            stream = container.add_stream("libx264", rate=25, options=X264)
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            for number in range(3):
                picture = np.kron(numbered_picture(number)[::16, ::16, 0], np.ones((side // 4, side // 4), np.uint8))
                frame = np.repeat(picture[..., None], 3, 2).astype(np.uint8)
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


def test_the_digest_is_of_the_bytes(videos: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "a name with: a colon.mp4"
    copy.write_bytes(videos["h264-b-frames.mp4"].read_bytes())
    assert probe(copy).digest == probe(videos["h264-b-frames.mp4"]).digest
    assert probe(videos["vp8.webm"]).digest != probe(copy).digest


# What is not video.


def reason_for(path: Path) -> str:
    with pytest.raises(InputProblem) as problem:
        probe(path)
    with pytest.raises(InputProblem) as same:
        VideoReader(path)
    assert same.value.reason == problem.value.reason
    return problem.value.reason.removeprefix(f"{path}: ")


def test_what_is_not_video_has_one_clear_reason(videos: dict[str, Path], tmp_path: Path) -> None:
    assert reason_for(tmp_path / "none.mp4") == "there is no such file."
    assert reason_for(tmp_path) == "is not a file."
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert reason_for(empty) == "is empty (0 bytes)."
    text = tmp_path / "text.mp4"
    text.write_text("These are the notes of Monday afternoon, naïve as they are.\n" * 20)
    assert reason_for(text) == "holds text, not video."
    (tmp_path / "art.txt").write_text("\x1b[31mred\n" * 50)
    assert reason_for(tmp_path / "art.txt") == "holds text or a playlist, not video."
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nh264-open-gop.ts\n#EXT-X-ENDLIST\n")
    assert "text" in reason_for(playlist)
    noise = tmp_path / "noise.avi"
    noise.write_bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes())
    assert reason_for(noise) == (
        "is not a video that FFmpeg can read (Invalid data found when processing input); it is damaged or of another "
        "kind."
    )
    picture = tmp_path / "picture.png"
    av.VideoFrame.from_ndarray(numbered_picture(1), format="rgb24").save(picture)
    assert reason_for(picture) == "holds a still picture, not video."


def test_audio_is_not_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert reason_for(path) == "has no video stream, only audio streams."


def test_an_mp4_without_its_index_is_called_by_its_name(videos: dict[str, Path], tmp_path: Path) -> None:
    data = videos["h264-b-frames.mp4"].read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: data.index(b"moov") - 100])
    assert reason_for(cut) == (
        "is an MP4 without its index (no 'moov' box), which is written when a recording ends: it was cut off, by "
        "96 bytes or more. Copy it again, or repair it with a tool for that."
    )
    cut.write_bytes(data[: data.index(b"moov") + 200])
    assert reason_for(cut) == "is an MP4 whose index is damaged. Copy it again, or repair it with a tool for that."


def test_a_video_without_frames_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "nothing.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    assert reason_for(path) in (
        "has a video stream without a single frame.",
        "has no video stream, only no streams.",
        "is not a video that FFmpeg can read (Invalid data found when processing input); it is damaged or of another "
        "kind.",
    )


# Damage.


def with_zeros(path: Path, to: Path, packets: list[int], *, skip: int = 0) -> Path:
    """A copy in which the bytes of these packets are zero."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for number, packet in enumerate(container.demux(video=0)):
            if number in packets:
                data[packet.pos + skip : packet.pos + packet.size] = bytes(packet.size - skip)
    to.write_bytes(data)
    return to


def test_a_frame_that_never_decodes_is_missing_and_the_last_good_one_stands_for_it(
    videos: dict[str, Path], tmp_path: Path
) -> None:
    path = with_zeros(videos["mjpeg.avi"], tmp_path / "bad.avi", [10, 11, 30])
    with VideoReader(path) as reader:
        [block] = reader.blocks(size=COUNT)
        assert np.flatnonzero(block.status == MISSING).tolist() == [10, 11, 30]
        numbers = read_numbers(block.rgb)
        assert numbers[:13] == [*range(10), 9, 9, 12]
        assert block.time == pytest.approx(np.arange(COUNT) / 25)
        shortfall = reader.shortfall
        assert shortfall is not None
        assert (shortfall.num_frames, shortfall.missing, shortfall.concealed, shortfall.first_bad) == (COUNT, 3, 0, 10)
        assert str(shortfall).startswith("of 40 frames: 3 missing, from frame 10 on")
        assert read_numbers(reader.frames_at([11, 12, 31, 10])) == [9, 12, 31, 9]
        picked = next(reader.blocks_at([9, 10, 12]))
        assert picked.status.tolist() == [DECODED, MISSING, DECODED]


def test_frames_lost_at_the_beginning_are_stood_for_by_the_first_good_one(
    videos: dict[str, Path], tmp_path: Path
) -> None:
    path = with_zeros(videos["mjpeg.avi"], tmp_path / "bad.avi", [0, 1])
    with VideoReader(path) as reader:
        [block] = reader.blocks(size=COUNT)
        assert block.status[:4].tolist() == [MISSING, MISSING, DECODED, DECODED]
        assert read_numbers(block.rgb)[:4] == [2, 2, 2, 3]
        assert read_numbers(reader.frames_at([0, 5])) == [2, 5]


def test_a_lost_frame_shifts_no_other_where_only_the_decoder_knows_the_order(
    videos: dict[str, Path], tmp_path: Path
) -> None:
    path = with_zeros(videos["mpeg4-b-frames.avi"], tmp_path / "bad.avi", [14])
    reader = VideoReader(path)
    [block] = reader.blocks(size=COUNT)
    good = np.flatnonzero(block.status == DECODED)
    assert len(good) >= COUNT - 4
    settled = good[(good < 10) | (good > 24)]  # around the loss the order is up to the decoder; after it, it is not
    assert np.array(read_numbers(block.rgb))[settled].tolist() == settled.tolist()


def test_an_avi_that_lost_its_beginning_has_one_order_however_it_is_read(
    videos: dict[str, Path], tmp_path: Path
) -> None:
    data = bytearray(videos["mpeg4.avi"].read_bytes())
    with av.open(str(videos["mpeg4.avi"])) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data[places[0][0] - 8 : sum(places[6]) - 3] = bytes(sum(places[6]) - 3 - places[0][0] + 8)
    path = tmp_path / "headless.avi"
    path.write_bytes(data)
    with VideoReader(path) as reader:
        whole = np.concatenate([block.rgb for block in reader.blocks()])
        for slot in range(0, len(whole), 4):
            assert np.array_equal(reader.frames_at([slot])[0], whole[slot])


def test_a_patched_frame_is_concealed(videos: dict[str, Path], tmp_path: Path) -> None:
    path = with_zeros(videos["mpeg4.avi"], tmp_path / "bad.avi", [20], skip=24)
    reader = VideoReader(path)
    [block] = reader.blocks(size=COUNT)
    assert np.flatnonzero(block.status).tolist() == [20]
    assert block.status[20] in (CONCEALED, MISSING)
    assert reader.shortfall is not None
    assert reader.shortfall.first_bad == 20


def test_a_file_of_which_nothing_decodes_is_a_problem(videos: dict[str, Path], tmp_path: Path) -> None:
    path = with_zeros(videos["mjpeg.avi"], tmp_path / "bad.avi", list(range(COUNT)))
    assert probe(path).warnings == ("no picture comes out of its first 41 packets",)
    reader = VideoReader(path)
    for attempt in (lambda: list(reader.blocks()), lambda: reader.frames_at([3])):
        with pytest.raises(InputProblem) as problem:
            attempt()
        assert problem.value.reason.startswith(f"{path}: none of its 40 frames decodes (packet 0: ")
        assert problem.value.reason.endswith("The file is damaged: replace it, or take it out of the study.")
        assert (problem.value.frame, problem.value.backend) == (0, f"PyAV {av.__version__}")


def test_a_cut_avi_says_what_its_header_promised(videos: dict[str, Path], tmp_path: Path) -> None:
    data = videos["mjpeg.avi"].read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(data[: len(data) // 2])
    facts = probe(path)
    assert facts.header_frames == COUNT
    assert facts.warnings == (
        f"the header states 40 frames and the file holds {facts.num_frames}: {40 - facts.num_frames} are lost, the "
        "file seems to be cut off",
    )
    reader = VideoReader(path)
    assert sum(len(block) for block in reader.blocks()) == facts.num_frames
    assert reader.shortfall is not None
    assert reader.shortfall.stated == 40
    assert f"{40 - facts.num_frames} more stated by the header are not in the file" in str(reader.shortfall)


FRAGILE = [
    "mpeg4.avi",
    "h264-b-frames.mp4",
    "h264-open-gop.mkv",
    "h264-open-gop.ts",
    "mpeg4-b-frames.avi",
    "mjpeg.avi",
    "vp9.webm",
]


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, or with a stretch of zeros or noise."""
    at = int(rng.integers(1, len(data)))
    length = int(rng.choice([1, 16, 200, max(1, len(data) // 5)]))
    kind = rng.integers(3)
    if kind == 0:
        return data[:at]
    filling = bytes(length) if kind == 1 else rng.integers(0, 256, length, np.uint8).tobytes()
    return (data[:at] + filling + data[at + length :])[: len(data)]


@pytest.mark.parametrize("name", FRAGILE)
def test_damage_gives_a_problem_or_every_frame_with_its_status(
    videos: dict[str, Path], name: str, tmp_path: Path
) -> None:
    data = find(videos, name).read_bytes()
    rng = np.random.default_rng(FRAGILE.index(name))
    for trial in range(12):
        path = tmp_path / f"{trial}-{name}"
        path.write_bytes(damaged(data, rng))
        try:
            facts = probe(path)
            reader = VideoReader(path)
            blocks = list(reader.blocks(size=13))
        except InputProblem:
            continue
        pictures = np.concatenate([block.rgb for block in blocks])
        status = np.concatenate([block.status for block in blocks])
        assert len(pictures) == facts.num_frames == reader.num_frames
        assert (np.diff(facts.times) > 0).all()
        if status.any():
            assert reader.shortfall is not None
            assert reader.shortfall.missing == (status == MISSING).sum()
            assert reader.shortfall.concealed == (status == CONCEALED).sum()
        wanted = rng.integers(0, len(pictures), 3)
        wanted = wanted[status[wanted] != MISSING]  # of these, beginning at a keyframe may find more
        if not name.endswith(".ts"):  # which loses packets without a trace
            assert np.array_equal(reader.frames_at(wanted), pictures[wanted])
        reader.close()
        threaded = VideoReader(path, threads=2)
        again = list(threaded.blocks(size=13))
        assert np.array_equal(np.concatenate([block.status for block in again]), status)
        assert np.array_equal(np.concatenate([block.rgb for block in again]), pictures)


# The thread that decodes ahead.


def test_a_caller_who_stops_early_stops_the_thread(videos: dict[str, Path]) -> None:
    blocks = VideoReader(videos["h264-b-frames.mp4"]).blocks(size=2)
    next(blocks)
    blocks.close()  # the fixture sees that the thread is gone


def test_an_error_in_the_thread_reaches_the_caller(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from actionprep.pipeline import video

    decode = video._demux_and_decode

    def failing(*arguments: object) -> Iterator[tuple[int, object]]:
        for number, frame in decode(*arguments):
            if number == 15:
                raise MemoryError("no room for frame 15")
            yield number, frame

    monkeypatch.setattr(video, "_demux_and_decode", failing)
    with pytest.raises(MemoryError, match="no room for frame 15"):
        list(VideoReader(videos["mjpeg.avi"]).blocks(size=4))


def test_decoding_waits_for_a_slow_caller(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from actionprep.pipeline import video

    decoded: list[int] = []
    decode = video._demux_and_decode

    def counted(*arguments: object) -> Iterator[tuple[int, object]]:
        for number, frame in decode(*arguments):
            decoded.append(number)
            yield number, frame

    monkeypatch.setattr(video, "_demux_and_decode", counted)
    monkeypatch.setattr(video, "_AHEAD_BYTES", 6 * 64 * 64 * 2)
    blocks = VideoReader(videos["mjpeg.avi"]).blocks(size=1)
    next(blocks)
    threading.Event().wait(0.3)
    assert len(decoded) < 20
    assert len(list(blocks)) == COUNT - 1


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
