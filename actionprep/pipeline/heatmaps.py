"""Render poses as heatmap volumes and store them for other programs. Training renders poses when it reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actionprep.datasets.poses.heatmap_settings import HeatmapSettings
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.products.heatmaps import write_heatmaps
from actionprep.datasets.products.poses import read_pose_item
from actionprep.errors import InputError
from actionprep.pipeline.stage import Input, ViewSource, ViewStage, stage
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.poses.sequence import PoseSequence
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter

_FRAMES_AT_ONCE = 128


class _StorageSettings(StageSettings):
    chunk: int = option(16, "Frames per chunk: they are stored and read together.", ge=1, le=1024)
    storage: Literal["zstd", "raw"] = option("zstd", "Compression. Most of a volume is empty, so zstd is far smaller.")


class HeatmapsSettings(_StorageSettings, HeatmapSettings):
    """Render poses as heatmap volumes and store them."""


@stage("heatmaps", version=1, settings=HeatmapsSettings)
class Heatmaps(ViewStage):
    """Write the product `heatmaps` (schema: `actionprep.datasets.products.heatmaps`).

    The grid covers one box around the people of all frames.
    """

    @classmethod
    def inputs(cls, settings: HeatmapsSettings) -> tuple[Input, ...]:  # noqa: D102
        return (Input("pose", live=False),)

    @classmethod
    def estimated_bytes(cls, settings: HeatmapsSettings, source: ViewSource) -> int:  # noqa: D102
        # About seventeen channels, as most layouts have; zstd makes volumes some twenty times smaller.
        return source.num_frames * 17 * settings.size[0] * settings.size[1] // (20 if settings.storage == "zstd" else 1)

    @classmethod
    def build(
        cls, settings: HeatmapsSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        """Render the poses of one view and write them."""
        poses = read_pose_item(done["pose"])
        if not poses.present.any():
            raise InputError(
                f"The poses of recording '{source.recording}', view {source.view} have no person in any frame, so there "
                "is nothing to render.",
                backend="heatmaps",
            )
        layout = skeleton(poses.skeleton)
        channels = layout.joints if settings.kind == "joint" else layout.limb_names
        box, volumes = rendered(poses, settings)
        write_heatmaps(
            item,
            poses,
            volumes,
            kind=settings.kind,
            channels=channels,
            size=settings.size,
            persons=poses.num_persons if settings.persons == "separate" else None,
            box=box,
            sigma=settings.sigma,
            chunk=settings.chunk,
            codec=settings.storage,
        )


def rendered(poses: PoseSequence, settings: HeatmapSettings) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Render poses to volumes.

    Args:
        poses: The poses of one view.
        settings: How to render them.

    Returns:
        The box that the grid covers: left, top, right, bottom in units of the keypoints; and the volumes, some frames
        at a time, (T, [M], C, H, W) uint8.
    """
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
