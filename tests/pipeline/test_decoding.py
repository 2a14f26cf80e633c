"""Tests of decoding damaged videos, and of the thread that decodes ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import COUNT, find, read_numbers

from actionprep.errors import InputError
from actionprep.pipeline import decoding, video
from actionprep.pipeline.decoding import CONCEALED, DECODED, MISSING
from actionprep.pipeline.probe import probe
from actionprep.pipeline.video import VideoReader

pytestmark = pytest.mark.usefixtures("_no_thread_stays")


def with_zeros(path: Path, to: Path, packets: list[int], *, skip: int = 0) -> Path:
    """Write a copy with the bytes of these packets set to zero."""
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
        expected = np.concatenate([block.rgb for block in reader.blocks()])
        for slot in range(0, len(expected), 4):
            assert np.array_equal(reader.frames_at([slot])[0], expected[slot])


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
    assert probe(path).warnings == ("no frame decodes from its first 41 packets",)
    reader = VideoReader(path)
    for attempt in (lambda: list(reader.blocks()), lambda: reader.frames_at([3])):
        with pytest.raises(InputError) as problem:
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
        f"the header states 40 frames and the file contains {facts.num_frames}: {40 - facts.num_frames} are lost, the "
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
    """Truncate data, or overwrite a range with zeros or noise."""
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
        except InputError:
            continue
        images = np.concatenate([block.rgb for block in blocks])
        status = np.concatenate([block.status for block in blocks])
        assert len(images) == facts.num_frames == reader.num_frames
        assert (np.diff(facts.times) > 0).all()
        if status.any():
            assert reader.shortfall is not None
            assert reader.shortfall.missing == (status == MISSING).sum()
            assert reader.shortfall.concealed == (status == CONCEALED).sum()
        wanted = rng.integers(0, len(images), 3)
        wanted = wanted[status[wanted] != MISSING]  # of these, beginning at a keyframe may find more
        if not name.endswith(".ts"):  # which loses packets without a trace
            assert np.array_equal(reader.frames_at(wanted), images[wanted])
        reader.close()
        threaded = VideoReader(path, threads=2)
        again = list(threaded.blocks(size=13))
        assert np.array_equal(np.concatenate([block.status for block in again]), status)
        assert np.array_equal(np.concatenate([block.rgb for block in again]), images)


def test_a_caller_who_stops_early_stops_the_thread(videos: dict[str, Path]) -> None:
    blocks = VideoReader(videos["h264-b-frames.mp4"]).blocks(size=2)
    next(blocks)
    blocks.close()  # the fixture sees that the thread is gone


def test_an_error_in_the_thread_reaches_the_caller(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decode = video.demux_and_decode

    def failing(*arguments: object) -> Iterator[tuple[int, object]]:
        for number, frame in decode(*arguments):
            if number == 15:
                raise MemoryError("no room for frame 15")
            yield number, frame

    monkeypatch.setattr(video, "demux_and_decode", failing)
    with pytest.raises(MemoryError, match="no room for frame 15"):
        list(VideoReader(videos["mjpeg.avi"]).blocks(size=4))


def test_decoding_waits_for_a_slow_caller(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = video.demux_and_decode

    def counted(*arguments: object) -> Iterator[tuple[int, object]]:
        for number, frame in decode(*arguments):
            decoded.append(number)
            yield number, frame

    monkeypatch.setattr(video, "demux_and_decode", counted)
    monkeypatch.setattr(decoding, "AHEAD_BYTES", 6 * 64 * 64 * 2)
    blocks = VideoReader(videos["mjpeg.avi"]).blocks(size=1)
    next(blocks)
    threading.Event().wait(0.3)
    assert len(decoded) < 20
    assert len(list(blocks)) == COUNT - 1
