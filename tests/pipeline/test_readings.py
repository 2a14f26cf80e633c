"""Videos that are more than one plain file: parts, folders of images, animations, streams and crops."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import B_FRAMES, SIDE, X264, numbered_picture, read_numbers, write_numbered
from PIL import Image

from actionprep.datasets.view_reading import Reading, content_digest
from actionprep.errors import InputError
from actionprep.pipeline.decoding import DECODED, JOINED, LETTERBOXED, MISSING
from actionprep.pipeline.probe import probe
from actionprep.pipeline.readers import open_reader

pytestmark = pytest.mark.usefixtures("_no_thread_stays")


def numbers_of(path: Path, reading: Reading = Reading()) -> list[int]:
    with open_reader(path, reading) as reader:
        return [number for block in reader.blocks(size=7) for number in read_numbers(block.rgb)]


def statuses_of(path: Path, reading: Reading = Reading()) -> list[int]:
    with open_reader(path, reading) as reader:
        return [int(status) for block in reader.blocks(size=7) for status in block.status]


def write_images(folder: Path, numbers: list[int], suffix: str = "png") -> Path:
    folder.mkdir()
    for value, number in enumerate(numbers):
        Image.fromarray(numbered_picture(value)).save(folder / f"frame_{number}.{suffix}")
    return folder


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.h264", "libx264", B_FRAMES),
        ("v.mjpeg", "mjpeg", {}),
        ("v.asf", "mpeg4", {}),
        ("v.vob", "mpeg2video", {"g": "12", "bf": "2"}),
        ("v.mxf", "mpeg2video", {"g": "12"}),
        ("v.gif", "gif", {}),
    ],
)
def test_containers_decode_every_frame(tmp_path, name, codec, options):
    formats = {"mjpeg": "yuvj420p", "gif": "rgb8"}
    path = write_numbered(tmp_path / name, codec, 20, options=options, pixel_format=formats.get(codec, "yuv420p"))
    facts = probe(path)
    assert (facts.num_frames, facts.width, facts.height) == (20, SIDE, SIDE)
    assert facts.times == pytest.approx(np.arange(20) / 25, abs=0.0051)
    assert numbers_of(path) == list(range(20))
    with open_reader(path) as reader:
        assert read_numbers(reader.frames_at([13, 2, 19])) == [13, 2, 19]


@pytest.mark.parametrize(("name", "codec"), [("v.h264", "libx264"), ("v.mjpeg", "mjpeg")])
def test_rate_of_streams_without_clock(tmp_path, name, codec):
    options = B_FRAMES if codec == "libx264" else {}
    pixels = "yuv420p" if codec == "libx264" else "yuvj420p"
    path = write_numbered(tmp_path / name, codec, 12, options=options, pixel_format=pixels)
    facts = probe(path, Reading(rate=100.0))
    assert facts.times == pytest.approx(np.arange(12) / 100)
    assert facts.fps == pytest.approx(100)
    assert facts.duration == pytest.approx(0.12)
    assert facts.warnings == ()


def test_rate_of_a_file_with_a_clock_is_not_changed(tmp_path):
    path = write_numbered(tmp_path / "v.mp4", "libx264", 5, options=X264)
    assert probe(path, Reading(rate=100.0)).times == pytest.approx(np.arange(5) / 25)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_image_folder_is_a_video(tmp_path, suffix):
    # Sorted as text, 10 comes before 9.
    folder = write_images(tmp_path / "images", list(range(5, 17)), suffix)
    facts = probe(folder, Reading(rate=50.0))
    assert facts.times == pytest.approx(np.arange(12) / 50)
    assert (facts.fps, facts.duration) == (pytest.approx(50), pytest.approx(0.24))
    assert numbers_of(folder, Reading(rate=50.0)) == list(range(12))
    with open_reader(folder, Reading(rate=50.0)) as reader:
        assert read_numbers(reader.frames_at([9, 0, 4])) == [9, 0, 4]


def test_image_folder_gap_is_a_gap_in_time(tmp_path):
    folder = write_images(tmp_path / "images", [1, 2, 5, 6])
    facts = probe(folder, Reading(rate=10.0))
    assert facts.times == pytest.approx([0, 0.1, 0.4, 0.5])
    assert facts.warnings == (
        "2 of the numbers 1 to 6 have no image, the first after frame_2.png: times follow the numbers",
    )


def test_image_folder_damaged_image_repeats(tmp_path):
    folder = write_images(tmp_path / "images", [1, 2, 3])
    (folder / "frame_2.png").write_bytes(b"no image at all")
    reading = Reading(rate=10.0)
    assert numbers_of(folder, reading) == [0, 0, 2]
    assert statuses_of(folder, reading) == [DECODED, MISSING, DECODED]
    with open_reader(folder, reading) as reader:
        assert read_numbers(reader.frames_at([1])) == [0]
        list(reader.blocks())
        assert reader.shortfall is not None
        assert reader.shortfall.missing == 1


def test_image_folder_errors(tmp_path):
    folder = write_images(tmp_path / "images", [1, 2])
    with pytest.raises(
        InputError, match=re.escape("have no times. Set image_rate, in frames per second, under [study].")
    ):
        probe(folder, Reading())
    Image.fromarray(numbered_picture(0)).save(folder / "other_2.png")
    with pytest.raises(InputError, match="two images have the number 2: frame_2"):
        probe(folder, Reading(rate=10.0))
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="is a folder without numbered images"):
        probe(folder, Reading(rate=10.0))


def test_image_folder_size_change_is_letterboxed(tmp_path):
    folder = write_images(tmp_path / "images", [1, 2])
    Image.fromarray(np.full((64, 32, 3), 255, np.uint8)).save(folder / "frame_3.png")
    assert statuses_of(folder, Reading(rate=10.0)) == [DECODED, DECODED, LETTERBOXED]


@pytest.mark.parametrize("name", ["v.webp", "v.dat"])
def test_animated_webp_by_content(tmp_path, name):
    images = [Image.fromarray(numbered_picture(number)) for number in range(6)]
    path = tmp_path / name
    images[0].save(
        path, "WEBP", save_all=True, append_images=images[1:], duration=[40, 40, 100, 40, 40, 20], lossless=True
    )
    facts = probe(path)
    assert facts.times == pytest.approx([0, 0.04, 0.08, 0.18, 0.22, 0.26])
    assert facts.duration == pytest.approx(0.28)
    assert numbers_of(path) == list(range(6))
    with open_reader(path) as reader:
        assert read_numbers(reader.frames_at([4, 1])) == [4, 1]


def test_animated_webp_damaged(tmp_path):
    images = [Image.fromarray(numbered_picture(number)) for number in range(3)]
    path = tmp_path / "v.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=40)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="is a damaged animated WebP"):
        probe(path)


def two_streams(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25, options=X264) for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.width = stream.height = SIDE * (2 - number)
            stream.pix_fmt = "yuv420p"
        for index in range(6):
            for number, stream in enumerate(streams):
                picture = numbered_picture(index + 100 * number).repeat(2 - number, 0).repeat(2 - number, 1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["v.mkv", "v.mp4"])
def test_stream_is_chosen(tmp_path, name):
    path = two_streams(tmp_path / name)
    assert numbers_of(path, Reading(stream=1)) == list(range(100, 106))
    assert numbers_of(path, Reading(stream=0)) == list(range(6))
    assert (probe(path, Reading(stream=1)).width, probe(path, Reading(stream=0)).width) == (SIDE, 2 * SIDE)
    with open_reader(path, Reading(stream=1)) as reader:
        assert read_numbers(reader.frames_at([5, 2])) == [105, 102]
    assert probe(path, Reading(stream=1)).warnings == ()
    [warning] = probe(path).warnings
    assert warning.startswith("has 2 video streams (0: 128 x 128, 1: 64 x 64); stream 0 is read.")
    with pytest.raises(InputError, match="has 2 video streams, and stream 2 is to be read, counted from 0"):
        probe(path, Reading(stream=2))


def test_parts_are_one_video(tmp_path):
    counts = (10, 8, 5)
    firsts = np.cumsum((0, *counts))
    paths = [
        write_numbered(
            tmp_path / f"GX0{number + 1}0001.MP4", "libx264", count, options=B_FRAMES, rate=30, first=int(first)
        )
        for number, (count, first) in enumerate(zip(counts, firsts, strict=False))
    ]
    reading = Reading(parts=tuple(map(str, paths[1:])))
    facts = probe(paths[0], reading)
    assert facts.times == pytest.approx(np.arange(23) / 30, abs=1e-6)
    assert facts.duration == pytest.approx(23 / 30, abs=1e-6)
    assert numbers_of(paths[0], reading) == list(range(23))
    assert [at for at, status in enumerate(statuses_of(paths[0], reading)) if status == JOINED] == [10, 18]
    with open_reader(paths[0], reading) as reader:
        assert read_numbers(reader.frames_at([22, 0, 10, 17])) == [22, 0, 10, 17]
        assert [n for block in reader.blocks_at([9, 10, 21]) for n in read_numbers(block.rgb)] == [9, 10, 21]


def test_parts_damage_is_counted_over_all(tmp_path):
    paths = [
        write_numbered(tmp_path / f"{part}.mkv", "libx264", 12, options=X264, first=12 * part) for part in range(2)
    ]
    data = bytearray(paths[1].read_bytes())
    data[len(data) * 3 // 4 : len(data) * 3 // 4 + 200] = bytes(200)
    paths[1].write_bytes(data)
    reading = Reading(parts=(str(paths[1]),))
    with open_reader(paths[0], reading) as reader, open_reader(paths[1]) as alone:
        list(reader.blocks())
        list(alone.blocks())
        assert alone.shortfall is not None
        assert reader.shortfall is not None
        assert reader.shortfall.first_bad == alone.shortfall.first_bad + 12
        assert (
            reader.shortfall.missing + reader.shortfall.concealed == alone.shortfall.missing + alone.shortfall.concealed
        )


def test_parts_of_another_size_are_reported(tmp_path):
    first = write_numbered(tmp_path / "1.mp4", "libx264", 3, options=X264)
    second = two_streams(tmp_path / "2.mp4")
    reading = Reading(parts=(str(second),))
    assert (
        "2.mp4 has frames of 128 x 128 px, and the first part has 64 x 64: they are scaled to that"
        in (probe(first, reading).warnings[-1])
    )
    assert statuses_of(first, reading) == [DECODED] * 3 + [LETTERBOXED] * 6


def test_digest_of_parts_follows_the_content(tmp_path):
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_bytes(file.name.encode())
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in "ab"]
    expected = hashlib.sha256("".join(f" {each}\n" for each in hashes).encode()).hexdigest()
    assert content_digest(files[0], files[1:]) == expected
    assert content_digest(files[0]) == hashes[0]


@pytest.mark.parametrize("box", [(0, 0, 32, 64), (13, 7, 20, 31), (0, 0, SIDE, SIDE)])
def test_crop_is_the_rectangle_of_the_frame(tmp_path, box):
    path = write_numbered(tmp_path / "v.mp4", "libx264", 6, options=X264)
    x, y, width, height = box
    with open_reader(path) as full, open_reader(path, Reading(crop=box)) as crop:
        assert (crop.height, crop.width) == (height, width)
        [whole], [part] = list(full.blocks()), list(crop.blocks())
        assert (part.rgb == whole.rgb[:, y : y + height, x : x + width]).all()
        assert (part.gray == whole.gray[:, y : y + height, x : x + width]).all()
        assert (crop.frames_at([4]) == full.frames_at([4])[:, y : y + height, x : x + width]).all()
        assert part.resized(10, 12).shape == (6, 10, 12, 3)


def test_crop_is_in_displayed_pixels(tmp_path):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, 48:] = 255  # displayed: 64 wide, 96 high, and the bright half at the top
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=X264)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(90)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    top, bottom = Reading(crop=(0, 0, 64, 44)), Reading(crop=(0, 52, 64, 44))
    facts = probe(path, bottom)
    assert (facts.width, facts.height) == (64, 44)
    with open_reader(path, top) as bright, open_reader(path, bottom) as dark:
        assert bright.frames_at([0]).min() > 200
        assert dark.frames_at([0]).max() < 50


def test_crop_beyond_the_frame(tmp_path):
    path = write_numbered(tmp_path / "v.mp4", "libx264", 2, options=X264)
    with pytest.raises(
        InputError, match=re.escape("the box [40, 0, 32, 64] (x, y, width, height) in study.crops reaches")
    ):
        probe(path, Reading(crop=(40, 0, 32, 64)))


def test_reading_roundtrip():
    for reading in (Reading(), Reading(29.97, 1, ("b", "ü"), (1, 2, 3, 4))):
        assert Reading.from_json(reading.to_json()) == reading
    assert Reading().to_json() == ""
    for damaged in ('{"crop": [1]}', '{"code": 1}', "[", '{"rate": -1}'):
        with pytest.raises(ValueError, match=r".+"):
            Reading.from_json(damaged)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_image_folder_follows_exif(tmp_path, orientation, turns):
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32] = 255
    exif = Image.Exif()
    exif[274] = orientation
    for number in range(2):
        Image.fromarray(picture).save(tmp_path / f"{number}.jpg", exif=exif, quality=100)
    with open_reader(tmp_path, Reading(rate=10.0)) as reader:
        assert reader.frames_at([0])[0] == pytest.approx(np.rot90(picture, turns), abs=40)
