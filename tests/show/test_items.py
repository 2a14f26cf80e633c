"""`show_item` draws the products of a study in the right places, and reports missing products."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from show_fakes import HEIGHT, WIDTH, decoded_frames, gray_of, make_study, plain_scene, read_image, write_tracks

from actionprep.api import Study
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.products.masks import pack_masks
from actionprep.datasets.products.snippets import write_snippets
from actionprep.datasets.segments import Segment
from actionprep.datasets.snippets import LabelRule, make_snippets
from actionprep.errors import UserError
from actionprep.show import show_item
from actionprep.show.charts import colors_of
from actionprep.show.contact import common_moments, contact_sheet, spread
from actionprep.show.images import JointGround
from actionprep.show.products import X_TO_THE_LEFT, keyframes_scene, lowres_scene, pose_scene, tracks_scene, video_scene

TAKE = "kitchen/take.1"
SEGMENTS = (Segment(0.0, 0.9, "sit"), Segment(0.9, 1.9, "rise"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A read-only study with every product of one recording."""
    made = make_study(tmp_path_factory.mktemp("show") / "study", segments=SEGMENTS)
    for view in "ab":
        write_tracks(made, view)
        write_masks(made, view)
        write_pose(made, view)
    times = made.catalog.view(TAKE, "a").times
    rgb = np.stack([np.full((HEIGHT, WIDTH, 3), gray_of(number), np.uint8) for number in range(20)])
    with write(made, "frames") as item:
        index = np.arange(0, 20, 2)
        for name, values in (("time", times[index]), ("status", np.uint8([0] * 9 + [1])), ("index", index)):
            item.write(name, values, axes=("time",))
        item.write("rgb", rgb[index], axes=("time", "y", "x", "channel"))
        item.attributes.update(height=HEIGHT, width=WIDTH, storage="raw", num_frames=20)
    with write(made, "keyframes") as item:
        for name, values in (
            ("index", np.int64([3, 11])),
            ("time", times[[3, 11]]),
            ("score", np.float32([0.5, 0.25])),
        ):
            item.write(name, values, axes=("keyframe",))
        item.attributes.update(num_frames=20, sampler="motion")
    with write(made, "lowres") as item:
        item.write("time", times, axes=("time",))
        item.write("status", np.zeros(20, np.uint8), axes=("time",))
        for size in (16, 32):
            item.write(f"rgb_{size}", rgb[:, :size, :size], axes=("time", "y", "x", "channel"))
        item.attributes["sizes"] = {"rgb_16": [16, 16], "rgb_32": [32, 32]}
    table = make_snippets(made.catalog, LabelRule(background="nothing"), length_s=0.5)
    for name in ("default", "short"):
        with made.store.write("snippets", name, fingerprint="f", provenance={}) as item:
            write_snippets(table, item)
    with made.store.write("split", "default", fingerprint="f", provenance={}) as item:
        item.write("part", np.uint8([[1]]), axes=("fold", "recording"))
        item.attributes.update(recordings=[TAKE], by="recording")
    return made


def write(study: Study, product: str, view: str = "a"):
    return study.store.write(product, TAKE, view, fingerprint="f", provenance={})


def write_masks(study: Study, view: str) -> None:
    num_frames = study.catalog.view(TAKE, view).num_frames
    foreground = np.zeros((num_frames, HEIGHT, WIDTH), bool)
    foreground[:, 30:60, 40:80] = True
    with write(study, "masks", view) as item:
        item.write("foreground", pack_masks(foreground), axes=("frame", "y", "x_packed"))
        item.write("area", foreground.mean(axis=(1, 2)).astype(np.float32), axes=("frame",))
        item.attributes.update(source="files", width=WIDTH, num_empty=0)


def write_pose(study: Study, view: str, *, dimensions: int = 2, with_time: bool = True) -> None:
    actual = study.catalog.view(TAKE, view)
    keypoints = np.zeros((actual.num_frames, 1, 17, dimensions), np.float32)
    keypoints[..., 0] = 64
    keypoints[..., 1] = np.linspace(20, 80, 17)
    with write(study, "pose", view) as item:
        item.write("keypoints", keypoints, axes=("time", "person", "joint", "xy"))
        item.write("score", np.full(keypoints.shape[:3], 0.8, np.float32), axes=("time", "person", "joint"))
        item.write("track_id", np.zeros(keypoints.shape[:2], np.int64), axes=("time", "person"))
        if with_time:
            item.write("time", actual.times, axes=("time",))
        item.attributes.update(skeleton="coco17", estimator="imported")


def test_a_sheet_goes_to_the_study_by_default(study: Study) -> None:
    path = show_item(study, "tracks", TAKE)
    assert path == study.root / "show" / "tracks-kitchen_take.1.png"
    assert read_image(path).shape[1] > 400


def test_show_names_images_of_views_and_reports_replaced_files(study: Study) -> None:
    replaced: list[Path] = []
    path = show_item(study, "tracks", TAKE, views=["b"], rows=1, columns=1, replacing=replaced.append)
    assert (path.name, replaced) == ("tracks-kitchen_take.1-b.png", [])
    show_item(study, "tracks", TAKE, views=["b"], rows=1, columns=1, replacing=replaced.append)
    assert replaced == [path]


def test_show_reports_an_unknown_view_with_valid_options(study: Study) -> None:
    with pytest.raises(UserError, match=r"No view 'all' in recording") as raised:
        show_item(study, "tracks", TAKE, views=["all"])
    assert "skip-incomplete" not in str(raised.value)
    assert str(raised.value).endswith("Select views with --views.")


class Held(dict):
    """Arrays with the interface of a stored item."""

    attributes: ClassVar[dict[str, object]] = {}


@pytest.mark.parametrize(("layout", "side"), [("kinect20", "left"), ("h36m17", "right")])
def test_3d_poses_are_drawn_as_the_sensor_sees_them(tmp_path: Path, layout: str, side: str) -> None:
    joints = skeleton(layout)
    points = np.zeros((4, 1, joints.num_joints, 3), np.float32)
    points[:, 0, :, 1] = np.linspace(-1, 1, joints.num_joints)
    points[:, 0, joints.index("right_wrist"), 0] = 1.0
    # x of Kinect increases to the right of a person who faces the sensor.
    held = Held(keypoints=points, score=np.ones(points.shape[:3]))
    ground = JointGround(held, y_up=True, x_left=layout in X_TO_THE_LEFT)
    placed = ground.place(points[0, 0, :, :2], np.zeros((ground.height, ground.width, 3), np.uint8))
    right = placed[joints.index("right_wrist"), 0] - placed[joints.index("left_wrist"), 0]
    assert ("left" if right < 0 else "right") == side


def test_frames_of_different_rates_are_chosen_by_the_nearest_time(study: Study) -> None:
    scenes = [video_scene(study, TAKE, view)[0] for view in "ab"]
    for time in common_moments(scenes, 5):
        for scene, times in zip(scenes, (np.arange(20) / 10, 0.1 + np.arange(50) / 25), strict=True):
            moment = scene.nearest(float(time))
            assert abs(times[moment] - time) <= np.abs(times - time).min() + 1e-9
            [image] = scene.draw([moment], HEIGHT, WIDTH)
            assert abs(float(image.mean()) - gray_of(int(scene.numbers[moment]))) < 3


def test_a_visible_point_is_drawn_where_it_is_seen(study: Study) -> None:
    [scene] = tracks_scene(study, TAKE, "a", whole=True)
    assert len(scene) == 12
    [image] = scene.draw([5], 4 * HEIGHT, 4 * WIDTH)
    vivid = np.argwhere(np.ptp(image.astype(int), axis=2) > 100)
    assert np.allclose(vivid.mean(axis=0), (30 * 4 + 1.5, 40 * 4 + 1.5), atol=0.6)
    lost = image[70 * 4 - 8 : 70 * 4 + 12, 100 * 4 - 8 : 100 * 4 + 12]
    assert (lost.max(axis=2) > 140).any()
    assert np.ptp(lost.astype(int), axis=2).max() < 30
    assert scene.remark(5) == "1/2 visible"


def test_points_stay_on_their_pixels_in_cropped_images(study: Study) -> None:
    [scene] = tracks_scene(study, TAKE, "a", whole=False)
    x0, y0, x1, y1 = scene.images.box
    assert (x1 - x0) * (y1 - y0) < 0.8 * WIDTH * HEIGHT
    height = 400
    width = round(height * scene.aspect)
    [image] = scene.draw([5], height, width)
    vivid = np.argwhere(np.ptp(image.astype(int), axis=2) > 100)
    expected = ((30 + 0.5 - y0) * height / (y1 - y0) - 0.5, (40 + 0.5 - x0) * width / (x1 - x0) - 0.5)
    assert np.allclose(vivid.mean(axis=0), expected, atol=0.6)


def test_each_frame_of_a_track_is_shown_in_the_window_that_began_first(study: Study) -> None:
    [scene] = tracks_scene(study, TAKE, "b", whole=True)
    assert scene.numbers.tolist() == list(range(12))
    assert np.allclose(scene.times, 0.1 + np.arange(12) / 25)


def test_keyframes_are_the_frames_of_the_video_with_their_scores(study: Study) -> None:
    [scene] = keyframes_scene(study, TAKE, "a")
    images = list(scene.draw([0, 1], HEIGHT, WIDTH))
    assert [round(float(image.mean()) / 4) for image in images] == [gray_of(3) / 4, gray_of(11) / 4]
    assert [scene.remark(0), scene.remark(1)] == ["score 0.5", "score 0.25"]


def test_show_draws_every_stored_lowres_size_as_a_view(study: Study) -> None:
    assert [scene.name for scene in lowres_scene(study, TAKE, "a")] == ["a 16x16", "a 32x32"]


def test_poses_without_a_video_are_drawn_on_an_empty_background(tmp_path: Path) -> None:
    made = make_study(tmp_path / "study")
    write_pose(made, "a", dimensions=3)
    [scene] = pose_scene(made, TAKE, "a")
    assert "no video available: drawn on an empty background" in scene.details
    height, width = scene.images.height, scene.images.width
    [image] = scene.draw([0], height, width)
    rows = np.flatnonzero((np.ptp(image.astype(int), axis=2) > 60).any(axis=1))
    assert 0.02 * height < rows.min() < rows.max() < 0.95 * height
    upside_down = scene.images.place(np.array([[64.0, 20.0], [64.0, 80.0]]), image)
    assert upside_down[0, 1] > upside_down[1, 1]  # y points up in 3D


@pytest.mark.parametrize(
    ("product", "views", "lines"),
    [
        ("video", (), 4),
        ("masks", (), 4),
        ("pose", (), 4),
        ("heatmaps", ("b",), 2),
        ("frames", (), 2),
        ("lowres", (), 4),
    ],
)
def test_every_product_has_a_sheet(
    study: Study, tmp_path: Path, product: str, views: tuple[str, ...], lines: int
) -> None:
    path = show_item(study, product, TAKE, views=views, out=tmp_path / "sheet.png", columns=3, rows=4)
    image = read_image(path)
    assert image.shape[0] > lines * 90
    assert (image[:5] == 255).all()
    assert (image[:, :5] == 255).all()


def test_show_video_has_each_frame_of_the_fastest_view(study: Study, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    path = show_item(study, "tracks", out=tmp_path / "t.mp4", progress=lambda *now: done.append(now))
    frames, times = decoded_frames(path)
    # View a: frames 0 to 11 at 0.1 s; b: 12 frames from 0.1 s on, 0.04 s apart; b leads, a fills gaps of b.
    assert times == pytest.approx([0, *(0.1 + np.arange(12) / 25), *np.arange(6, 12) / 10], abs=1e-4)
    assert done[-1] == (len(frames), len(frames)) == (19, 19)


@pytest.mark.parametrize("product", ["snippets", "segments", "video"])
def test_show_video_has_the_labels_of_the_recording(study: Study, tmp_path: Path, product: str) -> None:
    path = show_item(study, product, TAKE, out=tmp_path / "t.mp4", start=0.5, stop=1.2)
    frames, _ = decoded_frames(path)
    assert 17 <= len(frames) <= 19
    for label in ("sit", "rise"):
        near = np.abs(frames[0].astype(int) - colors_of(study)[label]).max(axis=2) < 25
        assert near.sum() > 1000


def test_charts_show_segments_and_windows_in_the_colors_of_their_labels(study: Study, tmp_path: Path) -> None:
    colors = colors_of(study)
    for product in ("snippets", "snippets/short", "segments"):
        for recording in (TAKE, None):
            image = read_image(show_item(study, product, recording, out=tmp_path / "t.png"))
            for label in ("sit", "rise"):
                assert (image == np.array(colors[label])).all(axis=2).sum() > 4000


def test_a_split_is_drawn_by_label(study: Study, tmp_path: Path) -> None:
    image = read_image(show_item(study, "split", out=tmp_path / "t.png"))
    assert (image == (52, 120, 207)).all(axis=2).sum() > 4000


def test_only_the_time_that_is_asked_for_is_shown(study: Study) -> None:
    [scene] = video_scene(study, TAKE, "a")
    part = scene.between(0.45, 0.75)
    assert part.times == pytest.approx([0.5, 0.6, 0.7])
    assert part.numbers.tolist() == [5, 6, 7]


def test_moments_are_spread_over_what_all_views_cover() -> None:
    long, short = plain_scene("long", np.arange(100) / 10), plain_scene("short", 4 + np.arange(21) / 10)
    assert common_moments([long, short], 3) == pytest.approx([4.3, 5.0, 5.7], abs=0.11)
    apart = common_moments([long, plain_scene("later", 20 + np.arange(5))], 4)
    assert apart.min() >= 0
    assert len(apart) == 4
    assert spread(3, 10).tolist() == [0, 1, 2]
    assert spread(100, 4).tolist() == [12, 37, 62, 87]


def test_contact_sheet_of_disjoint_views_raises_an_error() -> None:
    scenes = [plain_scene("a", np.arange(5) / 10), plain_scene("b", 9 + np.arange(5) / 10)]
    image = contact_sheet(scenes, title="t", kind="video", rows=2)
    assert image.ndim == 3


def raises(study: Study, *words: str, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        show_item(study, *words, **options)
    return str(caught.value)


def test_show_errors_name_available_values_and_a_remedy(study: Study) -> None:
    assert raises(study, "trakcs") == (
        "Cannot draw 'trakcs'. Did you mean 'tracks'? Available products: video, frames, keyframes, masks, tracks, "
        "pose, heatmaps, lowres, segments, snippets, split."
    )
    assert raises(study, "tracks/fast") == (
        "'tracks/fast' names a table, but only snippets and split have named tables. To draw the tracks of a recording, "
        "use: actionprep show tracks fast"
    )
    assert raises(study, "tracks", "kitchen/take.2") == (
        "No recording 'kitchen/take.2'. Did you mean 'kitchen/take.1'? 1 recording with tracks: kitchen/take.1"
    )
    assert raises(study, "frames", TAKE, views=["b"]) == (
        "View 'b' of recording 'kitchen/take.1' has no frames. Views with frames: a."
    )
    assert "No view '9' in recording 'kitchen/take.1'" in raises(study, "tracks", TAKE, views=["9"])
    assert "No recording 'x'" in raises(study, "video", "x")
    assert raises(study, "tracks", TAKE, start=50.0) == (
        "No tracks of 'kitchen/take.1' between 50 s and the end. Available: 0.00 to 1.10 s."
    )
    assert raises(study, "tracks", out="t.gif") == ("--out must end in .png (image) or .mp4 (video); got 't.gif'.")
    assert "no snippets/shrt. Did you mean 'short'?" in raises(study, "snippets/shrt")
    assert "no split/other. Available: default" in raises(study, "split/other")
    assert "A split cannot be drawn as a video" in raises(study, "split", out="t.mp4")
    assert "--from 2 s is not before --to 1 s" in raises(study, "segments", TAKE, start=2.0, stop=1.0)


def test_show_names_the_command_that_makes_a_missing_product(tmp_path: Path) -> None:
    bare = make_study(tmp_path / "study")
    assert raises(bare, "tracks") == (
        "The store has no tracks. Available products: none. Run 'actionprep track' to build them."
    )
    assert "The store has no snippets. Run 'actionprep snippets" in raises(bare, "snippets")
    assert "The store has no split. Run 'actionprep split'" in raises(bare, "split")
    assert "has no segments or label" in raises(bare, "segments")
    write_tracks(bare, "a")
    assert "No recording 'b'" in raises(bare, "tracks", "b")


def test_an_empty_item_is_nothing_to_show(tmp_path: Path) -> None:
    bare = make_study(tmp_path / "study")
    with write(bare, "keyframes") as item:
        for name, kind in (("index", np.int64), ("time", float), ("score", np.float32)):
            item.write(name, np.zeros(0, kind), axes=("keyframe",))
        item.attributes.update(num_frames=20, sampler="motion")
    assert raises(bare, "keyframes") == "The keyframes of 'kitchen/take.1' are empty (views a)."


def test_a_product_whose_video_was_cut_since_is_an_error(tmp_path: Path) -> None:
    made = make_study(tmp_path / "study")
    write_pose(made, "a", with_time=False)
    with write(made, "masks") as item:
        item.write("foreground", pack_masks(np.zeros((7, HEIGHT, WIDTH), bool)), axes=("frame", "y", "x_packed"))
        item.write("area", np.zeros(7, np.float32), axes=("frame",))
        item.attributes.update(source="files", width=WIDTH, num_empty=7)
    assert raises(made, "masks") == (
        "masks/kitchen/take.1/a has 7 frames and the catalog has 20 of its video: one of them changed. Run 'actionprep "
        "scan', then build 'masks' again."
    )
    assert show_item(made, "pose", out=tmp_path / "pose.png").exists()


def test_show_command_follows_its_options(study: Study, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from actionprep.cli.prep import app

    out = tmp_path / "t.mp4"
    words = ["show", "tracks", TAKE, "--study", str(study.root), "--views", "b", "a", "--from", "0.2", "--to", "0.5"]
    result = CliRunner().invoke(app, [*words, "--whole", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.name in result.output
    frames, _ = decoded_frames(out)
    assert len(frames) == 7  # view b at 0.22, 0.26, … 0.46 s
