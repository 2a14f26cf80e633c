"""Counts of parameters and operations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actionprep.training.models.model_size import count_flops, count_parameters, model_size
from actionprep.training.models.registry import build_model, example_input, model_card


def built(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, num_classes=model_card(name).num_classes)


def test_timesformer_flops_match_paper_minus_savings():
    width, frames, patches, blocks = 768, 8, 196, 12
    tokens, in_frames = frames * patches, frames * (1 + patches)
    over_time = 3 * tokens * width**2 + 2 * tokens * frames * width + tokens * width**2
    over_space = 3 * in_frames * width**2 + 2 * in_frames * (1 + patches) * width + in_frames * width**2
    mlp = 8 * (1 + tokens) * width**2
    ends = tokens * width * 3 * 16 * 16 + width * 400
    # As published: separate projection and temporal_fc, and a last block for all tokens.
    published = ends + blocks * (over_time + tokens * width**2 + over_space + mlp)
    assert round(published / 1e9) == 196
    # Here both layers are merged, and the last block computes only the class token.
    joined = width**3 + width**2
    for_cls = 2 * in_frames * width**2 + 2 * frames * width**2 + 2 * frames * (1 + patches) * width + 8 * width**2
    expected = ends + blocks * (over_time + joined) + (blocks - 1) * (over_space + mlp) + for_cls
    assert count_flops(built("timesformer"), example_input("timesformer")) == 2 * expected


@pytest.mark.parametrize("name", ["track-lstm", "i3d-transformer-resizer", "vivit-2", "motionbert"])
def test_model_size_uses_published_sizes(name: str):
    size = model_size(name)
    assert size.parameters == count_parameters(built(name))
    assert size.flops == count_flops(built(name), example_input(name))


def test_factorized_vivit_needs_less_than_half_the_flops():
    assert model_size("vivit-2").flops < model_size("vivit-2-published").flops / 2


def test_flops_of_linear_layer():
    assert count_flops(nn.Linear(5, 7), torch.zeros(3, 5)) == 2 * 3 * 5 * 7


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_of_lstm(device: str):
    model = nn.LSTM(6, 4, batch_first=True, device=device)
    assert count_flops(model, torch.zeros(2, 9, 6, device=device)) == 2 * 2 * 9 * (4 * 4) * (6 + 4)


def test_count_flops_restores_training_mode():
    model = nn.Dropout()
    count_flops(model, torch.zeros(2))
    assert model.training
