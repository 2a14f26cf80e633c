"""Heatmap volumes against a plain loop of the published formula, and their options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.datasets.poses import heatmaps
from actionprep.datasets.poses.heatmaps import (
    HeatmapSettings,
    compact_boxes,
    joint_heatmaps,
    limb_heatmaps,
    project,
    render,
    to_grid,
)
from actionprep.errors import UserError


def window(low, high, reach, length):
    if reach is None:
        return range(length)
    return range(max(int(low - reach), 0), min(int(high + reach) + 1, length))


def loop_joint(image, x, y, score, sigma, truncate):
    reach = None if truncate is None else sigma * truncate
    for j in window(y, y, reach, image.shape[0]):
        for i in window(x, x, reach, image.shape[1]):
            image[j, i] = max(image[j, i], score * math.exp(-((i - x) ** 2 + (j - y) ** 2) / (2 * sigma**2)))


def loop_limb(image, a, b, score_a, score_b, sigma, truncate):
    reach = None if truncate is None else sigma * truncate
    length = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
    if length < 1:
        loop_joint(image, *a, score_a, sigma, truncate)
        return
    for j in window(min(a[1], b[1]), max(a[1], b[1]), reach, image.shape[0]):
        for i in window(min(a[0], b[0]), max(a[0], b[0]), reach, image.shape[1]):
            to_a, to_b = (i - a[0]) ** 2 + (j - a[1]) ** 2, (i - b[0]) ** 2 + (j - b[1]) ** 2
            share = (to_a - to_b + length) / (2 * length)
            if share <= 0:
                distance = to_a
            elif share >= 1:
                distance = to_b
            else:
                x, y = a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])
                distance = (i - x) ** 2 + (j - y) ** 2
            image[j, i] = max(image[j, i], min(score_a, score_b) * math.exp(-distance / (2 * sigma**2)))


def by_loops(xy, score, size, sigma=0.6, truncate=3.0, limbs=None):
    """The published formula, pixel by pixel, in doubles."""
    batch, persons, frames, joints = score.shape
    out = np.zeros((batch, len(limbs) if limbs else joints, frames, *size))
    points, seen = xy.double().tolist(), score.double().tolist()
    for b in range(batch):
        for m in range(persons):
            for t in range(frames):
                place, weight = points[b][m][t], seen[b][m][t]
                for n, ends in enumerate(limbs or [(k,) for k in range(joints)]):
                    if any(weight[k] < 1e-3 for k in ends):
                        continue
                    if limbs:
                        first, last = ends
                        loop_limb(out[b, n, t], place[first], place[last], weight[first], weight[last], sigma, truncate)
                    else:
                        loop_joint(out[b, n, t], *place[n], weight[n], sigma, truncate)
    return out


@st.composite
def clips(draw):
    """Joints on, between and off the pixels of a small grid, some missing, one or two persons."""
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2)), 3)
    size = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    place = st.one_of(
        st.floats(-6, 14, width=32), st.integers(-3, 11).map(float), st.sampled_from([1.8, -1.8, 0.2, 1e6, -4e6])
    )
    number = math.prod(shape)
    xy = draw(st.lists(place, min_size=2 * number, max_size=2 * number))
    score = draw(st.lists(st.sampled_from([0.0, 5e-4, 0.3, 1.0, 0.77]), min_size=number, max_size=number))
    return torch.tensor(xy).reshape(*shape, 2), torch.tensor(score).reshape(shape), size


LIMBS = ((0, 1), (1, 2))
RENDERERS = {
    "joints": lambda xy, score, **how: joint_heatmaps(xy, score, **how),
    "limbs": lambda xy, score, **how: limb_heatmaps(xy, score, LIMBS, **how),
}


@pytest.fixture
def on_device(monkeypatch):
    """Use the GPU code path for CPU tensors."""

    def draw(kernel, xy, score, volume, limbs, sigma, truncate, clear):
        size = tuple(volume.shape[-2:])
        for m in range(xy.shape[1]):
            if limbs:
                drawn = heatmaps._limbs_of(xy[:, m], score[:, m], torch.from_numpy(limbs[0]), size, sigma, truncate)
            else:
                drawn = heatmaps._joints_of(xy[:, m], score[:, m], size, sigma, truncate)
            heatmaps._merge(volume[:, m if volume.shape[1] > 1 else 0], drawn)

    monkeypatch.setattr(heatmaps, "_on_cpu", draw)


@pytest.mark.parametrize("truncate", [3.0, None])
@pytest.mark.parametrize("kind", RENDERERS)
@settings(max_examples=40, deadline=None)
@given(clip=clips(), sigma=st.sampled_from([0.6, 1.3]))
def test_compiled_heatmaps_equal_the_published_formula(clip, sigma, kind, truncate):
    xy, score, size = clip
    drawn = RENDERERS[kind](xy, score, size=size, sigma=sigma, truncate=truncate)
    truth = by_loops(xy, score, size, sigma, truncate, LIMBS if kind == "limbs" else None)
    assert drawn.shape == truth.shape
    np.testing.assert_allclose(drawn.numpy(), truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("truncate", [3.0, None])
@pytest.mark.parametrize("kind", RENDERERS)
def test_device_heatmaps_equal_the_published_formula(on_device, kind, truncate):
    @settings(max_examples=40, deadline=None)
    @given(clip=clips(), sigma=st.sampled_from([0.6, 1.3]))
    def check(clip, sigma):
        xy, score, size = clip
        drawn = RENDERERS[kind](xy, score, size=size, sigma=sigma, truncate=truncate)
        truth = by_loops(xy, score, size, sigma, truncate, LIMBS if kind == "limbs" else None)
        np.testing.assert_allclose(drawn.numpy(), truth, rtol=0, atol=1e-6)

    check()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", RENDERERS)
def test_gpu_heatmaps_equal_the_cpu(kind):
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(4, 2, 6, 3, 2, generator=generator) * 60 - 2
    score = torch.rand(4, 2, 6, 3, generator=generator)
    for dtype in (torch.float32, torch.uint8):
        how = {"size": (56, 56), "dtype": dtype}
        ours, theirs = RENDERERS[kind](xy, score, **how), RENDERERS[kind](xy.cuda(), score.cuda(), **how).cpu()
        assert (ours.float() - theirs.float()).abs().max() <= (1e-6 if dtype == torch.float32 else 1)


def test_clips_drawn_by_several_threads_equal_those_drawn_by_one():
    xy = torch.rand(5, 1, 3, 4, 2) * 20
    score = torch.rand(5, 1, 3, 4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = joint_heatmaps(xy, score, size=(20, 20))
        torch.set_num_threads(3)
        assert torch.equal(joint_heatmaps(xy, score, size=(20, 20)), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", RENDERERS)
def test_maximum_of_separate_person_volumes_is_the_merged_one(kind):
    xy, score = torch.rand(2, 3, 2, 3, 2) * 12, torch.rand(2, 3, 2, 3)
    apart = RENDERERS[kind](xy, score, size=(12, 12), persons="separate")
    assert apart.shape[:2] == (2, 3)
    assert torch.equal(apart.amax(1), RENDERERS[kind](xy, score, size=(12, 12)))


@pytest.mark.parametrize("kind", RENDERERS)
def test_uint8_volumes_are_the_float_ones_in_rounded_shares_of_255(kind):
    xy, score = torch.rand(2, 2, 2, 3, 2) * 12, torch.rand(2, 2, 2, 3)
    small = RENDERERS[kind](xy, score, size=(12, 12), dtype=torch.uint8)
    full = RENDERERS[kind](xy, score, size=(12, 12))
    assert small.dtype == torch.uint8
    assert (small.float() / 255 - full).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("kind", RENDERERS)
@pytest.mark.parametrize("path", ["compiled", "on_device"])
def test_a_score_above_one_is_as_bright_as_a_byte_goes(request, path, kind):
    if path == "on_device":
        request.getfixturevalue(path)
    score = 1.2
    xy, scores = torch.full((1, 1, 1, 3, 2), 5.0), torch.full((1, 1, 1, 3), score)
    small = RENDERERS[kind](xy, scores, size=(12, 12), dtype=torch.uint8)
    assert small[..., 5, 5].flatten().tolist() == [255] * small.shape[1]
    assert torch.equal(small, RENDERERS[kind](xy, torch.ones_like(scores), size=(12, 12), dtype=torch.uint8))


def test_a_buffer_is_overwritten_and_returned():
    xy, score = torch.rand(2, 1, 2, 3, 2) * 12, torch.rand(2, 1, 2, 3)
    buffer = torch.full((2, 3, 2, 12, 12), 7.0)
    drawn = joint_heatmaps(xy, score, size=(12, 12), out=buffer)
    assert drawn.data_ptr() == buffer.data_ptr()
    assert torch.equal(drawn, joint_heatmaps(xy, score, size=(12, 12)))


def test_a_buffer_of_another_shape_is_refused():
    with pytest.raises(UserError, match=r"`out` must be a contiguous torch.float32 tensor of shape \(1, 3, 2, 4, 4\)"):
        joint_heatmaps(torch.rand(1, 1, 2, 3, 2), torch.rand(1, 1, 2, 3), size=(4, 4), out=torch.zeros(1, 3, 2, 4, 5))


def test_joints_that_are_not_finite_draw_nothing():
    xy = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0], [2.0, 2.0]]).reshape(1, 1, 1, 3, 2)
    drawn = joint_heatmaps(xy, torch.ones(1, 1, 1, 3), size=(5, 5), truncate=None)[0, :, 0]
    assert drawn[:2].abs().max() == 0
    assert drawn[2, 2, 2] == 1


def test_three_dimensional_joints_must_be_projected_first():
    with pytest.raises(UserError, match=r"got \(1, 1, 2, 3, 3\) with \(1, 1, 2, 3\). Project 3D joints first"):
        joint_heatmaps(torch.rand(1, 1, 2, 3, 3), torch.rand(1, 1, 2, 3), size=(4, 4))


def test_a_limb_between_joints_that_do_not_exist_is_refused():
    with pytest.raises(UserError, match=r"between 0 and 2, got \(0, 3\)"):
        limb_heatmaps(torch.rand(1, 1, 2, 3, 2), torch.rand(1, 1, 2, 3), [(0, 3)], size=(4, 4))


def test_the_compact_box_keeps_its_center_and_is_a_padded_square():
    xy = torch.tensor([[10.0, 20.0], [30.0, 80.0], [0.0, 0.0]]).reshape(1, 1, 1, 3, 2)
    score = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 1, 1, 3)
    assert compact_boxes(xy, score).tolist() == [[20 - 37.5, 50 - 37.5, 20 + 37.5, 50 + 37.5]]
    assert compact_boxes(xy, score, square=False, padding=0).tolist() == [[10, 20, 30, 80]]
    assert compact_boxes(xy, score, whole_pixels=True).tolist() == [[-17, 12, 57, 87]]


def test_the_compact_box_of_a_tiny_or_empty_clip_is_the_image():
    xy = torch.tensor([[10.0, 20.0], [12.0, 80.0]]).reshape(1, 1, 1, 2, 2).repeat(2, 1, 1, 1, 1)
    score = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    assert compact_boxes(xy, score, image_size=(100, 200)).tolist() == [[0, 0, 200, 100]] * 2


def test_the_grid_covers_the_box():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    xy = torch.tensor([[10.0, 20.0], [30.0, 60.0], [20.0, 40.0]]).reshape(1, 1, 1, 3, 2)
    assert to_grid(xy, boxes, (8, 4)).flatten(0, 3).tolist() == [[0, 0], [4, 8], [2, 4]]


def test_projections_put_the_head_at_the_top():
    head_and_foot = torch.tensor([[1.0, 2.0, 3.0], [1.0, 0.0, 4.0]])
    score = torch.ones(2)
    front, _ = project(head_and_foot, score, "xy")
    side, _ = project(head_and_foot, score, "yz")
    above, _ = project(head_and_foot, score, "xz")
    assert front.tolist() == [[1, -2], [1, 0]]
    assert side.tolist() == [[3, -2], [4, 0]]
    assert above.tolist() == [[1, -3], [1, -4]]
    assert project(head_and_foot, score, "xy", y_up=False)[0].tolist() == [[1, 2], [1, 0]]


def test_a_camera_projects_and_drops_what_is_behind_it():
    camera = [[100.0, 0.0, 50.0, 0.0], [0.0, 100.0, 40.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    xy, score = project(torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, -1.0]]), torch.ones(2), camera)
    assert xy[0].tolist() == [100 / 4 + 50, 200 / 4 + 40]
    assert score.tolist() == [1, 0]


def test_an_unknown_projection_names_the_known_ones():
    with pytest.raises(UserError, match=r"Unknown projection .zx.\. Use xy, xz, yz, or a 3 x 4 camera matrix"):
        project(torch.rand(2, 3), torch.rand(2), "zx")


def test_rendering_goes_from_raw_keypoints_to_a_volume():
    generator = torch.Generator().manual_seed(1)
    keypoints, score = torch.rand(2, 1, 5, 20, 3, generator=generator), torch.ones(2, 1, 5, 20)
    flat, _ = project(keypoints, score, "yz")
    truth = by_loops(to_grid(flat, compact_boxes(flat, score, least_side=0), (16, 16)), score, (16, 16))
    drawn = render(keypoints, score, "kinect20", HeatmapSettings(size=(16, 16), projection="yz"))
    np.testing.assert_allclose(drawn.numpy(), truth, atol=1e-6)
    assert render(keypoints, score, "kinect20", HeatmapSettings(kind="limb")).shape == (2, 19, 5, 56, 56)


def test_the_whole_image_needs_its_size():
    with pytest.raises(UserError, match=r"Give image_size=\(height, width\)"):
        render(torch.rand(1, 1, 2, 17, 2), torch.ones(1, 1, 2, 17), "coco17", HeatmapSettings(compact=False))


@pytest.mark.parametrize("shape", [(2, 0, 3, 17, 2), (2, 1, 0, 17, 2), (0, 1, 3, 17, 2)])
def test_nobody_and_no_frames_are_empty_volumes(shape):
    volume = render(torch.zeros(shape), torch.zeros(shape[:-1]), "coco17", HeatmapSettings(size=(8, 8)))
    assert volume.shape == (shape[0], 17, shape[2], 8, 8)
    assert not volume.any()


def test_joints_of_another_layout_are_refused():
    with pytest.raises(UserError, match=r"'coco17' need .* 17 joints, 2 or 3\), got \(1, 1, 2, 25, 2\)"):
        render(torch.zeros(1, 1, 2, 25, 2), torch.zeros(1, 1, 2, 25), "coco17", HeatmapSettings(kind="limb"))
