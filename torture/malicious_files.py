"""Pickles, archives and checkpoints that would run code or fill the memory."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from actionprep.datasets.poses.formats import read_poses
from actionprep.errors import ActionprepError
from actionprep.training.checkpoints import load_checkpoint
from torture.common import Part, Trials

MAX_MB = 200


class Harmful:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path, function: Callable[..., Any]) -> None:
        self.path, self.function = str(path), function

    def __reduce__(self) -> tuple[Any, ...]:
        if self.function is eval:
            return eval, (f"__import__('os').mkdir({self.path!r})",)
        return self.function, (self.path,)


def read_malicious(trials: Trials, folder: Path) -> None:
    """Write and read random malicious files. None may run code, be accepted or need much memory."""
    target = folder / "executed"
    torch.save({}, folder / "warm.ckpt")
    _read(folder / "warm.ckpt")
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in trials:
        kind = trials.random.choice(list(KINDS))
        path = KINDS[kind](folder, target, trials.random)
        accepted = _read(path)
        trials.facts[kind] += 1
        trials.check(not target.exists(), f"{kind} ran code")
        trials.check(not accepted, f"{kind} was accepted")
        path.unlink()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
    trials.facts["MB above the start"] = round(grown)
    trials.check(grown <= MAX_MB, f"memory grew by {grown:.0f} MB")


def _read(path: Path) -> bool:
    """Return whether a reader accepted a file. Errors other than those of the program are not caught."""
    try:
        if path.suffix == ".ckpt":
            load_checkpoint(path)
        else:
            list(read_poses(path))
    except ActionprepError:
        return False
    return True


def _nested(target: Path, random: Random) -> Any:
    value: Any = Harmful(target, random.choice([os.mkdir, os.makedirs, eval]))
    for _ in range(random.randrange(6)):
        value = random.choice([[value], (value,), {"a": value}, {"annotations": [{"keypoint": value}]}, [1, [value]]])
    return value


def _pickle(folder: Path, target: Path, random: Random) -> Path:
    path = folder / "poses.pkl"
    path.write_bytes(pickle.dumps(_nested(target, random), random.randrange(pickle.HIGHEST_PROTOCOL + 1)))
    return path


def _object_array(folder: Path, target: Path, random: Random) -> Path:
    path = folder / "poses.npz"
    harmful = np.empty(1, object)
    harmful[0] = _nested(target, random)
    names = random.sample(["keypoints", "image_size", "joints_xyzc", "xyz", "fps"], 3)
    np.savez(path, **dict.fromkeys(names, harmful))
    return path


def _huge_array(folder: Path, target: Path, random: Random) -> Path:
    path = folder / "poses.npz"
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({random.randrange(10**10, 10**13)},), }}"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("keypoints", "joints_xyzc", "offsets", "action", "subject", "instance"):
            archive.writestr(f"{name}.npy", content)
    return path


def _huge_zeros(folder: Path, target: Path, random: Random) -> Path:
    path, count = folder / "poses.npz", random.randrange(300, 500) << 17
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({count},), }}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("keypoints.npy", "w") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        for _ in range(count >> 17):
            file.write(bytes(1 << 20))
    return path


def _checkpoint(folder: Path, target: Path, random: Random) -> Path:
    path = folder / "best.ckpt"
    content = {
        "state_dict": {"weight": torch.zeros(2)},
        "actionprep": {"labels": ["a"]},
        "extra": _nested(target, random),
    }
    if random.random() < 0.5:
        torch.save(content, path)
    else:
        buffer = io.BytesIO()
        pickle.dump(content["extra"], buffer)
        path.write_bytes(buffer.getvalue())
    return path


KINDS: dict[str, Callable[[Path, Path, Random], Path]] = {
    "pickles": _pickle,
    "object arrays": _object_array,
    "arrays of 100 GB": _huge_array,
    "archives of zeros": _huge_zeros,
    "checkpoints": _checkpoint,
}

PART = Part(
    "pickles, archives and checkpoints that run code or declare 100 GB are read: refused, nothing runs, memory within "
    "200 MB",
    "malicious files",
    1000,
    read_malicious,
)
