"""Check which packages, video codecs, trackers, mask sources and devices are available."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from actionprep.errors import UserError, nearest

INSTALL = "actionprep doctor --install"

# Hosts from which torch.hub and transformers download code and weights of published models.
_HUBS = (("github.com", 443), ("huggingface.co", 443))


@dataclass(frozen=True)
class Finding:
    """State of one component, and how to get it if it is missing."""

    name: str
    state: Literal["ready", "missing"]
    detail: str
    remedy: str = ""

    def document(self) -> dict[str, Any]:
        """Return the finding as plain values."""
        return asdict(self)


def examine() -> list[Finding]:
    """Return all findings, basic components first."""
    return [*_machine(), *_extras(), *_trackers(), *_mask_sources(), *_pose_backends(), *_plugins()]


def install(backend: str, place: str | None = None, *, echo: bool = True) -> str:
    """Install a pose backend that pip alone cannot install.

    Args:
        backend: "mediapipe", installed into a separate environment, or "mmpose", installed into that of a Python.
        place: For mediapipe, folder of the environment; None: the user's cache. For mmpose, path of the Python; None: the
            running one.
        echo: Whether to print the progress.

    Returns:
        A sentence with what was installed.

    Raises:
        UserError: If the backend is unknown.
        SetupError: If the installation fails; contains the last lines of pip.
    """
    if backend == "mediapipe":
        from actionprep.pipeline.pose_backends.mediapipe import install_mediapipe

        return f"MediaPipe is ready in {install_mediapipe(place, echo=echo)}."
    if backend == "mmpose":
        from actionprep.pipeline.pose_backends.mmpose import install_mmpose

        return f"MMPose {install_mmpose(place, echo=echo)} is ready."
    raise UserError(
        f"No install recipe for '{backend}'.{nearest(backend, ('mediapipe', 'mmpose'))} Available: mediapipe and "
        "mmpose; install vitpose with pip install 'actionprep[hf]'."
    )


def best_pose_backend() -> tuple[str, str]:
    """Choose the pose backend of a new study.

    HRNet or ViTPose if their code and weights are installed or can be downloaded, otherwise MediaPipe.

    Returns:
        Name of the backend, and the reason with alternatives.
    """
    if mmpose_missing() == "" and (_has_mmpose_weights() or can_fetch()):
        return "mmpose", "HRNet-W32 through MMPose, which is installed; mediapipe is faster without a GPU."
    if importlib.util.find_spec("transformers") is not None and can_fetch():
        return "vitpose", "ViTPose, downloaded on first use; mediapipe is faster without a GPU."
    if _has_mediapipe():
        return "mediapipe", "MediaPipe, which is installed and needs no weights; one person per frame."
    return "mediapipe", f"MediaPipe, which needs no weights; install it once with '{INSTALL} mediapipe'."


def best_tracker() -> tuple[str, str]:
    """Choose the tracker of a new study.

    CoTracker if its code and weights are installed or can be downloaded, otherwise pyramidal Lucas–Kanade.

    Returns:
        Name of the tracker, and the reason with alternatives.
    """
    from actionprep.pipeline.trackers import TRACKERS
    from actionprep.pipeline.trackers.settings import TracksSettings

    best = "cotracker3_offline"
    if TRACKERS.find(best).is_available(TracksSettings(tracker=best)):
        return best, "CoTracker 3, which is installed; 'lk' is much faster without a GPU."
    if can_fetch():
        return best, "CoTracker 3, downloaded on first use; 'lk' needs no weights and is much faster without a GPU."
    return "lk", "pyramidal Lucas–Kanade, because CoTracker is not installed and cannot be downloaded from here."


def can_fetch() -> bool:
    """Return whether the hubs answer within two seconds each. ACTIONPREP_OFFLINE=1 disables the check and downloads."""
    if os.environ.get("ACTIONPREP_OFFLINE") or os.environ.get("HF_HUB_OFFLINE"):
        return False
    for address in _HUBS:
        try:
            socket.create_connection(address, timeout=2).close()
        except OSError:
            return False
    return True


def _machine() -> Iterator[Finding]:
    import av
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    free = shutil.disk_usage(".").free
    yield Finding("processor", "ready", f"{cores} cores; {free / 1e9:.0f} GB free on this disk")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Finding("GPU", "ready", f"{names}; torch {torch.__version__}")
    else:
        remedy = f"torch {torch.__version__} detects none; CoTracker and large models are slow without a GPU"
        yield Finding("GPU", "missing", "", remedy)
    yield Finding(
        "video",
        "ready",
        f"PyAV {av.__version__}, FFmpeg libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}",
    )


def _extras() -> Iterator[Finding]:
    extras = {
        "transformers": ("hf", "ViTPose, RT-DETR, Grounding DINO and SAM 2"),
        "obstore": ("s3", "stores behind s3:// URLs"),
        "dask_jobqueue": ("slurm", "--slurm"),
        "wandb": ("wandb", "logging to Weights & Biases"),
        "onnxruntime": ("export", "checking exported ONNX models"),
    }
    for module, (extra, purpose) in extras.items():
        if importlib.util.find_spec(module) is None:
            yield Finding(f"extra {extra}", "missing", "", f"{purpose}: pip install 'actionprep[{extra}]'")
            continue
        try:
            installed = version(module.replace("_", "-"))
        except PackageNotFoundError:
            installed = ""
        yield Finding(f"extra {extra}", "ready", f"{module} {installed}: {purpose}")


def _trackers() -> Iterator[Finding]:
    from actionprep.pipeline.trackers import TRACKERS
    from actionprep.pipeline.trackers.settings import TracksSettings

    for name, kind in TRACKERS.working().items():
        settings = TracksSettings(tracker=name)
        if kind.is_available(settings):
            yield Finding(f"tracker {name}", "ready", TRACKERS.help(name))
        else:
            remedy = "downloaded on first use with internet access, or set tracks.repo and tracks.checkpoint"
            yield Finding(f"tracker {name}", "missing", TRACKERS.help(name), remedy)


def _mask_sources() -> Iterator[Finding]:
    from actionprep.pipeline.mask_sources import MASK_SOURCES

    for name in MASK_SOURCES.working():
        if name == "person" and not _has_mediapipe():
            remedy = f"{INSTALL} mediapipe (about 1 GB, once)"
            yield Finding(f"masks {name}", "missing", MASK_SOURCES.help(name), remedy)
        elif name == "text" and importlib.util.find_spec("transformers") is None:
            yield Finding(f"masks {name}", "missing", MASK_SOURCES.help(name), "pip install 'actionprep[hf]'")
        elif name == "text":
            detail = "weights are downloaded on first use, or set masks.detector and masks.segmenter"
            yield Finding(f"masks {name}", "ready", f"{MASK_SOURCES.help(name)}; {detail}")
        else:
            yield Finding(f"masks {name}", "ready", MASK_SOURCES.help(name))


def _pose_backends() -> Iterator[Finding]:
    from actionprep.pipeline.pose_backends import POSE_BACKENDS

    about = {name: POSE_BACKENDS.help(name) for name in POSE_BACKENDS}
    for name in ("mediapipe", "mediapipe-hands", "mediapipe-holistic"):
        if _has_mediapipe():
            yield Finding(f"pose {name}", "ready", about[name])
        else:
            yield Finding(f"pose {name}", "missing", about[name], f"{INSTALL} mediapipe (about 1 GB, once)")
    missing = mmpose_missing()
    if missing:
        yield Finding("pose mmpose", "missing", about["mmpose"], f"{missing} not installed: {INSTALL} mmpose")
    elif _has_mmpose_weights():
        yield Finding("pose mmpose", "ready", f"{about['mmpose']}; weights of hrnet-w32 are downloaded")
    else:
        yield Finding(
            "pose mmpose", "ready", f"{about['mmpose']}; weights are downloaded on first use, or set pose.checkpoint"
        )
    if importlib.util.find_spec("transformers") is None:
        yield Finding("pose vitpose", "missing", about["vitpose"], "pip install 'actionprep[hf]'")
    else:
        yield Finding(
            "pose vitpose", "ready", f"{about['vitpose']}; weights are downloaded on first use, or set pose.model"
        )
    yield Finding("pose import", "ready", "reads existing poses; 'actionprep formats' lists the formats")


def _plugins() -> Iterator[Finding]:
    """Yield a finding for each plugin of another package."""
    from actionprep.registry import plugins

    for kind, entry, error in plugins():
        if error is None:
            yield Finding(f"{kind} {entry.name}", "ready", f"from the package {entry.origin}")
        else:
            yield Finding(f"{kind} {entry.name}", "missing", f"from the package {entry.origin}", str(error))


def mmpose_missing() -> str:
    """Return the missing modules of MMPose as text; "" if all are installed."""
    modules = ("mmpose", "mmengine", "mmcv", "xtcocotools")
    return ", ".join(name for name in modules if importlib.util.find_spec(name) is None)


def _has_mmpose_weights() -> bool:
    import torch

    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    return os.path.isdir(folder) and any(name.startswith("td-hm_hrnet-w32") for name in os.listdir(folder))


def _has_mediapipe() -> bool:
    from actionprep.pipeline.pose_backends.mediapipe import is_installed

    return is_installed()
