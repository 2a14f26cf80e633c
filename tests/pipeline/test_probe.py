"""Tests of probing videos: frame times, rates, warnings and digest."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import B_FRAMES, HEVC, SIDE, numbered_picture, read_number, read_numbers, write_numbered

from actionprep.pipeline.probe import probe
from actionprep.pipeline.video import VideoReader

pytestmark = pytest.mark.usefixtures("_no_thread_stays")


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


def test_a_stream_without_any_times_is_spread_evenly_and_says_so(videos: dict[str, Path]) -> None:
    facts = probe(videos["h264-bare.h264"])
    assert facts.warnings == (
        "the stream has no clock: 25 frames per second are assumed. Set raw_rate under [study] to the rate of the camera",
    )


def test_the_digest_is_of_the_bytes(videos: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "a name with: a colon.mp4"
    copy.write_bytes(videos["h264-b-frames.mp4"].read_bytes())
    assert probe(copy).digest == probe(videos["h264-b-frames.mp4"]).digest
    assert probe(videos["vp8.webm"]).digest != probe(copy).digest


def write_with_audio(path: Path, *, video_s: float, audio_s: float) -> Path:
    """Write 50 numbered frames and 5 s of silence; each stream starts at its own time."""
    rate, tick = 48000, Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options=B_FRAMES)
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = tick
        audio = container.add_stream("mp2" if path.suffix == ".ts" else "aac", rate=rate)
        audio.layout = "mono"
        frame_size = 1152 if path.suffix == ".ts" else 1024
        packets = []
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            frame.pts, frame.time_base = round(video_s * 1000) + 40 * number, tick
            packets += video.encode(frame)
        packets += video.encode(None)
        for number in range(5 * rate // frame_size):
            silence = np.zeros((1, frame_size), np.int16 if path.suffix == ".ts" else np.float32)
            sound = av.AudioFrame.from_ndarray(silence, format="s16" if path.suffix == ".ts" else "fltp", layout="mono")
            sound.sample_rate, sound.time_base = rate, Fraction(1, rate)
            sound.pts = round(audio_s * rate) + number * frame_size
            packets += audio.encode(sound)
        packets += audio.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize(("video_s", "audio_s", "late"), [(1.5, 0.0, 1.5), (0.5, 2.0, 0.0), (2.0, 1.0, 1.0)])
def test_probe_file_start_is_the_earliest_stream(
    tmp_path: Path, suffix: str, video_s: float, audio_s: float, late: float
) -> None:
    facts = probe(write_with_audio(tmp_path / f"v.{suffix}", video_s=video_s, audio_s=audio_s))
    # The encoder's priming samples come before the audio; one audio frame lasts 24 ms.
    assert facts.start - facts.file_start == pytest.approx(late, abs=0.025)
    assert late or facts.start == facts.file_start


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg")
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_probe_file_start_agrees_with_seeking_by_ffmpeg(tmp_path: Path, suffix: str) -> None:
    path = write_with_audio(tmp_path / f"v.{suffix}", video_s=1.5, audio_s=0.0)
    facts = probe(path)
    shown = tmp_path / "shown.png"
    subprocess.run(["ffmpeg", "-v", "error", "-ss", "2.53", "-i", path, "-frames:v", "1", shown], check=True)
    with av.open(str(shown)) as image:
        [number] = [read_number(frame.to_ndarray(format="rgb24")) for frame in image.decode(video=0)]
    times = facts.start - facts.file_start + facts.times
    assert number == int(np.argmax(times >= 2.53))


def test_probe_file_start_applies_edit_lists(tmp_path: Path) -> None:
    # The muxer writes an edit list that cuts the frames with negative times.
    path = write_numbered(
        tmp_path / "cut.mp4", "libx264", 30, options=B_FRAMES, pts=range(-400, 800, 40), time_base=Fraction(1, 1000)
    )
    facts = probe(path)
    assert facts.start == facts.file_start
    assert [number for block in VideoReader(path).blocks() for number in read_numbers(block.rgb)][-1] == 29


def test_probe_of_a_video_that_begins_late_is_not_cut_off(tmp_path: Path) -> None:
    pts = range(20_000, 22_000, 40)
    path = write_numbered(tmp_path / "v.webm", "libvpx", 50, pts=pts, time_base=Fraction(1, 1000))
    facts = probe(path)
    assert (facts.start, facts.file_start, facts.warnings) == (20.0, 20.0, ())


@pytest.mark.parametrize("name", ["h264-b-frames.flv", "h264-open-gop.mkv"])
def test_probe_reports_joined_files_that_ffmpeg_does_not_read(
    tmp_path: Path, videos: dict[str, Path], name: str
) -> None:
    path = tmp_path / name
    assert not [warning for warning in probe(videos[name]).warnings if "joined" in warning]
    path.write_bytes(videos[name].read_bytes() * 3)
    facts = probe(path)
    [warning] = [warning for warning in facts.warnings if "joined" in warning]
    assert facts.num_frames < 120
    percent = int(warning.partition("%")[0])
    assert percent == pytest.approx(100 * (1 - facts.num_frames / 120), abs=5)
    assert "of the file comes after its last video packet: if files were joined to it" in warning


def write_avi(path: Path, kept: list[int]) -> Path:
    """Write an AVI with dropped frames, for which the muxer writes empty chunks."""
    return write_numbered(path, "mpeg4", len(kept), pts=kept, time_base=Fraction(1, 25))


def test_probe_of_avi_with_dropped_frames(tmp_path: Path) -> None:
    kept = [number for number in range(60) if number % 3 != 1]
    path = write_avi(tmp_path / "v.avi", kept)
    facts = probe(path)
    assert facts.header_frames == 60
    assert facts.times == pytest.approx(np.array(kept) / 25)
    assert facts.warnings == ()
    with VideoReader(path) as reader:
        assert sum(len(block) for block in reader.blocks()) == len(kept)
        assert reader.shortfall is None


def test_probe_of_avi_cut_off(tmp_path: Path) -> None:
    path = write_avi(tmp_path / "v.avi", [number for number in range(60) if number % 3 != 1])
    data = path.read_bytes()
    path.write_bytes(data[: (data.index(b"movi") + data.index(b"idx1")) // 2])
    [warning] = probe(path).warnings
    assert warning.startswith("the header states 60 frames and the file contains ")
    assert warning.endswith(" are lost, the file seems to be cut off")


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG"), (1, "")])
def test_probe_reports_hdr(tmp_path: Path, transfer: int, name: str) -> None:
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25, options=HEVC)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p10le"
        stream.codec_context.color_trc = transfer
        for number in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")))
        container.mux(stream.encode(None))
    expected = f"its colors are HDR ({name}) and are stored without tone mapping"
    assert [warning.startswith(expected) for warning in probe(path).warnings] == ([True] if name else [])
