"""PoseConv3D, 3D convolutions on heatmap volumes: the published slow-only ResNet, and a small C3D for CPU training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionprep.errors import UserError


class PoseConv3D(nn.Module):
    """Heatmap volumes → class logits.

    clip (B, K, T, H, W) float in 0..1, K joints or limbs, any T, H, W → (B, num_classes).

    Duan et al., "Revisiting Skeleton-based Action Recognition", CVPR 2022: SlowOnly-ResNet50 without its first stage,
    32 base channels. Names of parts follow the published weights (kennymckormick/pyskl), which load through their key
    map.

    stage_blocks, inflate, temporal_strides, spatial_strides: one entry a stage; `inflate` says whether a stage's blocks
    look along time.
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
        if len({len(one) for one in settings}) > 1:
            raise UserError(
                f"PoseConv3D wants one entry a stage, and stage_blocks has {len(stage_blocks)}, inflate "
                f"{len(inflate)}, temporal_strides {len(temporal_strides)}, spatial_strides {len(spatial_strides)}."
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
        """Class logits (B, num_classes)."""
        return self.head(self.dropout(self.features(clip)))

    def features(self, clip: Tensor) -> Tensor:
        """What the head sees: the last stage averaged over time and space, (B, channels)."""
        # Convolutions keep this order, in which they are about 1.5 times as fast on CPUs.
        x = self.conv1(clip.contiguous(memory_format=torch.channels_last_3d))
        x = F.max_pool3d(x, (1, 3, 3), stride=1, padding=(0, 1, 1))
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3, 4))


class PoseC3D(nn.Module):
    """Heatmap volumes → class logits, by a few plain 3D convolutions.

    clip (B, K, T, H, W) float in 0..1, K joints or limbs, any T, H, W → (B, num_classes).

    PoseConv3D with the kind of network that Duan et al. (CVPR 2022) tried beside SlowOnly: C3D (Tran et al., ICCV
    2015). Changed: strides instead of pools, batch norm, no fully connected layers but the head, which sees mean and
    maximum; small enough for CPU training. On small data sets it learns far sooner than bottlenecks do.

    widths: output channels of the 3 x 3 x 3 convolutions, one at least. The first halves the maps, all others time as
    well.
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
                f"PoseC3D wants the channels of each convolution in widths, one number or more, each at least 1, as in "
                f"[32, 64, 96, 128], and widths is {widths!r}."
            )
        channels = (in_channels, *widths)
        self.body = nn.Sequential(
            *(_Unit(channels[i], channels[i + 1], (3, 3, 3), (1 if i == 0 else 2, 2, 2)) for i in range(len(widths)))
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * channels[-1], num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Class logits (B, num_classes)."""
        return self.head(self.dropout(self.features(clip)))

    def features(self, clip: Tensor) -> Tensor:
        """What the head sees: mean and maximum of the last convolution over time and space, (B, 2 · channels)."""
        x = self.body(clip.contiguous(memory_format=torch.channels_last_3d))
        return torch.cat([x.mean((2, 3, 4)), x.amax((2, 3, 4))], 1)


class _Unit(nn.Module):
    """Convolution without bias, batch norm, ReLU unless told otherwise."""

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
    """1x1 (3 along time where inflated) → 1x3x3 → 1x1 convolutions around a skip."""

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
