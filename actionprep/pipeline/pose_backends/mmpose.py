"""MMPose top-down estimators: HRNet by short name, or any MMPose config with a checkpoint, on person boxes.

MMPose lags behind PyTorch and pip cannot install it as it stands; `install_mmpose` runs the recipe that works, and
`_stand_ins` replaces the compiled parts that top-down models import but never call.
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
# In this order: setuptools 81 lost pkg_resources, which mmengine imports; the others must not pull what does not build.
RECIPE = (
    ("setuptools<81", "wheel", "cython", "numpy"),
    ("--no-deps", f"mmpose=={VERSION}", "mmengine==0.10.7", "mmcv-lite==2.1.0"),
    (
        *("addict", "yapf", "termcolor", "rich", "pyyaml", "opencv-python-headless", "json_tricks", "munkres"),
        *("matplotlib", "scipy", "pillow", "six", "packaging", "platformdirs"),
    ),
    # Its wheels are built for numpy 1; from source it takes seconds, and needs a C compiler.
    ("--no-deps", "--no-build-isolation", "--no-binary", "xtcocotools", "xtcocotools==1.14.3"),
)


def install_mmpose(python: str | Path | None = None, *, echo: bool = True) -> str:
    """Install MMPose into the environment of a Python (default: the running one) that has torch; returns the version.

    Raises SetupError with pip's last lines when a step fails.
    """
    python = str(python or sys.executable)
    for step in RECIPE:
        _run([python, "-m", "pip", "install", "--disable-pip-version-check", *step], echo)
    return _run(
        [python, "-c", "import mmengine, mmcv, xtcocotools.coco; import mmpose.version as v; print(v.__version__)"],
        False,
    )


class MMPose:
    """A top-down estimator.

    model:  short name (hrnet-w32, hrnet-w48, …-384), the name of any config inside MMPose, or the path of a config
            file.
    checkpoint: weights file; None takes the published one of the model from PyTorch's cache, or downloads it there.
    device: for example "cuda" or "cpu". batch_size: person crops at a time.
    flip: average with the mirrored crop, as the published scores do; twice the time.
    random_weights: a model that has learned nothing, for trying the machinery.
    skeleton: needed for models whose joints are no layout that we know.
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
        found = match_layout([names[index] for index in sorted(names)])
        if skeleton is None and found is None:
            raise UserError(
                f"The joints of MMPose's '{model}' are those of no known layout: {', '.join(names.values())}. "
                "Write a layout for them, a few lines of TOML, and name it with pose.file_skeleton (--file-skeleton; "
                "skeleton=… in Python)."
            )
        self.skeleton = skeleton or (found.name if found is not None else "")
        self._about = {"model": path.stem, "flip": str(flip)}
        self._device, self._batch = device, batch_size

    def estimate(self, frames: Frames, boxes: Sequence[ArrayLike] | None = None) -> list[FramePoses]:
        """One person a box; without boxes, one person in the whole frame."""
        import torch
        from mmengine.dataset import pseudo_collate
        from mmengine.registry import DefaultScope

        people = check_frames(frames, boxes)
        if people is None:
            height, width = frames.shape[1:3]
            people = [np.array([[0, 0, width, height]], np.float32)] * len(frames)
        crops = [(index, box) for index, rows in enumerate(people) for box in rows[:, :4]]
        found: list[np.ndarray[Any, Any]] = []
        with _quiet(), torch.no_grad(), DefaultScope.overwrite_default_scope("mmpose"):
            for start in range(0, len(crops), self._batch):
                samples = []
                for index, box in crops[start : start + self._batch]:
                    # MMPose reads images as OpenCV does, blue first.
                    sample = {"img": np.ascontiguousarray(frames[index][..., ::-1]), "bbox": box[None]}
                    sample |= {"bbox_score": np.ones(1, np.float32), **self._model.dataset_meta}
                    samples.append(self._pipeline(sample))
                for result in self._model.test_step(pseudo_collate(samples)):
                    joints = result.pred_instances
                    found.append(np.concatenate([joints.keypoints[0], joints.keypoint_scores[0][:, None]], 1))
        done = iter(found)
        frames_out = []
        for rows in people:
            keypoints = [next(done) for _ in rows]
            if not keypoints:
                frames_out.append(FramePoses.nobody(len(self._model.dataset_meta["keypoint_id2name"])))
                continue
            joints = np.stack(keypoints).astype(np.float32)
            joints[..., 2] = joints[..., 2].clip(0)
            frames_out.append(FramePoses(joints, with_scores(rows)))
        return frames_out

    def reset(self) -> None:
        """Nothing to forget: every frame stands alone."""

    def identity(self) -> dict[str, str]:
        """Version, model, the weights' hash and the settings."""
        import hashlib

        weights = "random" if self._weights is None else hashlib.sha256(self._weights.read_bytes()).hexdigest()
        return {"backend": "mmpose", "version": VERSION, "weights": weights, **self._about}

    def close(self) -> None:
        """Give the model's memory back."""
        self._model = None


def _require() -> None:
    missing = [name for name in ("mmpose", "mmengine", "mmcv", "xtcocotools") if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"MMPose is not here: {', '.join(missing)} cannot be imported.\n"
            f"  do        {INSTALL}\n"
            "  or use    the backend mediapipe (in a separate environment, no weights to fetch) or vitpose "
            "(transformers)"
        )


@contextmanager
def _stand_ins() -> Iterator[None]:
    """While MMPose is imported: modules that it wants for models other than top-down ones, where no real ones are.

    They are taken away again, so that nothing else in the process takes them for real.
    """
    _let_transformers_look()
    made: list[str] = []

    def module(name: str, needs: str | None = None, **members: Any) -> None:
        if name in sys.modules or _importable(needs or name):
            return
        stand_in = types.ModuleType(name)
        stand_in.__path__ = []
        # Libraries that MMPose imports ask whether torchvision is there by its specification.
        stand_in.__spec__ = ModuleSpec(name, None, is_package=True)
        stand_in.__dict__.update(members)
        sys.modules[name] = stand_in
        parent, _, child = name.rpartition(".")
        if parent in made:
            setattr(sys.modules[parent], child, stand_in)
        made.append(name)

    def absent(what: str) -> type:
        def refuse(self: object, *_: object, **__: object) -> None:
            raise SetupError(f"This MMPose model needs {what}, which is not installed; top-down models do not.")

        return type(what.rpartition(".")[2], (), {"__init__": refuse})

    module("mmdet")
    module("mmdet.utils", ConfigType=dict, reduce_mean=absent("mmdet.utils.reduce_mean"))
    # mmcv-lite has the operators' Python side, which cannot be imported without the compiled one.
    attention = absent("mmcv.ops.MultiScaleDeformableAttention")
    module("mmcv.ops", needs="mmcv._ext", MultiScaleDeformableAttention=attention)
    module("torchvision")
    module("torchvision.transforms", ToPILImage=absent("torchvision.transforms.ToPILImage"))
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def _let_transformers_look() -> None:
    """Have transformers, which MMPose imports, look for torchvision now: it remembers its first answer for good.

    Looking while the stand-ins are there, it could not import RT-DETR or ViTPose any more.
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
        raise SetupError(f"MMPose is not here. Do: {INSTALL}")
    return Path(spec.origin).parent / ".mim" / "configs"


def _config_path(model: str) -> Path:
    if model.endswith(".py"):
        path = Path(model)
        if not path.is_file():
            raise UserError(f"No MMPose config at {path}.")
        return path
    name = MODELS.get(model, model)
    found = sorted(_configs().rglob(f"{name}.py"))
    if not found:
        raise UserError(
            f"MMPose has no model '{model}'.{nearest(model, MODELS)} Short names: {', '.join(MODELS)}; "
            f"or the name of a config in {_configs()}, or the path of a config file."
        )
    return found[0]


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
            f"MMPose publishes no weights for {config.name}. Give a checkpoint file, or random_weights to try the "
            "machinery."
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            raise SetupError(
                f"MMPose's weights for {config.stem} are not here and cannot be fetched ({error}).\n"
                f"  looked for   {path}\n"
                f"  do one of    fetch {url} on another machine and put it there · give the file as checkpoint\n"
                "  or use       the backend mediapipe, whose model is inside its package"
            ) from None
    return path


def _published_weights(config: Path) -> str | None:
    # No stubs for it are installed everywhere; it comes with MMPose.
    yaml: Any = importlib.import_module("yaml")
    for listing in sorted(config.parent.glob("*.yml")):
        for model in (yaml.safe_load(listing.read_text()) or {}).get("Models", []):
            if model.get("Name") == config.stem or Path(model.get("Config", "")).name == config.name:
                return str(model["Weights"]) if model.get("Weights") else None
    return None


def _load(model: Any, path: Path) -> None:
    """Weights into the model, without unpickling anything but tensors, numbers and mmengine's logs."""
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    core: Any = importlib.import_module("numpy._core.multiarray")
    harmless = [core.scalar, core._reconstruct, np.ndarray, np.dtype, HistoryBuffer, type(np.dtype(np.float64)),
                type(np.dtype(np.float32)), type(np.dtype(np.int64))]  # fmt: skip
    # Published files were written by numpy 1, which named these by another module.
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
            "Files that hold anything but tensors and numbers are not loaded."
        ) from None
    state = content.get("state_dict", content)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [key for key in missing if "num_batches_tracked" not in key]
    if missing:
        raise UserError(
            f"The checkpoint {path} does not fit the model: it lacks {len(missing)} of its weights, the first is "
            f"'{missing[0]}'" + (f", and has {len(unexpected)} others." if unexpected else ".")
        )
    meta = content.get("meta", {}).get("dataset_meta") if isinstance(content, dict) else None
    if isinstance(meta, dict) and meta.get("keypoint_id2name"):
        model.dataset_meta = meta


@contextmanager
def _quiet() -> Iterator[None]:
    """MMPose's warnings about its own past are nobody's business here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _run(command: list[str], echo: bool) -> str:
    lines = run_step(command, echo=echo)
    return lines[-1] if lines else ""
