"""Our npz of poses: one recording per file, the arrays of a PoseSequence by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.poses.formats.content import NAME_LAYOUT, Damaged, check_times, going_on, numbers, size_of
from actionprep.datasets.poses.formats.safe_npz import load_npz, npz_names
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.errors import InputError, UserError

_TEXTS = ("skeleton", "recording", "label", "subject", "split")
_MAX_TEXT_BYTES = 1 << 24
_OPTIONAL = ("score", "bbox", "track_id", "filled", "frame_index", "time")


def read_pose_npz(
    path: str | Path,
    *,
    skeleton: str | None = None,
    image_size: Sequence[int] | None = None,
    damaged: Damaged | None = None,
) -> Iterator[PoseItem]:
    """One recording, or every npz in a folder.

    keypoints   (T, M, K, 2 or 3) or (T, K, 2 or 3)      required
    skeleton    name of the layout, a string             required here or as an option
    score (T, M, K), bbox (T, M, 4), track_id (T, M), filled (T, M, K), frame_index (T), time (T)     optional
    image_size  (2,): height, width                      optional
    label, subject, recording                            strings, optional
    split       strings, optional

    damaged: called for each file that cannot be read; without it, the first error is raised.
    """
    root = Path(path)
    files = [root] if root.is_file() else sorted(root.rglob("*.npz"))
    if not files:
        raise UserError(f"No npz file in {root}.")
    for file in files:
        name = (file.relative_to(root).as_posix() if root.is_dir() else file.name).removesuffix(file.suffix)
        with going_on(name, damaged):
            yield _item(file, name, skeleton, image_size)


def _item(file: Path, name: str, skeleton: str | None, image_size: Sequence[int] | None) -> PoseItem:
    names = npz_names(file)
    if "keypoints" not in names:
        raise InputError(f"{file} holds no array 'keypoints'. It holds {', '.join(sorted(names)) or 'none'}.")
    # Texts first: without them the arrays, which may be large, are of no use.
    arrays = load_npz(file, [name for name in _TEXTS if name in names], max_bytes=_MAX_TEXT_BYTES)
    layout = skeleton or _text(arrays.get("skeleton"))
    if layout is None:
        raise UserError(
            f"{file} does not name its skeleton. Add a string 'skeleton' to the file, or name it {NAME_LAYOUT}."
        )
    arrays |= load_npz(file, [name for name in ("keypoints", "image_size", *_OPTIONAL) if name in names])
    if "time" in arrays:
        arrays["time"] = check_times(numbers(arrays["time"], "The times", str(file)), str(file))
    poses = PoseSequence.of(
        arrays["keypoints"],
        skeleton=layout,
        image_size=size_of(arrays["image_size"], str(file)) if "image_size" in arrays else image_size,
        where=str(file),
        **{name: arrays[name] for name in _OPTIONAL if name in arrays},
    )
    return PoseItem(
        _text(arrays.get("recording")) or name,
        poses,
        label=_text(arrays.get("label")),
        subject=_text(arrays.get("subject")),
        splits=tuple(str(value) for value in np.atleast_1d(arrays["split"])) if "split" in arrays else (),
    )


def write_pose_npz(path: str | Path, item: PoseItem) -> None:
    """Write one recording as `read_pose_npz` reads it."""
    poses = item.poses
    arrays: dict[str, Any] = {name: getattr(poses, name) for name in ("keypoints", *_OPTIONAL)}
    arrays |= {
        "skeleton": poses.skeleton,
        "image_size": poses.image_size,
        "recording": item.recording,
        "label": None if item.label is None else str(item.label),
        "subject": item.subject,
        "split": list(item.splits) or None,
    }
    known: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    np.savez_compressed(path, **known)


def _text(value: Any) -> str | None:
    return None if value is None or not np.size(value) else str(np.asarray(value).reshape(-1)[0])
