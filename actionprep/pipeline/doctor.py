"""Examine what this machine can use: packages, video codecs, trackers, mask sources, devices."""

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

# Where code and weights of published models are fetched from, by torch.hub and transformers.
_HUBS = (("github.com", 443), ("huggingface.co", 443))


@dataclass(frozen=True)
class Finding:
    """One thing that the machine has or lacks, and how to get it."""

    name: str
    state: Literal["ready", "missing"]
    detail: str
    remedy: str = ""

    def document(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def examine() -> list[Finding]:
    """All findings, the basics first."""
    return [*_machine(), *_extras(), *_trackers(), *_mask_sources(), *_pose_backends(), *_plugins()]


def install(backend: str, place: str | None = None, *, echo: bool = True) -> str:
    """Run the install recipe of a pose backend that pip alone cannot install; returns a sentence of what is there now.

    backend: mediapipe, into an environment of its own (place: its folder, the user's cache when None), or mmpose, into
        that of a Python (place: its path, the running one when None).

    Raises UserError for another backend, SetupError with pip's last lines when it cannot be installed.
    """
    if backend == "mediapipe":
        from actionprep.pipeline.pose_backends.mediapipe import install_mediapipe

        return f"MediaPipe is ready in {install_mediapipe(place, echo=echo)}."
    if backend == "mmpose":
        from actionprep.pipeline.pose_backends.mmpose import install_mmpose

        return f"MMPose {install_mmpose(place, echo=echo)} is ready."
    raise UserError(
        f"No install recipe for '{backend}'.{nearest(backend, ('mediapipe', 'mmpose'))} There is one for mediapipe and "
        "mmpose; vitpose comes with pip install 'actionprep[hf]'."
    )


def best_pose_backend() -> tuple[str, str]:
    """The pose backend to name in a new study's settings, and one sentence that says why and how to change it.

    HRNet or ViTPose where code and weights are here or can be fetched; else MediaPipe, which every machine can have.
    """
    if mmpose_missing() == "" and (_has_mmpose_weights() or can_fetch()):
        return "mmpose", "HRNet-W32 through MMPose, which is installed; mediapipe is faster without a GPU."
    if importlib.util.find_spec("transformers") is not None and can_fetch():
        return "vitpose", "ViTPose, fetched on first use; mediapipe is faster without a GPU."
    if _has_mediapipe():
        return "mediapipe", "MediaPipe, which is installed and needs no weights; one person a frame."
    return "mediapipe", f"MediaPipe, which needs no weights; install it once with '{INSTALL} mediapipe'."


def best_tracker() -> tuple[str, str]:
    """The tracker to name in a new study's settings, and one sentence that says why and how to change it.

    CoTracker where its code and weights are here or the internet can be reached; else pyramidal Lucas–Kanade.
    """
    from actionprep.pipeline.trackers import TRACKERS
    from actionprep.pipeline.trackers.settings import TracksSettings

    best = "cotracker3_offline"
    if TRACKERS.find(best).is_at_hand(TracksSettings(tracker=best)):
        return best, "CoTracker 3, whose code and weights are on this machine; 'lk' is far faster without a GPU."
    if can_fetch():
        return best, "CoTracker 3, fetched on first use; 'lk' needs no weights and is far faster without a GPU."
    return "lk", "pyramidal Lucas–Kanade, since CoTracker's weights are neither here nor to be fetched from here."


def can_fetch() -> bool:
    """Whether the hubs answer, within two seconds each; ACTIONPREP_OFFLINE=1 says no without asking."""
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
        names = ", ".join(torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count()))
        yield Finding("GPU", "ready", f"{names}; torch {torch.__version__}")
    else:
        remedy = f"torch {torch.__version__} sees none; everything works without, CoTracker and large models slowly"
        yield Finding("GPU", "missing", "", remedy)
    yield Finding(
        "video",
        "ready",
        f"PyAV {av.__version__}, FFmpeg libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}",
    )


def _extras() -> Iterator[Finding]:
    extras = {
        "transformers": ("hf", "ViTPose and RT-DETR"),
        "s3fs": ("s3", "stores behind s3:// URLs"),
        "dask_jobqueue": ("slurm", "--slurm"),
        "wandb": ("wandb", "logging to Weights & Biases"),
        "onnxruntime": ("export", "checking exported ONNX models"),
    }
    for module, (extra, purpose) in extras.items():
        if importlib.util.find_spec(module) is None:
            yield Finding(f"extra {extra}", "missing", "", f"{purpose}: pip install 'actionprep[{extra}]'")
            continue
        try:
            found = version(module.replace("_", "-"))
        except PackageNotFoundError:
            found = ""
        yield Finding(f"extra {extra}", "ready", f"{module} {found}: {purpose}")


def _trackers() -> Iterator[Finding]:
    from actionprep.pipeline.trackers import TRACKERS
    from actionprep.pipeline.trackers.settings import TracksSettings

    for name, kind in TRACKERS.working().items():
        settings = TracksSettings(tracker=name)
        if kind.is_at_hand(settings):
            yield Finding(f"tracker {name}", "ready", TRACKERS.help(name))
        else:
            remedy = "fetched on first use with internet access, or set tracks.repo and tracks.checkpoint"
            yield Finding(f"tracker {name}", "missing", TRACKERS.help(name), remedy)


def _mask_sources() -> Iterator[Finding]:
    from actionprep.pipeline.mask_sources import MASK_SOURCES

    for name in MASK_SOURCES.working():
        yield Finding(f"masks {name}", "ready", MASK_SOURCES.help(name))


def _pose_backends() -> Iterator[Finding]:
    from actionprep.pipeline.pose_backends import POSE_BACKENDS

    about = {name: POSE_BACKENDS.help(name) for name in ("mediapipe", "mmpose", "vitpose")}
    if _has_mediapipe():
        yield Finding("pose mediapipe", "ready", about["mediapipe"])
    else:
        yield Finding("pose mediapipe", "missing", about["mediapipe"], f"{INSTALL} mediapipe (about 1 GB, once)")
    lacks = mmpose_missing()
    if lacks:
        yield Finding("pose mmpose", "missing", about["mmpose"], f"{lacks} not installed: {INSTALL} mmpose")
    elif _has_mmpose_weights():
        yield Finding("pose mmpose", "ready", f"{about['mmpose']}; weights of hrnet-w32 are here")
    else:
        yield Finding(
            "pose mmpose", "ready", f"{about['mmpose']}; weights are fetched on first use, or set pose.checkpoint"
        )
    if importlib.util.find_spec("transformers") is None:
        yield Finding("pose vitpose", "missing", about["vitpose"], "pip install 'actionprep[hf]'")
    else:
        yield Finding(
            "pose vitpose", "ready", f"{about['vitpose']}; weights are fetched on first use, or set pose.model"
        )
    yield Finding("pose import", "ready", "poses that are there already: 'actionprep formats' lists what is read")


def _plugins() -> Iterator[Finding]:
    """Every part that another package adds, and what is wrong with it."""
    from actionprep.registry import plugins

    for kind, entry, error in plugins():
        if error is None:
            yield Finding(f"{kind} {entry.name}", "ready", f"from the package {entry.origin}")
        else:
            yield Finding(f"{kind} {entry.name}", "missing", f"from the package {entry.origin}", str(error))


def mmpose_missing() -> str:
    """The modules of MMPose that cannot be imported, as text; "" when it is whole."""
    modules = ("mmpose", "mmengine", "mmcv", "xtcocotools")
    return ", ".join(name for name in modules if importlib.util.find_spec(name) is None)


def _has_mmpose_weights() -> bool:
    import torch

    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    return os.path.isdir(folder) and any(name.startswith("td-hm_hrnet-w32") for name in os.listdir(folder))


def _has_mediapipe() -> bool:
    from actionprep.pipeline.pose_backends.mediapipe import is_installed

    return is_installed()
