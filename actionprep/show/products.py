"""Scenes of each product (one per view of a recording) and their legends."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.products.frames import STATUS_MEANINGS, read_frames
from actionprep.datasets.products.heatmaps import read_heatmaps
from actionprep.datasets.products.tracks import visible
from actionprep.errors import UserError
from actionprep.json_values import counted
from actionprep.show.colors import person_color, point_colors
from actionprep.show.images import BlankFrames, JointGround, StoredFrames, VideoFrames
from actionprep.show.overlays import draw_mask, draw_skeletons, draw_tracks, draw_volume, quieted
from actionprep.show.scenes import Scene
from actionprep.show.sheet import Mark

if TYPE_CHECKING:
    from actionprep.api import Study
    from actionprep.datasets.poses.skeletons import Skeleton
    from actionprep.datasets.store.reader import ItemReader


def legend_of(product: str) -> tuple[Mark, ...]:
    """Return the legend of a product."""
    return _LEGENDS.get(product, ())


def video_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Frames of a video."""
    images, times = _video(study, recording, view)
    height, width = images.height, images.width
    source = study.catalog.view(recording, view)
    details = (f"{width}x{height} px, {source.fps:.4g} frames/s, {source.codec}",)
    return [Scene(view, times, np.arange(len(times)), images, details=details)]


def frames_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Stored frames."""
    item = study.store.item("frames", recording, view)
    states, index = item["status"][:], item["index"][:]
    height, width = int(item.attributes["height"]), int(item.attributes["width"])
    images = StoredFrames(lambda row: read_frames(item, [row])[0], height, width)
    scene = Scene(
        view,
        item["time"][:],
        np.arange(len(index)),
        images,
        remark=lambda moment: _STATES.get(int(states[moment]), f"frame {index[moment]}"),
        details=(
            f"{len(index)} of {item.attributes['num_frames']} frames, {width}x{height} px",
            f"stored {item.attributes['storage']}",
            *_bad_frames(states),
        ),
    )
    return [scene]


def keyframes_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Selected frames of a video."""
    item = study.store.item("keyframes", recording, view)
    images, _ = _video(study, recording, view)
    index = item["index"][:].astype(np.int64)
    order = np.argsort(index, kind="stable")
    score = item["score"][:][order]
    scene = Scene(
        view,
        item["time"][:][order],
        index[order],
        images,
        # Samplers without a ranking give all frames the same score.
        remark=lambda moment: f"score {score[moment]:.3g}" if np.ptp(score) > 0 else "",
        details=(f"{len(index)} of {item.attributes['num_frames']} frames", f"sampler {item.attributes['sampler']}"),
    )
    return [scene]


def lowres_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Low-resolution clips, one scene per stored size."""
    item = study.store.item("lowres", recording, view)
    times, states = item["time"][:], item["status"][:]
    sizes = {name: (int(height), int(width)) for name, (height, width) in item.attributes["sizes"].items()}
    return [
        Scene(
            f"{view} {width}x{height}" if len(sizes) > 1 else view,
            times,
            np.arange(len(times)),
            StoredFrames(item[name].__getitem__, height, width),
            remark=lambda moment: _STATES.get(int(states[moment]), f"frame {moment}"),
            details=(f"{len(times)} frames of {width}x{height} px", *_bad_frames(states)),
        )
        for name, (height, width) in sorted(sizes.items(), key=lambda pair: pair[1])
    ]


def masks_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Foreground tinted and outlined."""
    from actionprep.datasets.products.masks import read_masks

    item = study.store.item("masks", recording, view)
    images, times = _video(study, recording, view)
    foreground = item["foreground"]
    _same_length(len(foreground), len(times), "masks", recording, view)
    if not whole:
        some = read_masks(item, np.unique(np.linspace(0, len(foreground) - 1, 48).astype(int)))
        images.cut_to(_region_of(some))
    x0, y0, x1, y1 = images.box

    def overlay(image: np.ndarray, moment: int) -> np.ndarray:
        return draw_mask(image, read_masks(item, moment)[y0:y1, x0:x1])

    def remark(moment: int) -> str:
        return f"{float(item['area'][moment]):.1%} foreground"

    empty = int(item.attributes.get("num_empty", 0))
    details = (
        f"source {item.attributes.get('source', 'unknown')}",
        *((f"{empty} of {len(foreground)} frames without foreground",) if empty else ()),
        *_cut(images),
    )
    return [Scene(view, times, np.arange(len(times)), images, overlay, remark, details)]


def tracks_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Tracks: points of each frame with their trails. Where windows overlap, the one that started first is drawn."""
    item = study.store.item("tracks", recording, view)
    images, _ = _video(study, recording, view)
    frame, time = item["frame"][:], item["time"][:]
    rows = np.argwhere(item["frame_valid"][:].astype(bool))
    numbers, first = np.unique(frame[rows[:, 0], rows[:, 1]], return_index=True)
    places = rows[first]
    attributes = item.attributes
    if not whole and "region" in attributes:
        images.cut_to(attributes["region"])
    valid = item["valid"][:].astype(bool)

    @lru_cache(maxsize=2)
    def window(at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        xy, slots = item["xy"][at], valid[at]
        seen = visible(
            item["visibility"][at],
            item["confidence"][at],
            rule=attributes["visible_rule"],
            above=attributes["visible_above"],
        )
        seed = int(np.flatnonzero(frame[at] == item["seed"][at])[0]) if "seed" in item else 0
        return xy[:, slots], seen[:, slots], point_colors(xy[seed, slots])

    def overlay(image: np.ndarray, moment: int) -> np.ndarray:
        at, step = places[moment]
        xy, seen, colors = window(int(at))
        return draw_tracks(quieted(image), images.place(xy[: step + 1], image), seen[: step + 1], colors)

    def remark(moment: int) -> str:
        at, step = places[moment]
        _, seen, _ = window(int(at))
        return f"{int(seen[step].sum())}/{seen.shape[1]} visible"

    share = attributes.get("visible_share")
    per_window = int(valid.sum(axis=1).max(initial=0))
    details = (
        f"tracker {attributes['tracker']}",
        f"up to {counted(per_window, 'point')} per window",
        f"{counted(len(frame), 'window')} of {counted(frame.shape[1], 'frame')}",
        *((f"{share:.0%} visible",) if share is not None else ()),
        *_cut(images),
    )
    return [Scene(view, time[places[:, 0], places[:, 1]], numbers, images, overlay, remark, details)]


def _bad_frames(states: np.ndarray) -> list[str]:
    return [f"{int((states == code).sum())} {name}" for code, name in _STATES.items() if (states == code).any()]


_STATES = {value: meaning for value, meaning in STATUS_MEANINGS.items() if value}


def _cut(images: VideoFrames) -> tuple[str, ...]:
    return ("cropped to the action",) if images.is_cut else ()


def _region_of(foreground: np.ndarray, outside: float = 0.005) -> tuple[float, float, float, float]:
    """Bounding box (x0, y0, x1, y1) of the foreground of masks (T, H, W), without a small fraction at each side."""
    edges = []
    for counts in (foreground.sum(axis=(0, 1)), foreground.sum(axis=(0, 2))):
        up_to = np.cumsum(counts)
        if not up_to[-1]:
            return 0.0, 0.0, 0.0, 0.0
        low, high = np.searchsorted(up_to, [outside * up_to[-1], (1 - outside) * up_to[-1]])
        edges.append((float(low), float(high) + 1))
    return edges[0][0], edges[1][0], edges[0][1], edges[1][1]


def _same_length(count: int, num_frames: int, product: str, recording: str, view: str) -> None:
    if count != num_frames:
        raise UserError(
            f"{product}/{recording}/{view} has {count} frames and the catalog has {num_frames} of its video: one of "
            f"them changed. Run 'actionprep scan', then build '{product}' again."
        )


def _video_path(study: Study, recording: str, view: str) -> Path | None:
    """Where the view's video is; None when the catalog has none that can be read."""
    if recording not in {item.id for item in study.catalog.recordings}:
        return None
    for view_entry in study.catalog.views_of(recording):
        if (
            view_entry.id == view
            and view_entry.status == "ok"
            and view_entry.num_frames
            and view_entry.width
            and view_entry.has_video
        ):
            return study.catalog.resolve(view_entry.path, study.root)
    return None


def _video(study: Study, recording: str, view: str) -> tuple[VideoFrames, np.ndarray]:
    path = _video_path(study, recording, view)
    if path is None:
        entry = study.catalog.view(recording, view)
        if not entry.has_video:
            raise UserError(
                f"View '{view}' of recording '{recording}' has no video. It was imported from the poses in {entry.path}. "
                "Run 'actionprep show pose' to draw them."
            )
        raise UserError(
            f"Cannot draw view '{view}' of recording '{recording}': cannot read its video {entry.path}"
            f"{f' ({entry.reason})' if entry.reason else ''}. Repair or replace the file and run 'actionprep scan'."
        )
    images = _frames_of(study, recording, view, path)
    return images, images.times


def _frames_of(study: Study, recording: str, view: str, path: Path) -> VideoFrames:
    entry = study.catalog.view(recording, view)
    return VideoFrames(path, times=entry.times, reading=entry.reading.at(study.root))


def _pose_times(study: Study, item: ItemReader, recording: str, view: str) -> np.ndarray:
    """Times of the frames of a pose item: its own, or those of its view."""
    if "time" in item:
        return item["time"][:]
    count = len(item["keypoints"])
    times = study.catalog.view(recording, view).times
    _same_length(count, len(times), "pose", recording, view)
    return times


def pose_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Poses: skeletons with person numbers and scores, over the video where available."""
    from actionprep.datasets.poses.skeletons import skeleton, skeleton_of_item

    item = study.store.item("pose", recording, view)
    layout = skeleton(skeleton_of_item(item.attributes))
    keypoints = item["keypoints"]
    numbers = item["index"][:].astype(np.int64) if "index" in item else np.arange(len(keypoints))
    flat = keypoints.shape[-1] == 2
    path = _video_path(study, recording, view) if flat else None
    images: VideoFrames | JointGround
    if path is None:
        images = JointGround(item, y_up=not flat, x_left=not flat and layout.name in X_TO_THE_LEFT)
    else:
        images = _frames_of(study, recording, view, path)
        seen = item["keypoints"][:][item["score"][:] > 0]
        if not whole and len(seen):
            low, high = np.percentile(seen, [1, 99], axis=0).tolist()
            images.cut_to((*low, *high))
    times = _pose_times(study, item, recording, view)
    score, ids = item["score"], item["track_id"]
    filled = item["filled"][:].astype(bool) if "filled" in item else np.zeros((*score.shape[:2], 1), bool)
    filled = np.broadcast_to(filled if filled.ndim == 3 else filled[..., None], score.shape)

    def overlay(image: np.ndarray, moment: int) -> np.ndarray:
        has_box = path is not None and "bbox" in item
        return draw_skeletons(
            image,
            images.place(keypoints[moment][..., :2], image),
            score[moment],
            layout,
            track_id=ids[moment],
            bbox=images.place(item["bbox"][moment].reshape(-1, 2, 2), image).reshape(-1, 4) if has_box else None,
            filled=filled[moment],
        )

    def remark(moment: int) -> str:
        count = int((score[moment] > 0).any(axis=-1).sum())
        return counted(count, "person")

    everyone = np.unique(ids[:][ids[:] >= 0])
    details = (
        layout.title or layout.name,
        *((f"estimator {item.attributes['estimator']}",) if "estimator" in item.attributes else ()),
        *((f"{counted(len(everyone), 'person')} numbered",) if len(everyone) else ()),
        *(() if flat else (_seen_from(layout),)),
        *(_cut(images) if isinstance(images, VideoFrames) else ("no video available: drawn on an empty background",)),
    )
    return [Scene(view, times, numbers, images, overlay, remark, details)]


X_TO_THE_LEFT = ("kinect20", "ntu25")
"""Layouts of sensors with an x axis that points to the sensor's left (the right of a person who faces it)."""


def _seen_from(layout: Skeleton) -> str:
    if layout.name in X_TO_THE_LEFT:
        return "3D, as seen by the sensor: the right side of a person who faces it is on the left"
    return "3D, x points right and y points up"


def heatmaps_scene(study: Study, recording: str, view: str, whole: bool = True) -> list[Scene]:
    """Heatmaps per frame: the stored ones, or joints rendered from poses with the published settings."""
    if study.store.has("heatmaps", recording, view):
        return [_stored_heatmaps(study, recording, view)]
    import torch

    from actionprep.datasets.poses.heatmaps import HeatmapSettings, grid_boxes, project, render
    from actionprep.datasets.poses.skeletons import skeleton, skeleton_of_item

    item = study.store.item("pose", recording, view)
    settings = HeatmapSettings()
    layout = skeleton(skeleton_of_item(item.attributes))
    points = torch.from_numpy(item["keypoints"][:]).movedim(1, 0)[None]
    score = torch.from_numpy(item["score"][:]).movedim(1, 0)[None]
    sides: tuple[str, ...] = ()
    if points.shape[-1] == 3:
        points, score = project(points, score, settings.view)
        # Poses are drawn as seen by the camera, volumes with the axes that models read. Left and right may differ.
        sides = (f"projected to the plane {settings.view}, with the axes of the file",)
    boxes = grid_boxes(points, score, settings)
    times = _pose_times(study, item, recording, view)

    def overlay(image: np.ndarray, moment: int) -> np.ndarray:
        step = slice(moment, moment + 1)
        volume = render(points[:, :, step], score[:, :, step], layout, settings, boxes=boxes)
        return draw_volume(volume[0, :, 0].numpy(), np.array(layout.joint_colors), image.shape[:2])

    height, width = settings.size
    details = (
        f"{layout.title or layout.name}, on {width}x{height} px",
        f"sigma {settings.sigma:g} px, cropped to the persons, persons merged by maximum",
        *sides,
    )
    return [Scene(view, times, np.arange(len(times)), BlankFrames(height, width), overlay, details=details)]


def _stored_heatmaps(study: Study, recording: str, view: str) -> Scene:
    from actionprep.datasets.poses.skeletons import skeleton, skeleton_of_item

    item = study.store.item("heatmaps", recording, view)
    attributes, times = item.attributes, item["time"][:]
    layout = skeleton(skeleton_of_item(attributes))
    colors = np.array(layout.joint_colors if attributes["kind"] == "joint" else layout.limb_colors)

    def overlay(image: np.ndarray, moment: int) -> np.ndarray:
        volume = read_heatmaps(item, moment)
        # Volumes of several persons are merged by maximum.
        volume = volume.max(axis=0) if volume.ndim == 4 else volume
        return draw_volume(volume, colors, image.shape[:2])

    height, width = item["volume"].shape[-2:]
    details = (
        f"{layout.title or layout.name}, {attributes['kind']}s on {width}x{height} px, as stored",
        f"sigma {attributes['sigma']:g} px",
    )
    return Scene(view, times, np.arange(len(times)), BlankFrames(height, width), overlay, details=details)


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
"""Functions that make the scenes of one view of a product."""

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
