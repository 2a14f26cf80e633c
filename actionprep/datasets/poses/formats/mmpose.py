"""JSON files of MMPose 1.x: predictions of the inferencer and results of the demos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats import read_json
from actionprep.datasets.poses.formats.content import NAME_LAYOUT, check_span, numbers, size_of, whole
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence, pack_persons
from actionprep.datasets.poses.skeletons import layout_of_names
from actionprep.datasets.poses.skeletons import skeleton as layout_of
from actionprep.errors import InputError, UserError


def read_mmpose(
    path: str | Path, *, skeleton: str | None = None, image_size: Sequence[int] | None = None
) -> Iterator[PoseItem]:
    """Read one JSON file of the inferencer (`predictions/*.json`) or of a demo (`results_*.json`).

    The file is a list of frames with `frame_id` and `instances`, a list of the instances of one image, or an object
    with `meta_info` and `instance_info`. The inferencer counts frames from 0, the demos count from 1. Coordinates are
    pixels, or the unit of the model in 3D. The number of a person is `track_id` where the file has it.

    Args:
        path: The file.
        skeleton: Layout of the joints; needed for files without `meta_info`, which do not name their joints.
        image_size: Height and width in pixels.

    Yields:
        One item, with the name of the file.

    Raises:
        InputError: If the file is damaged.
        UserError: If the layout is not known.
    """
    path = Path(path)
    content = read_json(path)
    meta: Any = {}
    if isinstance(content, dict):
        meta, content = content.get("meta_info") or {}, content.get("instance_info")
    frames = _frames(content, path)
    layout = skeleton or _layout(meta, path)
    joints = layout_of(layout).num_joints
    index = np.array(sorted(frames), np.int64)
    check_span(index, str(path))
    people = [[_person(instance, joints, path) for instance in frames[number]] for number in index.tolist()]
    dimensions = {person.shape[1] - 1 for of_frame in people for person in of_frame} or {2}
    if len(dimensions) > 1:
        raise InputError(f"{path} has joints in 2D and in 3D.")
    [axes] = dimensions
    keypoints, score = pack_persons(people, joints, axes)
    track = np.full(score.shape[:2], -1, np.int64)
    boxes = np.full((*score.shape[:2], 4), np.nan)
    for at, number in enumerate(index.tolist()):
        for slot, instance in enumerate(frames[number]):
            if instance.get("track_id") is not None and score[at, slot].any():
                track[at, slot] = whole(instance["track_id"], "'track_id'", str(path))
            if instance.get("bbox") is not None and axes == 2:
                box = numbers(instance["bbox"], "'bbox'", str(path)).reshape(-1)
                if len(box) != 4:
                    raise InputError(f"'bbox' in {path} must be left, top, right, bottom, got {instance['bbox']}.")
                boxes[at, slot] = box
    poses = PoseSequence.of(
        keypoints,
        score,
        skeleton=layout,
        bbox=boxes if axes == 2 else None,
        track_id=track,
        image_size=None if image_size is None else size_of(image_size, str(path)),
        frame_index=index,
        where=str(path),
    )
    yield PoseItem(path.name.removesuffix(path.suffix), poses, extra={"file_per_frame": len(index) > 1})


def _frames(content: Any, path: Path) -> dict[int, list[dict[str, Any]]]:
    """The instances of each frame, by its number."""
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise InputError(f"{path} is not a file of MMPose: expected a list of frames or instances, or 'instance_info'.")
    if any("keypoints" in entry for entry in content):
        return {0: content}
    frames: dict[int, list[dict[str, Any]]] = {}
    for number, frame in enumerate(content):
        instances = frame.get("instances")
        if not isinstance(instances, list) or not all(isinstance(entry, dict) for entry in instances):
            raise InputError(f"Entry {number} in {path} has no list 'instances' of objects.")
        at = whole(frame.get("frame_id", number), "'frame_id'", str(path))
        if at in frames:
            raise InputError(f"{path} has frame {at} twice.")
        frames[at] = instances
    return frames


def _layout(meta: Any, path: Path) -> str:
    names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    if isinstance(names, dict):
        names = [names.get(str(at)) for at in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"{path} does not name its joints, and the number of joints is not enough: people and animals have 17. "
            f"Name the layout {NAME_LAYOUT}; models of COCO have coco17."
        )
    links = meta.get("skeleton_links")
    limbs = [
        (link[0], link[1])
        for link in (links if isinstance(links, list) else ())
        if isinstance(link, list) and len(link) == 2 and all(type(end) is int for end in link)
    ]
    return layout_of_names(names, name=str(meta.get("dataset_name") or "mmpose"), limbs=limbs, source=path.name).name


def _person(instance: dict[str, Any], joints: int, path: Path) -> NDArray[np.float32]:
    points = numbers(instance.get("keypoints"), "'keypoints'", str(path))
    if points.ndim != 2 or points.shape[0] != joints or points.shape[1] not in (2, 3):
        raise InputError(f"'keypoints' in {path} have the shape {points.shape}; expected ({joints}, 2 or 3).")
    score = numbers(instance.get("keypoint_scores", np.ones(joints)), "'keypoint_scores'", str(path)).reshape(-1)
    if len(score) != joints:
        raise InputError(f"'keypoint_scores' in {path} has {len(score)} values; expected {joints}.")
    # Peaks of a heatmap without a person may lie a little below 0.
    joined = np.concatenate([points, score.clip(0)[:, None]], 1)
    with np.errstate(over="ignore"):
        return joined.astype(np.float32)
