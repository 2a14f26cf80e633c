"""Read existing poses of a view, located by a pattern or by the catalog, and align them with its frames."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actionprep.datasets.poses.formats import FORMATS, detect_format, item_name, read_poses, reading_options
from actionprep.datasets.poses.pixels import check_pixels
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeleton_data_sets import poses_digest
from actionprep.errors import InputError, UserError, name_list, nearest
from actionprep.settings import canonical_json

if TYPE_CHECKING:
    from actionprep.pipeline.stage import ViewSource


_CORNER = 0.55
"""Fraction of width and height, from the upper left, that contains the poses of an image of half the size."""


def imported_poses(
    source: ViewSource,
    *,
    files: str = "",
    format: str = "auto",
    skeleton: str = "",
    coordinates: str = "",
    first_number: int | None = None,
    rescale: bool = False,
    max_outside: float = 0.25,
) -> tuple[PoseSequence, dict[str, Any]]:
    """Read the poses of one view, with one row for each of its frames.

    Args:
        source: The view.
        files: Pattern with {recording} and {view}; not needed for a view that has poses and no video.
        format: Name of the format, or auto.
        skeleton: Layout of the joints, for files that do not name it.
        coordinates: Coordinates to read, for formats with several.
        first_number: Number of the first frame in the file. None: 0, or 1 if the file counts from 1 to the number of
            frames, or has one file per frame named from 1.
        rescale: Scale poses of images of another size to the video, instead of refusing them.
        max_outside: Largest share of the joints that may lie outside the frame.

    Returns:
        The poses, and attributes of the item: counts of what was left out, scaled or assumed.

    Raises:
        UserError: If the options do not fit the format.
        InputError: If the files are missing or damaged, or do not match the video.
    """
    path, kind, options, name = _reading_of(source, files, format, skeleton, coordinates)
    item = _item_of(source, path, kind, options, name)
    facts: dict[str, Any] = {"format": kind}
    if ratio := item.extra.get("limb_length_ratio"):
        facts["limb_length_ratio"] = ratio
    facts |= {name: item.extra[name] for name in EVENTS_OF_FILES if item.extra.get(name)}
    if source.poses:
        if gaps := len(item.extra.get("frames_without_file", ())):
            facts["num_frames_without_file"] = gaps
        return replace(item.poses, time=source.times), facts | joints_outside(item.poses)
    where = f"the poses of recording '{source.recording}', view {source.view} ({path})"
    check_pixels(item.poses, where)
    size_known = kind != "openpose" and item.poses.image_size is not None
    if first_number is None:
        first_number, assumed = _first_number(item, source.num_frames)
        if assumed:
            facts["num_frames_renumbered"] = item.poses.num_frames
    if item.extra.get("file_per_frame"):
        facts["num_frames_without_file"] = source.num_frames - _frames_with_file(item, source.num_frames, first_number)
    poses = _on_frames(item.poses, source, path, first_number)
    poses, facts["num_rescaled"] = _of_size(poses, source, path, rescale)
    facts |= joints_outside(poses)
    _check_outside(facts, source, path, max_outside, size_known=size_known)
    if not size_known and _in_corner(poses):
        facts["num_frames_in_corner"] = poses.num_frames
    return poses, facts


def recordings_named_by_files(
    sources: Sequence[ViewSource], files: str, *, format: str = "auto", skeleton: str = "", coordinates: str = ""
) -> tuple[str, ...]:
    """Check that no recording of a pose file would be used for several views.

    Only files that several views share are read.

    Args:
        sources: The views.
        files: Pattern with {recording} and {view}.
        format: Name of the format, or auto.
        skeleton: Layout of the joints, for files that do not name it.
        coordinates: Coordinates to read, for formats with several.

    Returns:
        Recordings that have poses, if a shared file has one recording and names it; empty for all recordings.

    Raises:
        UserError: If a file has one recording and does not name which of the views it is for.
    """
    views: dict[Path, list[ViewSource]] = {}
    for source in sources:
        views.setdefault(_path_of(source, files), []).append(source)
    shared = {path: group for path, group in views.items() if len(group) > 1 and path.exists()}
    named: list[str] = [group[0].recording for path, group in views.items() if path not in shared]
    for path, group in shared.items():
        _, kind, options, _ = _reading_of(group[0], files, format, skeleton, coordinates)
        try:
            heads = _read(str(path), kind, canonical_json(options), _newest(path)).heads
        except InputError:  # the build reports a damaged file for each of its views
            return ()
        if len(heads) != 1:
            named += [source.recording for source in group]
            continue
        [(recording, view)] = heads.values()
        recordings = {source.recording for source in group}
        own = [
            source
            for source in group
            if view in (None, source.view) and (len(recordings) == 1 or source.recording in (recording, path.stem))
        ]
        if len(own) != 1:
            raise UserError(
                f"{path} has poses of one recording, '{recording}', and {len(own) or len(group)} views of this study "
                f"would get them. Name the recording with --recording, or put {{recording}} and {{view}} into the "
                "path, such as 'poses/{recording}/{view}.csv'."
            )
        named.append(own[0].recording)
    names = tuple(dict.fromkeys(named))
    return () if len(names) == len({source.recording for source in sources}) else names


EVENTS_OF_FILES: Mapping[str, str] = MappingProxyType(
    {"num_repeated_frames": "repeated frame numbers (the first row counts)"}
)
"""Counts in `PoseItem.extra` that are attributes of the stored item, with their meaning."""


def _first_number(item: PoseItem, num_frames: int) -> tuple[int, bool]:
    """Return the number of the first frame in the file, and whether it is an assumption that is reported.

    It is 1 if the file counts from 1 to the number of frames. It is also 1 if a folder has one file per frame, named
    from 1, and some are missing: a program that counts from 0 would have written the file number 0.
    """
    numbers = item.poses.frame_index
    if not len(numbers) or numbers[0] < 1:
        return 0, False
    if numbers[-1] == num_frames:
        return 1, False
    named_from_one = bool(item.extra.get("file_per_frame")) and numbers[:2].tolist() == [1, 2]
    return (1, True) if named_from_one else (0, False)


def _frames_with_file(item: PoseItem, num_frames: int, first_number: int) -> int:
    """Count the frames of the view that have an entry in the file or folder."""
    gaps = set(item.extra.get("frames_without_file", ()))
    numbers = [number - first_number for number in item.poses.frame_index.tolist() if number not in gaps]
    return sum(0 <= number < num_frames for number in numbers)


def joints_outside(poses: PoseSequence) -> dict[str, int]:
    """Count the joints that are seen, and those of them outside the frame; empty if the size of the frame is not known.

    A joint is outside that lies more than a pixel beyond an edge.
    """
    if poses.dimensions != 2 or poses.image_size is None:
        return {}
    height, width = poses.image_size
    xy = poses.keypoints[poses.score > 0]
    outside = ((xy < -1) | (xy > np.array([width, height], np.float32))).any(axis=-1)
    return {"num_joints_seen": len(xy), "num_joints_outside": int(outside.sum())}


def check_pattern(files: str) -> None:
    """Check the placeholders of a pattern.

    Raises:
        UserError: If a placeholder is unknown.
    """
    for name in re.findall(r"\{([^{}]*)\}", files):
        if name not in _PLACEHOLDERS:
            raise UserError(
                f"Unknown placeholder '{{{name}}}' in '{files}'.{nearest(name, _PLACEHOLDERS)} "
                "Known: {recording} and {view}, which are replaced by their ids."
            )


_PLACEHOLDERS = ("recording", "view")


def digest_of_files(source: ViewSource, files: str) -> str:
    """Return the SHA-256 hash of all files with poses of a view.

    Args:
        source: The view.
        files: Pattern with {recording} and {view}.

    Returns:
        The hash in hex; "missing" without files, and empty for poses that the catalog has located.

    Raises:
        UserError: If no pattern is set, or it has an unknown placeholder.
    """
    if source.poses:
        return ""
    if not files:
        raise UserError(
            f"Poses are to be imported, but no files are set: recording '{source.recording}' has a video, and "
            'pose.files is empty. Set it to the path of the poses, such as files = "openpose/{recording}/{view}".'
        )
    check_pattern(files)
    path = _path_of(source, files)
    if not path.exists():
        return "missing"
    digest = hashlib.sha256()
    for file in _files_at(path):
        digest.update(file.relative_to(path.parent).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def origin_of_format(source: ViewSource, files: str, format: str) -> dict[str, str]:
    """Return package and version of the format of this view's poses; empty for formats of actionprep."""
    plugins = any(entry.package for entry in FORMATS.entries().values())
    name: str | None = format
    if source.poses:
        name = str(json.loads(source.poses)["format"])
    elif format == "auto":
        path = _path_of(source, files)
        # Detecting the format takes time for each view, and only these formats change the result.
        wanted = plugins or path.suffix.lower() in (".csv", ".npz")
        name = detect_format(path) if wanted and path.exists() else None
    if name is None or name == "auto":
        return {}
    origin = FORMATS.origin(name) if plugins else {}
    # Older items have joints half a pixel to the right and below; this entry causes a rebuild.
    return {**origin, "first pixel center": "0.5"} if name == "mediapipe" else origin


def _reading_of(
    source: ViewSource, files: str, format: str, skeleton: str, coordinates: str
) -> tuple[Path, str, dict[str, Any], str | None]:
    """Return the path, the format, the options of its reader, and the name of the item if the catalog has it."""
    if source.poses:
        known = json.loads(source.poses)
        return Path(source.path), str(known["format"]), dict(known["options"]), str(known["item"])
    path = _existing_path(source, files)
    kind = detect_format(path) if format == "auto" else format
    if kind is None:
        raise UserError(
            f"The format of the poses at {path} is not known. Set pose.format; 'actionprep formats' lists the formats."
        )
    size = (source.height, source.width) if kind in ("mediapipe", "openpose") else None
    options = reading_options(kind, skeleton=skeleton, coordinates=coordinates, image_size=size)
    if kind == "coco" and "{recording}" in files:
        # Each recording has its own file, so the images in it are frames.
        options["frames"] = True
    return path, kind, options, None


def _existing_path(source: ViewSource, files: str) -> Path:
    path = _path_of(source, files)
    if not path.exists():
        raise InputError(
            f"No poses for recording '{source.recording}', view {source.view}: looked for {path}.\n"
            f"pose.files is '{files}', relative to the study's folder; {{recording}} and {{view}} are replaced by their "
            "ids.",
            backend="import",
        )
    return path


def _path_of(source: ViewSource, files: str) -> Path:
    return Path(source.root, files.replace("{recording}", source.recording).replace("{view}", source.view)).expanduser()


def _files_at(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _item_of(source: ViewSource, path: Path, kind: str, options: dict[str, Any], item: str | None) -> PoseItem:
    """Return the item of this view."""
    if item is not None:
        return _scanned_item(path, kind, options, item, json.loads(source.poses).get("digest"))
    items, heads, damaged = _read(str(path), kind, canonical_json(options), _newest(path))
    mine = [name for name, (_, view) in heads.items() if view in (None, source.view)]
    by_name = [name for name in mine if heads[name][0] == source.recording]
    if len(by_name) == 1 or len(mine) == 1:
        return items[(by_name or mine)[0]]
    if source.recording in damaged or len(items) + len(damaged) == 1:
        raise damaged.get(source.recording) or next(iter(damaged.values()))
    names = [recording for recording, _ in heads.values()]
    raise InputError(
        f"{path} has poses of {len(items)} recordings, but not of '{source.recording}', view {source.view}."
        f"{nearest(source.recording, names)} It has {name_list(names)}.\n"
        "Use the same names for the recordings, or one file per view, with {recording} and {view} in pose.files.",
        backend="import",
    )


def _scanned_item(path: Path, kind: str, options: dict[str, Any], item: str, digest: str | None) -> PoseItem:
    """Return an item of a data set as it was scanned; raise InputError if the file has changed since."""
    # A cached reading is used if it has this item, so that a large data set is not searched for every item.
    if digest is not None:
        known = _read(str(path), kind, canonical_json(options), 0)
        with suppress(InputError):  # if the file has changed, it is read again
            scanned = known.items.get(item)
            if scanned is not None and digest == poses_digest(scanned.poses):
                return scanned
    items, _, damaged = _read(str(path), kind, canonical_json(options), _newest(path))
    current = items.get(item)
    if current is not None and digest in (None, poses_digest(current.poses)):
        return current
    if item in damaged:
        raise damaged[item]
    change = "has other poses of" if item in items else "has no poses of"
    raise InputError(
        f"{path} {change} '{item}', unlike when it was scanned. Run 'actionprep scan' again.",
        backend="import",
    )


def _newest(path: Path) -> int:
    return max((file.stat().st_mtime_ns for file in _files_at(path)), default=0)


class _Content(NamedTuple):
    """Poses in a file or folder."""

    items: Mapping[str, PoseItem]
    heads: Mapping[str, tuple[str, str | None]]  # recording and view of each item
    damaged: Mapping[str, InputError]


@lru_cache(maxsize=1)
def _read(path: str, kind: str, options: str, newest: int) -> _Content:
    """Read one file or folder. The result is cached, because its other items are read next.

    The items of a pickle are read on access: it may contain a data set too large for the memory of every process.
    """
    del newest  # part of the key of the cache: a new modification time means new content
    if kind == "pyskl":
        from actionprep.datasets.poses.formats.pyskl import PySKLItems

        pickled = PySKLItems(path, **json.loads(options))
        return _Content(pickled, {name: (name, None) for name in pickled}, {})
    items: dict[str, PoseItem] = {}
    damaged: dict[str, InputError] = {}
    for item in read_poses(path, kind, damaged=damaged.__setitem__, **json.loads(options)):
        items[item_name(item)] = item
    heads = {name: (item.recording, item.view) for name, item in items.items()}
    return _Content(items, heads, damaged)


def _on_frames(poses: PoseSequence, source: ViewSource, path: Path, first_number: int) -> PoseSequence:
    """Return poses with one row per frame of the view; frames that are missing in the file have no people."""
    numbers = poses.frame_index
    at = numbers - first_number
    seen = poses.present.any(axis=1)
    wrong = numbers[seen & ((at < 0) | (at >= source.num_frames))]
    if len(wrong):
        raise InputError(
            f"{path} has people in frame {int(wrong[-1])}, and recording '{source.recording}', view {source.view} has "
            f"the frames {first_number} to {first_number + source.num_frames - 1}. Are these the poses of this video? "
            "If the file counts from another number, set pose.first_number to it.",
            frame=int(wrong[-1]),
            backend="import",
        )
    kept = (at >= 0) & (at < source.num_frames)

    def spread(values: np.ndarray, empty: Any) -> np.ndarray:
        out = np.full((source.num_frames, *values.shape[1:]), empty, values.dtype)
        out[at[kept]] = values[kept]
        return out

    return replace(
        poses,
        keypoints=spread(poses.keypoints, 0),
        score=spread(poses.score, 0),
        bbox=spread(poses.bbox, 0),
        track_id=spread(poses.track_id, -1),
        filled=spread(poses.filled, False),
        frame_index=np.arange(source.num_frames),
        time=source.times,
    )


def _of_size(poses: PoseSequence, source: ViewSource, path: Path, rescale: bool) -> tuple[PoseSequence, int]:
    """Return poses in pixels of the video, and the number of scaled frames."""
    size = (source.height, source.width)
    if poses.dimensions != 2 or poses.image_size in (None, size):
        return (replace(poses, image_size=size) if poses.dimensions == 2 else poses), 0
    assert poses.image_size is not None
    if not rescale:
        raise InputError(
            f"The poses in {path} are of images of {poses.image_size[1]}x{poses.image_size[0]} px; the video of "
            f"recording '{source.recording}', view {source.view} has {source.width}x{source.height}.\n"
            "Give poses of that size, or set pose.rescale = true to scale them.",
            backend="import",
        )
    scale = np.array([size[1] / poses.image_size[1], size[0] / poses.image_size[0]], np.float32)
    return (
        replace(poses, keypoints=poses.keypoints * scale, bbox=poses.bbox * np.tile(scale, 2), image_size=size),
        poses.num_frames,
    )


def _check_outside(
    facts: Mapping[str, Any], source: ViewSource, path: Path, max_outside: float, *, size_known: bool
) -> None:
    """Raise InputError if too many joints are outside the frame."""
    seen, outside = facts.get("num_joints_seen", 0), facts.get("num_joints_outside", 0)
    if outside <= max_outside * seen:
        return
    note = "" if size_known else " The file does not contain the size of its images."
    raise InputError(
        f"{outside} of the {seen} joints in {path} ({outside / seen:.0%}) lie outside the frame "
        f"({source.width}x{source.height} px).{note} Are these the poses of recording '{source.recording}', view "
        f"{source.view}, in px of this video?\n"
        f"Give poses in px of the video; if they are right, set pose.max_outside higher than {max_outside:g}.",
        backend="import",
    )


def _in_corner(poses: PoseSequence) -> bool:
    """Return whether all joints are in the upper left quarter, as if the image had half the size."""
    if poses.dimensions != 2 or poses.image_size is None:
        return False
    height, width = poses.image_size
    xy = poses.keypoints[poses.score > 0]
    return len(xy) > 0 and bool((xy <= _CORNER * np.array([width, height], np.float32)).all())
