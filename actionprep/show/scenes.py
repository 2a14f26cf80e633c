"""What a view of a product looks like at each moment: pictures from a video or the store, and what is drawn on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from actionprep.datasets.frames import read_frames
from actionprep.datasets.tracks import visible
from actionprep.errors import UserError
from actionprep.show.colors import DARK, point_colors
from actionprep.show.overlays import draw_mask, draw_skeletons, draw_tracks, draw_volume, quieted, scaled
from actionprep.show.sheet import Mark

if TYPE_CHECKING:
    from actionprep.api import Study
    from actionprep.datasets.item_reader import ItemReader

Overlay = Callable[[np.ndarray, int], np.ndarray]

_FRAMES_AT_ONCE = 16


class Pictures(Protocol):
    """Where the pictures of a view come from.

    height, width: of the source in px.
    """

    height: int
    width: int

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
    """Frames of a video by exact index, some at a time."""

    def __init__(self, path: str | Path, *, times: np.ndarray | None = None) -> None:
        from actionprep.pipeline.video import VideoReader

        self._reader = VideoReader(path, times=times)
        self.times = self._reader.times
        self.height, self.width = self._reader.height, self._reader.width

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        last: tuple[int, np.ndarray] | None = None
        for first in range(0, len(numbers), _FRAMES_AT_ONCE):
            wanted = np.unique(numbers[first : first + _FRAMES_AT_ONCE])
            # A slower view repeats frames: what the last batch ended with is not decoded again.
            fresh = wanted[wanted != last[0]] if last is not None else wanted
            found = dict(zip(fresh.tolist(), self._reader.frames_at(fresh, height=height, width=width), strict=True))
            if last is not None:
                found.setdefault(*last)
            for number in numbers[first : first + _FRAMES_AT_ONCE]:
                yield found[int(number)]
            last = (int(wanted[-1]), found[int(wanted[-1])])


class StoredPictures:
    """Pictures that the store has; `read` gives the one with a number."""

    def __init__(self, read: Callable[[int], np.ndarray], height: int, width: int) -> None:
        self._read = read
        self.height, self.width = height, width

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        for number in numbers:
            yield resized(self._read(int(number)), height, width)


class BlankPictures:
    """An empty ground, for products whose video is not at hand."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        for _ in numbers:
            yield np.full((height, width, 3), DARK.empty, np.uint8)


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture in another size; small ones that become at least twice as large show their pixels as they are."""
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    if height < picture.shape[0]:
        how = cv2.INTER_AREA
    else:
        how = cv2.INTER_NEAREST if height >= 2 * picture.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how))


def video_scene(study: Study, recording: str, view: str) -> list[Scene]:
    """The frames of a view as they are."""
    pictures, times = _video(study, recording, view)
    height, width = pictures.height, pictures.width
    found = study.catalogue.view(recording, view)
    details = (f"{width}x{height} px, {found.fps:.4g} frames/s, {found.codec}",)
    return [Scene(view, times, np.arange(len(times)), pictures, details=details)]


def tracks_scene(study: Study, recording: str, view: str) -> list[Scene]:
    """Points of each frame with their trails; windows overlap, and the one that began first has the longest trails."""
    item = study.store.item("tracks", recording, view)
    pictures, _ = _video(study, recording, view)
    frame, time = item["frame"][:], item["time"][:]
    rows = np.argwhere(item["frame_valid"][:].astype(bool))
    numbers, first = np.unique(frame[rows[:, 0], rows[:, 1]], return_index=True)
    places = rows[first]
    told = item.attributes
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
        on_picture = scaled(xy[: step + 1], _scale(picture, pictures))
        return draw_tracks(quieted(picture), on_picture, seen[: step + 1], colors)

    def remark(moment: int) -> str:
        at, step = places[moment]
        _, seen, _ = window(int(at))
        return f"{int(seen[step].sum())} of {seen.shape[1]} points"

    share = told.get("visible_share")
    per_window = int(valid.sum(axis=1).max(initial=0))
    details = (
        f"{told['tracker']}: {len(frame)} windows of {frame.shape[1]} frames, up to {per_window} points each",
        *((f"{share:.0%} visible",) if share is not None else ()),
    )
    return [Scene(view, time[places[:, 0], places[:, 1]], numbers, pictures, overlay, remark, details)]


def masks_scene(study: Study, recording: str, view: str) -> list[Scene]:
    """Foreground tinted and outlined."""
    from actionprep.pipeline.masks import unpack_masks

    item = study.store.item("masks", recording, view)
    pictures, times = _video(study, recording, view)
    width = int(item.attributes["width"])
    foreground = item["foreground"]
    _same_length(len(foreground), len(times), "masks", recording, view)

    def overlay(picture: np.ndarray, moment: int) -> np.ndarray:
        return draw_mask(picture, unpack_masks(foreground[moment], width))

    def remark(moment: int) -> str:
        return f"{float(item['area'][moment]):.1%} foreground"

    empty = int(item.attributes.get("num_empty", 0))
    details = (
        f"source {item.attributes.get('source', 'unknown')}",
        *((f"{empty} of {len(foreground)} frames without foreground",) if empty else ()),
    )
    return [Scene(view, times, np.arange(len(times)), pictures, overlay, remark, details)]


def frames_scene(study: Study, recording: str, view: str) -> list[Scene]:
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


def keyframes_scene(study: Study, recording: str, view: str) -> list[Scene]:
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
        remark=lambda moment: f"score {score[moment]:.3g}" if np.isfinite(score[moment]) else "",
        details=(f"{len(index)} of {item.attributes['num_frames']} frames", f"sampler {item.attributes['sampler']}"),
    )
    return [scene]


def lowres_scene(study: Study, recording: str, view: str) -> list[Scene]:
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


def pose_scene(study: Study, recording: str, view: str) -> list[Scene]:
    """Skeletons with numbers and scores, over the video where there is one."""
    from actionprep.datasets.skeletons import skeleton

    item = study.store.item("pose", recording, view)
    layout = skeleton(str(item.attributes["skeleton"]))
    keypoints = item["keypoints"]
    numbers = item["index"][:].astype(np.int64) if "index" in item else np.arange(len(keypoints))
    flat = keypoints.shape[-1] == 2
    path = _video_path(study, recording, view) if flat else None
    if path is not None:
        pictures: Any = VideoPictures(path, times=study.catalogue.view(recording, view).times)
        origin, shrink, up = np.zeros(2), 1.0, 1.0
    else:
        pictures, origin, shrink, up = _ground_for(item, up=1.0 if flat else -1.0)
    times = item["time"][:] if "time" in item else _view_times(study, recording, view, len(keypoints), "pose", numbers)
    score, ids = item["score"], item["track_id"]

    def overlay(picture: np.ndarray, moment: int) -> np.ndarray:
        factor = _scale(picture, pictures)
        place = (keypoints[moment][..., :2] * (1, up) - origin) * shrink
        has_box = path is not None and "bbox" in item
        boxes = scaled(item["bbox"][moment].reshape(-1, 2, 2), factor).reshape(-1, 4) if has_box else None
        return draw_skeletons(
            picture,
            scaled(place, factor),
            score[moment],
            layout,
            track_id=ids[moment],
            bbox=boxes,
            filled=item["filled"][moment].astype(bool) if "filled" in item else None,
        )

    def remark(moment: int) -> str:
        count = int((score[moment] > 0).any(axis=-1).sum())
        return "1 person" if count == 1 else f"{count} persons"

    everyone = np.unique(ids[:][ids[:] >= 0])
    details = (
        layout.title or layout.name,
        *((f"estimator {item.attributes['estimator']}",) if "estimator" in item.attributes else ()),
        *((f"{len(everyone)} person{'s'[: len(everyone) != 1]} numbered",) if len(everyone) else ()),
        *(() if path is not None else ("no video at hand: drawn on an empty ground",)),
    )
    return [Scene(view, times, numbers, pictures, overlay, remark, details)]


def volume_scene(
    view: str, volume: np.ndarray, times: np.ndarray, colors: np.ndarray, details: tuple[str, ...] = ()
) -> Scene:
    """A heatmap volume (C, T, h, w) in [0, 1] over time, channels in their colours."""
    height, width = volume.shape[2:]

    def overlay(picture: np.ndarray, moment: int) -> np.ndarray:
        return draw_volume(volume[:, moment], colors, picture.shape[:2])

    pictures = BlankPictures(height, width)
    return Scene(view, times, np.arange(volume.shape[1]), pictures, overlay, details=details)


def legend_of(product: str) -> tuple[Mark, ...]:
    """What the signs of a product mean."""
    return _LEGENDS.get(product, ())


SCENES: dict[str, Callable[[Study, str, str], list[Scene]]] = {
    "video": video_scene,
    "frames": frames_scene,
    "keyframes": keyframes_scene,
    "masks": masks_scene,
    "tracks": tracks_scene,
    "pose": pose_scene,
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
    "pose": (*_SIDES, Mark("ring", (110, 116, 126), "score below 0.3, or filled in")),
    "heatmaps": _SIDES,
}


def _bad_frames(states: np.ndarray) -> list[str]:
    return [f"{int((states == code).sum())} {name}" for code, name in _STATES.items() if (states == code).any()]


def _video_path(study: Study, recording: str, view: str) -> Path | None:
    """Where the view's video is; None when the catalogue has none that can be read."""
    if recording not in {one.id for one in study.catalogue.recordings}:
        return None
    for found in study.catalogue.views_of(recording):
        if found.id == view and found.status == "ok" and found.num_frames and found.width:
            return study.catalogue.resolve(found.path, study.root)
    return None


def _video(study: Study, recording: str, view: str) -> tuple[VideoPictures, np.ndarray]:
    path = _video_path(study, recording, view)
    if path is None:
        found = study.catalogue.view(recording, view)
        raise UserError(
            f"View '{view}' of recording '{recording}' cannot be drawn: its video {found.path} cannot be read"
            f"{f' ({found.reason})' if found.reason else ''}. Mend or replace the file and run 'actionprep scan'."
        )
    times = study.catalogue.view(recording, view).times
    return VideoPictures(path, times=times), times


def _view_times(
    study: Study, recording: str, view: str, count: int, product: str, numbers: np.ndarray | None = None
) -> np.ndarray:
    times = study.catalogue.view(recording, view).times
    if numbers is not None and len(numbers) and numbers[-1] < len(times):
        return times[numbers]
    _same_length(count, len(times), product, recording, view)
    return times


def _same_length(count: int, num_frames: int, product: str, recording: str, view: str) -> None:
    if count != num_frames:
        raise UserError(
            f"{product}/{recording}/{view} has {count} frames and the catalogue has {num_frames} of its video: one of "
            f"them changed. Run 'actionprep scan', then build '{product}' again."
        )


def _scale(picture: np.ndarray, source: Pictures) -> tuple[float, float]:
    return picture.shape[1] / source.width, picture.shape[0] / source.height


def _ground_for(item: ItemReader, *, up: float) -> tuple[BlankPictures, np.ndarray, float, float]:
    """An empty ground that all joints of an item fit on: the ground, origin and scale of the joints, sign of y."""
    size = item.attributes.get("image_size")
    if size is not None and up > 0:
        return BlankPictures(int(size[0]), int(size[1])), np.zeros(2), 1.0, up
    here = item["keypoints"][:][..., :2][item["score"][:] > 0] * (1, up)
    if not len(here):
        return BlankPictures(480, 480), np.zeros(2), 1.0, up
    low, high = np.percentile(here, [0.5, 99.5], axis=0)
    extent = np.maximum(high - low, 1e-6)
    margin = 0.12 * extent.max()
    shrink = 480 / float(extent[1] + 2 * margin)
    width = int(np.clip(round(float(extent[0] + 2 * margin) * shrink), 240, 960))
    middle = (low + high) / 2
    return BlankPictures(480, width), middle - np.array([width, 480]) / 2 / shrink, shrink, up
