"""Masks from a text prompt: Grounding DINO finds boxes, and SAM 2 segments them, both through transformers."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from actionprep.errors import InputError, SetupError
from actionprep.pipeline.mask_sources.source import MaskBlock, MaskSource

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.pipeline.mask_sources.settings import MasksSettings
    from actionprep.pipeline.stage import FrameBlock, ViewSource

# Both models use the mean and the standard deviation of ImageNet, as in preprocessor_config.json of their checkpoints.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_SHORT_SIDE, _LONG_SIDE = 800, 1333
_CONNECT_S = 5.0


class TextMasks(MaskSource):
    """Segment what a text prompt names, with Grounding DINO and SAM 2 through transformers; slow without a GPU."""

    def __init__(self, settings: MasksSettings, source: ViewSource, done: Mapping[str, ItemReader]) -> None:
        super().__init__(settings, source, done)
        self._models = _models(settings)
        self._num_found, self._best = 0, 0.0

    @classmethod
    def identity(cls, settings: MasksSettings) -> dict[str, str]:  # noqa: D102
        return _models(settings).identity()

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        foreground = np.zeros((len(block.index), self.source.height, self.source.width), bool)
        for mask, frame in zip(foreground, block.rgb, strict=True):
            boxes, best = self._models.boxes(frame, self.settings.box_score)
            self._best = max(self._best, best)
            if len(boxes):
                self._num_found += 1
                mask[:] = self._models.masks(frame, boxes).any(0)
        return MaskBlock(block.index, foreground)

    def finish(self, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        if not self._num_found:
            where = f"{self.source.recording}, view {self.source.view}"
            raise InputError(
                f"The prompt '{self.settings.prompt}' found nothing in {where}: the highest score of a box is "
                f"{self._best:.2f}, expected {self.settings.box_score:g} or more.\n"
                "Name what is visible in simple words, such as 'hands . black sticks', or lower masks.box_score."
            )
        return MaskBlock.empty(self.source.height, self.source.width)


class PromptedModels:
    """Grounding DINO and SAM 2.

    Args:
        detector: Folder or hub name of Grounding DINO.
        segmenter: Folder or hub name of SAM 2.
        prompt: Names of things, separated by dots.
        device: Device of the models, for example "cuda".

    Raises:
        SetupError: If transformers, weights or the tokenizer are missing.
    """

    def __init__(self, detector: str, segmenter: str, prompt: str, device: str) -> None:
        self._detector = _load("GroundingDinoForObjectDetection", detector, "detector").to(device).eval()
        self._segmenter = _load("Sam2Model", segmenter, "segmenter").to(device).eval()
        self._device = device
        self._tokens = {name: value.to(device) for name, value in _tokenize(detector, prompt).items()}
        self._size = int(np.max(self._segmenter.config.prompt_encoder_config.image_size))

    def identity(self) -> dict[str, str]:
        """Return the hashes of the weights and of the tokens."""
        import hashlib

        from actionprep.pipeline.pose_backends.boxes import weights_digest

        tokens = self._tokens["input_ids"].cpu().numpy().tobytes()
        return {
            "detector weights": weights_digest(self._detector),
            "segmenter weights": weights_digest(self._segmenter),
            "tokens": hashlib.sha256(tokens).hexdigest(),
        }

    def boxes(self, frame: np.ndarray, score: float) -> tuple[np.ndarray, float]:
        """Find the boxes of the prompt.

        Args:
            frame: RGB frame, uint8 of shape (H, W, 3).
            score: Lowest score of a box.

        Returns:
            Left, top, right and bottom, float32 of shape (M, 4) in image edges from 0 to W and H; and the highest score.
        """
        import torch

        height, width = frame.shape[:2]
        pixels = prepare(frame, detector_size(height, width)).to(self._device)
        mask = torch.ones((1, *pixels.shape[-2:]), dtype=torch.long, device=self._device)
        with torch.inference_mode():
            result = self._detector(pixel_values=pixels, pixel_mask=mask, **self._tokens)
        scores = result.logits[0].sigmoid().amax(-1).float().cpu().numpy()
        center = result.pred_boxes[0].float().cpu().numpy()[scores >= score]
        corners = np.concatenate([center[:, :2] - center[:, 2:] / 2, center[:, :2] + center[:, 2:] / 2], 1)
        boxes = corners.clip(0, 1) * np.array([width, height, width, height], np.float32)
        return boxes.astype(np.float32), float(scores.max(initial=0))

    def masks(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Segment the object in each box.

        Args:
            frame: RGB frame, uint8 of shape (H, W, 3).
            boxes: Left, top, right and bottom, shape (M, 4).

        Returns:
            Masks, bool of shape (M, H, W).
        """
        import torch

        height, width = frame.shape[:2]
        pixels = prepare(frame, (self._size, self._size)).to(self._device)
        scale = np.array([self._size / width, self._size / height] * 2, np.float32)
        with torch.inference_mode():
            result = self._segmenter(
                pixel_values=pixels,
                input_boxes=torch.from_numpy(boxes * scale)[None].to(self._device),
                multimask_output=False,
            )
            logits = torch.nn.functional.interpolate(
                result.pred_masks[0].float(), (height, width), mode="bilinear", align_corners=False
            )
        masks: np.ndarray = (logits[:, 0] > 0).cpu().numpy()
        return masks


def prepare(frame: np.ndarray, size: tuple[int, int]) -> Any:
    """Resize and normalize a frame as the image processors of Grounding DINO and SAM 2 do.

    The processor of SAM 2 in transformers needs torchvision. This function computes the same: bilinear with
    anti-aliasing, rounded to whole values, and normalized with the mean and the standard deviation of ImageNet.

    Args:
        frame: RGB frame, uint8 of shape (H, W, 3).
        size: Height and width of the result. The aspect ratio may change.

    Returns:
        float32 tensor of shape (1, 3, *size).
    """
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float()
    pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    pixels = pixels.round().clamp(0, 255) / 255
    return (pixels - torch.tensor(_MEAN).view(1, 3, 1, 1)) / torch.tensor(_STD).view(1, 3, 1, 1)


def detector_size(height: int, width: int) -> tuple[int, int]:
    """Return the size of the detector's input: a short side of 800, and a long side of at most 1333."""
    short, long = min(height, width), max(height, width)
    limited = _LONG_SIDE * short / long
    if limited >= _SHORT_SIDE:
        limited = float(_SHORT_SIDE)
    short_side, long_side = round(limited), int(limited * long / short)
    return (short_side, long_side) if height <= width else (long_side, short_side)


_open_models: dict[tuple[str, ...], PromptedModels] = {}


def _models(settings: MasksSettings) -> PromptedModels:
    """Return the models of these settings; the last ones stay open for the next view."""
    detector, segmenter = _place(settings, settings.detector), _place(settings, settings.segmenter)
    device = _device(settings.device)
    known = (detector, segmenter, settings.prompt, device)
    if known not in _open_models:
        _open_models.clear()
        _open_models[known] = PromptedModels(detector, segmenter, settings.prompt, device)
    return _open_models[known]


def _place(settings: MasksSettings, given: str) -> str:
    """Return the path of a folder given relative to the study; a name without such a folder is a hub name."""
    folder = settings.path(given)
    return str(folder) if folder.is_dir() else given


def _device(device: str) -> str:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _load(architecture: str, model: str, setting: str) -> Any:
    try:
        import transformers
    except ModuleNotFoundError:
        raise SetupError(
            "Masks from a text prompt need transformers, which is not installed.\n"
            '  do        pip install "actionprep[hf]"\n'
            "  or use    --source person or --source motion, which need no downloaded weights"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    load = getattr(transformers, architecture).from_pretrained
    try:
        return _local_or_downloaded(load, model, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise _missing(f"The weights of {architecture} '{model}'", model, setting, error) from None


def _tokenize(model: str, prompt: str) -> Mapping[str, Any]:
    import transformers

    try:
        tokenizer = _local_or_downloaded(transformers.AutoTokenizer.from_pretrained, model)
    except (OSError, ValueError) as error:
        raise _missing(f"The files of the tokenizer of '{model}'", model, "detector", error) from None
    tokens: Mapping[str, Any] = tokenizer(prompt_text(prompt), return_tensors="pt", return_token_type_ids=True)
    return tokens


def _local_or_downloaded(load: Callable[..., Any], model: str, **options: Any) -> Any:
    """Load a folder or a model in the cache of the hub; otherwise download it, if the hub can be reached.

    The hub's library would try to connect for 20 seconds and print each attempt.

    Raises:
        OSError: If the model is missing.
    """
    try:
        return load(model, local_files_only=True, **options)
    except (OSError, ValueError):
        if Path(model).is_dir():
            raise
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    if os.environ.get("ACTIONPREP_OFFLINE") or os.environ.get("HF_HUB_OFFLINE"):
        raise OSError("it is not in the cache of the hub, and this process is offline")
    if getproxies().get(hub.scheme):
        return load(model, **options)  # a proxy connects, so that reaching the hub directly shows nothing
    try:
        socket.create_connection((hub.hostname, hub.port or 443), timeout=_CONNECT_S).close()
    except OSError as error:
        raise OSError(f"it is not in the cache of the hub, and {hub.hostname} cannot be reached ({error})") from None
    return load(model, **options)


def prompt_text(prompt: str) -> str:
    """Return a prompt in the form that Grounding DINO is trained on: lower case, each name followed by " ."."""
    names = [name.strip().lower() for name in prompt.split(".") if name.strip()]
    return " . ".join(names) + " ."


def _missing(what: str, model: str, setting: str, error: Exception) -> SetupError:
    lines: Sequence[str] = str(error).splitlines() or [type(error).__name__]
    return SetupError(
        f"{what} are missing and cannot be downloaded: {lines[0]}\n"
        f"  do one of    run once with internet access · on another machine, run 'hf download {model} --local-dir "
        f"FOLDER', copy the folder, and set masks.{setting} to it\n"
        "  or use       --source person or --source motion, which need no downloaded weights"
    )
