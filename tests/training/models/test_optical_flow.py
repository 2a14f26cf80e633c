import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, shift

from actionprep.training.models.optical_flow import optical_flow
from actionprep.training.models.pixels import PixelClassifier
from actionprep.training.models.registry import SIGNED


def texture(size: int = 64) -> np.ndarray:
    image = gaussian_filter(np.random.default_rng(0).random((size, size)), 2, mode="wrap")
    return (image - image.min()) / (image.max() - image.min())


@pytest.mark.parametrize(("dx", "dy"), [(1.0, 0.0), (0.0, -1.5), (-3.0, 2.0), (6.0, 5.0)])
def test_optical_flow_of_a_moved_texture(dx, dy):
    image = texture()
    moved = shift(image, (dy, dx), order=3, mode="grid-wrap")
    flow = optical_flow(torch.tensor(np.stack([image, moved]))[None].float())
    assert flow.shape == (1, 2, 2, 64, 64)
    assert (flow[:, :, 0] == 0).all()
    inner = flow[0, :, 1, 16:-16, 16:-16].median(-1).values.median(-1).values
    assert inner.tolist() == pytest.approx([dx, dy], abs=0.15)


def test_optical_flow_is_zero_where_nothing_moves():
    still = torch.tensor(texture()).float().expand(2, 3, 64, 64)
    assert optical_flow(still).abs().max() < 1e-3
    assert optical_flow(torch.full((1, 2, 20, 30), 0.5)).abs().max() == 0
    assert optical_flow(still[:, :1]).abs().max() == 0


def test_flow_channels_are_scaled_to_twenty_pixels():
    image = texture()
    moved = shift(image, (0, 2), order=3, mode="grid-wrap")
    gray = torch.tensor(np.stack([image, moved]) * 255).float()
    clip = gray[None, None].expand(1, 3, 2, 64, 64)
    flow = PixelClassifier(torch.nn.Identity(), SIGNED, channels="flow").preprocess(clip)
    assert flow.shape == (1, 2, 2, 64, 64)
    assert flow[0, 0, 1, 16:-16, 16:-16].median().item() == pytest.approx(0.1, abs=0.01)
    both = PixelClassifier(torch.nn.Identity(), SIGNED, channels="rgb-flow").preprocess(clip)
    assert torch.equal(both[:, 3:], flow)
    assert torch.equal(both[:, :3], PixelClassifier(torch.nn.Identity(), SIGNED).preprocess(clip))
