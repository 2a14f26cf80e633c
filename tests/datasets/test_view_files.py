"""Settings of [study] for files that are not one plain video per view: scanned, built and shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numbered_videos import SIDE, X264, numbered_picture, read_numbers, write_numbered
from PIL import Image

from actionprep.api import open_study
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.products.frames import read_frames
from actionprep.datasets.study import StudySettings, init_study
from actionprep.datasets.video_suffixes import is_animation, is_video_file, without_video_suffix
from actionprep.errors import UserError

STREAM = "wave/GX010007.MP4"


def study_of(root: Path, text: str = "", **settings: object) -> object:
    (root / "videos").mkdir(parents=True, exist_ok=True)
    folder = init_study(root, StudySettings.read(dict(settings), where="test"), force=True)
    if text:
        folder.settings_file.write_text(folder.settings_file.read_text() + text)
    return open_study(root)


def write_parts(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = root / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_numbered(path, "libx264", 4, options=X264, first=4 * number)


def messages(study: object, kind: str) -> list[str]:
    return [str(finding.message) for finding in study.catalog.findings if finding.kind == kind]


@pytest.mark.parametrize(
    ("names", "chapters"),
    [
        (("wave/GX010007.MP4", "wave/GX020007.MP4", "wave/GX030007.MP4"), "gopro"),
        (("wave/GOPR0007.MP4", "wave/GP010007.MP4", "wave/GP020007.MP4"), "gopro"),
        (("wave/take-1.mp4", "wave/take-2.mp4", "wave/take-3.mp4"), "{recording}-{part}"),
    ],
)
def test_chapters_are_one_recording(tmp_path, names, chapters):
    write_parts(tmp_path, *names, "wave/other.mp4")
    study = study_of(tmp_path, chapters=chapters)
    ids = {recording.id: recording.label for recording in study.catalog.recordings}
    first = names[0].partition(".")[0]
    assert ids == {first: "wave", "wave/other": "wave"}
    [view] = study.catalog.views_of(first)
    assert view.times == pytest.approx(np.arange(12) / 25)
    study.build("frames", overrides={"frames": {}})
    item = study.store.item("frames", first, "0")
    assert read_numbers(read_frames(item, slice(0, 12))) == list(range(12))
    status = item["status"][:]
    assert np.flatnonzero(status == 4).tolist() == [4, 8]


def test_chapters_of_other_cameras_stay_apart(tmp_path):
    write_parts(tmp_path, "wave/GX010007.MP4", "wave/GX010008.MP4", "walk/GX010007.MP4")
    assert len(study_of(tmp_path, chapters="gopro").catalog) == 3


def test_chapters_are_reported_without_the_setting(tmp_path):
    write_parts(tmp_path, "wave/GX010007.MP4", "wave/GX020007.MP4")
    study = study_of(tmp_path)
    assert len(study.catalog) == 2
    assert messages(study, "video warning") == [
        'looks like a part of the recording that begins in GX010007.MP4; set chapters = "gopro" under [study] to read '
        "the parts as one video"
    ]


@pytest.mark.parametrize(
    ("names", "chapters", "message"),
    [
        (("a/GX010007.MP4", "a/GX030007.MP4"), "gopro", "Part 2 of a chaptered recording is missing in videos/a: it has GX010007.MP4, GX030007.MP4."),
        (("a/GX020007.MP4",), "gopro", "Part 1 of a chaptered recording is missing in videos/a: it has GX020007.MP4."),
        (("a/t-1.mp4", "a/t-01.mp4"), "{recording}-{part}", "Two files are part 1 of one recording in videos/a:"),
        (("a/t-1.mp4",), "{name}-{part}", "is neither gopro nor a pattern with {recording} and {part}"),
    ],
)  # fmt: skip
def test_chapters_errors(tmp_path, names, chapters, message):
    write_parts(tmp_path, *names)
    with pytest.raises(UserError, match=re.escape(message)):
        study_of(tmp_path, chapters=chapters).scan()


def test_changed_part_is_noticed(tmp_path):
    write_parts(tmp_path, "a/GX010007.MP4", "a/GX020007.MP4")
    assert study_of(tmp_path, chapters="gopro").catalog.views[0].num_frames == 8
    write_numbered(tmp_path / "videos/a/GX020007.MP4", "libx264", 6, options=X264)
    assert open_study(tmp_path).catalog.views[0].num_frames == 10


def test_image_folders_are_videos(tmp_path):
    folder = tmp_path / "videos/wave/take.1"
    folder.mkdir(parents=True)
    for number in range(5):
        Image.fromarray(numbered_picture(number)).save(folder / f"{number}.png")
    study = study_of(tmp_path, image_rate=20.0)
    [view] = study.catalog.views
    assert (view.recording, view.path, view.fps) == ("wave/take.1", "videos/wave/take.1", pytest.approx(20))
    assert study.catalog.recordings[0].label == "wave"
    study.build("frames")
    assert read_numbers(read_frames(study.store.item("frames", "wave/take.1", "0"), slice(0, 5))) == list(range(5))
    Image.fromarray(numbered_picture(9)).save(folder / "3.png")
    again = open_study(tmp_path)
    assert again.catalog.views[0].digest != view.digest


def test_image_folders_need_a_rate(tmp_path):
    folder = tmp_path / "videos/wave/take"
    folder.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(numbered_picture(number)).save(folder / f"{number}.png")
    with pytest.raises(
        UserError,
        match=re.escape("1 folder of numbered images, such as 'wave/take', can be read as videos: set image_rate"),
    ):
        study_of(tmp_path).scan()
    with pytest.raises(UserError, match=re.escape("Wrong value for 'image_rate' in test: got 0. Give more than 0.")):
        StudySettings.read({"image_rate": 0}, where="test")


CROPS = '\n[study.crops]\nleft = [0, 0, 32, 64]\nright = { view = "0", box = [32, 0, 32, 64] }\n'


def test_crops_are_views_of_one_file(tmp_path):
    write_parts(tmp_path, "wave/a.mp4")
    study = study_of(tmp_path, CROPS)
    assert [(view.id, view.width, view.height, view.path) for view in study.catalog.views] == [
        ("left", 32, 64, "videos/wave/a.mp4"),
        ("right", 32, 64, "videos/wave/a.mp4"),
    ]
    assert not messages(study, "same video twice")
    study.build("frames", overrides={"frames": {}})
    left, right = (read_frames(study.store.item("frames", "wave/a", view), slice(0, 4)) for view in ("left", "right"))
    whole = np.concatenate([left, right], axis=2)
    assert whole.shape == (4, 64, 64, 3)
    assert read_numbers(whole) == [0, 1, 2, 3]
    # Another box is another item; the other view is not built again.
    file = study.folder.settings_file
    file.write_text(file.read_text().replace("left = [0, 0, 32, 64]", "left = [0, 0, 32, 60]"))
    plan = open_study(tmp_path).plan("frames")
    assert {item.key.view: item.action for item in plan.items} == {"left": "build", "right": "done"}


def test_crops_keep_fingerprints_of_other_views(tmp_path):
    write_parts(tmp_path, "wave/a.mp4")
    plain = study_of(tmp_path).plan("frames").items[0]
    assert "reading" not in plain.provenance["source"]
    cropped = study_of(tmp_path, CROPS).plan("frames").items[0]
    assert cropped.provenance["source"]["reading"] == {"crop": [0, 0, 32, 64]}


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        ('left = { view = "9", box = [0, 0, 8, 8] }', "study.crops names view '9', which no recording has. Views: 0."),
        ("left = [0, 0, 0, 8]", "Give x and y of 0 or more, and a width and height of 1 or more"),
        ("left = { box = [0, 0, 8, 8], steam = 1 }", "Unknown setting 'crops.left.steam'"),
    ],
)
def test_crops_errors(tmp_path, crops, message):
    write_parts(tmp_path, "wave/a.mp4")
    with pytest.raises(UserError, match=re.escape(message)):
        study_of(tmp_path, f"\n[study.crops]\n{crops}\n").scan()


def test_crop_beyond_the_frame_is_unreadable(tmp_path):
    write_parts(tmp_path, "wave/a.mp4")
    study = study_of(tmp_path, "\n[study.crops]\nleft = [0, 0, 32, 65]\n")
    [view] = study.catalog.views
    assert view.status == "unreadable"
    assert (
        "the box [0, 0, 32, 65] (x, y, width, height) in study.crops reaches beyond the frame of 64 x 64 px"
        in view.reason
    )


def test_show_draws_the_crop(tmp_path):
    from actionprep.show.products import _video

    write_parts(tmp_path, "wave/a.mp4")
    study = study_of(tmp_path, CROPS)
    images, _ = _video(study, "wave/a", "right")
    assert (images.height, images.width) == (SIDE, SIDE // 2)


def test_calibration_is_in_the_catalog(tmp_path):
    write_parts(tmp_path, "wave/a.mp4")
    cameras = "".join(
        f'[cam_{number}]\nname = "cam_{number}"\nsize = [64, 64]\nmatrix = [[90.0, 0.0, 32.0], [0.0, 90.0, 32.0], [0.0, 0.0, 1.0]]\n'
        f"distortions = [0.1, 0.0, 0.0, 0.0, 0.0]\nrotation = [0.0, 0.0, 0.1]\ntranslation = [0.0, 0.0, {number}.5]\n"
        for number in (0, 1)
    )
    (tmp_path / "calibration.toml").write_text(cameras)
    study = study_of(tmp_path, calibration="calibration.toml")
    [camera] = Catalog.read(study.folder.catalog).cameras if study.catalog else []
    assert (camera.view, camera.source, camera.translation.tolist()) == ("0", "anipose", [0, 0, 0.5])
    assert study.catalog.camera("0").matrix[0, 0] == 90
    assert messages(study, "camera not used") == ["camera 'cam_1' is no view; views: 0"]
    (tmp_path / "calibration.toml").write_text(cameras.replace("0.5]", "0.75]"))
    assert open_study(tmp_path).catalog.camera("0").translation[2] == 0.75
    with pytest.raises(UserError, match=r"No calibrated camera for view '1'\. Calibrated views: 0"):
        study.catalog.camera("1")


def test_calibration_of_full_frames_follows_the_crop(tmp_path):
    write_parts(tmp_path, "wave/a.mp4")
    text = (
        '[right]\nname = "right"\nsize = [64, 64]\nmatrix = [[90.0, 0.0, 40.0], [0.0, 90.0, 32.0], [0.0, 0.0, 1.0]]\n'
        "distortions = [0.0, 0.0, 0.0, 0.0]\nrotation = [0.0, 0.0, 0.0]\ntranslation = [0.0, 0.0, 0.0]\nfisheye = false\n"
    )
    (tmp_path / "calibration.toml").write_text(text)
    camera = study_of(tmp_path, CROPS, calibration="calibration.toml").catalog.camera("right")
    assert (camera.width, camera.matrix[0, 2], camera.unit) == (32, 8.0, "m")


def test_is_animation_by_content(tmp_path):
    images = [Image.fromarray(numbered_picture(number)) for number in range(3)]
    for suffix in ("gif", "webp"):
        images[0].save(tmp_path / f"still.{suffix}")
        images[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=images[1:], duration=40)
        assert not is_animation(tmp_path / f"still.{suffix}")
        assert is_animation(tmp_path / f"moving.{suffix}")
        assert is_video_file(tmp_path / f"moving.{suffix}")
    (tmp_path / "cut.gif").write_bytes((tmp_path / "moving.gif").read_bytes()[:40])
    assert is_animation(tmp_path / "cut.gif")


def test_without_video_suffix_new_suffixes():
    names = ["a.h264", "a.VOB", "a.gif", "P01.2", "a.webp"]
    assert [without_video_suffix(name) for name in names] == ["a", "a", "a", "P01.2", "a"]
