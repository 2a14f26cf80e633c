"""Formats that poses come in, one file each; `read_poses` reads any of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from actionprep.datasets.poses.formats.content import Damaged
from actionprep.datasets.poses.sequence import PoseItem
from actionprep.errors import InputError, UserError, nearest


@dataclass(frozen=True)
class PoseFormat:
    """One format: its name, what it is, and where its reader lives.

    each: glob of its files, where each file is a recording by itself and a folder is just many of them.
    """

    name: str
    title: str
    module: str
    function: str
    each: str = ""

    @property
    def read(self) -> Callable[..., Iterator[PoseItem]]:
        """The reader: a path and options of the format → items."""
        reader: Callable[..., Iterator[PoseItem]] = getattr(import_module(self.module), self.function)
        return reader


def _format(name: str, title: str, function: str, each: str = "") -> PoseFormat:
    return PoseFormat(name, title, f"{__name__}.{name.replace('-', '_')}", function, each)


FORMATS: dict[str, PoseFormat] = {
    found.name: found
    for found in (
        _format("openpose", "folder of OpenPose JSON files, one a frame", "read_openpose"),
        _format("coco", "COCO keypoints JSON, annotations or results", "read_coco"),
        _format("mediapipe", "MediaPipe pose landmarks, npz or csv", "read_mediapipe"),
        _format("pose-npz", "our npz: keypoints, score and what is known of them", "read_pose_npz", "*.npz"),
        _format("pose-csv", "our csv: one row a joint", "read_pose_csv"),
        _format("pyskl", "PySKL pickle, 2D or 3D, with splits", "read_pyskl"),
        _format("ntu", "NTU RGB+D .skeleton files", "read_ntu", "*.skeleton"),
        _format("jhmdb", "JHMDB joint_positions folders, or npz of its splits", "read_jhmdb"),
        _format("msr-action3d", "MSR Action3D text files, or one npz", "read_msr_action3d", "a*_s*_e*_skeleton*.txt"),
        _format("utkinect", "UTKinect-style joint text files with actionLabel.txt", "read_utkinect"),
    )
}


def read_poses(
    path: str | Path, format: str | None = None, *, damaged: Damaged | None = None, **options: Any
) -> Iterator[PoseItem]:
    """Every recording in a pose file or folder.

    format: one of FORMATS; None looks into the file. damaged: told of the name and the problem of each recording that
    cannot be read, while the others go on; without it, the first problem is raised. options: those of the format's
    reader.
    Raises UserError when there is nothing at the path, the format is unknown or cannot be told.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"No pose file or folder at {path}.")
    name = format or detect_format(path)
    if name is None:
        known = "; ".join(f"{one.name} ({one.title})" for one in FORMATS.values())
        raise UserError(f"The format of the poses at {path} cannot be told. Name it; known: {known}.")
    if name not in FORMATS:
        raise UserError(f"Unknown pose format '{name}'.{nearest(name, FORMATS)} Known: {', '.join(FORMATS)}.")
    if path.is_dir() and name in _SINGLE:
        raise UserError(f"{path} is a folder, and '{name}' ({FORMATS[name].title}) is one file: name the file.")
    if damaged is not None and name not in _SINGLE_RECORDING:
        options["damaged"] = damaged
    return FORMATS[name].read(path, **options)


# Formats of one file, which a folder is not; and those of one recording, where nothing is left to go on with.
_SINGLE = ("coco", "mediapipe", "pose-csv", "pyskl")
_SINGLE_RECORDING = ("mediapipe",)

# Options that only some formats' readers take.
_SIZED = ("openpose", "coco", "mediapipe", "pose-npz", "pose-csv", "pyskl")
_WITH_SKELETON = ("openpose", "coco", "pose-npz", "pose-csv", "pyskl")
_WITH_COORDINATES = ("ntu", "jhmdb")


def reading_options(
    format: str, *, skeleton: str = "", coordinates: str = "", image_size: Sequence[int] | None = None
) -> dict[str, Any]:
    """The options of a format's reader from what was set; raises UserError for one that the format does not take."""
    given = (
        ("skeleton", skeleton, _WITH_SKELETON),
        ("coordinates", coordinates, _WITH_COORDINATES),
        ("image_size", None if image_size is None else [int(side) for side in image_size], _SIZED),
    )
    for name, value, having in given:
        if value and format not in having:
            raise UserError(
                f"Poses of the format '{format}' take no {name}, got {value!r}. Formats that do: {', '.join(having)}."
            )
    return {name: value for name, value, _ in given if value}


def item_name(item: PoseItem) -> str:
    """One name for an item of a file: its recording, and its view where it has one."""
    return item.recording if item.view is None else f"{item.recording}/{item.view}"


def detect_format(path: str | Path) -> str | None:
    """Which format a file or folder is in, from names and first bytes; None when nothing fits."""
    path = Path(path)
    if path.is_dir():
        return _detect_folder(path)
    suffix = path.suffix.lower()
    if suffix in (".pkl", ".pickle"):
        return "pyskl"
    if suffix == ".skeleton":
        return "ntu"
    if suffix == ".json":
        return "openpose" if '"people"' in _head(path) else "coco"
    if suffix == ".npz":
        return npz_format(path)
    if suffix == ".csv":
        header = _head(path).split("\n", 1)[0]
        return "mediapipe" if "landmark" in header or "nose_x" in header else "pose-csv"
    if suffix == ".txt" and "_skeleton" in path.name:
        return "msr-action3d"
    return "utkinect" if suffix == ".txt" and path.name.startswith("joints_") else None


def _detect_folder(path: Path) -> str | None:
    if (path / "joint_positions").is_dir() or path.name == "joint_positions":
        return "jhmdb"
    for pattern, name in (
        ("*.skeleton", "ntu"),
        ("joint_positions.mat", "jhmdb"),
        ("a*_s*_e*_skeleton*.txt", "msr-action3d"),
        ("joints_*.txt", "utkinect"),
    ):
        if next(path.rglob(pattern), None) is not None:
            return name
    archive = next(path.rglob("*.npz"), None)
    if archive is not None:
        return npz_format(archive)
    # Some may be empty or cut short: those that are whole tell.
    some = islice(sorted(path.rglob("*.json")), 100)
    return "openpose" if any('"people"' in _head(file) or "_keypoints" in file.stem for file in some) else None


def npz_format(path: Path) -> str | None:
    """The format that has an npz file's arrays; None when none has, InputError for a file that is no npz."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError):
        raise InputError(f"{path} is not a sound npz file.") from None
    for key, name in (
        ("keypoints", "pose-npz"),
        ("landmarks", "mediapipe"),
        ("joints_xyzc", "msr-action3d"),
        ("train_xy", "jhmdb"),
    ):
        if key in names:
            return name
    return None


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(4096).decode("utf-8", "replace")


def read_json(path: Path) -> Any:
    """A JSON file's content; InputError with the place where it breaks off."""
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}. "
            "The file is cut short or damaged."
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: {error}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} holds JSON that no pose file has: {error}.") from None
