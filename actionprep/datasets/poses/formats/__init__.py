"""Formats of pose files, one module each. `read_poses` reads all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from actionprep.datasets.poses.formats.content import Damaged, going_on
from actionprep.datasets.poses.formats.safe_npz import npz_names
from actionprep.datasets.poses.pixels import check_pixels
from actionprep.datasets.poses.sequence import PoseItem
from actionprep.errors import InputError, UserError, explained_read_errors
from actionprep.registry import Registry


@dataclass(frozen=True)
class PoseFormat:
    """One format of pose files.

    Attributes:
        name: Name that settings and commands use.
        title: What the format is, for lists.
        reader: "module:function" that reads a path, with options, and yields a `PoseItem` for each recording.
        each: Glob of its files, if each file is a recording by itself and a folder is just many of them.
        one_file: The data are one file; a folder is refused.
        one_recording: A file has one recording, so that nothing is left after a damaged one.
        in_pixels: Coordinates are always in pixels. Those of other formats are if the size of the image is known.
        options: Options of the reader, of skeleton, coordinates and image_size.
        coordinates: Unit and origin of the coordinates in its files, for lists.
        times: How its files state the time of a frame, for lists.
        recognizes: Whether a file or folder is of this format, for "auto". `detect_format` knows the formats of
            actionprep without it.
    """

    name: str
    title: str
    reader: str
    each: str = ""
    one_file: bool = False
    one_recording: bool = False
    in_pixels: bool = False
    options: tuple[str, ...] = ()
    coordinates: str = ""
    times: str = ""
    recognizes: Callable[[Path], bool] | None = None

    @property
    def description(self) -> str:
        """The title, under the name that registries use."""
        return self.title

    @property
    def read(self) -> Callable[..., Iterator[PoseItem]]:
        """The reader: a function from a path and options of the format to items."""
        module, _, function = self.reader.partition(":")
        reader: Callable[..., Iterator[PoseItem]] = getattr(import_module(module), function)
        return reader


FORMATS: Registry[PoseFormat] = Registry(
    "pose format", "actionprep.pose_formats", plural="Formats", instance_of=f"{__name__}:PoseFormat"
)
"""Formats by name, as in `pose.format` and `study.pose_format`."""


def _add(name: str, title: str, **facts: Any) -> None:
    module = name.replace("-", "_")
    FORMATS[name] = PoseFormat(name, title, f"{__name__}.{module}:read_{module}", **facts)


_JOINTS = ("skeleton", "image_size")
_PIXELS = "pixels, (0, 0) at the center of the first pixel"
_OWN_FRAMES = "one entry per frame, from the first"

_add(
    "openpose",
    "folder of OpenPose JSON files, one per frame",
    options=_JOINTS,
    in_pixels=True,
    coordinates=_PIXELS,
    times="number in the file name, from 0",
)
_add(
    "coco",
    "COCO keypoints JSON, annotations or results",
    options=_JOINTS,
    one_file=True,
    in_pixels=True,
    coordinates=_PIXELS,
    times="number in the image's name or its id",
)
_add(
    "deeplabcut",
    "DeepLabCut csv or HDF5, predictions or labeled data",
    options=_JOINTS,
    one_file=True,
    in_pixels=True,
    coordinates=_PIXELS,
    times="frames from 0; labeled data: number of the image",
)
_add(
    "sleap",
    "SLEAP labels (.slp), analysis HDF5 or csv",
    options=_JOINTS,
    one_file=True,
    in_pixels=True,
    coordinates=f"{_PIXELS}; labels before version 1.1: its corner",
    times="frames from 0",
)
_add(
    "netcdf",
    "netCDF poses of movement",
    options=_JOINTS,
    one_file=True,
    one_recording=True,
    coordinates=_PIXELS,
    times="seconds, or frames from 0",
)
_add(
    "nwb",
    "NWB with ndx-pose",
    options=_JOINTS,
    one_file=True,
    in_pixels=True,
    coordinates=_PIXELS,
    times="timestamps or rate, in seconds",
)
_add(
    "jabs",
    "JABS pose HDF5 (poseest), version 2 or later",
    options=_JOINTS,
    one_file=True,
    one_recording=True,
    in_pixels=True,
    coordinates="whole pixels, stored as (y, x)",
    times=_OWN_FRAMES,
)
_add(
    "mmpose",
    "MMPose 1.x JSON of the inferencer or a demo",
    options=_JOINTS,
    one_file=True,
    one_recording=True,
    coordinates=f"{_PIXELS}; 3D: unit of the model",
    times="frame_id, or one entry per frame",
)
_add(
    "mediapipe",
    "MediaPipe pose landmarks, npz or csv",
    options=("image_size",),
    one_file=True,
    one_recording=True,
    coordinates="shares of the image, (0, 0) at its edge",
    times="frames from 0",
)
_add(
    "pose-npz",
    "our npz: keypoints, scores and more",
    options=_JOINTS,
    each="*.npz",
    coordinates=_PIXELS,
    times="seconds and frames from 0",
)
_add(
    "pose-csv",
    "our csv: one row per joint",
    options=_JOINTS,
    one_file=True,
    coordinates=_PIXELS,
    times="frames from 0",
)
_add(
    "pyskl",
    "PySKL pickle, 2D or 3D, with splits",
    options=_JOINTS,
    one_file=True,
    coordinates=f"{_PIXELS}; 3D: unit of the file",
    times=_OWN_FRAMES,
)
_add(
    "ntu",
    "NTU RGB+D .skeleton files",
    options=("coordinates",),
    each="*.skeleton",
    coordinates="pixels of the color or depth image, or meters",
    times=_OWN_FRAMES,
)
_add(
    "jhmdb",
    "JHMDB joint_positions folders, or npz of its splits",
    options=("coordinates",),
    coordinates="pixels from (1, 1); npz: normalized positions",
    times=_OWN_FRAMES,
)
_add(
    "msr-action3d",
    "MSR Action3D text files, or one npz",
    each="a*_s*_e*_skeleton*.txt",
    coordinates="meters; x to the person's right, y up",
    times=_OWN_FRAMES,
)
_add(
    "utkinect",
    "UTKinect-style joint text files with actionLabel.txt",
    coordinates="meters",
    times="number at the start of a row",
)


def read_poses(
    path: str | Path, format: str | None = None, *, damaged: Damaged | None = None, **options: Any
) -> Iterator[PoseItem]:
    """Read all recordings in a pose file or folder.

    Args:
        path: File or folder.
        format: One of FORMATS; None detects it.
        damaged: Called with the name and the error of each recording that cannot be read, so that the others are still
            read. None raises the first error.
        options: Options of the reader of the format.

    Yields:
        One item per recording and view.

    Raises:
        UserError: If the path does not exist, or if the format is unknown.
        InputError: If the file is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"No pose file or folder at {path}.")
    name = format or detect_format(path)
    if name is None:
        known = "; ".join(f"{name} ({format.title})" for name, format in FORMATS.working().items())
        raise UserError(f"The format of the poses at {path} is not known. Name it; known: {known}.")
    chosen = FORMATS.find(name)
    if path.is_dir() and chosen.one_file:
        raise UserError(f"{path} is a folder, and '{name}' ({chosen.title}) is one file: name the file.")
    if damaged is not None and not chosen.one_recording:
        options["damaged"] = damaged
    return _checked(iter(chosen.read(path, **options)), path, chosen.in_pixels, damaged)


def _checked(items: Iterator[PoseItem], path: Path, in_pixels: bool, damaged: Damaged | None) -> Iterator[PoseItem]:
    """Yield the items after checking that 2D poses are in pixels. System errors become InputErrors."""
    while True:
        with explained_read_errors(path):
            item = next(items, None)
        if item is None:
            return
        with going_on(item.recording, damaged):
            if in_pixels or item.poses.image_size is not None:
                check_pixels(item.poses, f"recording '{item.recording}' of {path}")
            yield item


def reading_options(
    format: str, *, skeleton: str = "", coordinates: str = "", image_size: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return the options for the reader of a format; raises UserError for an option that the format does not have."""
    given = (
        ("skeleton", skeleton),
        ("coordinates", coordinates),
        ("image_size", None if image_size is None else [int(side) for side in image_size]),
    )
    for name, value in given:
        if value and name not in FORMATS.find(format).options:
            others = [other for other, entry in FORMATS.working().items() if name in entry.options]
            raise UserError(
                f"Poses of the format '{format}' take no {name}, got {value!r}. Formats that do: {', '.join(others)}."
            )
    return {name: value for name, value in given if value}


def item_name(item: PoseItem) -> str:
    """Return the name of an item: its recording, with its view if it has one."""
    return item.recording if item.view is None else f"{item.recording}/{item.view}"


def detect_format(path: str | Path) -> str | None:
    """Detect the format of a file or folder from names and first bytes; None if no format matches."""
    path = Path(path)
    for name, format in FORMATS.working().items():
        if format.recognizes is not None and format.recognizes(path):
            return name
    if path.is_dir():
        return _detect_folder(path)
    suffix = path.suffix.lower()
    if suffix in (".pkl", ".pickle"):
        return "pyskl"
    if suffix == ".skeleton":
        return "ntu"
    if suffix == ".json":
        head = _head(path)
        # The joints of COCO are one flat list, those of MMPose are points.
        points = re.search(r'"(instances|instance_info|meta_info|keypoint_scores)"|"keypoints"\s*:\s*\[\s*\[', head)
        lists = re.search(r'"(images|annotations|categories)"\s*:\s*\[', head)
        return "openpose" if '"people"' in head else "mmpose" if points and not lists else "coco"
    if suffix in (".h5", ".hdf5", ".slp", ".nc", ".nwb"):
        return {".slp": "sleap", ".nc": "netcdf", ".nwb": "nwb"}.get(suffix) or _h5_format(path)
    if suffix == ".npz":
        return npz_format(path)
    if suffix == ".csv":
        return _csv_format(_head(path).split("\n", 1)[0])
    if suffix == ".txt" and "_skeleton" in path.name:
        return "msr-action3d"
    return "utkinect" if suffix == ".txt" and path.name.startswith("joints_") else None


def _csv_format(header: str) -> str:
    """Detect the format of a csv file from its first line."""
    cells = [cell.strip().strip('"').lower() for cell in header.lstrip("\ufeff").split(",")]
    if cells[0] in ("scorer", "individuals", "bodyparts"):
        return "deeplabcut"
    if "frame_idx" in cells and any(cell.endswith(".x") for cell in cells):
        return "sleap"
    landmarks = any("landmark" in cell for cell in cells) or "nose_x" in cells
    numbered = any(re.fullmatch(r"x_?\d+|l?\d+_x", cell) for cell in cells)
    return "mediapipe" if landmarks or numbered else "pose-csv"


def _h5_format(path: Path) -> str:
    from actionprep.datasets.poses.formats.safe_h5 import open_h5

    with open_h5(path) as file:
        if "node_names" in file or "pred_points" in file:
            return "sleap"
        if "poseest" in file:
            return "jabs"
        return "netcdf" if "position" in file else "deeplabcut"


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
    # Some may be empty or cut short: the first complete one decides.
    some = islice(sorted(path.rglob("*.json")), 100)
    return "openpose" if any('"people"' in _head(file) or "_keypoints" in file.stem for file in some) else None


def npz_format(path: Path) -> str | None:
    """Detect the format of an npz file from its arrays; None if no format matches, InputError if it is not an npz."""
    names = npz_names(path)
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
    with explained_read_errors(path), path.open("rb") as file:
        return file.read(4096).decode("utf-8", "replace")


def read_json(path: Path) -> Any:
    """Read a JSON file; raises InputError with the position of a syntax error."""
    try:
        with explained_read_errors(path):
            content = path.read_bytes()
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}. "
            "The file is cut short or damaged."
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: {error}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} holds JSON that no pose file has: {error}.") from None
