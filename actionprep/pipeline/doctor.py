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
    return [*_machine(), *_extras(), *_trackers(), *_mask_sources()]


def best_tracker() -> tuple[str, str]:
    """The tracker to name in a new study's settings, and one sentence that says why and how to change it.

    CoTracker where its code and weights are here or the internet can be reached; else pyramidal Lucas–Kanade.
    """
    from actionprep.pipeline.trackers import find_tracker
    from actionprep.pipeline.tracks import TracksSettings

    best = "cotracker3_offline"
    if find_tracker(best).is_at_hand(TracksSettings(tracker=best)):
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
        "transformers": ("hf", "ViTPose, SAM 2, Grounding DINO, VideoMAE weights"),
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
    from actionprep.pipeline.tracks import TracksSettings

    for name, kind in TRACKERS.items():
        settings = TracksSettings(tracker=name)
        if kind.is_at_hand(settings):
            yield Finding(f"tracker {name}", "ready", kind.help)
        else:
            remedy = "fetched on first use with internet access, or set tracks.repo and tracks.checkpoint"
            yield Finding(f"tracker {name}", "missing", kind.help, remedy)


def _mask_sources() -> Iterator[Finding]:
    from actionprep.pipeline.mask_sources import MASK_SOURCES

    for name, kind in MASK_SOURCES.items():
        yield Finding(f"masks {name}", "ready", kind.help)
