"""Small skeleton models: size, invariances, features."""

from __future__ import annotations

import re

import pytest
import torch

from actionprep.datasets.poses.skeletons import skeleton
from actionprep.errors import UserError
from actionprep.training.models.registry import build_model
from actionprep.training.models.skeleton_features import SkeletonFeatures
from actionprep.training.models.skeleton_tcn import SkeletonTCN
from actionprep.training.models.skeleton_transformer import SkeletonTransformer

MODELS = [SkeletonTCN, SkeletonTransformer]


def clip(persons=1, layout="jhmdb15", dims=2, seed=0):
    torch.manual_seed(seed)
    joints = skeleton(layout).num_joints
    return torch.randn(2, persons, 12, joints, dims), torch.rand(2, persons, 12, joints) + 0.1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("layout", "dims"), [("jhmdb15", 2), ("kinect20", 3), ("coco17", 2)])
def test_models_have_about_300k_parameters(model, layout, dims):
    net = model(20, layout, dims)
    assert 0.25e6 < sum(p.numel() for p in net.parameters()) < 0.36e6
    assert net.eval()(*clip(2, layout, dims)).shape == (2, 20)


@pytest.mark.parametrize("model", MODELS)
def test_models_ignore_position_and_size(model):
    net = model(5, "jhmdb15", 2).eval()
    keypoints, score = clip()
    moved = keypoints * 37 + torch.tensor([300.0, -80.0])
    assert torch.allclose(net(keypoints, score), net(moved, score), atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_models_ignore_missing_joints(model):
    net = model(5, "jhmdb15", 2).eval()
    keypoints, score = clip()
    score[:, :, 3:6, 2:4] = 0
    other = torch.where(score[..., None] > 0, keypoints, 1e3)
    assert torch.allclose(net(keypoints, score), net(other, score), atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_models_ignore_absent_persons_and_person_order(model):
    net = model(5, "jhmdb15", 2).eval()
    keypoints, score = clip(2)
    assert torch.allclose(net(keypoints, score), net(keypoints.flip(1), score.flip(1)), atol=1e-5)
    alone = net(keypoints[:, :1], score[:, :1])
    score[:, 1] = 0
    assert torch.allclose(net(keypoints, score), alone, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_clip_without_persons_has_finite_logits(model):
    keypoints, score = clip()
    assert model(5, "jhmdb15", 2).eval()(keypoints, score * 0).isfinite().all()


@pytest.mark.parametrize("model", MODELS)
def test_models_depend_on_frame_order(model):
    net = model(5, "jhmdb15", 2).eval()
    keypoints, score = clip()
    assert not torch.allclose(net(keypoints, score), net(keypoints.flip(2), score.flip(2)), atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_models_learn_direction_of_motion(model):
    torch.manual_seed(0)
    # The same poses for both classes: a wrist that goes up, and the clip run backwards.
    keypoints = torch.randn(1, 1, 1, 15, 2).expand(16, 1, 12, 15, 2).clone()
    keypoints[:, 0, :, 11, 1] += torch.linspace(0, 2, 12)
    keypoints = keypoints + 0.05 * torch.randn_like(keypoints)
    label = torch.arange(16) % 2
    keypoints[label == 1] = keypoints[label == 1].flip(2)
    score = torch.ones(keypoints.shape[:-1])
    net = model(2, "jhmdb15", 2)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(keypoints, score), label).backward()
        optimizer.step()
    assert (net.eval()(keypoints, score).argmax(1) == label).all()


def test_features_match_their_definitions():
    features = SkeletonFeatures("jhmdb15", 2, stride=2)
    keypoints, score = clip()
    score[:] = 1
    out = features(keypoints, score)[0, 0].T.split(list(features.groups.values()), -1)
    coordinates, velocity, slow, bones, distances = out
    center = keypoints[0].flatten(0, 2).mean(0)
    size = (keypoints[0] - center).square().sum(-1).mean().sqrt()
    normalized = (keypoints[0, 0] - center) / size
    assert torch.allclose(coordinates, normalized.flatten(1), atol=1e-5)
    assert torch.allclose(velocity[1:], normalized.diff(dim=0).flatten(1), atol=1e-5)
    assert torch.allclose(slow[2:], (normalized[2:] - normalized[:-2]).flatten(1), atol=1e-5)
    layout = skeleton("jhmdb15")
    for column, (joint, parent) in enumerate(layout.bones):
        assert torch.allclose(
            bones[:, 2 * column : 2 * column + 2], normalized[:, joint] - normalized[:, parent], atol=1e-5
        )
    assert torch.allclose(distances, torch.stack([torch.pdist(frame) for frame in normalized]), atol=1e-5)


def test_feature_subset_equals_columns_of_all():
    keypoints, score = clip()
    every = SkeletonFeatures("jhmdb15", 2)
    by_name = dict(zip(every.groups, every(keypoints, score).split(list(every.groups.values()), 2), strict=True))
    some = SkeletonFeatures("jhmdb15", 2, features=["distances", "velocities"])
    expected = torch.cat([by_name["distances"], by_name["velocities"]], 2)
    assert torch.equal(some(keypoints, score), expected)
    assert some.num_features == expected.shape[2] == 105 + 30


@pytest.mark.parametrize("model", MODELS)
def test_velocity_model_ignores_static_pose(model):
    net = model(5, "jhmdb15", 2, features=["velocities", "slow_velocities"]).eval()
    keypoints, score = clip()
    # Static poses of equal size with all joints at other positions.
    pose = torch.randn(1, 1, 1, 15, 2)
    still = net(pose.expand_as(keypoints), torch.ones_like(score))
    assert torch.allclose(still, net(-pose.expand_as(keypoints), torch.ones_like(score)), atol=1e-5)
    assert not torch.allclose(net(keypoints, score), still, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ([], """Write --set 'sizes.features=["velocities"]'."""),
        (["velocity"], "Did you mean 'velocities'?"),
        (["bones", "bones"], """Write --set 'sizes.features=["velocities"]'."""),
        ("bones", """Write --set 'sizes.features=["bones"]'."""),
        ({"bones": 1}, """Write --set 'sizes.features=["velocities"]'."""),
        (5, """Write --set 'sizes.features=["velocities"]'."""),
        (True, """Write --set 'sizes.features=["velocities"]'."""),
        ([["bones"]], "Did you mean 'bones'?"),
    ],
)
def test_unknown_features_raise(given, hint):
    message = (
        "sizes.features must be a list of coordinates, velocities, slow_velocities, bones, distances, each at most once, "
        f"got {given!r}. {hint}"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        build_model("skeleton-tcn", num_classes=3, layout="jhmdb15", dims=2, features=given)


@pytest.mark.parametrize("model", MODELS)
def test_joints_at_origin_are_missing_without_score(model):
    net = model(5, "jhmdb15", 2).eval()
    keypoints, score = clip(2)
    score[:, 1, 3:6, 2:4] = 0
    keypoints = keypoints * (score > 0)[..., None]
    assert torch.equal(net(keypoints), net(keypoints, (score > 0).float()))


@pytest.mark.parametrize("name", ["skeleton-tcn", "skeleton-transformer"])
def test_per_frame_logits_use_present_persons(name):
    torch.manual_seed(0)
    model = build_model(name, num_classes=3, layout="coco17", dims=2, per_frame=True).eval()
    keypoints, score = torch.randn(2, 2, 30, 17, 2), torch.ones(2, 2, 30, 17)
    with torch.no_grad():
        logits = model(keypoints, score)
        assert logits.shape == (2, 30, 3)
        # The order of persons is irrelevant, and absent persons are ignored.
        torch.testing.assert_close(model(keypoints.flip(1), score.flip(1)), logits, atol=1e-5, rtol=1e-4)
        alone = model(keypoints[:, :1], score[:, :1])
        assert (alone - logits).abs().max() > 1e-3
        score[:, 1], keypoints[:, 1] = 0, 0
        torch.testing.assert_close(model(keypoints, score), alone, atol=1e-5, rtol=1e-4)


def test_tcn_rejects_width_and_suggests_one():
    with pytest.raises(UserError, match=r"must be a multiple of 24, got 100\. .* --set sizes\.width=96\."):
        SkeletonTCN(3, "coco17", 2, width=100)


def test_tcn_frame_logits_depend_on_nearby_frames():
    torch.manual_seed(0)
    model = build_model("skeleton-tcn", num_classes=3, layout="coco17", dims=2, per_frame=True).eval()
    keypoints, score = torch.randn(1, 1, 60, 17, 2), torch.ones(1, 1, 60, 17)
    other = keypoints.clone()
    other[:, :, 40:] = torch.randn(1, 1, 20, 17, 2)
    with torch.no_grad():
        change = (model(keypoints, score) - model(other, score)).abs().amax((0, 2))
    # Only the normalization, which is over the full sample, reaches further.
    assert float(change[:27].max()) < 0.2 * float(change[40:].max())


def test_transformer_rejects_more_frames_than_positions():
    model = SkeletonTransformer(3, "coco17", 2, max_frames=8).eval()
    assert model(torch.randn(1, 1, 8, 17, 2)).shape == (1, 3)
    with pytest.raises(UserError, match=r"at most 8 frames, got 9\. .* --set sizes\.max_frames=9"):
        model(torch.randn(1, 1, 9, 17, 2))
