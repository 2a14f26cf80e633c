"""Weights and operations of models are counted as papers count them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actionprep.training.models.model_size import count_flops, count_parameters, model_size
from actionprep.training.models.registry import build_model, example_input, model_card


def built(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, num_classes=model_card(name).num_classes)


def test_flops_of_timesformer_are_the_papers_less_what_is_never_read():
    width, frames, patches, blocks = 768, 8, 196, 12
    tokens, in_frames = frames * patches, frames * (1 + patches)
    over_time = 3 * tokens * width**2 + 2 * tokens * frames * width + tokens * width**2
    over_space = 3 * in_frames * width**2 + 2 * in_frames * (1 + patches) * width + in_frames * width**2
    mlp = 8 * (1 + tokens) * width**2
    ends = tokens * width * 3 * 16 * 16 + width * 400
    # As published, with the projection and temporal_fc one after the other and a last block for all tokens.
    published = ends + blocks * (over_time + tokens * width**2 + over_space + mlp)
    assert round(published / 1e9) == 196
    # Here the two are multiplied beforehand, and the last block serves the class token.
    joined = width**3 + width**2
    for_cls = 2 * in_frames * width**2 + 2 * frames * width**2 + 2 * frames * (1 + patches) * width + 8 * width**2
    expected = ends + blocks * (over_time + joined) + (blocks - 1) * (over_space + mlp) + for_cls
    assert count_flops(built("timesformer"), example_input("timesformer")) == 2 * expected


@pytest.mark.parametrize("name", ["track-lstm", "i3d-transformer-resizer", "vivit-2", "motionbert"])
def test_the_size_of_a_model_is_counted_at_its_published_sizes(name: str):
    size = model_size(name)
    assert size.parameters == count_parameters(built(name))
    assert size.flops == count_flops(built(name), example_input(name))


def test_factorising_spares_most_of_the_work():
    assert model_size("vivit-2").flops < model_size("vivit-2-published").flops / 2


def test_flops_of_a_linear_layer_are_counted_by_hand():
    assert count_flops(nn.Linear(5, 7), torch.zeros(3, 5)) == 2 * 3 * 5 * 7


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_of_an_lstm_are_counted_by_hand(device: str):
    model = nn.LSTM(6, 4, batch_first=True, device=device)
    assert count_flops(model, torch.zeros(2, 9, 6, device=device)) == 2 * 2 * 9 * (4 * 4) * (6 + 4)


def test_flops_leave_the_mode_of_the_model_alone():
    model = nn.Dropout()
    count_flops(model, torch.zeros(2))
    assert model.training
