"""Run the resizer of a trained model on a snippet, to show what the classifier reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.store.opening import open_store
from actionprep.errors import UserError
from actionprep.training.checkpoints import load_checkpoint
from actionprep.training.run import Run
from actionprep.training.test import part_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from actionprep.datasets.store.zarr_store import Store
    from actionprep.training.models.pixels import PixelClassifier


@dataclass(frozen=True)
class Resized:
    """Frames of one snippet before and after a resizer.

    Attributes:
        row: Row of the snippet in the table.
        title: Recording and onset of the snippet.
        stored: Frames before the resizer, uint8 RGB of shape (t, h, w, 3).
        resized: Frames that the classifier reads, uint8 RGB of shape (T, H, W, 3), clipped to 0..255.
        theta: Affine maps in coordinates from -1 to 1: (2, 3), or (t, 2, 3) with one per frame. None without a spatial
            transformer.
        read_point: Point of the forward pass where theta is computed.
        apply_point: Point of the forward pass where theta is applied.
    """

    row: int
    title: str
    stored: np.ndarray
    resized: np.ndarray
    theta: np.ndarray | None
    read_point: str = ""
    apply_point: str = ""


def resized_frames(
    run: Run | str | Path, store: Store | str | Path | None = None, *, row: int | None = None
) -> Resized:
    """Run the resizer of the best checkpoint of a run on one snippet.

    Args:
        run: Run or its folder.
        store: Store of the training; None: as recorded.
        row: Row of the snippet, as in split.csv; None: the first one of the test part, or else of val or train.

    Raises:
        UserError: If the model has no resizer, reads no colors, or the snippet is in no part of the split.
    """
    import torch

    from actionprep.training.models.pixels import PixelClassifier
    from actionprep.training.models.resizers import POINTS, FrontEndI3D, TransformerResizer, front_outputs

    run = run if isinstance(run, Run) else Run.open(run)
    checkpoint = load_checkpoint(run.best)
    model = checkpoint.model
    if not isinstance(model, PixelClassifier) or not isinstance(model.model, FrontEndI3D):
        raise UserError(
            f"The model of {run.folder}, {checkpoint.recipe.model}, has no resizer. Train one with --recipe "
            "i3d-resizer-2d, i3d-resizer-3d, i3d-stn-resizer or i3d-transformer-resizer."
        )
    if not model.channels.startswith("rgb"):
        raise UserError(
            f"{run.folder} reads the channels '{model.channels}', which are no colors. Train with input.channels=rgb."
        )
    parts = {part: rows for part in ("test", "val", "train") if (rows := run.facts["split"]["rows"][part])}
    part = next((name for name, rows in parts.items() if row is None or row in rows), None)
    if part is None:
        raise UserError(f"Row {row} is in no part of the split of {run.folder}; split.csv lists the rows.")
    row = parts[part][0] if row is None else row
    dataset = part_dataset(run, open_store(run.store if store is None else store).snapshot(), checkpoint, part)
    clip = dataset.reader.read([row])["clip"]
    if clip.ndim == 6:
        clip = clip[:, 0]
    with torch.no_grad():
        stored = model.preprocess(clip)
        resized, theta = front_outputs(model.model.front, stored)
    front = model.model.front
    points = (
        (POINTS[front.read_at], POINTS[front.apply_at]) if isinstance(front, TransformerResizer) else (POINTS[0],) * 2
    )
    table = dataset.table
    return Resized(
        row=row,
        title=f"{table.recordings[table.recording[row]]} at {table.onset[row]:.2f} s",
        stored=_colors(model, stored),
        resized=_colors(model, resized),
        theta=None if theta is None else theta[0].float().numpy(),
        read_point=points[0],
        apply_point=points[1],
    )


def _colors(model: PixelClassifier, values: Tensor) -> np.ndarray:
    """RGB frames (T, H, W, 3) uint8 of the first clip (1, C, T, H, W) in the model's value range."""
    import torch

    colors = (values[0, :3] - model.offset.view(3, 1, 1, 1)) / model.scale.view(3, 1, 1, 1)
    colors = colors[torch.argsort(model.color_order)]
    return colors.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()
