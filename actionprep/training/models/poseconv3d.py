"""PoseConv3D: 3D convolutions on heatmap volumes, as the published slow-only ResNet and a small C3D for CPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionprep.errors import UserError


class PoseConv3D(nn.Module):
    """Heatmap volumes → class logits.

    Shapes: clip (B, K, T, H, W) float in 0..1, K joints or limbs, any T, H, W; returns (B, num_classes).

    Based on Duan et al., "Revisiting Skeleton-based Action Recognition", CVPR 2022: SlowOnly-ResNet50 without its first
    stage, 32 base channels. The weights of kennymckormick/pyskl load through their key map.

    Args:
        num_classes: Number of classes.
        in_channels: Joints or limbs.
        base_channels: Channels of the first convolution.
        stage_blocks: Blocks per stage.
        inflate: Per stage, whether its blocks convolve along time.
        temporal_strides: Temporal stride per stage.
        spatial_strides: Spatial stride per stage.
        dropout: Dropout before the head.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 17,
        base_channels: int = 32,
        stage_blocks: tuple[int, ...] = (4, 6, 3),
        inflate: tuple[bool, ...] = (False, True, True),
        temporal_strides: tuple[int, ...] = (1, 1, 2),
        spatial_strides: tuple[int, ...] = (2, 2, 2),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        settings = (stage_blocks, inflate, temporal_strides, spatial_strides)
        if len({len(values) for values in settings}) > 1:
            raise UserError(
                "stage_blocks, inflate, temporal_strides and spatial_strides must have one entry per stage, got "
                f"{len(stage_blocks)}, {len(inflate)}, {len(temporal_strides)} and {len(spatial_strides)} entries."
            )
        self.conv1 = _Unit(in_channels, base_channels, (1, 7, 7))
        stages: list[nn.Module] = []
        channels = base_channels
        for i, (blocks, along_time, *strides) in enumerate(zip(*settings, strict=True)):
            planes = base_channels * 2**i
            stage = []
            for j in range(blocks):
                stage.append(
                    _Bottleneck(
                        channels, planes, (strides[0], strides[1], strides[1]) if j == 0 else (1, 1, 1), along_time
                    )
                )
                channels = 4 * planes
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)
        for part in self.modules():
            if isinstance(part, nn.Conv3d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(part, _Bottleneck):
                nn.init.zeros_(part.conv3.bn.weight)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, clip: Tensor) -> Tensor:
        """Return class logits (B, num_classes)."""
        return self.head(self.dropout(self.features(clip)))

    def features(self, clip: Tensor) -> Tensor:
        """Return the input of the head: the last stage averaged over time and space, (B, channels)."""
        # Convolutions keep the memory format, and channels last is about 1.5 times as fast on CPUs.
        x = self.conv1(clip.contiguous(memory_format=torch.channels_last_3d))
        x = F.max_pool3d(x, (1, 3, 3), stride=1, padding=(0, 1, 1))
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3, 4))


class PoseC3D(nn.Module):
    """Heatmap volumes → class logits, by a few plain 3D convolutions.

    Shapes: clip (B, K, T, H, W) float in 0..1, K joints or limbs, any T, H, W; returns (B, num_classes).

    Based on the C3D variant (Tran et al., ICCV 2015) that Duan et al. (CVPR 2022) compare with SlowOnly. Changes:
    strides instead of pools, batch norm, and one linear head on mean and maximum. It is small enough for CPU training,
    and on small data sets it learns much faster than bottlenecks.

    Args:
        num_classes: Number of classes.
        in_channels: Joints or limbs.
        widths: Output channels of the 3 x 3 x 3 convolutions, at least one. The first halves height and width, the
            others also time.
        dropout: Dropout before the head.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 17,
        widths: tuple[int, ...] = (32, 64, 96, 128),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not isinstance(widths, list | tuple) or not widths or any(type(w) is not int or w < 1 for w in widths):
            raise UserError(
                "widths must list the channels of at least one convolution, each at least 1, for example [32, 64, 96, 128], "
                f"got {widths!r}."
            )
        channels = (in_channels, *widths)
        self.body = nn.Sequential(
            *(_Unit(channels[i], channels[i + 1], (3, 3, 3), (1 if i == 0 else 2, 2, 2)) for i in range(len(widths)))
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * channels[-1], num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Return class logits (B, num_classes)."""
        return self.head(self.dropout(self.features(clip)))

    def features(self, clip: Tensor) -> Tensor:
        """Return the input of the head: mean and maximum of the last convolution over time and space, (B, 2 · channels)."""
        x = self.body(clip.contiguous(memory_format=torch.channels_last_3d))
        return torch.cat([x.mean((2, 3, 4)), x.amax((2, 3, 4))], 1)


class _Unit(nn.Module):
    """Convolution without bias, batch norm, and ReLU if `relu`."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        *,
        relu: bool = True,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(channels_out)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x, inplace=True) if self.relu else x


class _Bottleneck(nn.Module):
    """Residual block of 1x1 (3x1x1 if `along_time`) → 1x3x3 → 1x1 convolutions."""

    def __init__(self, channels: int, planes: int, stride: tuple[int, int, int], along_time: bool) -> None:
        super().__init__()
        self.conv1 = _Unit(channels, planes, (3 if along_time else 1, 1, 1))
        self.conv2 = _Unit(planes, planes, (1, 3, 3), stride)
        self.conv3 = _Unit(planes, 4 * planes, (1, 1, 1), relu=False)
        grows = channels != 4 * planes or stride != (1, 1, 1)
        self.downsample = _Unit(channels, 4 * planes, (1, 1, 1), stride, relu=False) if grows else None

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(self.conv3(self.conv2(self.conv1(x))) + skip)
