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


def pictures_by_loop(xy, velocity, valid, *, grid, extent, fast):
    """One point after the other, cell by cell."""
    frames = xy.shape[0]
    found = np.zeros((5, frames, grid, grid))
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
            figures = [1, v[0] / fast, v[1] / fast, np.hypot(*v) / fast]
            total += weight * np.array(figures)[:, None, None]
        count = max(valid[t].sum(), 1)
        found[:3, t] = total[1:] / (total[0] + 0.5)
        found[3, t] = np.log1p(total[0] * 200 / count) / 3
        found[4, t] = np.log1p(total[3] * 20 / count)
    return found


def test_pictures_equal_a_plain_loop_over_points():
    given = sample(batch=1, frames=3, views=1, points=12)
    xy, velocity, valid = (given[name][:, :, 0] for name in ("xy", "velocity", "valid"))
    xy = xy * 1.8  # some points leave the picture
    found = FlowMaps(grid=6, extent=1.5, fast=2.0)(xy, velocity, valid)[0]
    expected = pictures_by_loop(xy[0].numpy(), velocity[0].numpy(), valid[0].numpy(), grid=6, extent=1.5, fast=2.0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_points_that_are_not_valid_change_nothing():
    model, given = tiny().eval(), sample()
    other = {name: values.clone() for name, values in given.items()}
    hidden = ~given["valid"]
    other["xy"][hidden] = 0.3
    other["velocity"][hidden] = 50.0
    torch.testing.assert_close(model(**given), model(**other))


def test_the_order_of_points_does_not_matter_and_that_of_time_does():
    model, given = tiny().eval(), sample()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    shuffled = {name: values[:, :, :, order] if values.ndim > 2 else values for name, values in given.items()}
    torch.testing.assert_close(model(**given), model(**shuffled), atol=1e-5, rtol=1e-4)
    reversed_ = {name: values.flip(1) for name, values in given.items()}
    assert (model(**given) - model(**reversed_)).abs().max() > 1e-4


def test_a_masked_view_changes_nothing_whatever_it_holds():
    model, given = tiny().eval(), sample()
    given["valid"][:, :, 1] = False
    other = {name: values.clone() for name, values in given.items()}
    other["xy"][:, :, 1] = 0.7
    torch.testing.assert_close(model(**given), model(**other))


def test_a_view_that_is_missing_does_not_move_batch_statistics():
    model, given = tiny(dropout=0.0).train(), sample(batch=4)
    given["valid"][:, :, 1] = False
    model(**given)
    with_view = model.encoder[1].running_mean.clone()
    alone = tiny(dropout=0.0, num_views=1).train()
    alone(**{name: values[:, :, :1] if values.ndim > 2 else values for name, values in given.items()})
    torch.testing.assert_close(with_view, alone.encoder[1].running_mean)


def test_a_sample_without_any_point_gives_finite_logits_and_gradients():
    model, given = tiny().train(), sample()
    given["valid"][0] = False
    logits = model(**given)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("frames", [1, 5, 12])
def test_any_number_of_instants_fits(frames):
    assert tiny()(**sample(frames=frames)).shape == (2, 3)


def test_masks_and_velocities_may_be_left_out():
    model, given = tiny().eval(), sample()
    everything = torch.ones_like(given["valid"])
    step = torch.zeros_like(given["xy"])
    step[:, 1:] = given["xy"].diff(dim=1)
    expected = model(given["xy"], everything, given["frame_valid"], step)
    torch.testing.assert_close(model(given["xy"]), expected, atol=1e-5, rtol=1e-4)


def test_one_step_lowers_the_loss_of_its_batch():
    model, given = tiny(dropout=0.0).train(), sample()
    label = torch.tensor([0, 2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = torch.nn.functional.cross_entropy(model(**given), label)
    before.backward()
    optimizer.step()
    assert torch.nn.functional.cross_entropy(model(**given), label) < before


def test_its_table_entry_counts_without_computing():
    model = build_model("view-transformer", num_classes=5).to("meta")
    assert count_flops(model, example_input("view-transformer")) > 1e7
    assert {"num_views", "num_frames"} <= model_settings("view-transformer")
