"""Heatmap inputs: rendering of the poses of a snippet, and channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pose_fakes import CLASSES, make_pose_store, one_recording
from training_fakes import write_tracks

from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.datasets import SnippetDataset, make_reader, read_table
from actionprep.training.inputs.heatmaps import HeatmapsInput, HeatmapsReader, _random_crop
from actionprep.training.inputs.pose import PoseInput
from actionprep.training.inputs.rng import Draws

COCO = skeleton("coco17")
STILL = {"rotation": 0.0, "scale": 0.0, "noise": 0.0, "bones": 0.0, "joint_dropout": 0.0, "view_dropout": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_pose_store(tmp_path_factory.mktemp("heat") / "store", subjects=1, views=("0", "1"), persons=2)


def reader_of(store: Store, views=None, **changes) -> HeatmapsReader:
    sizes = {"frames": 4, "size": (16, 16), **changes}
    return make_reader(store, read_table(store, "default"), HeatmapsInput(**sizes), views=views)


def drawn_by_hand(points, score, size, padding, sigma=0.6):
    """Return one channel per joint, from joints (M, T, K, 2) in px: a loop over the published formula without cutoff."""
    seen = points[score > 0]
    low, high = seen.min(0), seen.max(0)
    half = ((high - low) / 2 * (1 + padding)).max()
    corner = (low + high) / 2 - half
    rows, columns = np.mgrid[0:size, 0:size]
    volume = np.zeros((points.shape[2], points.shape[1], size, size))
    for m, t, k in np.ndindex(score.shape):
        if score[m, t, k] > 0:
            x, y = (points[m, t, k] - corner) / (2 * half) * size
            spot = score[m, t, k] * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
            volume[k, t] = np.maximum(volume[k, t], spot)
    return volume


def test_volumes_equal_a_plain_loop_over_the_published_rule(store):
    poses = make_reader(
        store, read_table(store, "default"), PoseInput(frames=4, sampling="segments", normalize="none"), views=["0"]
    ).read([0, 2])
    clip = reader_of(store, views=["0"], truncate=None, padding=0.25).read([0, 2])["clip"]
    assert clip.shape == (2, 17, 4, 16, 16)
    for sample in range(2):
        points, score = poses["keypoints"][sample].numpy(), poses["score"][sample].numpy()
        np.testing.assert_allclose(clip[sample], drawn_by_hand(points, score, 16, 0.25), atol=1e-5)


def test_the_box_may_reach_so_many_body_sizes_around_the_mean_joint(tmp_path):
    points = np.zeros((4, 1, 17, 2))
    points[:, :, 0] = (34, 0)  # the mean joint is at (2, 0), the body size is 8
    store = one_recording(tmp_path / "a", points, image_size=[100, 100])
    clip = reader_of(store, reach=5.0, size=(40, 40)).read([0])["clip"]
    assert clip.shape[1:] == (17, 4, 40, 40)
    # 40 px show 80 px of the image: a joint with coordinate x is at (x - 2) / 2 + 20.
    assert np.unravel_index(int(clip[0, 0, 0].argmax()), (40, 40)) == (20, 36)
    assert np.unravel_index(int(clip[0, 1, 0].argmax()), (40, 40)) == (20, 19)


def test_planes_of_a_pose_in_space_are_shown_at_one_scale(tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=1, layout="kinect20", dims=3)
    poses = make_reader(
        store, read_table(store, "default"), PoseInput(frames=4, sampling="segments", normalize="none")
    ).read([0])
    points, seen = poses["keypoints"][0].numpy(), poses["score"][0].numpy() > 0
    away = points - points[seen].mean(0)
    size = np.sqrt((away[seen] ** 2).sum(-1).mean())
    clip = reader_of(store, reach=3.0, size=(60, 60), truncate=None).read([0])["clip"][0].unflatten(0, (3, 20))
    for maps, axes, signs in zip(clip, ((0, 1), (0, 2), (2, 1)), ((1, -1), (1, -1), (1, -1)), strict=True):
        for k in (0, 7, 19):
            row, column = np.unravel_index(int(maps[k, 0].argmax()), (60, 60))
            place = away[0, 0, k, list(axes)] * signs / (6 * size) * 60 + 30
            np.testing.assert_allclose((column, row), place, atol=0.51)


def test_limbs_have_a_channel_each(store):
    reader = reader_of(store, views=["0"], kind="limb")
    clip = reader.read([0])["clip"]
    assert clip.shape[1] == len(COCO.limbs) == reader.model_sizes()["in_channels"]
    assert float(clip.max()) <= 1
    assert bool((clip > 0).flatten(2).any(-1).all())


def test_views_stand_side_by_side_in_the_channels(store):
    both = reader_of(store)
    alone = [reader_of(store, views=[view]).read([1])["clip"] for view in "01"]
    clip = both.read([1])["clip"]
    torch.testing.assert_close(clip, torch.cat(alone, 1))
    assert both.model_sizes()["num_joints"] == clip.shape[1] == 34
    assert both.model_sizes()["maps"] == 2


def test_heatmaps_can_have_a_volume_per_person(store):
    merged = reader_of(store, views=["0"]).read([0])["clip"]
    apart = reader_of(store, views=["0"], merge="separate")
    each = apart.read([0])["clip"]
    assert each.shape == (1, 2, 17, 4, 16, 16)
    torch.testing.assert_close(each.amax(1), merged)
    assert apart.model_sizes()["num_joints"] == 17
    beside = reader_of(store, views=["0"], merge="channels", persons=3)
    assert beside.read([0])["clip"].shape == (1, 51, 4, 16, 16)
    torch.testing.assert_close(beside.read([0])["clip"][:, :34], each.flatten(1, 2))
    assert not beside.read([0])["clip"][:, 34:].any()
    assert beside.model_sizes()["in_channels"] == 51


def test_poses_in_space_are_seen_from_three_sides(tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=1, layout="kinect20", dims=3)
    three = reader_of(store)
    clip = three.read([0])["clip"]
    assert clip.shape[1] == three.model_sizes()["in_channels"] == 60
    assert three.model_sizes()["maps"] == 3
    torch.testing.assert_close(clip[:, 20:40], reader_of(store, planes=("xz",)).read([0])["clip"])


def test_poses_in_space_are_seen_by_a_camera(tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=1, layout="kinect20", dims=3)
    # A view along z from so far away that depth has no effect, with rows downwards, equals the plane xy.
    front = reader_of(store, camera=(1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 1))
    clip = front.read([0])["clip"]
    assert clip.shape[1] == front.model_sizes()["in_channels"] == 20
    assert front.model_sizes()["maps"] == 1
    torch.testing.assert_close(clip, reader_of(store, planes=("xy",)).read([0])["clip"])
    behind = reader_of(store, camera=(1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, -1))
    assert not behind.read([0])["clip"].any()


def test_the_whole_image_is_shown_on_request(tmp_path):
    points = np.full((4, 1, 17, 2), 25.0)
    points[:, :, 0] = (75, 50)
    store = one_recording(tmp_path / "a", points, image_size=[100, 100])
    clip = reader_of(store, compact=False, size=(20, 20)).read([0])["clip"]
    assert np.unravel_index(int(clip[0, 0, 0].argmax()), (20, 20)) == (10, 15)
    assert np.unravel_index(int(clip[0, 1, 0].argmax()), (20, 20)) == (5, 5)
    unknown = one_recording(tmp_path / "b", points, image_size=None)
    with pytest.raises(UserError, match="Heatmaps of the full image require its size"):
        reader_of(unknown, compact=False).read([0])


def test_joints_are_changed_before_they_are_drawn(store):
    still = {**STILL, "crop_area": (1.0, 1.0), "crop_aspect": 1.0}
    plain = reader_of(store, views=["0"], sampling="smooth", crop=0, time_warp=0, truncate=None, **still)
    center = plain.read([0])["clip"]

    def trained(**changes):
        settings = HeatmapsInput(**{**plain.settings.model_dump(), **changes})
        return SnippetDataset(store, inputs=settings, views=["0"], rows=[0], train=True).batch([0], augment=True)

    torch.testing.assert_close(trained()["clip"], center, atol=1e-4, rtol=0)
    turned = trained(rotation=0.5)["clip"]
    assert not torch.allclose(turned, center, atol=0.1)
    same = {"raise_left": "raise_left", "raise_right": "raise_right"}
    mirrored = trained(flip=1.0, flip_labels=same)["clip"]
    torch.testing.assert_close(mirrored[:, 0, :, :, 1:].flip(-1), center[:, 0, :, :, 1:], atol=1e-3, rtol=0)
    left, right = COCO.index("left_wrist"), COCO.index("right_wrist")
    torch.testing.assert_close(mirrored[:, left, :, :, 1:].flip(-1), center[:, right, :, :, 1:], atol=1e-3, rtol=0)


def test_training_batches_hold_volumes_alone(store):
    dataset = SnippetDataset(store, inputs=HeatmapsInput(frames=4, size=(8, 8)), train=True)
    batch = dataset.batch([0, 1], augment=True)
    assert set(batch) == {"clip", "duration", "label", "target", "row"}
    again = dataset.batch([1], augment=True)
    torch.testing.assert_close(batch["clip"][1:], again["clip"])


@pytest.mark.parametrize("merge", ["max", "separate"])
def test_cutmix_replaces_a_time_span_and_returns_the_kept_share(store, merge):
    reader = reader_of(store, frames=8, size=(8, 8), merge=merge)
    clip = torch.rand(3, *([2] if merge == "separate" else []), 5, 8, 4, 4)
    partner = torch.tensor([1, 2, 0])
    mixed, stayed = reader.cut({"clip": clip}, partner, torch.tensor([0.75, 0.5, 0.0]), Draws(0, 0, [4, 5, 6]))
    assert stayed.tolist() == [0.75, 0.5, 0.0]
    own = (mixed["clip"] == clip).movedim(-3, 1).flatten(2).all(2)
    foreign = (mixed["clip"] == clip[partner]).movedim(-3, 1).flatten(2).all(2)
    assert bool((own ^ foreign).all())
    assert own.sum(1).tolist() == [6, 4, 0]
    assert [int((row[1:] != row[:-1]).sum()) <= 2 for row in own] == [True] * 3


def test_test_variants_are_other_frames_of_the_segments(store):
    dataset = SnippetDataset(store, inputs=HeatmapsInput(frames=4, size=(8, 8)))
    first = dataset.batch([0])["clip"]
    dataset.variant = 1
    other = dataset.batch([0], augment=True)["clip"]
    assert other.shape == first.shape
    assert not torch.equal(first, other)
    assert torch.equal(other, dataset.batch([0], augment=True)["clip"])


def test_views_that_are_left_out_are_empty(store):
    reader = reader_of(store)
    batch = reader.read([0, 1])
    alone = reader.without_views(batch, [True, False])["clip"]
    assert torch.equal(alone[:, :17], batch["clip"][:, :17])
    assert not alone[:, 17:].any()


def test_a_snippet_of_nobody_and_one_of_a_single_place_are_drawn(tmp_path):
    nobody = one_recording(tmp_path / "a", np.zeros((4, 1, 17, 2)), np.zeros((4, 1, 17)))
    assert not reader_of(nobody).read([0])["clip"].any()
    place = one_recording(tmp_path / "b", np.full((4, 1, 17, 2), 7.0))
    clip = reader_of(place, size=(9, 9)).read([0])["clip"]
    assert bool(torch.isfinite(clip).all())
    assert float(clip.amax()) > 0.4


def test_random_parts_lie_inside_and_fill_the_range_of_areas():
    boxes = torch.tensor([[10.0, 20.0, 110.0, 120.0]]).repeat(500, 1)
    parts = _random_crop(boxes, Draws(0, 0, range(500)), 1, (0.56, 1.0), 4 / 3)
    assert float(parts[:, :2].min()) >= 10
    assert float(parts[:, 2:].amax()) <= 120
    sides = parts[:, 2:] - parts[:, :2]
    area = sides.prod(1) / 1e4
    assert float(area.min()) == pytest.approx(0.56, abs=0.02)
    assert float(area.max()) == pytest.approx(1.0, abs=0.06)
    aspect = sides[:, 0] / sides[:, 1]
    assert 0.74 < float(aspect.min()) < 0.8
    assert 1.25 < float(aspect.max()) < 1.34


def test_heatmaps_are_read_from_the_poses_of_the_store(store, tmp_path):
    assert HeatmapsReader.reads(HeatmapsInput()) == "pose"
    tracks = Store(tmp_path / "store", create=True)
    write_tracks(tracks, "a", "0", direction=(1, 0))
    with pytest.raises(
        UserError, match=r"reads 'pose', but the store .* does not contain it\. Available products: tracks"
    ):
        HeatmapsReader.check_store(HeatmapsInput(), tracks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (0, 8)}, "at least 1 pixel"),
        ({"crop_area": (0.9, 0.5)}, "crop_area must be two increasing shares"),
        ({"planes": ()}, "planes must contain at least one"),
        ({"camera": (1, 2, 3)}, "12 numbers, got 3"),
    ],
)
def test_impossible_volumes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        HeatmapsInput(**changes)


def test_the_random_numbers_of_a_sample_do_not_depend_on_its_batch(store):
    reader = reader_of(store, views=["0"])
    draws = [Draws(1, 2, rows) for rows in ([0, 1, 2], [2])]
    together, alone = (reader.augment(reader.read(draw.rows, draw), Draws(3, 2, draw.rows)) for draw in draws)
    torch.testing.assert_close(together["clip"][2:], alone["clip"], atol=1e-5, rtol=0)
    assert reader.table.labels == CLASSES


def with_volumes(store: Store, persons: int = 0) -> Store:
    """Store the rendered volumes of every item as 'actionprep heatmaps' does: uint8, one box for all frames."""
    rng = np.random.default_rng(0)
    for key in store.items("pose"):
        frames = len(store.item("pose", key.recording, key.view)["time"])
        shape = (frames, *([persons] if persons else []), 17, 8, 8)
        with store.write("heatmaps", key.recording, key.view, fingerprint=str(key), provenance={}) as item:
            item.write("volume", rng.integers(0, 256, shape).astype(np.uint8), axes=tuple("tmcyx"[-len(shape) :]))
            item.write("time", store.item("pose", key.recording, key.view)["time"][:], axes=("time",))
            item.attributes.update(skeleton="coco17", kind="joint", channels=list(COCO.joints), scale=1 / 255)
    return store


def test_stored_volumes_are_read_as_they_are(tmp_path):
    store = with_volumes(make_pose_store(tmp_path / "store", subjects=1, views=("0", "1")))
    reader = reader_of(store, source="stored", frames=3)
    assert not reader.in_memory
    clip = reader.read([1])["clip"]
    name = reader.table.recordings[int(reader.table.recording[1])]
    for view in range(2):
        volume = store.item("heatmaps", name, str(view))["volume"][:]
        expected = volume[[2, 6, 10]].transpose(1, 0, 2, 3) / 255
        np.testing.assert_allclose(clip[0, 17 * view : 17 * (view + 1)], expected, atol=1e-6)
    assert {"in_channels": 34, "map_size": 8, "num_frames": 3}.items() <= reader.model_sizes().items()
    assert HeatmapsReader.reads(reader.settings) == "heatmaps"
    assert HeatmapsReader.span(store, name, ["0"]) == pytest.approx((0.0, 1.2))


def test_stored_volumes_of_each_person_keep_their_axis(tmp_path):
    store = with_volumes(make_pose_store(tmp_path / "store", subjects=1), persons=2)
    reader = reader_of(store, source="stored", frames=4)
    assert reader.read([0, 1])["clip"].shape == (2, 2, 17, 4, 8, 8)
    assert reader.model_sizes()["num_joints"] == 17


def test_stored_volumes_are_sampled_randomly_without_mirroring(tmp_path):
    store = with_volumes(make_pose_store(tmp_path / "store", subjects=1))
    dataset = SnippetDataset(store, inputs=HeatmapsInput(source="stored", frames=4), train=True)
    first, other = (dataset.batch([0], epoch=epoch, augment=True)["clip"] for epoch in (0, 1))
    assert first.shape == (1, 17, 4, 8, 8)
    assert not torch.equal(first, other)
    with pytest.raises(UserError, match="Stored heatmaps cannot be mirrored"):
        reader_of(store, source="stored", flip=0.5)


def test_missing_stored_volumes_name_the_stage_to_run(tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=1)
    with pytest.raises(UserError, match="actionprep build heatmaps"):
        HeatmapsReader.check_store(HeatmapsInput(source="stored"), store)


def test_limbs_description_states_distance_score_and_names(store):
    reader = reader_of(store, views=("0",), kind="limb", truncate=None)
    meaning = reader.meanings()["clip"]
    assert "Gaussians of 0.6 px of the distance to the limb times the lower score of its two ends" in meaning
    assert "cut off" not in meaning
    assert "limbs of coco17, the last" in meaning
    names = meaning.rpartition("Limbs: ")[2].split(", ")
    assert names == [f"{COCO.joints[a]}-{COCO.joints[b]}" for a, b in COCO.limbs]
    assert len(names) == reader.read([0])["clip"].shape[1]


@pytest.mark.parametrize(
    ("persons", "order"), [(0, "channel (views, joints of coco17, the last"), (2, "person (those of one view")]
)
def test_stored_volumes_description_names_their_channels(tmp_path, persons, order):
    store = with_volumes(make_pose_store(tmp_path / "store", subjects=1), persons=persons)
    meaning = reader_of(store, source="stored", kind="limb").meanings()["clip"]
    assert meaning.startswith(f"heatmaps from 0 to 1, as stored; axes batch, {order}")
    assert "plane" not in meaning.lower()
    assert meaning.endswith("Joints: " + ", ".join(COCO.joints))


def test_the_meaning_of_volumes_of_3d_poses_names_their_planes_in_order(tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=1, layout="kinect20", dims=3)
    assert "Planes: yz, xy. " in reader_of(store, planes=("yz", "xy")).meanings()["clip"]
    camera = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    assert "Planes: one, of the camera. " in reader_of(store, camera=camera).meanings()["clip"]


@pytest.mark.parametrize("merge", ["max", "channels", "separate"])
def test_volumes_description_names_views_and_joints_by_channel(store, merge):
    reader = reader_of(store, views=("0", "1"), merge=merge)
    meaning = reader.meanings()["clip"]
    person = "person (those of one view after those of another), " if merge == "separate" else ""
    before = {"max": "views, ", "channels": "views, persons, ", "separate": ""}[merge]
    assert f"axes batch, {person}channel ({before}planes, joints of coco17, the last" in meaning
    assert "Gaussians of 0.6 px around the joint times its score, cut off 3 sigmas away" in meaning
    assert ("the maximum over persons" in meaning) == (merge == "max")
    assert meaning.endswith(". Views: 0, 1. Planes: one, of the image. Joints: " + ", ".join(COCO.joints))
    assert set(reader.meanings()) >= set(reader.read([0]))
