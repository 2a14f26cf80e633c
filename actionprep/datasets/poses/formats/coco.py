"""COCO keypoints JSON: annotation files (images, annotations, categories) and result files (a list)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats import read_json
from actionprep.datasets.poses.formats.content import NAME_LAYOUT, Damaged, going_on, numbers, size_of, whole
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence, pack_persons
from actionprep.datasets.poses.skeletons import match_layout, skeleton
from actionprep.errors import InputError, UserError

_WHOLE = (("foot_kpts", 6), ("face_kpts", 68), ("lefthand_kpts", 21), ("righthand_kpts", 21))
_BY_COUNT = {17: "coco17", 133: "coco_wholebody"}
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def read_coco(
    path: str | Path,
    *,
    skeleton: str | None = None,
    image_size: Sequence[int] | None = None,
    damaged: Damaged | None = None,
) -> Iterator[PoseItem]:
    """Every recording in a COCO keypoints file.

    Images of one video (`vid_id`, `video_id`) or, without such, of one folder in `file_name` are the frames of one
    recording, in order of the number at the end of their names (or of `frame_id`); an image without a folder is a
    recording by itself. COCO-WholeBody's foot, face and hand points are joined to the body. In annotations the third
    number of a joint is a flag: 0 is missing, 1 and 2 become score 1. In results it is the score. Persons carry
    `track_id` where the file has it.

    skeleton: needed where neither the category's joint names nor the number of joints tell the layout.
    damaged: told of each recording that cannot be read; the others go on. Without it, the first problem is raised.
    """
    path = Path(path)
    content = read_json(path)
    images, annotations, categories, flags = _parts(content, path)
    layout = skeleton or _layout(annotations, categories, path)
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation.get("image_id"), int | str):
            raise InputError(f"Annotation {number} in {path} has no 'image_id', a number or a name.")
        if annotation.get("keypoints"):
            by_image.setdefault(annotation["image_id"], []).append(annotation)
    strange = [image_id for image_id in by_image if images and image_id not in images]
    if strange:
        raise InputError(
            f"{path} has people in {len(strange)} images that it does not list; the first has the id {strange[0]!r}."
        )
    for recording, frames in _recordings(images, by_image, path).items():
        with going_on(recording, damaged):
            yield _item(recording, frames, by_image, layout, flags, image_size, path)


def _parts(
    content: Any, path: Path
) -> tuple[dict[Any, dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]], bool]:
    def objects(values: Any, key: str) -> list[dict[str, Any]]:
        if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
            raise InputError(f"{key} in {path} must be a list of objects.")
        return values

    if isinstance(content, list):
        return {}, objects(content, "The results"), [], False
    if not isinstance(content, dict) or "annotations" not in content:
        raise InputError(f"{path} is not COCO keypoints: expected a list of results, or an object with 'annotations'.")
    images: dict[Any, dict[str, Any]] = {}
    for number, image in enumerate(objects(content.get("images") or [], "'images'")):
        if not isinstance(image.get("id"), int | str):
            raise InputError(f"Image {number} in {path} has no 'id', a number or a name.")
        if image["id"] in images:
            raise InputError(f"{path} has the image id {image['id']!r} twice.")
        images[image["id"]] = image
    categories = objects(content.get("categories") or [], "'categories'")
    return images, objects(content["annotations"], "'annotations'"), categories, True


def _layout(annotations: list[dict[str, Any]], categories: list[dict[str, Any]], path: Path) -> str:
    joined = any("lefthand_kpts" in annotation for annotation in annotations)
    if joined:
        return "coco_wholebody"
    for category in categories:
        names = category.get("keypoints")
        if not isinstance(names, list):
            continue
        odd = [name for name in names if not isinstance(name, str)]
        if odd:
            raise InputError(
                f"The category {category.get('name')!r} in {path} has the joint name {odd[0]!r}; expected text."
            )
        found = match_layout(names)
        if found is not None:
            return found.name
    lists = [annotation["keypoints"] for annotation in annotations if annotation.get("keypoints")]
    counts = {len(one) // 3 for one in lists if isinstance(one, list)}
    if len(counts) == 1 and (count := counts.pop()) in _BY_COUNT:
        return _BY_COUNT[count]
    raise UserError(
        f"The layout of the keypoints in {path} cannot be told from its categories or its number of joints. Name it "
        f"{NAME_LAYOUT}."
    )


def _recordings(
    images: dict[Any, dict[str, Any]], by_image: dict[Any, list[dict[str, Any]]], path: Path
) -> dict[str, list[tuple[int, Any, dict[str, Any]]]]:
    groups: dict[str, list[tuple[int, Any, dict[str, Any]]]] = {}
    entries = images or {image_id: {} for image_id in by_image}
    for image_id, image in entries.items():
        name = str(image.get("file_name", image_id))
        video = image.get("vid_id", image.get("video_id"))
        folder = PurePosixPath(name).parent.as_posix()
        if video is not None:
            recording = str(video)
        else:
            cut = name.lower().endswith(_PICTURES)
            recording = folder if folder != "." else str(PurePosixPath(name).with_suffix("")) if cut else name
        groups.setdefault(recording, []).append((_frame_number(name, image, path), image_id, image))
    for recording, frames in groups.items():
        if len(frames) == 1 and "vid_id" not in frames[0][2] and "video_id" not in frames[0][2]:
            groups[recording] = [(0, *frames[0][1:])]
        frames.sort(key=lambda frame: frame[0])
        if len({number for number, _, _ in frames}) != len(frames):
            raise InputError(
                f"Recording '{recording}' in {path} has a frame number twice; it is the number that ends file_name."
            )
    return groups


def _frame_number(name: str, image: dict[str, Any], path: Path) -> int:
    digits = re.search(r"(\d+)$", PurePosixPath(name).stem)
    if digits is not None:
        return int(digits[1])
    return whole(image.get("frame_id", 0), "'frame_id'", str(path))


def _item(
    recording: str,
    frames: list[tuple[int, Any, dict[str, Any]]],
    by_image: dict[Any, list[dict[str, Any]]],
    layout: str,
    flags: bool,
    image_size: Sequence[int] | None,
    path: Path,
) -> PoseItem:
    joints = skeleton(layout).num_joints
    lists = [[_person(one, joints, flags, path) for one in by_image.get(image_id, [])] for _, image_id, _ in frames]
    keypoints, score = pack_persons(lists, joints)
    slots = keypoints.shape[1]
    boxes = np.zeros((len(frames), slots, 4), np.float32)
    track = np.full((len(frames), slots), -1, np.int64)
    boxed = False
    for t, (_, image_id, _) in enumerate(frames):
        for m, one in enumerate(by_image.get(image_id, [])):
            if one.get("bbox") is not None:
                box = numbers(one["bbox"], "'bbox'", str(path))
                if box.shape != (4,):
                    raise InputError(f"'bbox' in {path} must be left, top, width, height, got {one['bbox']}.")
                boxes[t, m] = (*box[:2], *(box[:2] + box[2:]))
                boxed = True
            if score[t, m].any() and one.get("track_id") is not None:
                track[t, m] = whole(one["track_id"], "'track_id'", str(path))
    sizes = {
        size_of((image["height"], image["width"]), str(path))
        for _, _, image in frames
        if "height" in image and "width" in image
    }
    if len(sizes) > 1:
        raise InputError(f"Recording '{recording}' in {path} has images of different sizes: {sorted(sizes)}.")
    poses = PoseSequence.of(
        keypoints,
        score,
        skeleton=layout,
        bbox=boxes if boxed else None,
        track_id=track,
        image_size=sizes.pop() if sizes else image_size,
        frame_index=[number for number, _, _ in frames],
        where=f"recording '{recording}' in {path}",
    )
    return PoseItem(recording, poses, extra={"image_ids": [image_id for _, image_id, _ in frames]})


def _person(annotation: dict[str, Any], joints: int, flags: bool, path: Path) -> NDArray[np.float32]:
    parts = [numbers(annotation["keypoints"], "'keypoints'", str(path)).reshape(-1)]
    for key, size in _WHOLE:
        if key in annotation:
            part = numbers(annotation[key], f"'{key}'", str(path)).reshape(-1)
            if len(part) != 3 * size:
                raise InputError(f"'{key}' in {path} has {len(part)} values; expected {3 * size}.")
            parts.append(part)
    values = np.concatenate(parts)
    if len(values) != 3 * joints:
        raise InputError(
            f"A person in {path} has {len(values)} keypoint values; expected {3 * joints} for {joints} joints."
        )
    person = np.where(np.abs(values) < 1e30, values, np.nan).astype(np.float32).reshape(joints, 3)
    if flags:
        person[:, 2] = person[:, 2] > 0
    return person
