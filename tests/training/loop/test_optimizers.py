import itertools

import pytest
import torch
from tiny_models import tiny
from torch import nn

from actionprep.training.loop.optimizers import layer_heights, make_optimizer, rate_factor
from actionprep.training.models.fusion import MidFusion
from actionprep.training.recipes import OptimizerSettings, ScheduleSettings, find_recipe


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.time_code = nn.Parameter(torch.zeros(2, 4))
        self.head = nn.Linear(4, 2)


def rates(num_steps=100, per_epoch=10, **settings):
    factor = rate_factor(ScheduleSettings(**settings), num_steps=num_steps, steps_per_epoch=per_epoch)
    return [factor(step) for step in range(num_steps)]


def test_cosine_rises_to_the_highest_rate_and_falls_to_nearly_none():
    result = rates(name="cosine", warmup=0.1)
    assert result[0] == pytest.approx(0.1)
    assert max(result) == result[9] == 1.0
    assert result[55] == pytest.approx(0.5, abs=0.01)
    assert result[-1] < 0.001
    assert all(later <= earlier for earlier, later in itertools.pairwise(result[10:]))


def test_multistep_falls_at_its_epochs():
    result = rates(name="multistep", warmup=0.0, milestones=(3, 8), gamma=0.2)
    assert result[29] == 1.0
    assert result[30] == pytest.approx(0.2)
    assert result[80] == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("name", "epochs", "changes"),
    [
        ("timesformer", 15, {11: 0.1, 14: 0.01}),
        ("timesformer-light", 15, {11: 0.1, 14: 0.01}),
        ("videomae", 100, {35: 0.2, 80: 0.04}),
    ],
)
def test_published_recipes_lower_their_rate_where_the_originals_do(name, epochs, changes):
    recipe = find_recipe(name)
    assert recipe.epochs == epochs
    factor = rate_factor(recipe.schedule, num_steps=7 * epochs, steps_per_epoch=7)
    result = [factor(step) for step in range(7 * epochs)]
    expected = 1.0
    for step, value in enumerate(result):
        expected = changes.get(step // 7, expected)
        assert value == pytest.approx(expected)


def test_exponential_falls_by_a_factor_an_epoch():
    result = rates(name="exponential", warmup=0.0, gamma=0.9)
    assert result[55] == pytest.approx(0.9**5)


def test_vectors_and_codes_do_not_decay_and_the_head_has_its_own_rate():
    model = Small()
    settings = OptimizerSettings(learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.1)
    result = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in make_optimizer(model, settings).param_groups
        for parameter in group["params"]
    }
    assert result[id(model.body.weight)] == (1e-3, 0.1)
    assert result[id(model.body.bias)] == (1e-3, 0.0)
    assert result[id(model.time_code)] == (1e-3, 0.0)
    assert result[id(model.head.weight)] == (1e-2, 0.1)
    assert result[id(model.head.bias)] == (1e-2, 0.0)


@pytest.mark.parametrize(
    "name",
    ["timesformer", "vivit-frames", "motionbert", "heatmap-transformer", "view-transformer-maaf", "track-cnn-lstm"],
)
def test_matrices_decay_and_nothing_else_does_whatever_their_names(name):
    model, _ = tiny(name)
    decaying = {
        id(parameter)
        for group in make_optimizer(model, OptimizerSettings(weight_decay=0.1)).param_groups
        for parameter in group["params"]
        if group["weight_decay"]
    }
    matrices = {
        id(weight)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d)
        for weight in [module.weight]
        if weight.requires_grad
    }
    for module in model.modules():
        if isinstance(module, torch.nn.MultiheadAttention):
            matrices.add(id(module.in_proj_weight))
        elif isinstance(module, torch.nn.LSTM):
            matrices |= {id(weight) for key, weight in module.named_parameters() if key.startswith("weight")}
    assert decaying == matrices


@pytest.mark.parametrize(
    ("name", "pairs", "depth"),
    [
        ("motionbert", [("backbone.blocks_st.0.", 1), ("backbone.blocks_ts.0.", 1), ("backbone.blocks_ts.1.", 2)], 2),
        ("vivit-2", [("blocks.0.", 1), ("blocks.1.", 2), ("time_blocks.0.", 3), ("time_blocks.1.", 4)], 4),
    ],
)
def test_layers_side_by_side_are_of_one_height_and_stacks_stand_on_each_other(name, pairs, depth):
    heights = layer_heights(tiny(name)[0])
    for beginning, height in pairs:
        assert {value for key, value in heights.items() if key.startswith(beginning)} == {height}
    assert {value for key, value in heights.items() if key.startswith("head.")} == {depth + 1}


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_each_name_is_its_rule(name, kind):
    assert type(make_optimizer(Small(), OptimizerSettings(name=name))) is kind


def test_frozen_weights_are_left_out():
    model = Small()
    model.body.requires_grad_(False)
    given = [p for group in make_optimizer(model, OptimizerSettings()).param_groups for p in group["params"]]
    assert len(given) == 3


def test_parts_of_a_fusion_are_of_one_height_below_its_head():
    images = {"model": "i3d-small", "sizes": {"width_multiplier": 0.0625}}
    heights = layer_heights(MidFusion(num_classes=3, parts=[images, images]))
    assert {height for name, height in heights.items() if not name.startswith("head.")} == {0}
    assert heights["head.weight"] == 1
