"""Render poses as heatmap volumes and store them; training renders on read, so that this is only for other programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actionprep.datasets.poses.heatmap_settings import HeatmapSettings
from actionprep.datasets.poses.skeletons import skeleton, stored_layout
from actionprep.errors import InputError
from actionprep.pipeline.stage import Input, ViewSource, ViewStage, stage
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.poses.sequence import PoseSequence
    from actionprep.datasets.store.zarr_store import ItemReader, ItemWriter

_FRAMES_AT_ONCE = 128


class _StorageSettings(StageSettings):
    chunk: int = option(16, "Frames that are stored, and read, together.", ge=1, le=1024)
    storage: Literal["zstd", "raw"] = option("zstd", "Volumes are mostly empty: zstd makes them far smaller.")


class HeatmapsSettings(_StorageSettings, HeatmapSettings):
    """Render poses as heatmap volumes and store them."""


@stage("heatmaps", version=1, settings=HeatmapsSettings)
class Heatmaps(ViewStage):
    """Makes heatmaps/<recording>/<view>: the poses of a view as Gaussian volumes, in shares of 255.

    volume  (T, C, H, W) uint8, C joints or limbs; (T, M, C, H, W) with separate persons
    index   (T) int64    position in the video
    time    (T) float64  s on the recording's clock

    One box, around the people of all frames, is what the grid shows. Attributes: skeleton, kind, channels (names), box
    (left, top, right, bottom in units of the keypoints), sigma, scale (volume * scale is in [0, 1]), num_frames.
    """

    @classmethod
    def inputs(cls, settings: HeatmapsSettings) -> tuple[Input, ...]:  # noqa: D102
        return (Input("pose", live=False),)

    @classmethod
    def estimated_bytes(cls, settings: HeatmapsSettings, source: ViewSource) -> int:  # noqa: D102
        # Seventeen channels, as most layouts have about; stored volumes compress some twenty times.
        return source.num_frames * 17 * settings.size[0] * settings.size[1] // (20 if settings.storage == "zstd" else 1)

    @classmethod
    def build(
        cls, settings: HeatmapsSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        """Render the poses of one view, some frames at a time."""
        from actionprep.datasets.products.poses import read_pose_item

        poses = read_pose_item(done["pose"])
        if not poses.present.any():
            raise InputError(
                f"There is nobody in the poses of recording '{source.recording}', view {source.view}: heatmaps of them "
                "would be empty.",
                backend="heatmaps",
            )
        layout = skeleton(poses.skeleton)
        channels = layout.joints if settings.kind == "joint" else layout.limb_names
        person = ("person",) if settings.persons == "separate" else ()
        shape = (*((poses.num_persons,) if person else ()), len(channels), *settings.size)
        item.create(
            "volume",
            shape=shape,
            dtype="u1",
            axes=("time", *person, "channel", "y", "x"),
            chunk=settings.chunk,
            codec=settings.storage,
            description="Gaussians times the score, in shares of 255",
        )
        box, volumes = rendered(poses, settings)
        for volume in volumes:
            item.append("volume", volume)
        item.write("index", poses.frame_index, axes=("time",), description="position in the video")
        item.write("time", np.asarray(poses.time), axes=("time",), unit="s", description="on the recording's clock")
        item.attributes.update(
            skeleton=poses.skeleton,
            **stored_layout(poses.skeleton),
            kind=settings.kind,
            channels=list(channels),
            box=[float(value) for value in box],
            sigma=settings.sigma,
            scale=1 / 255,
            num_frames=poses.num_frames,
        )


def rendered(poses: PoseSequence, settings: HeatmapSettings) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """The box (4) that the grid shows, and the volumes of some frames after the other, (T, [M], C, H, W) uint8."""
    import torch

    from actionprep.datasets.poses.heatmaps import grid_boxes, project, render

    points = torch.from_numpy(poses.keypoints).movedim(1, 0)[None]
    score = torch.from_numpy(poses.score).movedim(1, 0)[None]
    size = poses.image_size
    if points.shape[-1] == 3:
        points, score = project(points, score, settings.view)
        size = None
    boxes = grid_boxes(points, score, settings, image_size=size)

    def volumes() -> Iterator[Any]:
        for first in range(0, poses.num_frames, _FRAMES_AT_ONCE):
            some = slice(first, first + _FRAMES_AT_ONCE)
            volume = render(
                points[:, :, some], score[:, :, some], poses.skeleton, settings, boxes=boxes, dtype=torch.uint8
            )
            yield np.ascontiguousarray(volume[0].movedim(-3, 0).numpy())

    return boxes[0].numpy(), volumes()
