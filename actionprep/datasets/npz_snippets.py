"""Folders of npz files with one snippet and view each: their names and their files.

{name}_length_{ms}_sample_rate_{r}_iou_{x}/
export.json                          labels in order and how the folder was made; not in folders of other programs
{train,val,test}/{class}/{number}_{recording}_{view}.npz
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from actionprep.datasets.atomic_files import atomic_file
from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.paths import safe_name
from actionprep.datasets.poses.formats.safe_npz import load_npz, npz_members
from actionprep.errors import InputError

EXPORT = "export.json"
PARTS = ("train", "val", "test")

VIDEO_RATE = 29.97
"""Frames per second of the gesture-snippet system, which stores no times."""

_FOLDER = re.compile(r"(?P<name>.*)_length_(?P<length>\d+(?:\.\d+)?)_sample_rate_(?P<rate>\d+)(?:_.*)?")
_SMALL = ("time", "view", "recording", "subject", "onset", "offset")
_MAX_SMALL_BYTES = 16 << 20


def folder_name(name: str, *, length_s: float | None, sample_rate: int, threshold: float) -> str:
    """Return the name of a folder of snippets.

    The gesture-snippet system splits names at underscores and reads the length from the fourth part. So `name` should have
    exactly one underscore.

    Args:
        name: First part of the name.
        length_s: Length of the windows in seconds; None for snippets of different lengths, which become length 0.
        sample_rate: Every how many frames one is stored.
        threshold: Threshold of the label rule.
    """
    length = 0 if length_s is None else length_s * 1000
    return f"{safe_name(name)}_length_{length:g}_sample_rate_{sample_rate}_iou_{threshold:g}"


@dataclass(frozen=True)
class SnippetFile:
    """One npz file, without its frames.

    Attributes:
        path: The file.
        time: Times of the frames in seconds, shape (T,), increasing.
        onset: Start of the snippet in seconds.
        offset: End of the snippet in seconds, not included.
        size: Height and width of the frames.
        view: Name of the view; None if the file has none.
        recording: Recording that the snippet is from; "" if not known.
        subject: Subject of the recording; "" if not known.
        has_keypoints: Whether the file has a raster of joints.
        content: Name, CRC-32 and size of each array: equal content has equal values.
    """

    path: Path
    time: np.ndarray
    onset: float
    offset: float
    size: tuple[int, int]
    view: str | None = None
    recording: str = ""
    subject: str = ""
    has_keypoints: bool = False
    content: tuple[tuple[str, int, int], ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file, and check that its arrays have the right types and shapes.

        Files without `time` are of the gesture-snippet system, whose frames are 1 / 29.97 s apart. The name of the folder
        states which of them are stored.

        Raises:
            InputError: If the file is damaged, lacks an array, or has an array of another type or shape.
        """
        members = npz_members(path)
        video = members.get("video")
        if (
            video is None
            or video.dtype != np.uint8
            or len(video.shape) != 4
            or video.shape[-1] != 3
            or 0 in video.shape
        ):
            described = "no such array" if video is None else f"{video.dtype} of shape {video.shape}"
            raise InputError(
                f"{path} is no snippet: expected an array 'video' of uint8 and shape (T, H, W, 3), found {described}."
            )
        count = video.shape[0]
        if "keypoints" in members and (
            members["keypoints"].shape != video.shape[:3] or members["keypoints"].dtype != np.uint8
        ):
            raise InputError(
                f"{path}: 'keypoints' is {members['keypoints'].dtype} of shape {members['keypoints'].shape}; expected uint8 "
                f"of shape {video.shape[:3]}, one value per pixel of 'video'."
            )
        small = load_npz(path, [name for name in _SMALL if name in members], max_bytes=_MAX_SMALL_BYTES)
        time = _times(path, small, count)
        interval = frame_interval(time, default=1 / VIDEO_RATE)
        return cls(
            path=path,
            time=time,
            onset=_number(path, small, "onset", float(time[0])),
            offset=_number(path, small, "offset", float(time[-1]) + interval),
            size=(video.shape[1], video.shape[2]),
            view=_text(path, small, "view"),
            recording=_text(path, small, "recording") or "",
            subject=_text(path, small, "subject") or "",
            has_keypoints="keypoints" in members,
            content=tuple(sorted((name, member.crc32, member.num_bytes) for name, member in members.items())),
        )


def write_snippet(path: Path, arrays: Mapping[str, np.ndarray], *, compress: bool = True) -> None:
    """Write one npz file, complete or not at all."""
    with atomic_file(path, sync=True, fixed=True) as draft:
        (np.savez_compressed if compress else np.savez)(draft, **arrays)  # type: ignore[arg-type]


def _times(path: Path, small: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    if "time" not in small:
        return np.arange(count) * (_frame_step(path, count) / VIDEO_RATE)
    time = small["time"]
    if (
        time.shape != (count,)
        or time.dtype.kind not in "fiu"
        or not np.isfinite(time).all()
        or (np.diff(time) <= 0).any()
    ):
        raise InputError(
            f"{path}: 'time' is {time.dtype} of shape {time.shape}; expected {count} increasing times in seconds, one per "
            "frame of 'video'."
        )
    return time.astype(np.float64)


def _frame_step(path: Path, count: int) -> int:
    """Frames of the video from one stored frame to the next, from the name of the folder."""
    name = path.parents[2].resolve().name
    match = _FOLDER.fullmatch(name)
    if match is None or int(match["rate"]) < 1:
        raise InputError(
            f"{path} has no array 'time', and the folder name '{name}' has no sample rate. Add times in seconds to the "
            "files, or give the folder a name like snippets_length_1300_sample_rate_1_iou_0.5."
        )
    # The system stores all frames and takes every r-th on reading; other folders store every r-th.
    all_frames = int(np.ceil(VIDEO_RATE * float(match["length"]) / 1000))
    return 1 if count >= all_frames > 0 else int(match["rate"])


def _number(path: Path, small: Mapping[str, np.ndarray], name: str, default: float) -> float:
    if name not in small:
        return default
    value = small[name]
    if value.shape != () or value.dtype.kind not in "fiu" or not np.isfinite(value):
        raise InputError(f"{path}: '{name}' is {value.dtype} of shape {value.shape}; expected one number, seconds.")
    return float(value)


def _text(path: Path, small: Mapping[str, np.ndarray], name: str) -> str | None:
    if name not in small:
        return None
    value: Any = small[name]
    if value.shape != () or value.dtype.kind not in "Uiu":
        raise InputError(f"{path}: '{name}' is {value.dtype} of shape {value.shape}; expected one text.")
    return str(value)
