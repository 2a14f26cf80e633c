"""Tests of messages for files that are not readable videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import numbered_picture
from recordings import moving_square, write_video

from actionprep.api import make_study, open_study
from actionprep.errors import InputError
from actionprep.pipeline.probe import probe
from actionprep.pipeline.video import VideoReader

pytestmark = pytest.mark.usefixtures("_no_thread_stays")


def reason_for(path: Path) -> str:
    with pytest.raises(InputError) as problem:
        probe(path)
    with pytest.raises(InputError) as same:
        VideoReader(path)
    assert same.value.reason == problem.value.reason
    return problem.value.reason.removeprefix(f"{path}: ")


def test_what_is_not_video_has_one_clear_reason(videos: dict[str, Path], tmp_path: Path) -> None:
    assert reason_for(tmp_path / "none.mp4") == "there is no such file."
    with pytest.raises(InputError, match=r"is a folder without numbered images\."):
        probe(tmp_path)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert reason_for(empty) == "is empty (0 bytes)."
    text = tmp_path / "text.mp4"
    text.write_text("These are the notes of Monday afternoon, naïve as they are.\n" * 20)
    assert reason_for(text) == "contains text, not video."
    (tmp_path / "art.txt").write_text("\x1b[31mred\n" * 50)
    assert reason_for(tmp_path / "art.txt") == "contains text or a playlist, not video."
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nh264-open-gop.ts\n#EXT-X-ENDLIST\n")
    assert "text" in reason_for(playlist)
    noise = tmp_path / "noise.avi"
    noise.write_bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes())
    assert reason_for(noise) == (
        "is not a video that FFmpeg can read (Invalid data found when processing input); it is damaged or of another "
        "kind."
    )
    image = tmp_path / "image.png"
    av.VideoFrame.from_ndarray(numbered_picture(1), format="rgb24").save(image)
    assert reason_for(image) == "contains a still image, not video."


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


def headless_stream(path: Path) -> Path:
    """Write an H.264 stream in TS without its only keyframe, which follows the parameter sets."""
    complete = write_video(path.with_suffix(".mkv"), moving_square(330), g="1000", preset="ultrafast")
    with av.open(str(complete)) as source, av.open(str(path), "w") as cut:
        stream = cut.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number and packet.dts is not None:
                packet.stream = stream
                cut.mux(packet)
    complete.unlink()
    return path


def test_video_without_frame_size_is_no_video(tmp_path: Path) -> None:
    path = headless_stream(tmp_path / "videos/walk/cut.ts")
    with pytest.raises(InputError, match=r"none of its \d+ packets decodes to a frame.*frame size.*again"):
        probe(path)
    for number in range(2):
        write_video(tmp_path / f"videos/run/{number}.mp4", moving_square(12, seed=number))
    study, _ = make_study(tmp_path, {}, force=True)
    study.folder.change("lowres", "sizes", (16,))
    report = open_study(tmp_path).build("lowres", "masks")
    assert {str(key) for key in report.built} == {f"{one}/run/{at}/0" for one in ("lowres", "masks") for at in (0, 1)}
    assert {key.recording for key in report.quarantined} == {"walk/cut"}


def test_catalog_with_a_video_of_no_size(tmp_path: Path) -> None:
    for number in range(2):
        write_video(tmp_path / f"videos/run/{number}.mp4", moving_square(12, seed=number))
    study, _ = make_study(tmp_path, {}, force=True)
    study.folder.change("lowres", "sizes", (16,))
    catalog = study.scan().catalog
    first, second = catalog.views
    replace(catalog, views=(replace(first, height=0, width=0), second)).write(study.folder.catalog)
    report = open_study(tmp_path).build("lowres", "tracks")
    assert {key.recording for key in report.built} == {"run/1"}
    assert {reason for reason in report.quarantined.values() if "frame size" in reason} == {
        "videos/run/0.mp4 has no frame size. Run 'actionprep scan --again' to see why."
    }
