"""What a view of a product looks like at each moment: pictures from a video or the store, and what is drawn on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from actionprep.datasets.frames import read_frames
from actionprep.datasets.tracks import visible
from actionprep.errors import UserError
from actionprep.show.colors import DARK, person_color, point_colors
from actionprep.show.overlays import draw_mask, draw_skeletons, draw_tracks, draw_volume, quieted, scaled
from actionprep.show.sheet import Mark

if TYPE_CHECKING:
    from actionprep.api import Study
    from actionprep.datasets.item_reader import ItemReader
    from actionprep.datasets.skeletons import Skeleton

Overlay = Callable[[np.ndarray, int], np.ndarray]

_FRAMES_AT_ONCE = 16


class Pictures(Protocol):
    """Where the pictures of a view come from; height and width are those of a picture in px of the source."""

    @property
    def height(self) -> int: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:
        """Pictures (height, width, 3) uint8 with these numbers, which never fall, one after the other."""
        ...


@dataclass(frozen=True)
class Scene:
    """One view of a recording, at the moments at which a product has something to show.

    times     (n,) float64 s on the recording's clock, rising
    numbers   (n,) int     number of each picture, as `pictures` counts
    overlay   draws what belongs to moment i onto a picture of any size
    remark    what a caption says of moment i besides the time
    details   what is worth knowing of the whole item, phrase by phrase
    """

    view: str
    times: np.ndarray
    numbers: np.ndarray
    pictures: Pictures
    overlay: Overlay = lambda picture, _: picture
    remark: Callable[[int], str] = lambda _: ""
    details: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.times)

    @property
    def name(self) -> str:
        """The view's id, in words where it is but a number."""
        return f"view {self.view}" if self.view.split(" ")[0].isdecimal() else self.view

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.pictures.width / self.pictures.height

    @property
    def step(self) -> float:
        """Median time from moment to moment in s; 0 where there is but one."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0

    def nearest(self, time: float) -> int | None:
        """The moment nearest to a time; of two equally near ones the earlier. None when the time lies outside.

        A moment stands for its surroundings: times up to a step before the first and after the last are inside.
        """
        room = max(self.step, 1e-3)
        if not len(self.times) or time < self.times[0] - room or time > self.times[-1] + room:
            return None
        after = int(np.clip(np.searchsorted(self.times, time), 0, len(self.times) - 1))
        before = max(after - 1, 0)
        return before if time - self.times[before] <= self.times[after] - time + 1e-9 else after

    def near(self, times: np.ndarray, *, height: int) -> list[tuple[float, np.ndarray]]:
        """Finished pictures of the moments nearest to some times, which rise, each once and with its own time."""
        found = (self.nearest(float(time)) for time in times)
        moments = list(dict.fromkeys(moment for moment in found if moment is not None))
        pictures = self.draw(moments, height, max(2, round(height * self.aspect)))
        return [(float(self.times[moment]), picture) for moment, picture in zip(moments, pictures, strict=True)]

    def between(self, low: float, high: float) -> Scene:
        """Only the moments in [low, high)."""
        kept = np.flatnonzero((self.times >= low) & (self.times < high))
        return replace(
            self,
            times=self.times[kept],
            numbers=self.numbers[kept],
            overlay=lambda picture, moment: self.overlay(picture, int(kept[moment])),
            remark=lambda moment: self.remark(int(kept[moment])),
        )

    def draw(self, moments: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:
        """Finished pictures of some moments, which never fall."""
        numbers = [int(self.numbers[moment]) for moment in moments]
        for moment, picture in zip(moments, self.pictures.at(numbers, height, width), strict=True):
            yield self.overlay(picture, moment)


class VideoPictures:
    """Frames of a video by exact index, some at a time; or a part of each, where `cut_to` was called.

    box: x0, y0, x1, y1 px of the video, what is shown of it.
    """

    def __init__(self, path: str | Path, *, times: np.ndarray | None = None) -> None:
        from actionprep.pipeline.video import VideoReader

        self._reader = VideoReader(path, times=times)
        self.times = self._reader.times
        self.box = (0, 0, self._reader.width, self._reader.height)

    @property
    def height(self) -> int:
        """Of what is shown, in px of the video."""
        return self.box[3] - self.box[1]

    @property
    def width(self) -> int:
        """Of what is shown, in px of the video."""
        return self.box[2] - self.box[0]

    @property
    def is_cut(self) -> bool:
        """Whether less than the whole pictures is shown."""
        return self.box != (0, 0, self._reader.width, self._reader.height)

    def cut_to(self, region: tuple[float, float, float, float]) -> None:
        """Show only a region (x0, y0, x1, y1 px) and its surroundings."""
        self.box = surroundings(region, self._reader.height, self._reader.width)

    def place(self, xy: np.ndarray, picture: np.ndarray) -> np.ndarray:
        """Where positions (..., 2) px of the video lie on a picture of what is shown."""
        return scaled(xy - np.array(self.box[:2], np.float32), _scale(picture, self))

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        last: tuple[int, np.ndarray] | None = None
        for first in range(0, len(numbers), _FRAMES_AT_ONCE):
            wanted = np.unique(numbers[first : first + _FRAMES_AT_ONCE])
            # A slower view repeats frames: what the last batch ended with is not decoded again.
            fresh = wanted[wanted != last[0]] if last is not None else wanted
            found = dict(zip(fresh.tolist(), self._read(fresh, height, width), strict=True))
            if last is not None:
                found.setdefault(*last)
            for number in numbers[first : first + _FRAMES_AT_ONCE]:
                yield found[int(number)]
            last = (int(wanted[-1]), found[int(wanted[-1])])

    def _read(self, numbers: np.ndarray, height: int, width: int) -> list[np.ndarray]:
        """Shrunk while decoding where that spares work, cut, and brought to the exact size."""
        x0, y0, x1, y1 = self.box
        shrink = min(1.0, height / self.height)
        high, wide = round(self._reader.height * shrink), round(self._reader.width * shrink)
        pictures = self._reader.frames_at(numbers, height=high, width=wide)
        left, top = round(x0 * shrink), round(y0 * shrink)
        right, bottom = max(round(x1 * shrink), left + 1), max(round(y1 * shrink), top + 1)
        return [resized(picture[top:bottom, left:right], height, width) for picture in pictures]


def surroundings(
    region: tuple[float, float, float, float], height: int, width: int, *, margin: float = 0.12
) -> tuple[int, int, int, int]:
    """A box around a region within a picture: not too narrow, too flat or too small; the whole where it gains little.

    region: x0, y0, x1, y1 px. margin: share of the region's longer side that is added on all sides.
    """
    x0, y0, x1, y1 = (float(value) for value in region)
    if not all(np.isfinite([x0, y0, x1, y1])) or x1 <= x0 or y1 <= y0:
        return 0, 0, width, height
    room = margin * max(x1 - x0, y1 - y0)
    wide = max(x1 - x0 + 2 * room, 0.3 * width)
    high = max(y1 - y0 + 2 * room, 0.3 * height)
    wide, high = max(wide, 0.7 * high), max(high, 0.6 * wide)
    wide, high = min(wide, width), min(high, height)
    if wide * high > 0.8 * width * height:
        return 0, 0, width, height
    left = float(np.clip((x0 + x1 - wide) / 2, 0, width - wide))
    top = float(np.clip((y0 + y1 - high) / 2, 0, height - high))
    return int(left), int(top), round(left + wide), round(top + high)


class StoredPictures:
    """Pictures that the store has; `read` gives the one with a number."""

    def __init__(self, read: Callable[[int], np.ndarray], height: int, width: int) -> None:
        self._read = read
        self.height, self.width = height, width

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        for number in numbers:
            yield resized(self._read(int(number)), height, width, show_pixels=True)


class BlankPictures:
    """An empty ground, for products whose video is not at hand."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        for _ in numbers:
            yield np.full((height, width, 3), DARK.empty, np.uint8)


class JointGround(BlankPictures):
    """An empty ground that the joints of an item fit on: the size of its picture where that is known."""

    def __init__(self, item: ItemReader, *, y_up: bool, x_left: bool = False) -> None:
        """y_up: coordinates that grow upwards, as those of 3D poses do; x_left: and to the camera's left."""
        self._axes = np.array([-1 if x_left else 1, -1 if y_up else 1], np.float32)
        self._origin, self._shrink = np.zeros(2, np.float32), 1.0
        size = item.attributes.get("image_size")
        here = item["keypoints"][:][..., :2][item["score"][:] > 0] * self._axes
        if size is not None and not y_up:
            super().__init__(int(size[0]), int(size[1]))
        elif not len(here):
            super().__init__(480, 480)
        else:
            low, high = np.percentile(here, [0.5, 99.5], axis=0)
            extent = np.maximum(high - low, 1e-6)
            margin = 0.12 * float(extent.max())
            self._shrink = 480 / (float(extent[1]) + 2 * margin)
            super().__init__(480, int(np.clip((float(extent[0]) + 2 * margin) * self._shrink, 240, 960)))
            self._origin = (low + high) / 2 - np.array([self.width, 480]) / 2 / self._shrink

    def place(self, xy: np.ndarray, picture: np.ndarray) -> np.ndarray:
        """Where joints (..., 2) lie on a picture of the ground."""
        return scaled((xy * self._axes - self._origin) * self._shrink, _scale(picture, self))


def resized(picture: np.ndarray, height: int, width: int, *, show_pixels: bool = False) -> np.ndarray:
    """A picture in another size; show_pixels: one that becomes at least twice as large shows its pixels as they are."""
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    if height < picture.shape[0]:
        how = cv2.INTER_AREA
    else:
        how = cv2.INTER_NEAREST if show_pixels and height >= 2 * picture.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how))


def video_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """The frames of a view as they are."""
    pictures, times = _video(study, recording, view)
    height, width = pictures.height, pictures.width
    found = study.catalogue.view(recording, view)
    details = (f"{width}x{height} px, {found.fps:.4g} frames/s, {found.codec}",)
    return [Scene(view, times, np.arange(len(times)), pictures, details=details)]


def tracks_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Points of each frame with their trails; windows overlap, and the one that began first has the longest trails."""
    item = study.store.item("tracks", recording, view)
    pictures, _ = _video(study, recording, view)
    frame, time = item["frame"][:], item["time"][:]
    rows = np.argwhere(item["frame_valid"][:].astype(bool))
    numbers, first = np.unique(frame[rows[:, 0], rows[:, 1]], return_index=True)
    places = rows[first]
    told = item.attributes
    if not whole and "region" in told:
        pictures.cut_to(told["region"])
    valid = item["valid"][:].astype(bool)

    @lru_cache(maxsize=2)
    def window(at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        xy, slots = item["xy"][at], valid[at]
        seen = visible(
            item["visibility"][at], item["confidence"][at], rule=told["visible_rule"], above=told["visible_above"]
        )
        seed = int(np.flatnonzero(frame[at] == item["seed"][at])[0]) if "seed" in item else 0
        return xy[:, slots], seen[:, slots], point_colors(xy[seed, slots])

    def overlay(picture: np.ndarray, moment: int) -> np.ndarray:
        at, step = places[moment]
        xy, seen, colors = window(int(at))
        return draw_tracks(quieted(picture), pictures.place(xy[: step + 1], picture), seen[: step + 1], colors)

    def remark(moment: int) -> str:
        at, step = places[moment]
        _, seen, _ = window(int(at))
        return f"{int(seen[step].sum())}/{seen.shape[1]} visible"

    share = told.get("visible_share")
    per_window = int(valid.sum(axis=1).max(initial=0))
    details = (
        f"tracker {told['tracker']}",
        f"up to {per_window} points a window",
        f"{len(frame)} windows of {frame.shape[1]} frames",
        *((f"{share:.0%} visible",) if share is not None else ()),
        *_cut(pictures),
    )
    return [Scene(view, time[places[:, 0], places[:, 1]], numbers, pictures, overlay, remark, details)]


def masks_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Foreground tinted and outlined."""
    from actionprep.pipeline.masks import unpack_masks

    item = study.store.item("masks", recording, view)
    pictures, times = _video(study, recording, view)
    width = int(item.attributes["width"])
    foreground = item["foreground"]
    _same_length(len(foreground), len(times), "masks", recording, view)
    if not whole:
        some = unpack_masks(foreground[np.unique(np.linspace(0, len(foreground) - 1, 48).astype(int))], width)
        pictures.cut_to(_region_of(some))
    x0, y0, x1, y1 = pictures.box

    def overlay(picture: np.ndarray, moment: int) -> np.ndarray:
        return draw_mask(picture, unpack_masks(foreground[moment], width)[y0:y1, x0:x1])

    def remark(moment: int) -> str:
        return f"{float(item['area'][moment]):.1%} foreground"

    empty = int(item.attributes.get("num_empty", 0))
    details = (
        f"source {item.attributes.get('source', 'unknown')}",
        *((f"{empty} of {len(foreground)} frames without foreground",) if empty else ()),
        *_cut(pictures),
    )
    return [Scene(view, times, np.arange(len(times)), pictures, overlay, remark, details)]


def frames_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Stored frames."""
    item = study.store.item("frames", recording, view)
    states, index = item["status"][:], item["index"][:]
    height, width = int(item.attributes["height"]), int(item.attributes["width"])
    pictures = StoredPictures(lambda row: read_frames(item, [row])[0], height, width)
    scene = Scene(
        view,
        item["time"][:],
        np.arange(len(index)),
        pictures,
        remark=lambda moment: _STATES.get(int(states[moment]), f"frame {index[moment]}"),
        details=(
            f"{len(index)} of {item.attributes['num_frames']} frames, {width}x{height} px",
            f"stored {item.attributes['storage']}",
            *_bad_frames(states),
        ),
    )
    return [scene]


def keyframes_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """The chosen frames of the video."""
    item = study.store.item("keyframes", recording, view)
    pictures, _ = _video(study, recording, view)
    index = item["index"][:].astype(np.int64)
    order = np.argsort(index, kind="stable")
    score = item["score"][:][order]
    scene = Scene(
        view,
        item["time"][:][order],
        index[order],
        pictures,
        # Samplers that do not rank give all the same score.
        remark=lambda moment: f"score {score[moment]:.3g}" if np.ptp(score) > 0 else "",
        details=(f"{len(index)} of {item.attributes['num_frames']} frames", f"sampler {item.attributes['sampler']}"),
    )
    return [scene]


def lowres_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Small clips, one scene for each size that is stored."""
    item = study.store.item("lowres", recording, view)
    times, states = item["time"][:], item["status"][:]
    sizes = {name: (int(height), int(width)) for name, (height, width) in item.attributes["sizes"].items()}
    return [
        Scene(
            f"{view} {width}x{height}" if len(sizes) > 1 else view,
            times,
            np.arange(len(times)),
            StoredPictures(item[name].__getitem__, height, width),
            remark=lambda moment: _STATES.get(int(states[moment]), f"frame {moment}"),
            details=(f"{len(times)} frames of {width}x{height} px", *_bad_frames(states)),
        )
        for name, (height, width) in sorted(sizes.items(), key=lambda pair: pair[1])
    ]


def pose_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Skeletons with numbers and scores, over the video where there is one."""
    from actionprep.datasets.skeletons import skeleton, skeleton_of_item

    item = study.store.item("pose", recording, view)
    layout = skeleton(skeleton_of_item(item.attributes))
    keypoints = item["keypoints"]
    numbers = item["index"][:].astype(np.int64) if "index" in item else np.arange(len(keypoints))
    flat = keypoints.shape[-1] == 2
    path = _video_path(study, recording, view) if flat else None
    pictures: VideoPictures | JointGround
    if path is None:
        pictures = JointGround(item, y_up=not flat, x_left=not flat and layout.name in _X_TO_THE_LEFT)
    else:
        pictures = VideoPictures(path, times=study.catalogue.view(recording, view).times)
        seen = item["keypoints"][:][item["score"][:] > 0]
        if not whole and len(seen):
            low, high = np.percentile(seen, [1, 99], axis=0).tolist()
            pictures.cut_to((*low, *high))
    times = _pose_times(study, item, recording, view)
    score, ids = item["score"], item["track_id"]
    filled = item["filled"][:].astype(bool) if "filled" in item else np.zeros((*score.shape[:2], 1), bool)
    filled = np.broadcast_to(filled if filled.ndim == 3 else filled[..., None], score.shape)

    def overlay(picture: np.ndarray, moment: int) -> np.ndarray:
        has_box = path is not None and "bbox" in item
        return draw_skeletons(
            picture,
            pictures.place(keypoints[moment][..., :2], picture),
            score[moment],
            layout,
            track_id=ids[moment],
            bbox=pictures.place(item["bbox"][moment].reshape(-1, 2, 2), picture).reshape(-1, 4) if has_box else None,
            filled=filled[moment],
        )

    def remark(moment: int) -> str:
        count = int((score[moment] > 0).any(axis=-1).sum())
        return "1 person" if count == 1 else f"{count} persons"

    everyone = np.unique(ids[:][ids[:] >= 0])
    details = (
        layout.title or layout.name,
        *((f"estimator {item.attributes['estimator']}",) if "estimator" in item.attributes else ()),
        *((f"{len(everyone)} person{'s'[: len(everyone) != 1]} numbered",) if len(everyone) else ()),
        *(() if flat else (_seen_from(layout),)),
        *(_cut(pictures) if isinstance(pictures, VideoPictures) else ("no video at hand: drawn on an empty ground",)),
    )
    return [Scene(view, times, numbers, pictures, overlay, remark, details)]


_X_TO_THE_LEFT = ("kinect20", "ntu25")
"""Layouts of sensors whose x grows to their left, that is to the right of a person who faces them."""


def _seen_from(layout: Skeleton) -> str:
    if layout.name in _X_TO_THE_LEFT:
        return "3D, as the sensor sees it: the right of who faces it is at the left"
    return "3D, x drawn to the right and y upwards"


def heatmaps_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Heatmap volumes moment by moment: the stored ones, or joints rendered from poses with the published settings."""
    if study.store.has("heatmaps", recording, view):
        return [_stored_heatmaps(study, recording, view)]
    import torch

    from actionprep.datasets.heatmaps import HeatmapSettings, grid_boxes, project, render
    from actionprep.datasets.skeletons import skeleton, skeleton_of_item

    item = study.store.item("pose", recording, view)
    settings = HeatmapSettings()
    layout = skeleton(skeleton_of_item(item.attributes))
    points = torch.from_numpy(item["keypoints"][:]).movedim(1, 0)[None]
    score = torch.from_numpy(item["score"][:]).movedim(1, 0)[None]
    if points.shape[-1] == 3:
        points, score = project(points, score, settings.view)
    boxes = grid_boxes(points, score, settings)
    times = _pose_times(study, item, recording, view)

    def overlay(picture: np.ndarray, moment: int) -> np.ndarray:
        one = slice(moment, moment + 1)
        volume = render(points[:, :, one], score[:, :, one], layout, settings, boxes=boxes)
        return draw_volume(volume[0, :, 0].numpy(), np.array(layout.joint_colors), picture.shape[:2])

    height, width = settings.size
    details = (
        f"{layout.title or layout.name}, on {width}x{height} px",
        f"sigma {settings.sigma:g} px, cut to the people, persons merged by maximum",
    )
    return [Scene(view, times, np.arange(len(times)), BlankPictures(height, width), overlay, details=details)]


def _stored_heatmaps(study: Study, recording: str, view: str) -> Scene:
    from actionprep.datasets.skeletons import skeleton, skeleton_of_item

    item = study.store.item("heatmaps", recording, view)
    told, times = item.attributes, item["time"][:]
    layout = skeleton(skeleton_of_item(told))
    colors = np.array(layout.joint_colors if told["kind"] == "joint" else layout.limb_colors)

    def overlay(picture: np.ndarray, moment: int) -> np.ndarray:
        volume = item["volume"][moment].astype(np.float32) * told["scale"]
        # Persons with volumes of their own are shown over each other.
        volume = volume.max(axis=0) if volume.ndim == 4 else volume
        return draw_volume(volume, colors, picture.shape[:2])

    height, width = item["volume"].shape[-2:]
    details = (
        f"{layout.title or layout.name}, {told['kind']}s on {width}x{height} px, as stored",
        f"sigma {told['sigma']:g} px",
    )
    return Scene(view, times, np.arange(len(times)), BlankPictures(height, width), overlay, details=details)


def legend_of(product: str) -> tuple[Mark, ...]:
    """What the signs of a product mean."""
    return _LEGENDS.get(product, ())


SCENES: dict[str, Callable[[Study, str, str, bool], list[Scene]]] = {
    "video": video_scene,
    "frames": frames_scene,
    "keyframes": keyframes_scene,
    "masks": masks_scene,
    "tracks": tracks_scene,
    "pose": pose_scene,
    "heatmaps": heatmaps_scene,
    "lowres": lowres_scene,
}
"""What makes the scenes of one view of a product."""

_STATES = {1: "concealed damage", 2: "missing, repeats the last good one"}

_SIDES = (
    Mark("dot", (255, 127, 14), "left"),
    Mark("dot", (31, 119, 220), "right"),
    Mark("dot", (60, 180, 75), "middle"),
)

_LEGENDS: dict[str, tuple[Mark, ...]] = {
    "tracks": (
        Mark("hues", (0, 0, 0), "visible, with the trail of its window so far"),
        Mark("ring", (168, 172, 180), "occluded or lost"),
    ),
    "masks": (Mark("square", (0, 168, 150), "foreground"),),
    "pose": (
        *_SIDES,
        Mark("ring", (110, 116, 126), "score below 0.3, or filled in"),
        Mark("tag", person_color(0), "the person's number and mean score", "0  0.65"),
    ),
    "heatmaps": _SIDES,
}


def _bad_frames(states: np.ndarray) -> list[str]:
    return [f"{int((states == code).sum())} {name}" for code, name in _STATES.items() if (states == code).any()]


def _video_path(study: Study, recording: str, view: str) -> Path | None:
    """Where the view's video is; None when the catalogue has none that can be read."""
    if recording not in {one.id for one in study.catalogue.recordings}:
        return None
    for found in study.catalogue.views_of(recording):
        if found.id == view and found.status == "ok" and found.num_frames and found.width and found.has_video:
            return study.catalogue.resolve(found.path, study.root)
    return None


def _video(study: Study, recording: str, view: str) -> tuple[VideoPictures, np.ndarray]:
    path = _video_path(study, recording, view)
    if path is None:
        found = study.catalogue.view(recording, view)
        if not found.has_video:
            raise UserError(
                f"View '{view}' of recording '{recording}' has no video: it comes from the poses in {found.path}. "
                "Draw those with 'actionprep show pose'."
            )
        raise UserError(
            f"View '{view}' of recording '{recording}' cannot be drawn: its video {found.path} cannot be read"
            f"{f' ({found.reason})' if found.reason else ''}. Mend or replace the file and run 'actionprep scan'."
        )
    times = study.catalogue.view(recording, view).times
    return VideoPictures(path, times=times), times


def _pose_times(study: Study, item: ItemReader, recording: str, view: str) -> np.ndarray:
    """Times of the frames of a pose item: its own, or those of its view."""
    if "time" in item:
        return item["time"][:]
    count = len(item["keypoints"])
    times = study.catalogue.view(recording, view).times
    _same_length(count, len(times), "pose", recording, view)
    return times


def _same_length(count: int, num_frames: int, product: str, recording: str, view: str) -> None:
    if count != num_frames:
        raise UserError(
            f"{product}/{recording}/{view} has {count} frames and the catalogue has {num_frames} of its video: one of "
            f"them changed. Run 'actionprep scan', then build '{product}' again."
        )


def _scale(picture: np.ndarray, source: Pictures) -> tuple[float, float]:
    return picture.shape[1] / source.width, picture.shape[0] / source.height


def _cut(pictures: VideoPictures) -> tuple[str, ...]:
    return ("cut to the action",) if pictures.is_cut else ()


def _region_of(foreground: np.ndarray, outside: float = 0.005) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of the foreground of all of these masks (T, H, W), but for a small share beyond each side."""
    edges = []
    for counts in (foreground.sum(axis=(0, 1)), foreground.sum(axis=(0, 2))):
        up_to = np.cumsum(counts)
        if not up_to[-1]:
            return 0.0, 0.0, 0.0, 0.0
        low, high = np.searchsorted(up_to, [outside * up_to[-1], (1 - outside) * up_to[-1]])
        edges.append((float(low), float(high) + 1))
    return edges[0][0], edges[1][0], edges[0][1], edges[1][1]
