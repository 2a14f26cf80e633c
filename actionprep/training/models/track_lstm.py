"""LSTMs on tracked points that label every frame and can carry their state along a recording."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from actionprep.errors import UserError
from actionprep.training.models.maaf import ViewAttention


class LstmState(NamedTuple):
    """State of an LSTM within a recording.

    Attributes:
        hidden: Hidden state, shape (layers, B, hidden).
        cell: Cell state, shape (layers, B, hidden).
    """

    hidden: Tensor
    cell: Tensor


class TrackLstm(nn.Module):
    """Points of several views over time → class logits of every frame.

    Shapes: xy (B, T, V, N, 2) float, normalized to the moving region; valid (B, T, V, N) bool; frame_valid (B, T) bool
    with padding at the end; returns (B, T, num_classes), zeros at padded frames. `advance` also takes and returns the
    state, to process a recording in chunks.

    Based on the furniture-assembly LSTMs (baturalpguven/AI-Driven-Furniture-Assembly-Tracking-System). Changes: invalid
    points are masked. Coordinates are normalized instead of raw pixels, and the view attention weights x and y
    separately. The end of a recording is a mask, not a frame of zeros. The residual blocks of the CNN have the skip
    connection that the original omits, and an initialization that preserves the signal scale. Any batch size.

    Args:
        num_classes: Number of classes.
        num_points: Points per view; ignored by the encoder "cnn".
        num_views: Number of views.
        hidden: Width of the LSTM.
        layers: LSTM layers.
        dropout: Dropout between LSTM layers.
        encoder: "flat" concatenates all coordinates of all views (the published LSTM: 400 points x 2 x 8 views = 6400
            values). "cnn" treats the views as channels of an N x 2 grid (the published CNN-LSTM, any N).
        features: Output width of the encoder "cnn".
        faithful: Compute as the original does: all points count as valid, the view attention averages x and y, and the
            CNN has no skip connections. None: True if weights of the original are loaded, else False.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_points: int = 400,
        num_views: int = 8,
        hidden: int = 512,
        layers: int = 2,
        dropout: float = 0.0,
        encoder: str = "flat",
        features: int = 32,
        faithful: bool | None = None,
    ) -> None:
        super().__init__()
        if encoder not in ("flat", "cnn"):
            raise UserError(f"encoder must be 'flat' or 'cnn', got {encoder!r}.")
        self.num_points = num_points if encoder == "flat" else None
        self.num_views = num_views
        self.views = ViewAttention()
        self.encoder = nn.Flatten(2) if encoder == "flat" else _ViewsAsChannels(num_views, features)
        width = num_views * num_points * 2 if encoder == "flat" else features
        self.lstm = nn.LSTM(width, hidden, layers, batch_first=True, dropout=dropout)
        self.head = nn.Linear(hidden, num_classes)
        self.faithful: bool | None = None
        if faithful is not None:
            self.set_variant(faithful=faithful)

    def set_variant(self, *, faithful: bool) -> None:
        """Compute as the original does, or with our changes; the weights are the same."""
        self.faithful = faithful
        self.views.per_axis = not faithful
        for part in self.encoder.modules():
            if isinstance(part, _Residual):
                part.skip = not faithful

    def forward(self, xy: Tensor, valid: Tensor | None = None, frame_valid: Tensor | None = None) -> Tensor:
        """Return class logits of every frame (B, T, num_classes), starting from a zero state."""
        logits = self.head(self.lstm(self._encode(xy, valid))[0])
        # Padding is at the end, so it does not affect earlier frames.
        return logits if frame_valid is None else logits.masked_fill(~frame_valid.unsqueeze(-1), 0.0)

    def advance(
        self,
        xy: Tensor,
        valid: Tensor | None = None,
        frame_valid: Tensor | None = None,
        *,
        state: LstmState | None = None,
    ) -> tuple[Tensor, LstmState]:
        """Label the next frames of a recording.

        Splitting a recording into chunks does not change its logits.

        Args:
            xy: Points of shape (B, T, V, N, 2).
            valid: Valid points, shape (B, T, V, N); None: all.
            frame_valid: Valid frames, shape (B, T); None: all. Invalid frames can be anywhere and have no effect.
            state: State returned by the previous call; None at the start of a recording.

        Returns:
            Logits (B, T, num_classes), zero at invalid frames, and the state after the last valid frame.
        """
        x = self._encode(xy, valid)
        batch, frames, _ = x.shape
        if state is None:
            zeros = x.new_zeros(self.lstm.num_layers, batch, self.lstm.hidden_size)
            state = LstmState(zeros, zeros)
        if frame_valid is None:
            out, (h, c) = self.lstm(x, tuple(state))
            return self.head(out), LstmState(h, c)
        # Skip invalid frames: move valid frames to the front, and restore the order afterwards.
        order = torch.argsort(~frame_valid, dim=1, stable=True)
        lengths = frame_valid.sum(1)
        x = x.gather(1, order.unsqueeze(-1).expand_as(x))
        packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        packed, (h, c) = self.lstm(packed, tuple(state))
        out, _ = pad_packed_sequence(packed, batch_first=True, total_length=frames)
        logits = self.head(out)
        logits = logits.gather(1, order.argsort(1).unsqueeze(-1).expand_as(logits))
        updated = (lengths > 0).view(1, batch, 1)
        state = LstmState(torch.where(updated, h, state.hidden), torch.where(updated, c, state.cell))
        return logits.masked_fill(~frame_valid.unsqueeze(-1), 0.0), state

    def _encode(self, xy: Tensor, valid: Tensor | None) -> Tensor:
        _, _, views, points, _ = xy.shape
        if views != self.num_views or (self.num_points is not None and points != self.num_points):
            raise UserError(
                f"Expected {self.num_views} views"
                + (f" of {self.num_points} points" if self.num_points is not None else "")
                + f", got {views} views of {points} points. Select views and points to match, or build the model for "
                "these numbers."
            )
        if valid is None or self.faithful:
            valid = torch.ones(xy.shape[:-1], dtype=torch.bool, device=xy.device)
        return self.encoder(self.views(xy.masked_fill(~valid.unsqueeze(-1), 0.0), valid))


class _ViewsAsChannels(nn.Module):
    """CNN with views as channels of an N x 2 grid: xy (B, T, V, N, 2) → (B, T, features)."""

    def __init__(self, num_views: int, features: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(num_views, num_views, 3, padding=1, groups=num_views)
        self.pointwise = nn.Conv2d(num_views, 16, 1)
        self.residual1 = _Residual(16, 32)
        self.residual2 = _Residual(32, 64)
        self.fc = nn.Linear(64, features)
        # Without normalization layers, PyTorch's default initialization shrinks the signal to almost 0 in six layers.
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                nn.init.zeros_(part.bias)

    def forward(self, xy: Tensor) -> Tensor:
        x = F.relu(self.pointwise(F.relu(self.depthwise(xy.flatten(0, 1)))))
        x = self.residual2(self.residual1(x))
        return self.fc(x.mean((2, 3))).unflatten(0, xy.shape[:2])


class _Residual(nn.Module):
    """Residual block of two convolutions; the skip pads new channels with zeros, without parameters.

    Attributes:
        skip: Use the skip connection.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.grow = channels_out - channels_in
        self.skip = True

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x))
        return F.relu(out + F.pad(x, (0, 0, 0, 0, 0, self.grow)) if self.skip else out)
