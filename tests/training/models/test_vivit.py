"""ViViT, compared with that of transformers, and factorized attention."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny

from actionprep.errors import UserError
from actionprep.training.models.published.families import FAMILIES
from actionprep.training.models.registry import build_model
from actionprep.training.models.vivit import FactorizedViViT, ViViT

SIZES = {"num_frames": 4, "image_size": 32, "width": 24, "depth": 3, "heads": 3}


def test_logits_equal_transformers():
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    ours = build_model("vivit-frames", num_classes=5, **SIZES).eval()
    for p in ours.parameters():
        torch.nn.init.normal_(p, std=0.2)
    config = hf.VivitConfig(
        image_size=32,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=96,
        num_labels=5,
    )
    theirs = hf.VivitForVideoClassification(config).eval()
    theirs.load_state_dict(FAMILIES["vivit-transformers"].to_theirs(ours.state_dict()), strict=True)
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        expected = theirs(clip.transpose(1, 2)).logits
    torch.testing.assert_close(ours(clip), expected, rtol=1e-4, atol=1e-4)


def first_stack_reaches(model: FactorizedViViT, clip: torch.Tensor) -> list[bool]:
    """Whether each time step of the first stack's output depends on the first step of the clip."""
    seen: list[torch.Tensor] = []
    hook = model.blocks[-1].register_forward_hook(lambda *args: seen.append(args[2].detach()))
    changed = clip.clone()
    changed[:, :, :4] += 1.0
    model(clip)
    model(changed)
    hook.remove()
    before, after = (s.reshape(clip.shape[0], 2, -1) for s in seen)
    return [not torch.allclose(before[:, t], after[:, t], atol=1e-5) for t in range(2)]


def test_factorized_first_stack_separates_steps():
    model, clip = tiny("vivit-2")
    assert first_stack_reaches(model.eval(), clip) == [True, False]


def test_published_first_stack_mixes_steps():
    model, clip = tiny("vivit-2-published")
    assert first_stack_reaches(model.eval(), clip) == [True, True]


def test_factorized_logits_depend_on_every_step():
    model, clip = tiny("vivit-2")
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    changed = clip.clone()
    changed[:, :, 4:] += 1.0
    assert not torch.allclose(model.eval()(clip), model(changed), atol=1e-3)


def test_activate_output_applies_gelu_after_mlp():
    # GELU is at least -0.17, so the residual branch can hardly subtract.
    model, clip = tiny("vivit-1", activate_output=True)
    out: list[torch.Tensor] = []
    model.blocks[0].mlp.register_forward_hook(lambda *args: out.append(args[2].detach()))
    model(clip)
    assert out[0].min() > -0.171


@pytest.mark.parametrize("name", ["vivit-frames", "vivit-1", "vivit-2"])
def test_positions_fit_other_clip_sizes(name: str):
    model, clip = tiny(name)
    longer = torch.cat([clip, clip], 2)
    bigger = torch.cat([longer, longer], 3)
    assert model(bigger).shape == (2, 3)


def test_partial_tubelets_raise():
    with pytest.raises(UserError, match="tubelet of 8 frames x 8 x 8 pixels, got 50 frames of 56 x 56"):
        ViViT(num_classes=2, num_frames=50)
