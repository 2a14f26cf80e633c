"""Masks in annotation files: COCO RLE in json, as SAM 2 and SA-V have it, and CVAT xml."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.errors import InputError, explained_read_errors
from actionprep.pipeline.mask_sources.rle import MOST_PIXELS, decode_coco, decode_cvat

if TYPE_CHECKING:
    from actionprep.pipeline.mask_sources.settings import MasksSettings

_LARGEST = 1 << 29
_UNREADABLE = (
    *(ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError),
    ElementTree.ParseError,
)
_SAV_STEP = 4
"""SA-V videos have 24 frames per second, and their masks 6."""


@dataclass(frozen=True)
class Shape:
    """The mask of one object in one frame, not yet decoded.

    Attributes:
        id: Id of the object.
        size: Height and width of the frame in pixels.
        decode: Returns the mask, bool of shape (H, W); raises ValueError if it is damaged.
    """

    id: int
    size: tuple[int, int]
    decode: Callable[[], np.ndarray]


class AnnotatedMasks:
    """Masks of one annotation file by frame.

    Args:
        file: The file, .json or .xml.
        settings: Settings of the stage `masks`.
        num_frames: Number of frames of the view, which tells SA-V masks of every frame from those of every fourth.

    Raises:
        InputError: If the file is damaged, or has no masks.
    """

    def __init__(self, file: Path, settings: MasksSettings, num_frames: int) -> None:
        self._file = file
        self._ids = frozenset(settings.ids)
        with explained_read_errors(file), open(file, "rb") as stream:
            content = stream.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise InputError(f"{file} has more than {_LARGEST >> 20} MiB, more than is read.")
        try:
            if file.suffix.lower() == ".xml":
                frames, self._sizes = _cvat_frames(content, settings.first_number or 0)
            else:
                frames = _json_frames(json.loads(content), num_frames, settings.first_number)
                self._sizes = {}
        except _UNREADABLE as error:
            raise InputError(f"{file} is not a mask file that can be read: {error}.", backend="mask files") from None
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def mask(self, index: int) -> np.ndarray | None:
        """Return the union of the objects in a frame, bool of shape (H, W); None if the file has nothing about it."""
        shapes = self._frames.get(index)
        if shapes is None:
            return None
        union: np.ndarray | None = None
        for shape in shapes:
            if union is None:
                union = np.zeros(shape.size, bool)
            if self._ids and shape.id not in self._ids:
                continue
            try:
                mask = shape.decode()
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                raise InputError(
                    f"{self._file}, object {shape.id} in frame {index}: {error}.", frame=index, backend="mask files"
                ) from None
            if mask.shape != union.shape:
                raise InputError(
                    f"{self._file}: the masks of frame {index} differ in size: {union.shape[::-1]} and {mask.shape[::-1]} "
                    "(width, height).",
                    frame=index,
                    backend="mask files",
                )
            union |= mask
        return union if union is not None else np.zeros(self._sizes.get(index, (1, 1)), bool)

    def name(self, index: int) -> str:
        """Return the location of a mask, for error messages."""
        return f"{self._file}, frame {index}"

    def describe(self, index: int) -> str:
        """Return a sentence about where the mask was searched for."""
        frames = sorted(self._frames)
        steps = set(np.diff(frames).tolist())
        every = f", every {steps.pop()} frames" if len(steps) == 1 and steps != {1} else ""
        return f"{self._file} has masks of {len(frames)} frames, from {frames[0]} to {frames[-1]}{every}."

    def close(self) -> None:
        """Do nothing: the file was read at once."""


def _json_frames(document: Any, num_frames: int, first_number: int | None) -> dict[int, list[Shape]]:
    """Return the masks of a json document by frame index."""
    if isinstance(document, dict) and isinstance(document.get("masklet"), list):
        return _sav_frames(document, num_frames)
    if isinstance(document, dict) and "annotations" in document:
        return _coco_frames(document, first_number)
    if isinstance(document, dict):
        document = document.get("frames", document)
    frames: dict[int, list[Shape]] = {}
    if isinstance(document, dict):
        numbered = {_number(key): value for key, value in document.items()}
        first = _first(numbered, first_number)
        for number, value in numbered.items():
            frames[number - first] = list(_shapes(value))
    elif isinstance(document, list):
        for position, value in enumerate(document):
            index: Any = value.get("frame_index", value.get("frame", position)) if isinstance(value, dict) else position
            frames[int(index)] = list(_shapes(value))
    if not any(frames.values()):
        raise ValueError(
            "it has no masks; expected COCO annotations, SA-V masklets, or run-length encoded masks (size, counts) by frame"
        )
    return frames


def _sav_frames(document: Mapping[str, Any], num_frames: int) -> dict[int, list[Shape]]:
    """Return the masks of an SA-V file: per annotated frame a list with one mask per object."""
    masklets = document["masklet"]
    ids = document.get("masklet_id") or list(range(max(map(len, masklets), default=0)))
    step = 1 if len(masklets) == num_frames else _SAV_STEP
    stated = int(document.get("video_frame_count") or num_frames)
    if step == _SAV_STEP and len(masklets) != -(-stated // _SAV_STEP):
        raise ValueError(
            f"it has masks of {len(masklets)} frames; expected {num_frames}, one per frame of the view, or "
            f"{-(-stated // _SAV_STEP)}, every fourth of the {stated} frames that it states"
        )
    return {
        position * step: [shape for id, rle in zip(ids, row, strict=False) if (shape := _shape(int(id), rle))]
        for position, row in enumerate(masklets)
    }


def _coco_frames(document: Mapping[str, Any], first_number: int | None) -> dict[int, list[Shape]]:
    """Return the masks of COCO annotations: of images, or of one video with a mask per frame."""
    frames: dict[int, list[Shape]] = {}
    videos = document.get("videos") or []
    if len(videos) > 1:
        names = ", ".join(str(video.get("name", video.get("id"))) for video in videos[:3])
        raise ValueError(f"it has masks of {len(videos)} videos ({names}); give one file per view")
    if videos and any("segmentations" in annotation for annotation in document["annotations"]):
        for annotation in document["annotations"]:
            for index, segmentation in enumerate(annotation["segmentations"]):
                shapes = frames.setdefault(index, [])
                if segmentation and (shape := _shape(_object_id(annotation), segmentation, videos[0])):
                    shapes.append(shape)
        return frames
    images = {image["id"]: image for image in document["images"]}
    numbers = {
        id: image["frame_id"] if "frame_id" in image else _number(str(image.get("file_name", id)))
        for id, image in images.items()
    }
    if len(set(numbers.values())) < len(numbers):
        raise ValueError("two images have the same number in their names; give one file per view")
    first = _first(numbers.values(), first_number)
    for number in numbers.values():
        frames[int(number) - first] = []
    for annotation in document["annotations"]:
        image = images[annotation["image_id"]]
        shape = _shape(_object_id(annotation), annotation.get("segmentation"), image)
        if shape is not None:
            frames[int(numbers[annotation["image_id"]]) - first].append(shape)
    if not any(frames.values()):
        raise ValueError("its annotations have no segmentation")
    for id, number in numbers.items():
        # A frame without objects is all background, at the size that the file states.
        shapes = frames[int(number) - first]
        if not shapes and images[id].get("height") and images[id].get("width"):
            size = (int(images[id]["height"]), int(images[id]["width"]))
            shapes.append(Shape(0, size, lambda size=size: np.zeros(size, bool)))  # type: ignore[misc]
    return frames


def _object_id(annotation: Mapping[str, Any]) -> int:
    """Return the id of a tracked object; the category where a file tracks nothing."""
    attributes = annotation.get("attributes")
    for table in (annotation, attributes if isinstance(attributes, dict) else {}):
        for key in ("track_id", "instance_id", "object_id"):
            if isinstance(table.get(key), int):
                return int(table[key])
    return int(annotation.get("category_id", 1))


def _shapes(value: Any) -> Iterator[Shape]:
    """Yield the masks of one frame: one mask, a list, a table by object id, or results with an object id each."""
    if value is None:
        return
    if isinstance(value, dict) and "counts" in value:
        values: list[tuple[Any, Any]] = [(1, value)]
    elif isinstance(value, dict) and isinstance(below := value.get("results", value.get("objects")), list):
        values = list(enumerate(below, 1))
    elif isinstance(value, dict):
        values = [(id, each) for id, each in value.items() if isinstance(each, dict)]
    elif isinstance(value, list):
        values = list(enumerate(value, 1))
    else:
        raise ValueError(f"expected run-length encoded masks of a frame, got {value!r:.60}")
    for id, each in values:
        own = id
        if isinstance(each, dict) and "counts" not in each:
            own = each.get("object_id", each.get("obj_id", each.get("id", id)))
            each = each.get("mask", each.get("segmentation", each.get("rle")))
        shape = _shape(int(own), each)
        if shape is not None:
            yield shape


def _shape(id: int, segmentation: Any, image: Mapping[str, Any] | None = None) -> Shape | None:
    """Return the mask of a segmentation: run-length encoded, or polygons of an image with a known size."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if not (isinstance(size, list) and len(size) == 2):
            raise ValueError(f"expected the size of a mask as [height, width], got {size!r:.60}")
        extent = _extent(size[0], size[1])
        return Shape(id, extent, lambda: decode_coco(segmentation))
    if not isinstance(segmentation, list) or image is None or not (image.get("height") and image.get("width")):
        raise ValueError(
            f"expected a mask with size and counts, or polygons of an image with a size, got {segmentation!r:.60}"
        )
    extent = _extent(image["height"], image["width"])
    return Shape(id, extent, lambda: _polygons(segmentation, extent))


def _extent(height: Any, width: Any) -> tuple[int, int]:
    if not (height > 0 and width > 0 and height * width <= MOST_PIXELS):
        raise ValueError(f"a mask of {height} x {width} pixels is not possible")
    return int(height), int(width)


def _polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """Return the pixels with their center inside of polygons x0, y0, x1, y1, … (even-odd rule), in pixels."""
    mask = np.zeros(size, bool)
    height, width = size
    for polygon in polygons:
        points = np.array(polygon, np.float64).reshape(-1, 2)
        if len(points) < 3 or not np.isfinite(points).all() or np.abs(points).max() > 1 << 20:
            raise ValueError("a polygon has fewer than 3 points, or points far outside")
        crossings = np.zeros((height, width + 1), bool)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            low, high = sorted((y0, y1))
            rows = np.arange(max(0, int(np.ceil(low - 0.5))), min(height, int(np.ceil(high - 0.5))))
            if len(rows):
                x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                crossings[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] ^= True
        mask |= np.logical_xor.accumulate(crossings[:, :width], axis=1)
    return mask


def _number(name: str) -> int:
    numbers = re.findall(r"\d{1,15}", PurePosixPath(str(name)).stem)
    if not numbers:
        raise ValueError(f"'{str(name)[:60]}' has no frame number")
    return int(numbers[-1])


def _first(numbers: Any, first_number: int | None) -> int:
    """Return the number of frame 0, by the rule of numbered mask files."""
    return first_number if first_number is not None else 0 if 0 in numbers else 1


def _cvat_frames(content: bytes, first: int) -> tuple[dict[int, list[Shape]], dict[int, tuple[int, int]]]:
    """Return the masks and polygons of CVAT for images 1.1 or CVAT for video 1.1, and the sizes of frames."""
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("it has a document type, which CVAT does not write")
    root = ElementTree.fromstring(content)
    if root.tag != "annotations":
        raise ValueError(f"its root is <{root.tag[:40]}>; expected <annotations> of CVAT")
    labels = [name.text or "" for name in root.iter("name")]
    frames: dict[int, list[Shape]] = {}
    sizes: dict[int, tuple[int, int]] = {}
    any_video = False
    size = root.find("meta/task/original_size")
    if size is None:
        size = root.find("meta/job/original_size")
    for image in root.iter("image"):
        index = int(image.attrib["id"]) - first
        extent = sizes[index] = _extent(int(image.attrib["height"]), int(image.attrib["width"]))
        frames[index] = []
        for node in image:
            if node.tag in ("mask", "polygon"):
                any_video = True
                label = node.get("label", "")
                frames[index].append(_cvat_shape(node, labels.index(label) + 1 if label in labels else 1, extent))
    for track in root.iter("track"):
        for node in track:
            if node.tag not in ("mask", "polygon"):
                continue
            any_video = True
            if size is None:
                raise ValueError("it has tracks and no <original_size>")
            extent = _extent(int(size.findtext("height") or 0), int(size.findtext("width") or 0))
            index = int(node.attrib["frame"]) - first
            sizes[index] = extent
            shapes = frames.setdefault(index, [])
            if node.get("outside") != "1":
                shapes.append(_cvat_shape(node, int(track.attrib["id"]), extent))
    if not any_video:
        raise ValueError("it has no <mask> and no <polygon>")
    return frames, sizes


def _cvat_shape(node: ElementTree.Element, id: int, size: tuple[int, int]) -> Shape:
    """Return the shape of a <mask> or <polygon> in a frame of (height, width) `size`."""
    values = dict(node.attrib)

    def mask() -> np.ndarray:
        left, top, width, height = (int(values.get(key, -1)) for key in ("left", "top", "width", "height"))
        if min(left, top) < 0 or left + width > size[1] or top + height > size[0]:
            raise ValueError(
                f"its box {left}, {top}, {width}, {height} is not inside of the frame of {size[1]} x {size[0]}"
            )
        whole = np.zeros(size, bool)
        whole[top : top + height, left : left + width] = decode_cvat(values.get("rle", ""), height, width)
        return whole

    def polygon() -> np.ndarray:
        points = [float(number) for pair in values.get("points", "").split(";") for number in pair.split(",")]
        return _polygons([points], size)

    return Shape(id, size, mask if node.tag == "mask" else polygon)
