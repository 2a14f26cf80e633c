"""JHMDB hand-annotated joints: the data set's joint_positions folders, or one npz a split of normalized positions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from actionprep.datasets.poses.formats.content import Damaged, check_offsets, going_on, numbers
from actionprep.datasets.poses.formats.safe_npz import load_npz
from actionprep.datasets.poses.pixels import to_pixel_centers
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.safe_mat import load_mat
from actionprep.errors import InputError, UserError

_ARRAYS = ("xy", "offsets", "label")


def read_jhmdb(
    path: str | Path, *, coordinates: Literal["image", "world"] = "image", damaged: Damaged | None = None
) -> Iterator[PoseItem]:
    """Every clip of JHMDB (Jhuang et al., ICCV 2013; 15 joints, one person).

    Folders: joint_positions/<class>/<clip>/joint_positions.mat, with splits/<class>_test_split<k>.txt beside it where
    there (1 trains, 2 tests). coordinates: "image" is pos_img in px of the 320x240 video, moved from Matlab's first
    pixel 1 to 0; "world" is pos_world, centered and scaled by the person.

    npz: split<k>.npz with train_/test_ xy (frames, 15, 2), offsets and label. These are normalized positions, without
    image size. A clip's id is then its place in that file, because the files do not name clips. In a folder of such
    files a clip that stands in several is one item with all its splits; its id is its class and a number.

    damaged: called for each folder's clip that cannot be read; without it, the first error is raised.
    """
    root = Path(path)
    if root.suffix == ".npz":
        yield from _npz(root)
        return
    archives = sorted(root.glob("split*.npz"))
    if archives:
        yield from _merged(archives)
        return
    yield from _folders(root, coordinates, damaged)


def _merged(archives: list[Path]) -> Iterator[PoseItem]:
    """The clips of all files; the n-th clip of some label and content in one file is that of another file."""
    clips: dict[tuple[str | int | None, bytes, int], PoseItem] = {}
    for archive in archives:
        here: Counter[tuple[str | int | None, bytes]] = Counter()
        for item in _npz(archive):
            content = (item.label, item.poses.keypoints.tobytes())
            key = (*content, here[content])
            here[content] += 1
            known = clips.get(key)
            clips[key] = item if known is None else replace(known, splits=(*known.splits, *item.splits))
    numbers: Counter[str | int | None] = Counter()
    for item in clips.values():
        numbers[item.label] += 1
        yield replace(item, recording=f"{item.label}/{numbers[item.label]:04d}")


def _npz(path: Path) -> Iterator[PoseItem]:
    arrays = load_npz(path)
    for part in ("train", "test"):
        missing = [f"{part}_{name}" for name in _ARRAYS if f"{part}_{name}" not in arrays]
        if missing:
            raise InputError(f"{path} holds no array '{missing[0]}'. It holds {', '.join(sorted(arrays))}.")
        xy, labels = numbers(arrays[f"{part}_xy"], f"'{part}_xy'", str(path)), np.atleast_1d(arrays[f"{part}_label"])
        if xy.ndim != 3 or labels.ndim != 1:
            raise InputError(f"'{part}_xy' in {path} must have the shape (frames, 15, 2), got {xy.shape}.")
        offsets = check_offsets(arrays[f"{part}_offsets"], len(xy), len(labels), f"'{part}_offsets'", str(path))
        for clip, (first, last) in enumerate(pairwise(offsets)):
            name = f"{path.stem}/{part}/{clip:04d}"
            points = xy[first:last]
            poses = PoseSequence.of(
                points,
                np.ones(points.shape[:2], np.float32),
                skeleton="jhmdb15",
                track_id=np.zeros((len(points), 1), np.int64),
                where=f"clip {name} of {path}",
            )
            yield PoseItem(name, poses, label=str(labels[clip]), splits=(f"{path.stem}_{part}",))


def _folders(root: Path, coordinates: str, damaged: Damaged | None) -> Iterator[PoseItem]:
    if coordinates not in ("image", "world"):
        raise UserError(f"coordinates must be image or world, got '{coordinates}'.")
    base = root / "joint_positions" if (root / "joint_positions").is_dir() else root
    files = sorted(base.glob("*/*/joint_positions.mat"))
    if not files:
        raise UserError(f"No <class>/<clip>/joint_positions.mat in {base}, and no split*.npz in {root}.")
    splits = _splits(root)
    key = "pos_img" if coordinates == "image" else "pos_world"
    for file in files:
        label, clip = file.parent.parent.name, file.parent.name
        with going_on(f"{label}/{clip}", damaged):
            yield _clip(file, key, tuple(splits.get((label, clip), ())))


def _clip(file: Path, key: str, splits: tuple[str, ...]) -> PoseItem:
    label, clip = file.parent.parent.name, file.parent.name
    content = load_mat(file)
    if key not in content or content[key].ndim != 3 or content[key].shape[:2] != (2, 15):
        raise InputError(f"{file} holds no array '{key}' of shape (2, 15, frames).")
    in_image = key == "pos_img"
    points = numbers(content[key], f"'{key}'", str(file)).transpose(2, 1, 0)
    if in_image:
        points = to_pixel_centers(points, "jhmdb")
    poses = PoseSequence.of(
        points,
        np.ones(points.shape[:2], np.float32),
        skeleton="jhmdb15",
        track_id=np.zeros((len(points), 1), np.int64),
        image_size=(240, 320) if in_image else None,
        where=str(file),
    )
    extra = (
        {"viewpoint": str(content["viewpoint"].reshape(-1)[0])} if content.get("viewpoint", np.empty(0)).size else {}
    )
    return PoseItem(f"{label}/{clip}", poses, label=label, splits=splits, extra=extra)


def _splits(root: Path) -> dict[tuple[str, str], list[str]]:
    parts: dict[tuple[str, str], list[str]] = {}
    for file in sorted(root.rglob("*_test_split[123].txt")):
        match = re.match(r"(.+)_test_split([123])$", file.stem)
        if match is None:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 2 or fields[1] not in ("1", "2"):
                raise InputError(f"Line {number} of {file} must be a video and 1 (train) or 2 (test), got '{line}'.")
            clip = fields[0].removesuffix(".avi")
            parts.setdefault((match[1], clip), []).append(f"split{match[2]}_{'train' if fields[1] == '1' else 'test'}")
    return parts
