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
from actionprep.datasets.poses.skeletons import layout_of_names, skeleton
from actionprep.errors import InputError, UserError

_WHOLE = (("foot_kpts", 6), ("face_kpts", 68), ("lefthand_kpts", 21), ("righthand_kpts", 21))
_BY_COUNT = {17: "coco17", 133: "coco_wholebody"}
# Stems of image names that only mean "frame".
_FRAME_WORDS = ("", "frame", "frames", "image", "img", "im")
# Frames of a video are numbered without large gaps: at most so many numbers per image.
_DENSE = 4
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def read_coco(
    path: str | Path,
    *,
    skeleton: str | None = None,
    image_size: Sequence[int] | None = None,
    frames: bool = False,
    damaged: Damaged | None = None,
) -> Iterator[PoseItem]:
    """Read every recording in a COCO keypoints file.

    Images of one video (`vid_id`, `video_id`) are the frames of one recording, otherwise those of one folder in
    `file_name`, in the order of the number at the end of their names (or of `frame_id`). Images without a folder that
    differ in their number only, such as 0.jpg … 121.jpg, frame_00001.jpg or the ids of plain results, are the frames of
    one recording if their numbers are dense and their sizes equal. Others are recordings by themselves.

    COCO-WholeBody's foot, face and hand points are appended to the body. In annotations the third number of a joint is
    a flag: 0 is missing, 1 and 2 become score 1, or the score in `keypoint_scores`. In results it is the score. The
    number of a person is `track_id`, or `idx` of AlphaPose if no frame has it twice.

    Args:
        path: The JSON file.
        skeleton: Layout of the joints. By default it is that of the names in the categories, as a built-in layout or
            made from the names. Files without names have the layout of their number of joints: 17 or 133.
        image_size: Height and width in pixels, for files without them.
        frames: Images without a folder are the frames of one video, whatever their numbers.
        damaged: Called for each recording that cannot be read, instead of raising its error.

    Yields:
        One item per recording.

    Raises:
        InputError: If the file is damaged.
        UserError: If the layout is not known.
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
    for recording, images_of in _recordings(images, by_image, path, frames=frames).items():
        with going_on(recording, damaged):
            yield _item(recording, images_of, by_image, layout, flags, image_size, path)


def _parts(
    content: Any, path: Path
) -> tuple[dict[Any, dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]], bool]:
    def objects(values: Any, key: str) -> list[dict[str, Any]]:
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
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
    if any("lefthand_kpts" in annotation for annotation in annotations):
        return "coco_wholebody"
    layouts = _named_layouts(annotations, categories, path)
    if len(layouts) > 1:
        raise UserError(
            f"{path} has people or animals of {len(layouts)} layouts: {', '.join(sorted(layouts))}. Keep one kind per "
            f"file, or name the layout {NAME_LAYOUT}."
        )
    if layouts:
        return layouts.pop()
    lists = [annotation["keypoints"] for annotation in annotations if annotation.get("keypoints")]
    counts = {len(keypoints) // 3 for keypoints in lists if isinstance(keypoints, list)}
    if len(counts) == 1 and (count := counts.pop()) in _BY_COUNT:
        return _BY_COUNT[count]
    raise UserError(
        f"The layout of the keypoints in {path} is not known by its categories or its number of joints. Name it "
        f"{NAME_LAYOUT}."
    )


def _named_layouts(annotations: list[dict[str, Any]], categories: list[dict[str, Any]], path: Path) -> set[str]:
    """Layouts of the categories that name their joints and that annotations use."""
    used = {repr(annotation.get("category_id")) for annotation in annotations if annotation.get("keypoints")}
    named = [category for category in categories if isinstance(category.get("keypoints"), list)]
    chosen = [category for category in named if category["keypoints"] and repr(category.get("id")) in used] or named
    layouts: set[str] = set()
    for category in chosen:
        names = category["keypoints"]
        odd = [name for name in names if not isinstance(name, str)]
        if odd:
            raise InputError(
                f"The category {category.get('name')!r} in {path} has the joint name {odd[0]!r}; expected text."
            )
        if names:
            kind = "joints" if len(chosen) > 1 else str(category.get("name") or "joints")
            limbs = _limbs(category.get("skeleton"), len(names))
            layouts.add(layout_of_names(names, name=kind, limbs=limbs, source=path.name).name)
    return layouts


def _limbs(pairs: Any, num_joints: int) -> list[tuple[int, int]]:
    """The limbs of a category; COCO counts joints from 1, and some files count from 0."""
    if not isinstance(pairs, list):
        return []
    limbs = [
        (pair[0], pair[1])
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and all(type(end) is int for end in pair)
    ]
    first = 0 if any(0 in limb for limb in limbs) else 1
    return [(a - first, b - first) for a, b in limbs if max(a, b) - first < num_joints]


def _recordings(
    images: dict[Any, dict[str, Any]], by_image: dict[Any, list[dict[str, Any]]], path: Path, *, frames: bool
) -> dict[str, list[tuple[int, Any, dict[str, Any]]]]:
    groups: dict[str, list[tuple[int, Any, dict[str, Any]]]] = {}
    flat: dict[str, list[tuple[int, Any, dict[str, Any]]]] = {}
    entries = images or {image_id: {} for image_id in by_image}
    for image_id, image in entries.items():
        name = str(image.get("file_name", image_id))
        video = image.get("vid_id", image.get("video_id"))
        folder = PurePosixPath(name).parent.as_posix()
        frame = _frame_number(name, image, path), image_id, image
        if video is not None:
            groups.setdefault(str(video), []).append(frame)
        elif folder != ".":
            groups.setdefault(folder, []).append(frame)
        else:
            flat.setdefault("" if frames else _stem(name), []).append(frame)
    for stem, images_of_stem in flat.items():
        if frames or _are_frames(images_of_stem):
            # A name such as frame_00012.jpg does not name the video; the file does.
            words = stem.strip(" ._-")
            alone = len(flat) == 1 or words.lower() in _FRAME_WORDS
            groups.setdefault(path.stem if alone else words, []).extend(images_of_stem)
            continue
        for _, image_id, image in images_of_stem:
            name = str(image.get("file_name", image_id))
            cut = name.lower().endswith(_PICTURES)
            recording = str(PurePosixPath(name).with_suffix("")) if cut else name
            groups.setdefault(recording, []).append((0, image_id, image))
    for recording, images_of in groups.items():
        images_of.sort(key=lambda frame: frame[0])
        if len({number for number, _, _ in images_of}) != len(images_of):
            raise InputError(
                f"Recording '{recording}' in {path} has a frame number twice; it is the number that ends file_name."
            )
    return groups


def _stem(name: str) -> str:
    """An image's name without its suffix and the number at its end."""
    path = PurePosixPath(name)
    return re.sub(r"\d+$", "", path.stem if name.lower().endswith(_PICTURES) else name)


def _are_frames(images: list[tuple[int, Any, dict[str, Any]]]) -> bool:
    """Whether images of one folder, with names that differ in their numbers only, are the frames of one video.

    The numbers are dense, and all images have one size. The images of a data set of photographs differ in both.
    """
    numbers = sorted(number for number, _, _ in images)
    sizes = {repr((image.get("height"), image.get("width"))) for _, _, image in images}
    if len(images) < 2 or len(set(numbers)) != len(numbers) or len(sizes) != 1:
        return False
    return numbers[-1] - numbers[0] < _DENSE * len(numbers)


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
    lists = [
        [_person(annotation, joints, flags, path) for annotation in by_image.get(image_id, [])]
        for _, image_id, _ in frames
    ]
    keypoints, score = pack_persons(lists, joints)
    slots = keypoints.shape[1]
    boxes = np.zeros((len(frames), slots, 4), np.float32)
    track = np.full((len(frames), slots), -1, np.int64)
    boxed = False
    people = [by_image.get(image_id, []) for _, image_id, _ in frames]
    person_key = (
        "track_id" if any("track_id" in annotation for of_frame in people for annotation in of_frame) else "idx"
    )
    for t, (_, image_id, _) in enumerate(frames):
        for m, annotation in enumerate(by_image.get(image_id, [])):
            if annotation.get("bbox") is not None:
                box = numbers(annotation["bbox"], "'bbox'", str(path))
                if box.shape != (4,):
                    raise InputError(f"'bbox' in {path} must be left, top, width, height, got {annotation['bbox']}.")
                boxes[t, m] = (*box[:2], *(box[:2] + box[2:]))
                boxed = True
            if score[t, m].any() and annotation.get(person_key) is not None:
                track[t, m] = _person_number(annotation[person_key], person_key, path)
    if person_key == "idx" and _repeats(track):
        # Without tracking, AlphaPose gives everybody the same number.
        track[:] = -1
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
    return PoseItem(
        recording, poses, extra={"image_ids": [image_id for _, image_id, _ in frames], "file_per_frame": True}
    )


def _person_number(value: Any, key: str, path: Path) -> int:
    """A person's number; AlphaPose writes it as a number, or as a list of one."""
    while isinstance(value, list) and len(value) == 1:
        [value] = value
    return whole(value, f"'{key}'", str(path))


def _repeats(track: NDArray[np.int64]) -> bool:
    """Whether a frame has a person's number twice."""
    return any(len(set(known)) != len(known) for known in ([id for id in row if id >= 0] for row in track.tolist()))


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
    with np.errstate(over="ignore"):  # what is too large for single precision is infinite, and so missing
        person = values.astype(np.float32).reshape(joints, 3)
    if flags and "keypoint_scores" in annotation:
        scores = numbers(annotation["keypoint_scores"], "'keypoint_scores'", str(path)).reshape(-1)
        if len(scores) != joints:
            raise InputError(f"'keypoint_scores' in {path} has {len(scores)} values; expected {joints}.")
        person[:, 2] = np.where(person[:, 2] > 0, scores.clip(0), 0)
    elif flags:
        person[:, 2] = person[:, 2] > 0
    return person
