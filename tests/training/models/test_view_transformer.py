"""The view transformer and its flow maps."""

import numpy as np
import pytest
import torch

from actionprep.training.models.model_size import count_flops
from actionprep.training.models.registry import build_model, example_input, model_settings
from actionprep.training.models.tracks import FlowMaps, ViewTransformer


def sample(batch=2, frames=8, views=2, points=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(batch, frames, views, points, 2, generator=generator) * 2 - 1
    velocity = torch.randn(batch, frames, views, points, 2, generator=generator)
    valid = torch.rand(batch, frames, views, points, generator=generator) < 0.8
    return {"xy": xy, "velocity": velocity, "valid": valid, "frame_valid": torch.ones(batch, frames, dtype=torch.bool)}


def tiny(**sizes) -> ViewTransformer:
    torch.manual_seed(0)
    base = {"num_classes": 3, "num_views": 2, "num_frames": 8, "grid": 8, "channels": (4, 8), "width": 16, "heads": 2}
    return build_model("view-transformer", **{**base, **sizes})


def flow_maps_by_loop(xy, velocity, valid, *, grid, extent, fast):
    """Compute the maps point by point and cell by cell."""
    frames = xy.shape[0]
    maps = np.zeros((5, frames, grid, grid))
    centers = (np.arange(grid) + 0.5) / grid * 2 * extent - extent
    size = 2 * extent / grid
    for t in range(frames):
        total = np.zeros((4, grid, grid))
        for (x, y), v, is_valid in zip(xy[t], velocity[t], valid[t], strict=True):
            if not is_valid:
                continue
            weight = np.outer(
                np.maximum(0, 1 - np.abs(y - centers) / size), np.maximum(0, 1 - np.abs(x - centers) / size)
            )
            values = [1, v[0] / fast, v[1] / fast, np.hypot(*v) / fast]
            total += weight * np.array(values)[:, None, None]
        count = max(valid[t].sum(), 1)
        maps[:3, t] = total[1:] / (total[0] + 0.5)
        maps[3, t] = np.log1p(total[0] * 200 / count) / 3
        maps[4, t] = np.log1p(total[3] * 20 / count)
    return maps


def test_flow_maps_match_a_loop_over_points():
    inputs = sample(batch=1, frames=3, views=1, points=12)
    xy, velocity, valid = (inputs[name][:, :, 0] for name in ("xy", "velocity", "valid"))
    xy = xy * 1.8  # some points are outside the map
    maps = FlowMaps(grid=6, extent=1.5, fast=2.0)(xy, velocity, valid)[0]
    expected = flow_maps_by_loop(xy[0].numpy(), velocity[0].numpy(), valid[0].numpy(), grid=6, extent=1.5, fast=2.0)
    np.testing.assert_allclose(maps.numpy(), expected, atol=1e-5)


def test_invalid_points_are_ignored():
    model, inputs = tiny().eval(), sample()
    other = {name: values.clone() for name, values in inputs.items()}
    hidden = ~inputs["valid"]
    other["xy"][hidden] = 0.3
    other["velocity"][hidden] = 50.0
    torch.testing.assert_close(model(**inputs), model(**other))


def test_point_order_is_irrelevant_and_frame_order_is_not():
    model, inputs = tiny().eval(), sample()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    shuffled = {name: values[:, :, :, order] if values.ndim > 2 else values for name, values in inputs.items()}
    torch.testing.assert_close(model(**inputs), model(**shuffled), atol=1e-5, rtol=1e-4)
    reversed_ = {name: values.flip(1) for name, values in inputs.items()}
    assert (model(**inputs) - model(**reversed_)).abs().max() > 1e-4


def test_masked_view_is_ignored():
    model, inputs = tiny().eval(), sample()
    inputs["valid"][:, :, 1] = False
    other = {name: values.clone() for name, values in inputs.items()}
    other["xy"][:, :, 1] = 0.7
    torch.testing.assert_close(model(**inputs), model(**other))


def test_missing_view_leaves_batch_statistics_unchanged():
    model, inputs = tiny(dropout=0.0).train(), sample(batch=4)
    inputs["valid"][:, :, 1] = False
    model(**inputs)
    with_view = model.encoder[1].running_mean.clone()
    alone = tiny(dropout=0.0, num_views=1).train()
    alone(**{name: values[:, :, :1] if values.ndim > 2 else values for name, values in inputs.items()})
    torch.testing.assert_close(with_view, alone.encoder[1].running_mean)


def test_sample_without_points_stays_finite():
    model, inputs = tiny().train(), sample()
    inputs["valid"][0] = False
    logits = model(**inputs)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("frames", [1, 5, 12])
def test_any_number_of_frames_fits(frames):
    assert tiny()(**sample(frames=frames)).shape == (2, 3)


def test_masks_and_velocity_are_optional():
    model, inputs = tiny().eval(), sample()
    everything = torch.ones_like(inputs["valid"])
    step = torch.zeros_like(inputs["xy"])
    step[:, 1:] = inputs["xy"].diff(dim=1)
    expected = model(inputs["xy"], everything, inputs["frame_valid"], step)
    torch.testing.assert_close(model(inputs["xy"]), expected, atol=1e-5, rtol=1e-4)


def test_one_step_lowers_the_loss():
    model, inputs = tiny(dropout=0.0).train(), sample()
    label = torch.tensor([0, 2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = torch.nn.functional.cross_entropy(model(**inputs), label)
    before.backward()
    optimizer.step()
    assert torch.nn.functional.cross_entropy(model(**inputs), label) < before


def test_card_can_be_counted_and_lists_settings():
    model = build_model("view-transformer", num_classes=5).to("meta")
    assert count_flops(model, example_input("view-transformer")) > 1e7
    assert {"num_views", "num_frames"} <= model_settings("view-transformer")
