"""Get boxes of people from masks, from a file or from RT-DETR, for estimators that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionprep.datasets.poses.formats.content import numbers, whole_numbers
from actionprep.errors import InputError, SetupError, UserError, explained_read_errors, name_list

Boxes = list[NDArray[np.float32]]


def boxes_from_masks(foreground: ArrayLike, *, least_share: float = 0.001) -> Boxes:
    """Return the box around the foreground of each frame.

    Args:
        foreground: Masks, bool of shape (T, H, W).
        least_share: Smallest fraction of the frame that a mask must cover; smaller masks give no box.

    Returns:
        For each frame one box or none, left, top, right, bottom and the score 1, float32 of shape (0 or 1, 5).

    Raises:
        UserError: If the masks have another number of dimensions.
    """
    masks = np.asarray(foreground, bool)
    if masks.ndim != 3:
        raise UserError(f"Masks must have the shape (frames, height, width), got {masks.shape}.")
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if mask.sum() < max(1, least_share * mask.size):
            boxes.append(np.zeros((0, 5), np.float32))
        else:
            boxes.append(np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1, 1]], np.float32))
    return boxes


def read_boxes(path: str | Path, num_frames: int) -> Boxes:
    """Read boxes from a csv file with the columns frame, left, top, right, bottom and optionally score.

    Args:
        path: Path of the file.
        num_frames: Number of frames of the view.

    Returns:
        For each frame, left, top, right, bottom and score of its boxes, float32 of shape (M, 5).

    Raises:
        UserError: If the file does not exist.
        InputError: If the file is damaged, lacks a column or has invalid values.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise UserError(f"No file of boxes at {path}.")
    try:
        with explained_read_errors(path):
            table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable csv file: {error}.") from None
    columns = ["frame", "left", "top", "right", "bottom"]
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(f"{path} has no column '{missing[0]}'. It has {', '.join(map(str, table.columns))}.")
    if "score" not in table.columns:
        table["score"] = 1.0
    values = np.stack([numbers(table[name], f"The column '{name}'", str(path)) for name in (*columns, "score")], -1)
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise InputError(f"Row {row + 2} of {path} has a value that is not finite.")
    backwards = np.flatnonzero((values[:, 3] <= values[:, 1]) | (values[:, 4] <= values[:, 2]))
    if len(backwards):
        raise InputError(
            f"Row {int(backwards[0]) + 2} of {path} is not a box: right must exceed left, and bottom must exceed top."
        )
    frames = whole_numbers(values[:, 0], "The column 'frame'", str(path))
    outside = (frames < 0) | (frames >= num_frames)
    if outside.any():
        raise InputError(f"{path} has a box in frame {frames[outside][0]}; the view has frames 0 to {num_frames - 1}.")
    return [values[frames == frame, 1:].astype(np.float32) for frame in range(num_frames)]


class RTDetrPeople:
    """Detect people with RT-DETR (Zhao et al., CVPR 2024) from the package transformers.

    Args:
        model: Folder or hub name.
        score: Lowest confidence of a person.
        device: Device of the model, for example "cuda".
        batch_size: Frames per batch.

    Raises:
        UserError: If the detector has no class "person".
        SetupError: If transformers or the weights are missing.
    """

    def __init__(
        self,
        model: str = "PekingU/rtdetr_r18vd",
        *,
        score: float = 0.5,
        device: str = "cpu",
        batch_size: int = 8,
    ) -> None:
        self._model = load_pretrained("RTDetrForObjectDetection", model).to(device).eval()
        self.model, self._score, self._device, self._batch = model, score, device, batch_size
        labels = {str(name).lower(): int(index) for index, name in self._model.config.id2label.items()}
        if "person" not in labels:
            raise UserError(f"The detector '{model}' has no class 'person'. It has {name_list(list(labels), 8)}.")
        self._person = labels["person"]

    def __call__(self, frames: NDArray[np.uint8]) -> Boxes:
        """Detect the people in frames.

        Args:
            frames: RGB frames, uint8 of shape (B, H, W, 3).

        Returns:
            For each frame, left, top, right, bottom and score, float32 of shape (M, 5), the highest score first.
        """
        import cv2
        import torch

        height, width = frames.shape[1:3]
        boxes: Boxes = []
        for start in range(0, len(frames), self._batch):
            part = [
                cv2.resize(frame, (640, 640), interpolation=cv2.INTER_AREA)
                for frame in frames[start : start + self._batch]
            ]
            pixels = torch.from_numpy(np.stack(part)).to(self._device).permute(0, 3, 1, 2).float() / 255
            with torch.inference_mode():
                result = self._model(pixel_values=pixels)
            scores = result.logits.sigmoid()[..., self._person].cpu().numpy()
            centers = result.pred_boxes.cpu().numpy()
            for score, box in zip(scores, centers, strict=True):
                corners = np.concatenate([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], 1)
                corners = corners * [width, height, width, height]
                rows = np.concatenate([corners, score[:, None]], 1)[score >= self._score]
                boxes.append(rows[np.argsort(-rows[:, 4], kind="stable")].astype(np.float32))
        return boxes

    def identity(self) -> dict[str, str]:
        """Return the name of the detector, the hash of its weights and its settings."""
        return {
            "detector": self.model,
            "detector weights": weights_digest(self._model),
            "detector score": str(self._score),
        }


def load_pretrained(architecture: str, model: str) -> Any:
    """Load a transformers model. Only weights in safetensors format are read.

    Args:
        architecture: Name of the class in transformers.
        model: Folder or hub name.

    Returns:
        The model.

    Raises:
        SetupError: If transformers or the weights are missing.
    """
    try:
        import transformers
    except ModuleNotFoundError:
        raise SetupError(
            "This backend needs transformers, which is not installed.\n"
            '  do        pip install "actionprep[hf]"\n'
            "  or use    the backend mediapipe, which needs no downloaded weights"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    try:
        return getattr(transformers, architecture).from_pretrained(model, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise SetupError(
            f"The weights of {architecture} '{model}' are missing and cannot be downloaded: "
            f"{str(error).splitlines()[0]}\n"
            f"  do one of    give a folder made by `save_pretrained` or by downloading {model} · run once with "
            "internet access\n"
            "  or use       the backend mediapipe; its package contains the model"
        ) from None


def weights_digest(model: Any) -> str:
    """Return the SHA-256 hash of all weights of a torch model, in hex."""
    import hashlib

    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
