"""Pose inputs: frame times, persons, normalization of place and size, mirroring."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pose_fakes import CLASSES, body, make_pose_store, one_recording, put_pose, write_pose
from training_fakes import table_of, write_snippets

from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.datasets import SnippetDataset, make_reader, read_table
from actionprep.training.inputs._pose_bank import person_rows, step_positions
from actionprep.training.inputs.pose import PoseInput, PoseReader, pyskl_test_steps, segment_steps, smooth_steps
from actionprep.training.inputs.rng import Draws

COCO = skeleton("coco17")
# Labels that name a side but do not change when mirrored must be listed as well.
SAME = {"raise_left": "raise_left", "raise_right": "raise_right"}
LEFT, RIGHT = COCO.index("left_wrist"), COCO.index("right_wrist")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_pose_store(tmp_path_factory.mktemp("pose") / "store", subjects=2, views=("0", "1"), persons=2)


def reader_of(store: Store, views=None, **changes) -> PoseReader:
    return make_reader(store, read_table(store, "default"), PoseInput(**changes), views=views)


def test_batches_have_the_axes_that_models_take(store):
    batch = reader_of(store, frames=5).read([0, 3])
    assert batch["keypoints"].shape == (2, 4, 5, 17, 2)
    assert batch["score"].shape == (2, 4, 5, 17)
    assert batch["frame_valid"].all()
    assert batch["duration"].tolist() == pytest.approx([1.2, 1.2])


def test_frame_times_without_draws_are_evenly_spaced(tmp_path):
    points = np.random.default_rng(0).normal(50, 20, (9, 1, 17, 2))
    store = one_recording(tmp_path / "store", points)
    batch = reader_of(store, frames=5, normalize="none").read([0])
    np.testing.assert_allclose(batch["keypoints"][0, 0].numpy(), points[::2, 0], atol=1e-4)
    between = reader_of(store, frames=17, normalize="none").read([0])["keypoints"][0, 0].numpy()
    np.testing.assert_allclose(between[1::2], (points[1:, 0] + points[:-1, 0]) / 2, atol=1e-4)


def test_frames_that_show_nobody_are_left_out(tmp_path):
    points = np.ones((8, 1, 17, 2)) * np.arange(8)[:, None, None, None] + 1
    score = np.ones((8, 1, 17))
    score[[0, 3, 4, 7]] = 0
    store = one_recording(tmp_path / "store", points, score)
    batch = reader_of(store, frames=4, normalize="none").read([0])
    assert batch["keypoints"][0, 0, :, 0, 0].tolist() == pytest.approx([2, 3, 6, 7])


def test_a_joint_missing_in_one_frame_beside_an_instant_takes_the_other(tmp_path):
    points = np.ones((3, 1, 17, 2)) * np.array([10, 20, 40])[:, None, None, None]
    score = np.ones((3, 1, 17))
    score[1, 0, LEFT] = 0
    store = one_recording(tmp_path / "store", points, score)
    batch = reader_of(store, frames=5, normalize="none").read([0])
    assert batch["keypoints"][0, 0, :, LEFT, 0].tolist() == pytest.approx([10, 10, 0, 40, 40])
    assert batch["keypoints"][0, 0, :, RIGHT, 0].tolist() == pytest.approx([10, 15, 20, 30, 40])
    assert (batch["score"][0, 0, :, LEFT] > 0).tolist() == [True, True, False, True, True]


def test_only_frames_of_the_window_are_seen(tmp_path):
    points = np.ones((20, 1, 17, 2)) * np.arange(20)[:, None, None, None] + 1
    store = one_recording(tmp_path / "store", points)
    table = table_of(["a"], [CLASSES[0]], ["1"], seconds=0.5, names=CLASSES)
    table.onset[:], table.offset[:] = 0.5, 1.0
    reader = make_reader(store, table, PoseInput(frames=5, normalize="none"))
    assert reader.read([0])["keypoints"][0, 0, :, 0, 0].tolist() == pytest.approx([6, 7, 8, 9, 10])


def test_a_body_is_centered_and_its_spread_is_one_in_each_view(store):
    batch = reader_of(store, frames=8).read([0])
    for view in range(2):
        points = batch["keypoints"][0, 2 * view : 2 * view + 2]
        points = points[batch["score"][0, 2 * view : 2 * view + 2] > 0]
        assert points.mean(0).tolist() == pytest.approx([0, 0], abs=1e-5)
        assert float(points.square().sum(-1).mean()) == pytest.approx(1, rel=1e-4)


def test_a_box_reaches_from_minus_one_to_one_on_its_longest_side(store):
    points = reader_of(store, views=["0"], frames=8, normalize="box").read([0])["keypoints"]
    extent = points.flatten(0, -2).amax(0) - points.flatten(0, -2).amin(0)
    assert float(extent.max()) == pytest.approx(2, rel=1e-4)
    assert float(points.abs().max()) == pytest.approx(1, rel=1e-4)


def test_shifted_and_magnified_poses_give_the_same_input(tmp_path):
    points = np.random.default_rng(1).normal(50, 20, (6, 1, 17, 2))
    entry = one_recording(tmp_path / "a", points)
    other = one_recording(tmp_path / "b", points * 3 + [200, -40])
    result = [reader_of(store, frames=6).read([0])["keypoints"] for store in (entry, other)]
    torch.testing.assert_close(*result, atol=1e-4, rtol=1e-4)


def test_joints_below_the_least_score_are_missing(tmp_path):
    points, score = np.full((4, 1, 17, 2), 30.0), np.full((4, 1, 17), 0.8)
    score[:, :, LEFT] = 0.3
    store = one_recording(tmp_path / "store", points, score)
    seen = reader_of(store, frames=4, min_score=0.5).read([0])["score"][0, 0]
    assert not seen[:, LEFT].any()
    assert bool(seen[:, RIGHT].all())


def test_joints_are_converted_to_another_layout_with_their_scores(tmp_path):
    points, score = np.zeros((2, 1, 17, 2)), np.full((2, 1, 17), 0.9)
    points[:, :, COCO.index("left_hip")], points[:, :, COCO.index("right_hip")] = (10, 0), (20, 4)
    score[:, :, COCO.index("left_hip")] = 0.6
    reader = reader_of(one_recording(tmp_path / "store", points, score), frames=2, skeleton="h36m17", normalize="none")
    batch, middle = reader.read([0]), skeleton("h36m17").index("hip_center")
    assert batch["keypoints"][0, 0, 0, middle].tolist() == pytest.approx([15, 2])
    assert float(batch["score"][0, 0, 0, middle]) == pytest.approx(0.6)
    assert reader.model_sizes()["layout"] == "h36m17"


def test_missing_views_are_zero_and_of_no_person(tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=1, views=("0",))
    write_pose(store, "s1_spread_0", "1", label="spread")
    batch = reader_of(store, frames=4).read([0, 1, 2])
    row = read_table(store, "default").recordings.index("s1_spread_0")
    there = (batch["score"] > 0).flatten(2).any(-1)
    assert there[:, 0].all()
    assert there[:, 1].tolist() == [at == row for at in range(3)]
    assert not batch["keypoints"][batch["score"] == 0].any()


def test_views_are_looked_at_at_the_same_times(tmp_path):
    store = Store(tmp_path / "store", create=True)
    time = {"0": np.arange(10) / 10, "1": np.arange(5) / 5 + 0.05}
    for view, times in time.items():
        points = np.ones((len(times), 1, 17, 2), np.float32) * times[:, None, None, None].astype(np.float32) + 1
        arrays = {
            "keypoints": (points, ("time", "person", "joint", "axis")),
            "score": (np.ones(points.shape[:-1], np.float32), ("time", "person", "joint")),
            "track_id": (np.zeros((len(times), 1), np.int64), ("time", "person")),
            "time": (times, ("time",)),
        }
        put_pose(store, "a", view, arrays, skeleton="coco17", image_size=None)
    write_snippets(store, table_of(["a"], [CLASSES[0]], ["1"], seconds=1.0, names=CLASSES))
    points = reader_of(store, frames=7, normalize="none").read([0])["keypoints"][0, :, :, 0, 0]
    inside = (points[0] >= 1.05) & (points[0] <= 1.85)
    torch.testing.assert_close(points[0][inside], points[1][inside], atol=1e-5, rtol=0)


def test_a_view_that_shows_nobody_for_long_is_missing_then():
    places = step_positions([np.arange(0, 3, 0.1), np.array([0.0, 0.1, 2.9])])
    together = np.unique(np.concatenate([np.arange(0, 3, 0.1), [0.0, 0.1, 2.9]]))
    near = np.abs(together[:, None] - np.array([0.0, 0.1, 2.9])).min(1) <= 0.5
    assert np.isfinite(places[:, 0]).all()
    assert np.isnan(places[~near, 1]).all()


def test_one_view_gives_its_frames_in_order():
    np.testing.assert_array_equal(step_positions([np.array([0.3, 0.4, 0.9])])[:, 0], [0, 1, 2])
    assert step_positions([np.zeros(0)]).shape == (0, 1)


def test_views_can_be_left_out_of_a_batch(store):
    reader = reader_of(store, frames=4)
    batch = reader.read([0, 1])
    alone = reader.without_views(batch, [False, True])
    assert not alone["score"][:, :2].any()
    assert not alone["keypoints"][:, :2].any()
    torch.testing.assert_close(alone["keypoints"][:, 2:], batch["keypoints"][:, 2:])


def test_a_sample_is_the_same_in_any_batch_and_other_in_another_epoch(store):
    dataset = SnippetDataset(store, inputs=PoseInput(frames=6), train=True, seed=3)
    together = dataset.batch([0, 1, 2], epoch=4, augment=True)["keypoints"]
    alone = dataset.batch([1], epoch=4, augment=True)["keypoints"]
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(alone, dataset.batch([1], epoch=5, augment=True)["keypoints"])


def test_tests_are_always_the_same_and_variants_differ(store):
    dataset = SnippetDataset(store, inputs=PoseInput(frames=6))
    first, again = (dataset.batch([0, 1], augment=True)["keypoints"] for _ in range(2))
    assert torch.equal(first, again)
    dataset.variant = 1
    other, same = (dataset.batch([0, 1], augment=True)["keypoints"] for _ in range(2))
    assert torch.equal(other, same)
    assert not torch.allclose(first, other)


def test_reading_from_the_store_row_by_row_equals_reading_from_memory(store):
    held, streamed = reader_of(store, frames=6), reader_of(store, frames=6, memory=1e-9)
    assert held.in_memory
    assert not streamed.in_memory
    for draws in (None, Draws(0, 1, [2, 5])):
        entry, other = held.read([2, 5], draws), streamed.read([2, 5], Draws(0, 1, [2, 5]) if draws else None)
        for name in entry:
            torch.testing.assert_close(entry[name], other[name], msg=name)


def test_mirrored_sample_swaps_sides_and_maps_its_label(store):
    pairs = {"raise_left": "raise_right", "raise_right": "raise_left"}
    still = {"rotation": 0, "scale": 0, "noise": 0, "bones": 0, "joint_dropout": 0, "view_dropout": 0}
    still |= {"crop": 0, "time_warp": 0, "frames": 12}
    dataset = SnippetDataset(store, inputs=PoseInput(flip=1.0, flip_labels=pairs, **still), train=True)
    row = dataset.table.recordings.index("s1_raise_left_0")
    plain = SnippetDataset(store, inputs=PoseInput(**still)).batch([row])
    result = dataset.batch([row], augment=True)
    assert dataset.labels[int(result["label"][0])] == "raise_right"
    assert dataset.labels[int(result["target"][0].argmax())] == "raise_right"
    seen = plain["score"][0, 0, 0, LEFT] > 0
    assert bool(seen)
    torch.testing.assert_close(
        result["keypoints"][0, 0, :, RIGHT, 1], plain["keypoints"][0, 0, :, LEFT, 1], atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        result["keypoints"][0, 0, :, RIGHT, 0], -plain["keypoints"][0, 0, :, LEFT, 0], atol=1e-4, rtol=0
    )


def test_nothing_is_mirrored_unless_asked_for(store):
    reader = reader_of(store, frames=4)
    assert reader.mirror_codes() is None
    assert not reader.mirrored(Draws(0, 0, range(50))).any()
    half = reader_of(store, frames=4, flip=0.5, flip_labels=SAME).mirrored(Draws(0, 0, range(500)))
    assert float(half.float().mean()) == pytest.approx(0.5, abs=0.07)


def test_test_variants_alternate_mirroring_if_labels_allow(store):
    symmetric = reader_of(store, frames=4, flip=0.5, flip_labels=SAME)
    assert [symmetric._is_mirrored_variant(variant) for variant in range(1, 5)] == [True, False, True, False]
    pairs = {"raise_left": "raise_right", "raise_right": "raise_left"}
    sided = reader_of(store, frames=4, flip=0.5, flip_labels=pairs)
    assert not any(sided._is_mirrored_variant(variant) for variant in range(1, 5))
    batch = symmetric.read([0], Draws(0, 0, [0], variant=1))
    mirrored = symmetric.augment(batch, Draws(0, 0, [0], variant=1))
    torch.testing.assert_close(
        mirrored["keypoints"][:, 0, :, LEFT, 1], symmetric.read([0])["keypoints"][:, 0, :, RIGHT, 1]
    )


def test_labels_of_a_mirror_must_be_known_and_go_both_ways(store):
    with pytest.raises(UserError, match="flip_labels contains 'raise_lefd', which is not a label"):
        reader_of(store, flip=0.5, flip_labels={"raise_lefd": "raise_right"})
    with pytest.raises(UserError, match="flip_labels must contain pairs in both directions"):
        reader_of(store, flip=0.5, flip_labels={"raise_left": "raise_right"})


def test_poses_of_several_layouts_are_refused_by_name(tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=1)
    write_pose(store, "s1_spread_0", "1", label="spread", layout="jhmdb15")
    with pytest.raises(UserError, match=r"coco17 in 2D \(pose/.*\); jhmdb15 in 2D \(pose/s1_spread_0/1\)"):
        reader_of(store)


def test_pose_reader_names_the_stage_of_missing_poses(tmp_path):
    store = Store(tmp_path / "store", create=True)
    write_snippets(store, table_of(["a"], [CLASSES[0]], ["1"], seconds=1, names=CLASSES))
    with pytest.raises(UserError, match=r"This recipe reads 'pose', .* Make it with|actionprep build pose"):
        reader_of(store)


def test_the_span_is_what_the_frames_cover(tmp_path):
    store = Store(tmp_path / "store", create=True)
    write_pose(store, "a", "0", frames=10, start=2.0)
    assert PoseReader.span(store, "a", ["0"]) == pytest.approx((2.0, 3.0))
    with pytest.raises(UserError, match="Recording 'b' has no poses"):
        PoseReader.span(store, "b", ["0"])


def test_pose_reader_keeps_the_most_visible_persons_in_rows():
    score = np.ones((3, 2, 17))
    score[1, 1] = 0
    points = np.zeros((3, 2, 17, 2))
    points[..., 0] = np.array([[1, 2], [2, 9], [2, 1]])[..., None]
    poses = PoseSequence.of(points, score, skeleton="coco17", track_id=[[4, 7], [7, -1], [7, 4]])
    keypoints, seen = person_rows(poses, persons=2)
    assert keypoints[:, :, 0, 0].tolist() == [[1, 0, 1], [2, 2, 2]]
    assert seen[:, :, 0].tolist() == [[1, 0, 1], [1, 1, 1]]
    assert person_rows(poses, persons=1)[0][:, :, 0, 0].tolist() == [[2, 2, 2]]
    assert person_rows(poses, persons=3)[0].shape == (3, 3, 17, 2)


lengths = {"size": st.integers(1, 60), "frames": st.integers(1, 30), "seed": st.integers(0, 2**31)}


@settings(max_examples=100, deadline=None)
@given(**lengths)
def test_segments_follow_the_published_rules(size, frames, seed):
    [result] = segment_steps(torch.tensor([size]), frames, Draws(seed, 0, [0])).numpy().astype(int)
    assert result.shape == (frames,)
    assert result.min() >= 0
    assert result.max() < size
    steps = set(np.diff(result).tolist())
    if size < frames:
        assert steps <= {1, 1 - size}
    elif size < 2 * frames:
        assert steps <= {1, 2}
    else:
        for segment, frame in enumerate(result):
            assert segment * size // frames <= frame < (segment + 1) * size // frames


@settings(max_examples=100, deadline=None)
@given(**lengths)
def test_the_middle_of_every_segment_is_taken_without_chance(size, frames, seed):
    [result] = segment_steps(torch.tensor([size]), frames, None).tolist()
    assert result == [(2 * segment + 1) * size // (2 * frames) for segment in range(frames)]


def test_segments_reach_every_frame_over_the_epochs():
    for size in (5, 10, 15, 23):
        drawn = segment_steps(torch.full((300,), size), 10, Draws(0, 0, range(300)))
        assert set(drawn.flatten().int().tolist()) == set(range(size))


@settings(max_examples=100, deadline=None)
@given(**lengths, warp=st.floats(0, 0.95))
def test_smooth_instants_rise_and_keep_to_the_crop(size, frames, seed, warp):
    [result] = smooth_steps(torch.tensor([size]), frames, Draws(seed, 0, [0]), crop=0.4, warp=warp).numpy()
    assert result.min() >= 0
    assert result.max() <= size - 1
    assert (np.diff(result) >= -1e-9).all()
    if frames > 1:
        assert result[-1] - result[0] >= 0.6 * (size - 1) - 1e-6


def test_three_dimensions_and_their_sizes_reach_the_model(tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=1, layout="kinect20", dims=3)
    reader = reader_of(store, frames=4)
    assert reader.read([0])["keypoints"].shape == (1, 1, 4, 20, 3)
    assert {"layout": "kinect20", "dims": 3, "channels": 4, "num_joints": 20}.items() <= reader.model_sizes().items()
    assert body("kinect20", 3).shape == (20, 3)


def test_joints_description_states_layout_axes_and_units(tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=1, layout="kinect20", dims=3)
    for normalize, expected in (
        ("body", "1 their root mean square distance"),
        ("box", "from -1 to 1"),
        ("none", "As stored"),
    ):
        reader = reader_of(store, frames=4, normalize=normalize)
        meaning = reader.meanings()["keypoints"]
        assert "time step, joint (kinect20), x, y, z. " in meaning
        assert expected in meaning
        assert meaning.endswith(". Joints: " + ", ".join(skeleton("kinect20").joints))
        assert set(reader.meanings()) >= set(reader.read([0]))


def test_pose_input_reads_former_spelling():
    assert PoseInput.read({"normalise": "box"}, where="a recipe").normalize == "box"
    assert PoseInput().with_changes({"normalise": "none"}, where="a recipe").normalize == "none"


def published_clips(length: int, frames: int, clips: int) -> list[list[int]]:
    """The published rule of a test, step by step: all clips of a snippet of this length."""
    random = np.random.RandomState(255)
    chosen = []
    for clip in range(clips):
        random.rand()  # the share of the snippet, which is always 1
        if length < frames:
            start = clip * length // clips if length >= clips else clip
            chosen.append([(start + step) % length for step in range(frames)])
        elif length < 2 * frames:
            skips = set(random.choice(frames + 1, length - frames, replace=False).tolist())
            chosen.append([step + sum(skip <= step for skip in skips) for step in range(frames)])
        else:
            edges = [part * length // frames for part in range(frames + 1)]
            widths = [high - low for low, high in itertools.pairwise(edges)]
            chosen.append([low + int(inside) for low, inside in zip(edges, random.randint(widths), strict=False)])
    return chosen


@pytest.mark.parametrize("clips", [1, 3, 10])
@pytest.mark.parametrize("frames", [1, 8, 48])
def test_pyskl_test_steps_follow_the_published_rule(frames: int, clips: int):
    lengths = [1, 2, 5, 7, 8, 9, 15, 16, 17, 20, 47, 48, 49, 95, 96, 97, 300]
    published = [published_clips(length, frames, clips) for length in lengths]
    for clip in range(clips):
        steps = pyskl_test_steps(torch.tensor(lengths), frames, clip=clip, clips=clips)
        assert steps.tolist() == [of_length[clip] for of_length in published]


def test_pyskl_test_steps_repeat_short_snippets():
    [steps] = pyskl_test_steps(torch.tensor([20]), 48).tolist()
    assert steps == [*range(20), *range(20), *range(8)]


def test_pyskl_sampling_keeps_empty_frames(tmp_path):
    points = np.ones((6, 1, 17, 2)) * np.arange(1, 7)[:, None, None, None]
    score = np.ones((6, 1, 17))
    score[[2, 3]] = 0
    reader = reader_of(one_recording(tmp_path / "store", points, score), frames=8, sampling="pyskl", normalize="none")
    batch = reader.read([0])
    assert batch["frame_valid"].tolist() == [[True, True, False, False, True, True, True, True]]
    assert batch["keypoints"][0, 0, :, 0, 0].tolist() == [1, 2, 0, 0, 5, 6, 1, 2]


@pytest.mark.parametrize(("flip", "variants"), [(0.0, 3), (0.5, 6)])
def test_pyskl_sampling_sets_the_test_variants(flip: float, variants: int):
    assert PoseInput(sampling="pyskl", clips=3, flip=flip).variants == variants
    assert PoseInput(sampling="segments", clips=3, flip=flip).variants is None
