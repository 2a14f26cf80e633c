"""CoTracker 3 (offline, online) and CoTracker 2 through torch.hub, pinned to a commit."""

from __future__ import annotations

import os
import socket
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from actionprep.errors import SetupError, UserError
from actionprep.pipeline.trackers.networks import device_of, hash_of_code, hash_of_file, missing, read_weights
from actionprep.pipeline.trackers.tracker import PointTracker, PointTracks, VisibleRule

if TYPE_CHECKING:
    import torch

    from actionprep.pipeline.trackers.settings import TracksSettings

HUB_REPO = "facebookresearch/co-tracker"
HUB_COMMIT = "82e02e8029753ad4ef13cf06be7f4fc5facdda4d"
WEIGHTS_URL = "https://huggingface.co/facebook"
SUPPORT_GRID = 6
ITERATIONS = 6
NETWORK_TIMEOUT_S = 20.0


class _CoTracker(PointTracker):
    """Base class of the CoTracker models: finds code and weights, and runs a window through the network.

    The network is called directly, because the predictor of the repository returns visibility as a boolean, by two
    different rules. Visibility and confidence are stored unchanged, together with the rule. As in the predictor, frames
    are resized to 384x512 with aligned corners, a 6x6 grid of support points is tracked too, the network runs six
    iterations, support points start in frame 0, and a point is visible at the query position in the frame of its query.
    All passes read the full window.

    References:
        Karaev et al., "CoTracker3: Simpler and Better Point Tracking by Pseudo-Labeling Real Videos", 2024, and
        "CoTracker: It is Better to Track Together", ECCV 2024. Code and weights are CC BY-NC 4.0; neither is part of this
        package.
    """

    needs = "rgb"
    name: ClassVar[str]
    title: ClassVar[str]
    weights: ClassVar[str]
    weights_folder: ClassVar[str]
    is_bidirectional: ClassVar[bool] = False
    """Whether one pass also tracks the frames before a query."""
    support_is_last_in_reverse: ClassVar[bool] = False
    """Whether support points of the reversed pass start in its last frame, which is frame 0 of the window."""

    @classmethod
    def identity(cls, settings: TracksSettings) -> dict[str, str]:
        import torch

        code, weights = _find_code(cls, settings), _find_weights(cls, settings)
        return {
            "tracker": cls.name,
            "passes": "2",  # 1: passes began at the first query, and support points in its frame
            "code": f"sha256:{_hash_of_code(code)}",
            "weights": f"sha256:{hash_of_file(weights)}",
            "torch": torch.__version__.split("+")[0],
        }

    @classmethod
    def is_available(cls, settings: TracksSettings) -> bool:
        code = settings.path(settings.repo) if settings.repo else _hub_code_folder()
        weights = settings.path(settings.checkpoint) if settings.checkpoint else _hub_checkpoints() / cls.weights
        return (code / "hubconf.py").is_file() and weights.is_file()

    def track(self, frames: Sequence[np.ndarray], queries: np.ndarray, *, both_ways: bool) -> PointTracks:
        import torch

        predictor = self._predictor()
        try:
            return self._track(predictor, frames, queries, both_ways=both_ways)
        except torch.OutOfMemoryError:
            raise SetupError(
                f"{self.title} ran out of memory on {self._device()} with {len(frames)} frames and {len(queries)} "
                'points at a time. Reduce tracks.window or tracks.grid, or set tracks.device = "cpu".'
            ) from None

    def _track(
        self, predictor: Any, frames: Sequence[np.ndarray], queries: np.ndarray, *, both_ways: bool
    ) -> PointTracks:
        import torch

        device = self._device()
        height, width = frames[0].shape[:2]
        model_height, model_width = predictor.interp_shape
        to_model = np.array(
            [(model_width - 1) / max(width - 1, 1), (model_height - 1) / max(height - 1, 1)], np.float32
        )
        seed = queries[:, 0].astype(int)
        num_frames, num_points = len(frames), len(queries)

        with torch.no_grad():
            video = torch.from_numpy(np.stack(frames)).to(device).permute(0, 3, 1, 2).float()
            video = torch.nn.functional.interpolate(
                video, (model_height, model_width), mode="bilinear", align_corners=True
            )[None]

        def run(query_frames: np.ndarray, support_frame: int, *, is_reversed: bool) -> list[np.ndarray]:
            support = cotracker_grid(SUPPORT_GRID, model_height, model_width)
            starts = np.concatenate([query_frames, np.full(len(support), support_frame)])[:, None]
            positions = np.concatenate([queries[:, 1:] * to_model, support])
            points = torch.from_numpy(np.concatenate([starts, positions], axis=1).astype(np.float32))[None].to(device)
            with torch.no_grad():
                outputs = self._run(predictor.model, video.flip(1) if is_reversed else video, points)
            xy, visibility, confidence = (part[0, :, :num_points].float().cpu().numpy() for part in outputs)
            outputs_of_frames = [xy / to_model, visibility, confidence]
            return [values[::-1] for values in outputs_of_frames] if is_reversed else outputs_of_frames

        is_before = np.arange(num_frames)[:, None] < seed
        xy, visibility, confidence = run(seed, 0, is_reversed=False)
        if not both_ways:
            xy = np.where(is_before[..., None], queries[None, :, 1:].astype(np.float32), xy)
            visibility, confidence = np.where(is_before, 0, visibility), np.where(is_before, 0, confidence)
        elif not self.is_bidirectional and is_before.any():
            support_frame = num_frames - 1 if self.support_is_last_in_reverse else 0
            back = run(num_frames - 1 - seed, support_frame, is_reversed=True)
            xy = np.where(is_before[..., None], back[0], xy)
            visibility, confidence = np.where(is_before, back[1], visibility), np.where(is_before, back[2], confidence)
        points = np.arange(num_points)
        xy[seed, points] = queries[:, 1:]
        visibility[seed, points] = confidence[seed, points] = 1
        return PointTracks(xy, visibility, confidence)

    @abstractmethod
    def _run(self, model: Any, video: torch.Tensor, queries: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return positions (1, T, N, 2) in pixels at 384x512, and visibility and confidence (1, T, N) in [0, 1]."""

    def _device(self) -> str:
        return device_of(self.settings.device)

    def _predictor(self) -> Any:
        code, weights = _find_code(type(self), self.settings), _find_weights(type(self), self.settings)
        return _load(type(self), code, weights, weights.stat().st_mtime_ns, self._device())


class CoTracker3Offline(_CoTracker):
    """CoTracker 3 offline: reads all frames of a window at once, in both directions."""

    is_bidirectional = True
    name = "cotracker3_offline"
    title = "CoTracker 3"
    weights = "scaled_offline.pth"
    weights_folder = "cotracker3"
    visible_above = 0.9

    def _run(self, model: Any, video: torch.Tensor, queries: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(model(video=video, queries=queries, iters=ITERATIONS)[:3])


class CoTracker3Online(_CoTracker):
    """CoTracker 3 online: reads a window 16 frames at a time, so that memory does not grow with the window.

    Its predictor only tracks forward. Frames before a query come from a second pass over the reversed window, with the
    support points in the first frame of that pass.
    """

    name = "cotracker3_online"
    title = "CoTracker 3"
    weights = "scaled_online.pth"
    weights_folder = "cotracker3"
    visible_rule: ClassVar[VisibleRule] = "visibility*confidence"
    visible_above = 0.6

    def _run(self, model: Any, video: torch.Tensor, queries: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model.init_video_online_processing()
        length, step = model.window_len, model.window_len // 2
        for first in range(0, max(video.shape[1] - length + step - 1, 0) // step * step + 1, step):
            chunk = video[:, first : first + length]
            found = model(video=chunk, queries=queries, iters=ITERATIONS, is_online=True)[:3]
        return tuple(found)


class CoTracker2(_CoTracker):
    """CoTracker 2, with windows of 8 frames; it has no confidence (stored as 1).

    Frames before a query come from a second pass over the reversed window, as with `backward_tracking` of its predictor.
    There, the support points start in frame 0 of the window, the last frame of the pass.
    """

    support_is_last_in_reverse = True
    name = "cotracker2"
    title = "CoTracker 2"
    weights = "cotracker2.pth"
    weights_folder = "cotracker"
    visible_above = 0.9

    def _run(self, model: Any, video: torch.Tensor, queries: torch.Tensor) -> tuple[torch.Tensor, ...]:
        import torch

        num_frames = video.shape[1]
        # With fewer frames than its own window, the network makes no pass: repeat the last frame.
        short = max(model.window_len - num_frames, 0)
        video = torch.cat([video, video[:, -1:].expand(-1, short, -1, -1, -1)], dim=1)
        xy, visibility = model(video=video, queries=queries, iters=ITERATIONS)[:2]
        return xy[:, :num_frames], visibility[:, :num_frames], torch.ones_like(visibility[:, :num_frames])


def cotracker_grid(size: int, height: int, width: int) -> np.ndarray:
    """Return the regular grid of CoTracker, width/64 pixels from every edge; a single point is at the center.

    Args:
        size: Points per row and column.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Points (x, y), row by row, float32 of shape (size * size, 2).
    """
    if size == 1:
        return np.array([[width / 2, height / 2]], np.float32)
    margin = width / 64
    x = np.linspace(margin, width - margin, size, dtype=np.float32)
    y = np.linspace(margin, height - margin, size, dtype=np.float32)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


@lru_cache(maxsize=1)
def _load(kind: type[_CoTracker], code: Path, weights: Path, weights_mtime_ns: int, device: str) -> Any:
    """Load the predictor of the hub repository with its weights onto the device."""
    import torch

    try:
        predictor = torch.hub.load(str(code), kind.name, source="local", pretrained=False, verbose=False)
    except (ImportError, RuntimeError, AttributeError, TypeError) as error:
        raise SetupError(
            f"The code of {kind.title} in {code} does not load: {error}. Expected the repository {HUB_REPO} at commit "
            f"{HUB_COMMIT[:7]}, which only needs torch and numpy. Get that commit, or use --tracker lk."
        ) from error
    state = read_weights(weights, kind.title, kind.weights, _weights_url(kind))
    if isinstance(state, dict) and "model" in state:
        state = state["model"]
    try:
        predictor.model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(
            f"{weights} does not fit {kind.title} as '{kind.name}': {str(error).splitlines()[0]} "
            f"Expected {kind.weights}. Set --tracker to the model of the file."
        ) from None
    return predictor.to(device)


def _find_code(kind: type[_CoTracker], settings: TracksSettings) -> Path:
    """Return the folder with the repository's hubconf.py. It is downloaded at the pinned commit if missing."""
    if settings.repo:
        folder = settings.path(settings.repo).resolve()
        if not (folder / "hubconf.py").is_file():
            raise SetupError(_missing(kind, "code", f"hubconf.py in {folder} (tracks.repo)"))
        return folder
    folder = _hub_code_folder()
    if not (folder / "hubconf.py").is_file():
        import torch

        try:
            with _network():
                # A full commit hash identifies the content, so there is no branch or tag to validate.
                torch.hub.list(f"{HUB_REPO}:{HUB_COMMIT}", skip_validation=True, trust_repo=True, verbose=False)
        except (OSError, RuntimeError) as error:
            looked = f"{folder} and in tracks.repo (not set); download failed: {error}"
            raise SetupError(_missing(kind, "code", looked)) from None
    return folder


def _find_weights(kind: type[_CoTracker], settings: TracksSettings) -> Path:
    """Return the file with the weights. It is downloaded if missing."""
    if settings.checkpoint:
        file = settings.path(settings.checkpoint).resolve()
        if not file.is_file():
            raise SetupError(_missing(kind, "weights", f"{file} (tracks.checkpoint)"))
        return file
    file = _hub_checkpoints() / kind.weights
    if not file.is_file():
        import torch

        try:
            with _network():
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(_weights_url(kind), str(file), progress=False)
        except (OSError, RuntimeError) as error:
            looked = f"{kind.weights} in {file.parent} and in tracks.checkpoint (not set); download failed: {error}"
            raise SetupError(_missing(kind, "weights", looked)) from None
    return file


def _missing(kind: type[_CoTracker], what: str, looked_for: str) -> str:
    put, key = {
        "code": (f"put {HUB_REPO} at commit {HUB_COMMIT[:7]} there", 'repo = "…/co-tracker"'),
        "weights": ("put the file there", f'checkpoint = "…/{kind.weights}"'),
    }[what]
    return missing(
        kind.title,
        what,
        looked_for,
        (put, f"set tracks.{key} in actionprep.toml", "run once with internet access"),
    )


def _weights_url(kind: type[_CoTracker]) -> str:
    return f"{WEIGHTS_URL}/{kind.weights_folder}/resolve/main/{kind.weights}"


def _hub_code_folder() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / f"{HUB_REPO.replace('/', '_')}_{HUB_COMMIT}"


def _hub_checkpoints() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


@contextmanager
def _network() -> Iterator[None]:
    if os.environ.get("ACTIONPREP_OFFLINE"):
        raise OSError("ACTIONPREP_OFFLINE is set")
    # torch.hub opens connections without a timeout: behind a firewall that drops packets it would hang forever.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _hash_of_code(folder: Path) -> str:
    """Hash the Python files that tracking uses: hubconf.py and the package next to it."""
    return hash_of_code(folder, [folder / "hubconf.py", *sorted((folder / "cotracker").rglob("*.py"))])
