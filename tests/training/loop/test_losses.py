import numpy as np
import pytest
import torch
import torch.nn.functional as F

from actionprep.errors import UserError
from actionprep.training.loop.losses import ClassificationLoss, clip_logits
from actionprep.training.recipes import LossSettings

TARGET = np.eye(3, dtype=np.uint8)[[0, 0, 0, 1, 2, 2]]


def make(several=False, **settings):
    return ClassificationLoss(LossSettings(**settings), TARGET, multi_label=several)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_cross_entropy_equals_torchs(smoothing, weights):
    loss = make(label_smoothing=smoothing, class_weights=weights)
    logits, label = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    expected = F.cross_entropy(logits, label, weight=loss.weight, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(loss(logits, F.one_hot(label, 3).float()), expected)


def test_multi_label_uses_binary_cross_entropy_with_weights():
    loss = make(several=True, class_weights="balanced")
    torch.testing.assert_close(loss.weight, torch.tensor([1.0, 5.0, 2.0]))
    logits, target = torch.randn(4, 3), (torch.rand(4, 3) < 0.5).float()
    expected = F.binary_cross_entropy_with_logits(logits, target, pos_weight=loss.weight, reduction="none").mean(1)
    torch.testing.assert_close(loss(logits, target), expected)


def test_cross_entropy_is_refused_where_there_may_be_several_labels():
    with pytest.raises(UserError) as caught:
        make(several=True, name="cross-entropy")
    assert str(caught.value) == (
        "The loss 'cross-entropy' requires exactly one label per snippet, and these can have several or none. Use "
        'loss.name = "bce", "focal" or "asymmetric" ("auto" selects bce).'
    )


def test_focal_loss_equals_cross_entropy_or_reduces_easy_samples():
    logits, target = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    plain = make()(logits, target)
    torch.testing.assert_close(make(name="focal", gamma=0.0)(logits, target), plain)
    p = torch.softmax(logits, 1)[0, 0]
    torch.testing.assert_close(make(name="focal", gamma=2.0)(logits, target), plain * (1 - p) ** 2)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.7, 1.0, 2.0])
def test_focal_loss_of_a_sample_that_is_wholly_sure_has_finite_gradients(gamma, several):
    loss = ClassificationLoss(LossSettings(name="focal", gamma=gamma), np.eye(3), multi_label=several)
    logits = torch.tensor([[30.0, 0.0, -200.0], [200.0, -200.0, 200.0]], requires_grad=True)
    loss(logits, torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])).sum().backward()
    assert bool(torch.isfinite(logits.grad).all())


def test_focal_loss_equals_its_formula_for_shares_of_several_classes():
    logits, target = torch.randn(6, 3), torch.randn(6, 3).softmax(1)
    p = logits.double().softmax(1)
    expected = -(target * (1 - p) ** 1.5 * p.log()).sum(1)
    result = ClassificationLoss(LossSettings(name="focal", gamma=1.5), np.eye(3), multi_label=False)(logits, target)
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=1e-5)


def test_frames_that_are_padding_do_not_count():
    loss = make()
    logits, target = torch.randn(2, 4, 3), torch.eye(3)[[0, 1]]
    valid = torch.tensor([[True, True, False, False], [True, True, True, True]])
    result = loss(logits, target, valid)
    torch.testing.assert_close(result[0], loss(logits[0, :2], target[:1].expand(2, -1)).mean())
    torch.testing.assert_close(result[1], loss(logits[1], target[1:].expand(4, -1)).mean())


def test_losses_accept_a_target_per_frame():
    loss = make()
    logits = torch.randn(1, 2, 3)
    target = torch.eye(3)[[0, 2]][None]
    expected = F.cross_entropy(logits[0], torch.tensor([0, 2]))
    torch.testing.assert_close(loss(logits, target)[0], expected)


def test_logits_of_a_snippet_are_the_mean_of_its_valid_frames():
    logits, valid = torch.randn(1, 3, 2), torch.tensor([[True, False, True]])
    torch.testing.assert_close(clip_logits(logits, valid)[0], (logits[0, 0] + logits[0, 2]) / 2)
    assert clip_logits(logits[:, 0], valid) is not None
