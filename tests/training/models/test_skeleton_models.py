"""Small skeleton models: their size, and what they must and must not see."""

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
def test_models_have_about_a_third_of_a_million_parameters(model, layout, dims):
    net = model(20, layout, dims)
    assert 0.25e6 < sum(p.numel() for p in net.parameters()) < 0.36e6
    assert net.eval()(*clip(2, layout, dims)).shape == (2, 20)


@pytest.mark.parametrize("model", MODELS)
def test_models_do_not_see_where_or_how_big_a_person_is(model):
    net = model(5, "jhmdb15", 2).eval()
    keypoints, score = clip()
    moved = keypoints * 37 + torch.tensor([300.0, -80.0])
    assert torch.allclose(net(keypoints, score), net(moved, score), atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_models_do_not_see_coordinates_of_missing_joints(model):
    net = model(5, "jhmdb15", 2).eval()
    keypoints, score = clip()
    score[:, :, 3:6, 2:4] = 0
    other = torch.where(score[..., None] > 0, keypoints, 1e3)
    assert torch.allclose(net(keypoints, score), net(other, score), atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_an_absent_person_changes_nothing_and_order_of_persons_neither(model):
    net = model(5, "jhmdb15", 2).eval()
    keypoints, score = clip(2)
    assert torch.allclose(net(keypoints, score), net(keypoints.flip(1), score.flip(1)), atol=1e-5)
    alone = net(keypoints[:, :1], score[:, :1])
    score[:, 1] = 0
    assert torch.allclose(net(keypoints, score), alone, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_a_clip_without_anybody_has_finite_logits(model):
    keypoints, score = clip()
    assert model(5, "jhmdb15", 2).eval()(keypoints, score * 0).isfinite().all()


@pytest.mark.parametrize("model", MODELS)
def test_models_see_the_order_of_frames(model):
    net = model(5, "jhmdb15", 2).eval()
    keypoints, score = clip()
    assert not torch.allclose(net(keypoints, score), net(keypoints.flip(2), score.flip(2)), atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_models_learn_a_direction_of_movement(model):
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


def test_features_are_what_their_names_say():
    features = SkeletonFeatures("jhmdb15", 2, stride=2)
    keypoints, score = clip()
    score[:] = 1
    out = features(keypoints, score)[0, 0].T.split(list(features.groups.values()), -1)
    coordinates, velocity, slow, bones, distances = out
    center = keypoints[0].flatten(0, 2).mean(0)
    size = (keypoints[0] - center).square().sum(-1).mean().sqrt()
    place = (keypoints[0, 0] - center) / size
    assert torch.allclose(coordinates, place.flatten(1), atol=1e-5)
    assert torch.allclose(velocity[1:], place.diff(dim=0).flatten(1), atol=1e-5)
    assert torch.allclose(slow[2:], (place[2:] - place[:-2]).flatten(1), atol=1e-5)
    layout = skeleton("jhmdb15")
    for column, (joint, parent) in enumerate(layout.bones):
        assert torch.allclose(bones[:, 2 * column : 2 * column + 2], place[:, joint] - place[:, parent], atol=1e-5)
    assert torch.allclose(distances, torch.stack([torch.pdist(frame) for frame in place]), atol=1e-5)


def test_some_features_are_those_columns_of_all():
    keypoints, score = clip()
    every = SkeletonFeatures("jhmdb15", 2)
    by_name = dict(zip(every.groups, every(keypoints, score).split(list(every.groups.values()), 2), strict=True))
    some = SkeletonFeatures("jhmdb15", 2, features=["distances", "velocities"])
    expected = torch.cat([by_name["distances"], by_name["velocities"]], 2)
    assert torch.equal(some(keypoints, score), expected)
    assert some.num_features == expected.shape[2] == 105 + 30


@pytest.mark.parametrize("model", MODELS)
def test_a_model_of_velocities_alone_does_not_see_the_pose(model):
    net = model(5, "jhmdb15", 2, features=["velocities", "slow_velocities"]).eval()
    keypoints, score = clip()
    # Everything as large as before, and all joints elsewhere: the same for all instants.
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
def test_features_that_there_are_not_are_named(given, hint):
    said = (
        "Features of joints are some of coordinates, velocities, slow_velocities, bones, distances, each once, as a list, "
        f"and came as {given!r}. {hint}"
    )
    with pytest.raises(UserError, match=re.escape(said)):
        build_model("skeleton-tcn", num_classes=3, layout="jhmdb15", dims=2, features=given)


@pytest.mark.parametrize("model", MODELS)
def test_without_a_score_joints_at_the_origin_are_missing(model):
    net = model(5, "jhmdb15", 2).eval()
    keypoints, score = clip(2)
    score[:, 1, 3:6, 2:4] = 0
    keypoints = keypoints * (score > 0)[..., None]
    assert torch.equal(net(keypoints), net(keypoints, (score > 0).float()))


@pytest.mark.parametrize("name", ["skeleton-tcn", "skeleton-transformer"])
def test_asked_for_every_instant_a_model_labels_each_by_the_persons_that_are_there(name):
    torch.manual_seed(0)
    model = build_model(name, num_classes=3, layout="coco17", dims=2, per_frame=True).eval()
    keypoints, score = torch.randn(2, 2, 30, 17, 2), torch.ones(2, 2, 30, 17)
    with torch.no_grad():
        logits = model(keypoints, score)
        assert logits.shape == (2, 30, 3)
        # Who comes first does not matter, and who is not there says nothing.
        torch.testing.assert_close(model(keypoints.flip(1), score.flip(1)), logits, atol=1e-5, rtol=1e-4)
        alone = model(keypoints[:, :1], score[:, :1])
        assert (alone - logits).abs().max() > 1e-3
        score[:, 1], keypoints[:, 1] = 0, 0
        torch.testing.assert_close(model(keypoints, score), alone, atol=1e-5, rtol=1e-4)


def test_a_width_of_the_tcn_that_does_not_divide_says_which_does():
    with pytest.raises(UserError, match=r"groups of 24, and 100 is no multiple of that\. .* --set sizes\.width=96\."):
        SkeletonTCN(3, "coco17", 2, width=100)


def test_an_instant_of_the_tcn_is_labeled_by_what_is_near_it():
    torch.manual_seed(0)
    model = build_model("skeleton-tcn", num_classes=3, layout="coco17", dims=2, per_frame=True).eval()
    keypoints, score = torch.randn(1, 1, 60, 17, 2), torch.ones(1, 1, 60, 17)
    other = keypoints.clone()
    other[:, :, 40:] = torch.randn(1, 1, 20, 17, 2)
    with torch.no_grad():
        change = (model(keypoints, score) - model(other, score)).abs().amax((0, 2))
    # Normalization, which is the sample's, reaches further.
    assert float(change[:27].max()) < 0.2 * float(change[40:].max())


def test_the_transformer_says_what_to_do_about_more_instants_than_it_has_positions_for():
    model = SkeletonTransformer(3, "coco17", 2, max_frames=8).eval()
    assert model(torch.randn(1, 1, 8, 17, 2)).shape == (1, 3)
    with pytest.raises(UserError, match=r"for 8 instants, and got 9\. .* --set sizes\.max_frames=9"):
        model(torch.randn(1, 1, 9, 17, 2))
