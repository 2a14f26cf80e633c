"""Learned enlargement of small clips before I3D: resizers, spatial transformers and their combination."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.i3d import I3D

# Points of a TransformerResizer where theta can be computed or applied, in order of the forward pass.
POINTS = (
    "the input",
    "after the first convolution",
    "after the second convolution",
    "after the enlargement",
    "after the residual blocks",
    "after the third convolution",
    "after adding the features",
    "after the last convolution",
    "after adding the clip",
)


class Resizer(nn.Module):
    """Small clips → clips of the classifier's size.

    Shapes: clip (B, C, t, h, w) float of any size, in the classifier's value range; returns (B, C, T, H, W) with
    size = (T, H, W).

    The output is a trilinear enlargement plus a correction by a small convolutional network. Based on Talebi and
    Milanfar, "Learning to Resize Images for Computer Vision Tasks", ICCV 2021, in the 3D form of the TinyVIRAT study
    (abhay3010/pytorch-i3d, V4_3D and V4_2D).

    Args:
        kernel: "3d" convolves along time, "2d" within single frames.
        blocks: Residual blocks.
        size: Output (T, H, W).
        in_channels: Color channels.
        width: Channels of the network.
    """

    def __init__(
        self,
        *,
        kernel: Literal["2d", "3d"] = "3d",
        blocks: int = 1,
        size: tuple[int, int, int] = (32, 112, 112),
        in_channels: int = 3,
        width: int = 16,
    ) -> None:
        super().__init__()
        if kernel not in ("2d", "3d"):
            raise UserError(f"kernel must be '2d' or '3d', got {kernel!r}.")
        first, inner, last = ((7, 7, 7), (3, 3, 3), (3, 3, 3)) if kernel == "3d" else ((1, 7, 7), (1, 3, 3), (1, 7, 7))
        self.size = size
        self.c1 = _Unit(in_channels, width, first, norm=False)
        self.c2 = _Unit(width, width, (1, 1, 1))
        self.residual_blocks = nn.Sequential(*(_ResidualBlock(width, inner) for _ in range(blocks)))
        self.c3 = _Unit(width, width, inner, activate=False)
        self.c4 = _Unit(width, in_channels, last, activate=False, norm=False)

    def forward(self, clip: Tensor) -> Tensor:
        """Return the enlarged clips."""
        x = enlarge(self.c2(self.c1(clip)), self.size)
        return self.c4(self.c3(self.residual_blocks(x)) + x) + enlarge(clip, self.size)


class SpatialTransformer(nn.Module):
    """Warp clips by an affine map that a network predicts from them.

    Shapes: clip (B, C, T, H, W) float of any size; returns the same shape.

    Based on Jaderberg et al., "Spatial Transformer Networks", NeurIPS 2015, at the size of the TinyVIRAT study
    (abhay3010/pytorch-i3d). Changes: frames are cut along time (the reshape of the study mixed three consecutive
    frames of one color). One map per clip, so there is no jitter. Any input size, because features are pooled to a
    fixed grid (the 14-pixel input of the study failed).

    Args:
        in_channels: Color channels.
        grid: Height and width of the pooled features.
        per_frame: Use one map per frame instead of one per clip.
    """

    def __init__(self, *, in_channels: int = 3, grid: int = 7, per_frame: bool = False) -> None:
        super().__init__()
        self.per_frame = per_frame
        self.localisation = nn.Sequential(
            nn.Conv2d(in_channels, 16, 7, padding=3),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Tanh(),
            nn.Conv2d(16, 8, 5, padding=2),
            nn.MaxPool2d(2),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(grid),
        )
        self.affine = _affine_head(8 * grid * grid)

    def theta(self, clip: Tensor) -> Tensor:
        """Compute the affine map: (B, 2, 3), or (B, T, 2, 3) with per_frame."""
        features = frame_features(self.localisation, clip, per_frame=self.per_frame)
        return self.affine(features).unflatten(-1, (2, 3))

    def forward(self, clip: Tensor) -> Tensor:
        """Return the warped clips."""
        return warp(clip, self.theta(clip))


class TransformerResizer(nn.Module):
    """A 2D resizer with a spatial transformer inside.

    Shapes: clip (B, C, t, h, w) float of any size, in the classifier's value range; returns (B, C, T, H, W) with
    size = (T, H, W).

    Based on TransformerWithResizer of abhay3010/pytorch-i3d. Changes: theta = (0.5 + sigmoid(s)) * affine starts as the
    identity (1 + sigmoid(s) of the study started with a scale of 1.5, a zoom out with a black border). Frames are cut
    along time. One theta per clip unless `per_frame`. Any input size.

    Args:
        read_at: Point of the forward pass where theta is computed, 0 to 8; see POINTS. From point 3 on, the features
            have the output size.
        apply_at: Point where theta is applied; not before `read_at`, which gives 45 pairs.
        blocks: Residual blocks.
        size: Output (T, H, W).
        in_channels: Color channels.
        grid: Height and width of the pooled features.
        per_frame: Use one theta per frame instead of one per clip.
    """

    def __init__(
        self,
        *,
        read_at: int = 0,
        apply_at: int = 0,
        blocks: int = 1,
        size: tuple[int, int, int] = (32, 112, 112),
        in_channels: int = 3,
        grid: int = 7,
        per_frame: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= read_at <= apply_at < len(POINTS):
            raise UserError(
                f"read_at and apply_at must satisfy 0 <= read_at <= apply_at <= {len(POINTS) - 1}, got read_at={read_at}, "
                f"apply_at={apply_at}. Points: " + ", ".join(f"{i} {name}" for i, name in enumerate(POINTS)) + "."
            )
        self.read_at = read_at
        self.apply_at = apply_at
        self.size = size
        self.per_frame = per_frame
        self.c1 = _Unit(in_channels, 32, (1, 7, 7), norm=False)
        self.c2 = _Unit(32, 16, (1, 1, 1))
        self.residual_blocks = nn.Sequential(*(_ResidualBlock(16, (1, 3, 3)) for _ in range(blocks)))
        self.c3 = _Unit(16, 16, (1, 3, 3), activate=False)
        self.c4 = _Unit(16, in_channels, (1, 7, 7), activate=False, norm=False)
        channels = {0: in_channels, 1: 32, 7: in_channels, 8: in_channels}.get(read_at, 16)
        self.localisation = nn.Sequential(
            nn.Conv2d(channels, 16, 5, padding=2),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.Tanh(),
            nn.Conv2d(16, 8, 3, padding=1),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(8),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(grid),
        )
        self.affine = _affine_head(8 * grid * grid)
        self.scale = _small_head(8 * grid * grid, [0.0])

    def theta(self, x: Tensor) -> Tensor:
        """Compute the affine map from x (B, C, T, H, W): (B, 2, 3), or (B, T, 2, 3) with per_frame."""
        features = frame_features(self.localisation, x, per_frame=self.per_frame)
        return (self.affine(features) * (0.5 + self.scale(features).sigmoid())).unflatten(-1, (2, 3))

    def forward(self, clip: Tensor) -> Tensor:
        """Return the enlarged and warped clips."""
        return self.with_theta(clip)[0]

    def with_theta(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Return the enlarged and warped clips, and the affine maps of `theta`."""
        theta: Tensor | None = None

        def point(index: int, x: Tensor) -> Tensor:
            nonlocal theta
            if index == self.read_at:
                theta = self.theta(x)
            return warp(x, theta) if index == self.apply_at and theta is not None else x

        clip = point(0, clip)
        x = point(2, self.c2(point(1, self.c1(clip))))
        enlarged = point(3, enlarge(x, self.size))
        x = point(5, self.c3(point(4, self.residual_blocks(enlarged))))
        x = point(7, self.c4(point(6, x + enlarged)))
        x = point(8, x + enlarge(clip, self.size))
        assert theta is not None
        return x, theta


class FrontEndI3D(I3D):
    """A front end followed by I3D, trained together.

    Shapes: clip (B, C, t, h, w) float of any size, RGB scaled to -1..1; returns (B, num_classes).

    The state dict is that of I3D plus `front`, so published I3D weights load.

    Args:
        front: Module from the stored clip to the clip that I3D reads.
        **i3d: Arguments of `I3D`.
    """

    def __init__(self, front: nn.Module, **i3d: Any) -> None:
        super().__init__(**i3d)
        self.front = front

    def features(self, clip: Tensor) -> Tensor:
        """Return the input of the head, (B, channels)."""
        return super().features(self.front(clip))


def front_outputs(front: nn.Module, clip: Tensor) -> tuple[Tensor, Tensor | None]:
    """Run the front end of a `FrontEndI3D`.

    Args:
        front: The front end.
        clip: Clips of shape (B, C, t, h, w) in the classifier's value range.

    Returns:
        The clips that I3D reads, and the affine maps of the spatial transformer: (B, 2, 3) or (B, t, 2, 3). None if the
        front end has no spatial transformer.
    """
    if isinstance(front, TransformerResizer):
        return front.with_theta(clip)
    if isinstance(front, nn.Sequential) and isinstance(front[0], SpatialTransformer):
        theta = front[0].theta(clip)
        return front[1](warp(clip, theta)), theta
    return front(clip), None


def i3d_resizer(
    *,
    num_classes: int,
    kernel: Literal["2d", "3d"] = "3d",
    blocks: int = 1,
    size: tuple[int, int, int] = (32, 112, 112),
    in_channels: int = 3,
    **i3d: Any,
) -> FrontEndI3D:
    """Build I3D behind a `Resizer`; other arguments go to `I3D`."""
    front = Resizer(kernel=kernel, blocks=blocks, size=size, in_channels=in_channels)
    return FrontEndI3D(front, num_classes=num_classes, in_channels=in_channels, **i3d)


def i3d_stn_resizer(
    *,
    num_classes: int,
    kernel: Literal["2d", "3d"] = "2d",
    blocks: int = 1,
    size: tuple[int, int, int] = (32, 112, 112),
    in_channels: int = 3,
    per_frame: bool = False,
    **i3d: Any,
) -> FrontEndI3D:
    """Build I3D behind a `SpatialTransformer` and a `Resizer`; other arguments go to `I3D`."""
    front = nn.Sequential(
        SpatialTransformer(in_channels=in_channels, per_frame=per_frame),
        Resizer(kernel=kernel, blocks=blocks, size=size, in_channels=in_channels),
    )
    return FrontEndI3D(front, num_classes=num_classes, in_channels=in_channels, **i3d)


def i3d_transformer_resizer(
    *,
    num_classes: int,
    read_at: int = 0,
    apply_at: int = 0,
    blocks: int = 1,
    size: tuple[int, int, int] = (32, 112, 112),
    in_channels: int = 3,
    per_frame: bool = False,
    **i3d: Any,
) -> FrontEndI3D:
    """Build I3D behind a `TransformerResizer`; other arguments go to `I3D`."""
    front = TransformerResizer(
        read_at=read_at, apply_at=apply_at, blocks=blocks, size=size, in_channels=in_channels, per_frame=per_frame
    )
    return FrontEndI3D(front, num_classes=num_classes, in_channels=in_channels, **i3d)


def enlarge(x: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Resize (B, C, t, h, w) to (B, C, T, H, W) trilinearly, with aligned corners."""
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="trilinear", align_corners=True)


def warp(x: Tensor, theta: Tensor) -> Tensor:
    """Warp clips by affine maps: bilinear sampling with zeros outside the frame.

    Args:
        x: Clips of shape (B, C, T, H, W).
        theta: One map per clip (B, 2, 3), or one per frame (B, T, 2, 3), in coordinates from -1 to 1.

    Returns:
        Warped clips in the shape of x.
    """
    batch, _, frames, height, width = x.shape
    per_clip = theta.ndim == 3
    # Half-precision coordinates would move pixels, so sample in float32.
    maps = (theta if per_clip else theta.flatten(0, 1)).float()[:, None, None]
    columns = (2 * torch.arange(width, device=x.device, dtype=torch.float32) + 1) / width - 1
    rows = ((2 * torch.arange(height, device=x.device, dtype=torch.float32) + 1) / height - 1).unsqueeze(1)
    grid = maps[..., 0] * columns.unsqueeze(-1) + maps[..., 1] * rows.unsqueeze(-1) + maps[..., 2]
    images = (x.flatten(1, 2) if per_clip else x.transpose(1, 2).flatten(0, 1)).float()
    warped = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if per_clip:
        return warped.view_as(x).to(x.dtype)
    return warped.unflatten(0, (batch, frames)).transpose(1, 2).to(x.dtype)


def frame_features(network: nn.Module, x: Tensor, *, per_frame: bool) -> Tensor:
    """Run a 2D network on each frame.

    Args:
        network: Network for frames (B, C, H, W).
        x: Clips of shape (B, C, T, H, W).
        per_frame: Return the features of each frame instead of their mean over time.

    Returns:
        Flattened features (B, T, F) with `per_frame`, else (B, F).
    """
    features = network(x.transpose(1, 2).flatten(0, 1)).flatten(1).unflatten(0, (x.shape[0], x.shape[2]))
    return features if per_frame else features.mean(1)


def _affine_head(features: int) -> nn.Sequential:
    """Features → the six values of an affine map, initially the identity."""
    return _small_head(features, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0])


def _small_head(features: int, start: list[float]) -> nn.Sequential:
    """Features → len(start) values that initially equal `start` for any features."""
    last = nn.Linear(32, len(start))
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor(start))
    return nn.Sequential(nn.Linear(features, 32), nn.Tanh(), last)


class _Unit(nn.Module):
    """Convolution without bias that keeps the size, then leaky ReLU, then batch norm."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: tuple[int, int, int],
        *,
        activate: bool = True,
        norm: bool = True,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv3d = nn.Conv3d(channels_in, channels_out, kernel, padding=padding, bias=False)
        self.bn = nn.BatchNorm3d(channels_out, eps=1e-3, momentum=0.01) if norm else None
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.conv3d.kernel_size
        if x.shape[2] < kernel[0]:
            # Pad here: oneDNN's bfloat16 gradients read out of bounds if a kernel is larger than the clip.
            padded = F.pad(x, (0, 0, 0, 0, kernel[0] // 2, kernel[0] // 2))
            x = F.conv3d(padded, self.conv3d.weight, None, 1, (0, kernel[1] // 2, kernel[2] // 2))
        else:
            x = self.conv3d(x)
        if self.activate:
            x = F.leaky_relu(x, 0.2)
        return x if self.bn is None else self.bn(x)


class _ResidualBlock(nn.Module):
    """Residual block of two convolutions with batch norm and a leaky ReLU between them."""

    def __init__(self, width: int, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv1 = nn.Conv3d(width, width, kernel, padding=padding)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, kernel, padding=padding)
        self.bn2 = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(F.leaky_relu(self.bn1(self.conv1(x)), 0.2)))
