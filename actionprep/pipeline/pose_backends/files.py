"""Existing poses of a view: found by a pattern or named by the catalog, read, and aligned with its frames."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
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
from actionprep.errors import InputError, UserError, nearest
from actionprep.settings import canonical_json

if TYPE_CHECKING:
    from actionprep.pipeline.stage import ViewSource


_CORNER = 0.55
"""Poses of an image half as large lie within this share of width and height, measured from the upper left."""


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
        UserError: If there is nothing at the path, or the options do not fit the format.
        InputError: If the files are damaged, or do not fit the video.
    """
    place, kind, options, item = _where(source, files, format, skeleton, coordinates)
    found = _item_of(source, place, kind, options, item)
    facts: dict[str, Any] = {"format": kind}
    if ratio := found.extra.get("limb_length_ratio"):
        facts["limb_length_ratio"] = ratio
    facts |= {name: found.extra[name] for name in EVENTS_OF_FILES if found.extra.get(name)}
    if source.poses:
        if gaps := len(found.extra.get("frames_without_file", ())):
            facts["num_frames_without_file"] = gaps
        return replace(found.poses, time=source.times), facts | joints_outside(found.poses)
    where = f"the poses of recording '{source.recording}', view {source.view} ({place})"
    check_pixels(found.poses, where)
    says_size = kind != "openpose" and found.poses.image_size is not None
    if first_number is None:
        first_number, assumed = _first_number(found, source.num_frames)
        if assumed:
            facts["num_frames_renumbered"] = found.poses.num_frames
    if found.extra.get("file_per_frame"):
        facts["num_frames_without_file"] = source.num_frames - _frames_with_file(found, source.num_frames, first_number)
    poses = _on_frames(found.poses, source, place, first_number)
    poses, facts["num_rescaled"] = _of_size(poses, source, place, rescale)
    facts |= joints_outside(poses)
    _check_outside(facts, source, place, max_outside, says_size=says_size)
    if not says_size and _in_corner(poses):
        facts["num_frames_in_corner"] = poses.num_frames
    return poses, facts


EVENTS_OF_FILES: Mapping[str, str] = MappingProxyType(
    {"num_repeated_frames": "repeated frame numbers (the first row counts)"}
)
"""Counts in `PoseItem.extra` that are attributes of the stored item, with their meaning."""


def _first_number(item: PoseItem, num_frames: int) -> tuple[int, bool]:
    """The number of the first frame in a file's own counting, and whether this is an assumption to report.

    A file that counts from 1 to the number of frames counts from 1. So does a folder with a file for each frame, named
    from 1 on, if some of them are missing: what writes one file per frame and counts from 0 has written number 0.
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
    """Raise UserError for a placeholder in braces that is none of those that stand for something."""
    for word in re.findall(r"\{([^{}]*)\}", files):
        if word not in _PLACEHOLDERS:
            raise UserError(
                f"Unknown placeholder '{{{word}}}' in '{files}'.{nearest(word, _PLACEHOLDERS)} "
                "Known: {recording} and {view}, which stand for their ids."
            )


_PLACEHOLDERS = ("recording", "view")


def digest_of_files(source: ViewSource, files: str) -> str:
    """One hash over the bytes of all files that the poses of this view are read from.

    Raises UserError if pose.files is not set.
    """
    if source.poses:
        return ""
    if not files:
        raise UserError(
            f"Poses are to be imported, but no files are set: recording '{source.recording}' has a video, and "
            'pose.files is empty. Set it to the path of the poses, such as files = "openpose/{recording}/{view}".'
        )
    check_pattern(files)
    place = _place_of(source, files)
    if not place.exists():
        return "missing"
    digest = hashlib.sha256()
    for file in _parts(place):
        digest.update(file.relative_to(place.parent).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def origin_of_format(source: ViewSource, files: str, format: str) -> dict[str, str]:
    """Package and version of the format that this view's poses are read with; nothing for a format of actionprep."""
    plugins = any(entry.package for entry in FORMATS.entries().values())
    name: str | None = format
    if source.poses:
        name = str(json.loads(source.poses)["format"])
    elif format == "auto":
        place = _place_of(source, files)
        # To look into the files of every view takes time, and only these formats make a difference.
        wanted = plugins or place.suffix.lower() in (".csv", ".npz")
        name = detect_format(place) if wanted and place.exists() else None
    if name is None or name == "auto":
        return {}
    origin = FORMATS.origin(name) if plugins else {}
    # Items of before have joints half a pixel to the right and below, and are rebuilt.
    return {**origin, "first pixel center": "0.5"} if name == "mediapipe" else origin


def _where(
    source: ViewSource, files: str, format: str, skeleton: str, coordinates: str
) -> tuple[Path, str, dict[str, Any], str | None]:
    """File, format, options of its reader, and the item in it where that is known."""
    if source.poses:
        known = json.loads(source.poses)
        return Path(source.path), str(known["format"]), dict(known["options"]), str(known["item"])
    place = _place(source, files)
    kind = detect_format(place) if format == "auto" else format
    if kind is None:
        raise UserError(
            f"The format of the poses at {place} is not known. Set pose.format; 'actionprep formats' lists the formats."
        )
    size = (source.height, source.width) if kind in ("mediapipe", "openpose") else None
    options = reading_options(kind, skeleton=skeleton, coordinates=coordinates, image_size=size)
    if kind == "coco" and "{recording}" in files:
        # Each recording has its own file, so the images in it are frames.
        options["frames"] = True
    return place, kind, options, None


def _place(source: ViewSource, files: str) -> Path:
    place = Path(
        source.root, files.replace("{recording}", source.recording).replace("{view}", source.view)
    ).expanduser()
    if not place.exists():
        raise InputError(
            f"No poses for recording '{source.recording}', view {source.view}: looked for {place}.\n"
            f"pose.files is '{files}'; {{recording}} and {{view}} in it stand for their ids, and it starts at the "
            "study's folder.",
            backend="import",
        )
    return place


def _place_of(source: ViewSource, files: str) -> Path:
    return Path(source.root, files.replace("{recording}", source.recording).replace("{view}", source.view)).expanduser()


def _parts(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())


def _item_of(source: ViewSource, place: Path, kind: str, options: dict[str, Any], item: str | None) -> PoseItem:
    """The one item that is meant for this view."""
    if item is not None:
        return _scanned_item(place, kind, options, item, json.loads(source.poses).get("digest"))
    items, heads, damaged = _read(str(place), kind, canonical_json(options), _newest(place))
    mine = [name for name, (_, view) in heads.items() if view in (None, source.view)]
    by_name = [name for name in mine if heads[name][0] == source.recording]
    if len(by_name) == 1 or len(mine) == 1:
        return items[(by_name or mine)[0]]
    if source.recording in damaged or len(items) + len(damaged) == 1:
        raise damaged.get(source.recording) or next(iter(damaged.values()))
    names = [recording for recording, _ in heads.values()]
    raise InputError(
        f"{place} holds poses of {len(items)} recordings, none of which is '{source.recording}', view {source.view}."
        f"{nearest(source.recording, names)} It has {', '.join(names[:5])}{' …' if len(names) > 5 else ''}.\n"
        "Give the recordings the same names, or give each view its own file, with {recording} and {view} in pose.files.",
        backend="import",
    )


def _scanned_item(place: Path, kind: str, options: dict[str, Any], item: str, digest: str | None) -> PoseItem:
    """An item of a data set, as the scan saw it; InputError where the file has changed since."""

    # What was read before is used if it contains this item: a data set of many files is not searched again
    # for every item.
    if digest is not None:
        known = _read(str(place), kind, canonical_json(options), 0)
        with suppress(InputError):  # the file has changed, and is read again
            one = known.items.get(item)
            if one is not None and digest == poses_digest(one.poses):
                return one
    items, _, damaged = _read(str(place), kind, canonical_json(options), _newest(place))
    one = items.get(item)
    if one is not None and digest in (None, poses_digest(one.poses)):
        return one
    if item in damaged:
        raise damaged[item]
    what = "has other poses of" if item in items else "has no poses of"
    raise InputError(
        f"{place} {what} '{item}', unlike when it was scanned. Run 'actionprep scan' to see what it has now.",
        backend="import",
    )


def _newest(place: Path) -> int:
    return max((file.stat().st_mtime_ns for file in _parts(place)), default=0)


class _Found(NamedTuple):
    """What a file or folder holds."""

    items: Mapping[str, PoseItem]
    heads: Mapping[str, tuple[str, str | None]]  # recording and view of each
    damaged: Mapping[str, InputError]


@lru_cache(maxsize=1)
def _read(place: str, kind: str, options: str, newest: int) -> _Found:
    """Everything in one file or folder, and what is damaged; kept, because its other items are wanted next.

    Of a pickle only the names: it may hold a data set, which each of many processes would hold.
    """
    del newest  # another time of change is another content
    if kind == "pyskl":
        from actionprep.datasets.poses.formats.pyskl import PySKLItems

        items = PySKLItems(place, **json.loads(options))
        return _Found(items, {name: (name, None) for name in items}, {})
    found: dict[str, PoseItem] = {}
    damaged: dict[str, InputError] = {}
    for one in read_poses(place, kind, damaged=damaged.__setitem__, **json.loads(options)):
        found[item_name(one)] = one
    return _Found(found, {name: (one.recording, one.view) for name, one in found.items()}, damaged)


def _on_frames(poses: PoseSequence, source: ViewSource, place: Path, first_number: int) -> PoseSequence:
    """A row for each frame of the view; frames that the file does not have are frames without people."""
    numbers = poses.frame_index
    at = numbers - first_number
    seen = poses.present.any(axis=1)
    wrong = numbers[seen & ((at < 0) | (at >= source.num_frames))]
    if len(wrong):
        raise InputError(
            f"{place} has people in frame {int(wrong[-1])}, and recording '{source.recording}', view {source.view} has "
            f"the frames {first_number} to {first_number + source.num_frames - 1}. Are these the poses of this video? "
            "If the file counts otherwise, set pose.first_number to the number of its first frame.",
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


def _of_size(poses: PoseSequence, source: ViewSource, place: Path, rescale: bool) -> tuple[PoseSequence, int]:
    """Poses in px of the video, and how many frames were scaled."""
    size = (source.height, source.width)
    if poses.dimensions != 2 or poses.image_size in (None, size):
        return (replace(poses, image_size=size) if poses.dimensions == 2 else poses), 0
    assert poses.image_size is not None
    if not rescale:
        raise InputError(
            f"The poses in {place} are of images of {poses.image_size[1]}x{poses.image_size[0]} px; the video of "
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
    facts: Mapping[str, Any], source: ViewSource, place: Path, max_outside: float, *, says_size: bool
) -> None:
    """Raise InputError if too many of the joints lie outside the frame."""
    seen, outside = facts.get("num_joints_seen", 0), facts.get("num_joints_outside", 0)
    if outside <= max_outside * seen:
        return
    unsaid = "" if says_size else " The file does not contain the size of its images."
    raise InputError(
        f"{outside} of the {seen} joints in {place} ({outside / seen:.0%}) lie outside the frame "
        f"({source.width}x{source.height} px).{unsaid} Are these the poses of recording '{source.recording}', view "
        f"{source.view}, in px of this video?\n"
        f"Give poses in px of the video; if they are right, set pose.max_outside higher than {max_outside:g}.",
        backend="import",
    )


def _in_corner(poses: PoseSequence) -> bool:
    """Whether all joints lie in the upper left quarter, as those of poses of an image half as large do."""
    if poses.dimensions != 2 or poses.image_size is None:
        return False
    height, width = poses.image_size
    xy = poses.keypoints[poses.score > 0]
    return len(xy) > 0 and bool((xy <= _CORNER * np.array([width, height], np.float32)).all())
