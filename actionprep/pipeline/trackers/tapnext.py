"""TAPNext++ with the code and weights of the user."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.errors import SetupError, UserError
from actionprep.pipeline.trackers.networks import device_of, hash_of_code, hash_of_file, missing, read_weights
from actionprep.pipeline.trackers.tracker import PointTracker, PointTracks

if TYPE_CHECKING:
    from actionprep.pipeline.trackers.settings import TracksSettings

REPO = "google-deepmind/tapnet"
TITLE = "TAPNext++"
WEIGHTS = "the PyTorch checkpoint for 256x256"
URL = f"https://github.com/{REPO}"
SIDE = 256
_MODULE = "tapnet.tapnext.tapnext_torch"
_CODE = Path("tapnet/tapnext/tapnext_torch.py")


class TapNextPlusPlus(PointTracker):
    """TAPNext++: causal, reads one frame at a time; it has no confidence (stored as 1).

    Frames are resized to 256x256. The network is causal: frames before a query come from a second pass over the reversed
    window. Visibility is the sigmoid of the network's output, so that visible means above 0.5.

    References:
        Zholus et al., "TAPNext: Tracking Any Point (TAP) as Next Token Prediction", ICCV 2025, and its successor
        TAPNext++. Neither code nor weights are part of this package.
    """

    needs = "rgb"

    @classmethod
    def identity(cls, settings: TracksSettings) -> dict[str, str]:  # noqa: D102
        import torch

        code, weights = _find_code(settings), _find_weights(settings)
        files = [file for file in (code / "tapnet/__init__.py",) if file.is_file()]
        files += sorted((code / _CODE).parent.glob("*.py"))
        return {
            "tracker": "tapnextpp",
            "code": f"sha256:{hash_of_code(code, files)}",
            "weights": f"sha256:{hash_of_file(weights)}",
            "torch": torch.__version__.split("+")[0],
        }

    @classmethod
    def is_available(cls, settings: TracksSettings) -> bool:  # noqa: D102
        if not (settings.repo and settings.checkpoint):
            return False
        return (settings.path(settings.repo) / _CODE).is_file() and settings.path(settings.checkpoint).is_file()

    def track(self, frames: Sequence[np.ndarray], queries: np.ndarray, *, both_ways: bool) -> PointTracks:  # noqa: D102
        import torch

        code, weights, device = _find_code(self.settings), _find_weights(self.settings), device_of(self.settings.device)
        model = _load(code, weights, weights.stat().st_mtime_ns, device)
        seed, num_frames = queries[:, 0].astype(int), len(frames)
        try:
            xy, visibility = _run(model, frames, queries, device)
            is_before = np.arange(num_frames)[:, None] < seed
            if both_ways and is_before.any():
                reversed_queries = np.column_stack([num_frames - 1 - seed, queries[:, 1:]])
                back = [values[::-1] for values in _run(model, frames[::-1], reversed_queries, device)]
                xy = np.where(is_before[..., None], back[0], xy)
                visibility = np.where(is_before, back[1], visibility)
        except torch.OutOfMemoryError:
            raise SetupError(
                f"{TITLE} ran out of memory on {device} with {len(queries)} points at a time. "
                'Reduce tracks.grid, or set tracks.device = "cpu".'
            ) from None
        confidence = np.ones_like(visibility)
        if not both_ways:
            xy = np.where(is_before[..., None], queries[None, :, 1:].astype(np.float32), xy)
            visibility, confidence = np.where(is_before, 0, visibility), np.where(is_before, 0, confidence)
        points = np.arange(len(queries))
        xy[seed, points] = queries[:, 1:]
        visibility[seed, points] = 1
        return PointTracks(xy, visibility, confidence)


def _run(model: Any, frames: Sequence[np.ndarray], queries: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (T, N, 2) and visibility (T, N) of one pass; frames before a query have no meaning."""
    import torch

    height, width = frames[0].shape[:2]
    # Position 0 of the network is the corner of the first pixel; ours is its center.
    to_model = np.array([SIDE / width, SIDE / height])
    xy = (queries[:, 1:] + 0.5) * to_model
    points = np.column_stack([queries[:, 0], xy[:, 1], xy[:, 0]]).astype(np.float32)
    positions, visibilities = [], []
    state = None
    with torch.no_grad():
        for frame in frames:
            image = torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)[None].float()
            image = torch.nn.functional.interpolate(image, (SIDE, SIDE), mode="bilinear", align_corners=False)
            video = image.permute(0, 2, 3, 1)[None] / 127.5 - 1
            if state is None:
                outputs = model(video, query_points=torch.from_numpy(points)[None].to(device))
            else:
                outputs = model(video, state=state)
            yx, logits, state = outputs[0], outputs[2], outputs[3]
            positions.append(yx[0, 0].flip(-1).float().cpu().numpy())
            visibilities.append(logits[0, 0, :, 0].float().sigmoid().cpu().numpy())
    return (np.stack(positions) / to_model - 0.5).astype(np.float32), np.stack(visibilities)


@lru_cache(maxsize=1)
def _load(code: Path, weights: Path, weights_mtime_ns: int, device: str) -> Any:
    """Load the network with its weights onto the device."""
    try:
        model = _import(code).TAPNext(image_size=(SIDE, SIDE))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in ("torchvision", "einops"):
            raise _unusable(code, error) from error
        raise SetupError(
            f"The code of {TITLE} in {code} needs the package {package}, which is not installed. Run "
            "'pip install torchvision einops' with the torchvision release for the installed torch, or use --tracker lk."
        ) from None
    except (ImportError, RuntimeError, AttributeError, TypeError) as error:
        raise _unusable(code, error) from error
    content = read_weights(weights, TITLE, WEIGHTS, URL)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(
            f"{weights} does not fit {TITLE}: it has no 'state_dict'. Expected {WEIGHTS}. Get it from {URL}."
        )
    try:
        model.load_state_dict({key.removeprefix("tapnext."): value for key, value in content["state_dict"].items()})
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(
            f"{weights} does not fit {TITLE}: {' '.join(str(error).split())[:200]} "
            f"Expected {WEIGHTS}. Get it from {URL}."
        ) from None
    return model.to(device).eval()


def _unusable(code: Path, error: Exception) -> SetupError:
    return SetupError(
        f"The code of {TITLE} in {code} does not load: {error}. Expected a clone of {REPO} with {_CODE.as_posix()}. "
        "Clone it again, or use --tracker lk."
    )


def _import(code: Path) -> Any:
    """Import the module of the network from a folder, also if another `tapnet` is installed."""
    others = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "tapnet"}
    sys.path.insert(0, str(code))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(_MODULE)
    finally:
        sys.path.remove(str(code))
        for name in [name for name in sys.modules if name.split(".")[0] == "tapnet"]:
            del sys.modules[name]
        sys.modules.update(others)


def _find_code(settings: TracksSettings) -> Path:
    """Return the folder with the repository."""
    folder = settings.path(settings.repo).resolve() if settings.repo else None
    if folder is not None and (folder / _CODE).is_file():
        return folder
    looked_for = f"{_CODE.as_posix()} in {folder} (tracks.repo)" if folder else "tracks.repo (not set)"
    raise SetupError(
        missing(TITLE, "code", looked_for, (f"clone {URL}", 'set tracks.repo = "…/tapnet" in actionprep.toml'))
    )


def _find_weights(settings: TracksSettings) -> Path:
    """Return the file with the weights."""
    file = settings.path(settings.checkpoint).resolve() if settings.checkpoint else None
    if file is not None and file.is_file():
        return file
    looked_for = f"{file} (tracks.checkpoint)" if file else "tracks.checkpoint (not set)"
    remedies = (f"get {WEIGHTS} from {URL}", 'set tracks.checkpoint = "…" in actionprep.toml')
    raise SetupError(missing(TITLE, "weights", looked_for, remedies))
