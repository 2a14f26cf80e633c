"""Estimate poses with top-down models of MMPose: HRNet by a short name, or any config with a checkpoint.

pip alone cannot install MMPose next to a recent PyTorch. `install_mmpose` runs the required steps, and `_stand_ins`
replaces compiled parts that top-down models import but do not call.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from actionprep.datasets.poses.skeletons import match_layout
from actionprep.datasets.zip_checksums import zip_damage
from actionprep.errors import SetupError, UserError, nearest
from actionprep.pipeline.pose_backends import FramePoses, Frames, check_frames, with_scores
from actionprep.pipeline.pose_backends.install_step import run_step

VERSION = "1.3.2"
INSTALL = "actionprep doctor --install mmpose"
MODELS = {
    "hrnet-w32": "td-hm_hrnet-w32_8xb64-210e_coco-256x192",
    "hrnet-w48": "td-hm_hrnet-w48_8xb32-210e_coco-256x192",
    "hrnet-w32-384": "td-hm_hrnet-w32_8xb64-210e_coco-384x288",
    "hrnet-w48-384": "td-hm_hrnet-w48_8xb32-210e_coco-384x288",
}
# The order matters: mmengine imports pkg_resources, which setuptools 81 removed. The other packages are installed
# without dependencies, because some of these do not build.
RECIPE = (
    ("setuptools<81", "wheel", "cython", "numpy"),
    ("--no-deps", f"mmpose=={VERSION}", "mmengine==0.10.7", "mmcv-lite==2.1.0"),
    (
        *("addict", "yapf", "termcolor", "rich", "pyyaml", "opencv-python-headless", "json_tricks", "munkres"),
        *("matplotlib", "scipy", "pillow", "six", "packaging", "platformdirs"),
    ),
    # Its wheels need numpy 1. Building it takes seconds, and a C compiler.
    ("--no-deps", "--no-build-isolation", "--no-binary", "xtcocotools", "xtcocotools==1.14.3"),
)


def install_mmpose(python: str | Path | None = None, *, echo: bool = True) -> str:
    """Install MMPose into an environment that has torch.

    Args:
        python: Path of the environment's Python; None for the running one.
        echo: Print the commands.

    Returns:
        The installed version.

    Raises:
        SetupError: If a step fails; the error has the last lines of its output.
    """
    python = str(python or sys.executable)
    for step in RECIPE:
        _run([python, "-m", "pip", "install", "--disable-pip-version-check", *step], echo)
    return _run(
        [python, "-c", "import mmengine, mmcv, xtcocotools.coco; import mmpose.version as v; print(v.__version__)"],
        False,
    )


class MMPose:
    """A top-down model of MMPose.

    Args:
        model: Short name (hrnet-w32, hrnet-w48, …-384), the name of a config in MMPose, or the path of a config.
        checkpoint: File with the weights. None: the published weights, from PyTorch's cache or downloaded to it.
        device: Device of the model, for example "cuda".
        batch_size: Crops per batch.
        flip: Average with the mirrored crop, as in the published results. It takes twice the time.
        random_weights: Use random weights, to test the pipeline.
        skeleton: Layout of the joints; required if it cannot be recognized by their names.

    Raises:
        UserError: If the config does not exist, or the layout is not recognized.
        SetupError: If MMPose is not installed, or the weights are missing.
    """

    name = "mmpose"

    def __init__(
        self,
        *,
        model: str = "hrnet-w32",
        checkpoint: str | Path | None = None,
        device: str = "cpu",
        batch_size: int = 32,
        flip: bool = False,
        random_weights: bool = False,
        skeleton: str | None = None,
    ) -> None:
        _require()
        with _quiet(), _stand_ins():
            from mmengine.config import Config
            from mmengine.dataset import Compose
            from mmpose.apis import init_model

            path = _config_path(model)
            config = Config.fromfile(str(path))
            if "test_cfg" in config.model:
                config.model.test_cfg["flip_test"] = flip
            self._weights = None if random_weights else _find_weights(path, checkpoint)
            self._model = init_model(config, None, device=device)
            if self._weights is not None:
                _load(self._model, self._weights)
            self._pipeline = Compose(self._model.cfg.test_dataloader.dataset.pipeline)
        names = self._model.dataset_meta.get("keypoint_id2name", {})
        layout = match_layout([names[index] for index in sorted(names)])
        if skeleton is None and layout is None:
            raise UserError(
                f"The joints of MMPose's '{model}' match no known layout: {', '.join(names.values())}. "
                "Write a layout for them, a few lines of TOML, and set pose.file_skeleton to it (--file-skeleton; "
                "skeleton=… in Python)."
            )
        self.skeleton = skeleton or (layout.name if layout is not None else "")
        self._about = {"model": path.stem, "flip": str(flip)}
        self._device, self._batch = device, batch_size

    def estimate(self, frames: Frames, boxes: Sequence[ArrayLike] | None = None) -> list[FramePoses]:
        """Estimate one person per box; without boxes, one person in the full frame."""
        import torch
        from mmengine.dataset import pseudo_collate
        from mmengine.registry import DefaultScope

        people = check_frames(frames, boxes)
        if people is None:
            height, width = frames.shape[1:3]
            people = [np.array([[0, 0, width, height]], np.float32)] * len(frames)
        crops = [(index, box) for index, rows in enumerate(people) for box in rows[:, :4]]
        estimated: list[np.ndarray[Any, Any]] = []
        with _quiet(), torch.no_grad(), DefaultScope.overwrite_default_scope("mmpose"):
            for start in range(0, len(crops), self._batch):
                samples = []
                for index, box in crops[start : start + self._batch]:
                    # MMPose expects BGR images, as OpenCV reads them.
                    sample = {"img": np.ascontiguousarray(frames[index][..., ::-1]), "bbox": box[None]}
                    sample |= {"bbox_score": np.ones(1, np.float32), **self._model.dataset_meta}
                    samples.append(self._pipeline(sample))
                for result in self._model.test_step(pseudo_collate(samples)):
                    joints = result.pred_instances
                    estimated.append(np.concatenate([joints.keypoints[0], joints.keypoint_scores[0][:, None]], 1))
        remaining = iter(estimated)
        frames_out = []
        for rows in people:
            keypoints = [next(remaining) for _ in rows]
            if not keypoints:
                frames_out.append(FramePoses.nobody(len(self._model.dataset_meta["keypoint_id2name"])))
                continue
            joints = np.stack(keypoints).astype(np.float32)
            joints[..., 2] = joints[..., 2].clip(0)
            frames_out.append(FramePoses(joints, with_scores(rows)))
        return frames_out

    def reset(self) -> None:
        """Do nothing: frames are independent."""

    def identity(self) -> dict[str, str]:
        """Return the version, the model, the hash of its weights, and the settings."""
        import hashlib

        weights = "random" if self._weights is None else hashlib.sha256(self._weights.read_bytes()).hexdigest()
        return {"backend": "mmpose", "version": VERSION, "weights": weights, **self._about}

    def close(self) -> None:
        """Free the memory of the model."""
        self._model = None


def _require() -> None:
    missing = [name for name in ("mmpose", "mmengine", "mmcv", "xtcocotools") if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"MMPose is not installed: {', '.join(missing)} cannot be imported.\n"
            f"  do        {INSTALL}\n"
            "  or use    the backend mediapipe (in a separate environment, no weights to download) or vitpose "
            "(transformers)"
        )


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Provide placeholder modules for missing packages while MMPose is imported. Top-down models do not use them.

    They are removed afterwards, so that other code does not import them.
    """
    _check_torchvision_in_transformers()
    added: list[str] = []

    def module(name: str, needs: str | None = None, **members: Any) -> None:
        if name in sys.modules or _importable(needs or name):
            return
        stand_in = types.ModuleType(name)
        stand_in.__path__ = []
        # Libraries that MMPose imports look for torchvision by its module spec.
        stand_in.__spec__ = ModuleSpec(name, None, is_package=True)
        stand_in.__dict__.update(members)
        sys.modules[name] = stand_in
        parent, _, child = name.rpartition(".")
        if parent in added:
            setattr(sys.modules[parent], child, stand_in)
        added.append(name)

    def absent(what: str) -> type:
        def refuse(self: object, *_: object, **__: object) -> None:
            raise SetupError(f"This MMPose model needs {what}, which is not installed; top-down models do not.")

        return type(what.rpartition(".")[2], (), {"__init__": refuse})

    module("mmdet")
    module("mmdet.utils", ConfigType=dict, reduce_mean=absent("mmdet.utils.reduce_mean"))
    # mmcv-lite has the Python part of the operators, which cannot be imported without the compiled part.
    attention = absent("mmcv.ops.MultiScaleDeformableAttention")
    module("mmcv.ops", needs="mmcv._ext", MultiScaleDeformableAttention=attention)
    module("torchvision")
    module("torchvision.transforms", ToPILImage=absent("torchvision.transforms.ToPILImage"))
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _check_torchvision_in_transformers() -> None:
    """Let transformers look for torchvision before the placeholders are added, because it caches the result.

    If it detected a placeholder, it could not import RT-DETR or ViTPose later.
    """
    if _importable("transformers"):
        importlib.import_module("transformers.utils").is_torchvision_available()


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _configs() -> Path:
    spec = importlib.util.find_spec("mmpose")
    if spec is None or spec.origin is None:
        raise SetupError(f"MMPose is not installed. Do: {INSTALL}")
    return Path(spec.origin).parent / ".mim" / "configs"


def _config_path(model: str) -> Path:
    if model.endswith(".py"):
        path = Path(model)
        if not path.is_file():
            raise UserError(f"No MMPose config at {path}.")
        return path
    name = MODELS.get(model, model)
    paths = sorted(_configs().rglob(f"{name}.py"))
    if not paths:
        raise UserError(
            f"MMPose has no model '{model}'.{nearest(model, MODELS)} Short names: {', '.join(MODELS)}; "
            f"or the name of a config in {_configs()}, or the path of a config file."
        )
    return paths[0]


def _find_weights(config: Path, checkpoint: str | Path | None) -> Path:
    if checkpoint is not None:
        path = Path(checkpoint).expanduser()
        if not path.is_file():
            raise SetupError(f"No MMPose checkpoint at {path}.")
        return path
    import torch

    url = _published_weights(config)
    if url is None:
        raise SetupError(
            f"MMPose publishes no weights for {config.name}. Give a checkpoint file, or set random_weights to test the "
            "pipeline."
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            raise SetupError(
                f"MMPose's weights for {config.stem} are missing and cannot be downloaded ({error}).\n"
                f"  looked for   {path}\n"
                f"  do one of    download {url} on another machine and copy it there · give the file as checkpoint\n"
                "  or use       the backend mediapipe; its package contains the model"
            ) from None
    return path


def _published_weights(config: Path) -> str | None:
    # yaml comes with MMPose. Its type stubs are not installed everywhere.
    yaml: Any = importlib.import_module("yaml")
    for listing in sorted(config.parent.glob("*.yml")):
        for model in (yaml.safe_load(listing.read_text()) or {}).get("Models", []):
            if model.get("Name") == config.stem or Path(model.get("Config", "")).name == config.name:
                return str(model["Weights"]) if model.get("Weights") else None
    return None


def _load(model: Any, path: Path) -> None:
    """Load weights into a model. Only tensors, numbers and logs of mmengine are unpickled."""
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    core: Any = importlib.import_module("numpy._core.multiarray")
    harmless = [core.scalar, core._reconstruct, np.ndarray, np.dtype, HistoryBuffer, type(np.dtype(np.float64)),
                type(np.dtype(np.float32)), type(np.dtype(np.int64))]  # fmt: skip
    # Published files were written with numpy 1, in which these have another module name.
    old = [(core.scalar, "numpy.core.multiarray.scalar"), (core._reconstruct, "numpy.core.multiarray._reconstruct")]
    damage = zip_damage(path)
    if damage is not None:
        raise UserError(f"The checkpoint {path} is damaged: {damage}. Download it again, or restore it from a copy.")
    try:
        with torch.serialization.safe_globals([*harmless, *old]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SetupError(
            f"The checkpoint {path} cannot be read as weights: {str(error).splitlines()[0]} "
            "Files with other objects than tensors and numbers are not loaded."
        ) from None
    state = content.get("state_dict", content)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [key for key in missing if "num_batches_tracked" not in key]
    if missing:
        raise UserError(
            f"The checkpoint {path} does not fit the model: {len(missing)} weights are missing, the first is "
            f"'{missing[0]}'" + (f", and {len(unexpected)} others are not part of the model." if unexpected else ".")
        )
    meta = content.get("meta", {}).get("dataset_meta") if isinstance(content, dict) else None
    if isinstance(meta, dict) and meta.get("keypoint_id2name"):
        model.dataset_meta = meta


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings of MMPose about its deprecated functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _run(command: list[str], echo: bool) -> str:
    lines = run_step(command, echo=echo)
    return lines[-1] if lines else ""
