"""Foreground from poses: the convex hull of the joints of each person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.products.poses import read_pose_item
from actionprep.errors import InputError
from actionprep.pipeline.mask_sources.source import MaskBlock, MaskSource
from actionprep.pipeline.stage import Input

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.pipeline.mask_sources.settings import MasksSettings
    from actionprep.pipeline.stage import FrameBlock, ViewSource


class PoseMasks(MaskSource):
    """Convex hull of the joints of each person, grown by a margin. It reads the product `pose`."""

    def __init__(self, settings: MasksSettings, source: ViewSource, done: Mapping[str, ItemReader]) -> None:
        super().__init__(settings, source, done)
        poses = read_pose_item(done["pose"])
        if poses.dimensions != 2:
            raise InputError(
                f"The poses of {source.recording}, view {source.view} are 3D; masks need joints in pixels.\n"
                "Choose another source of masks, or a pose backend that gives pixels."
            )
        self._rows = {int(index): row for row, index in enumerate(poses.frame_index)}
        self._keypoints, self._score = poses.keypoints, poses.score
        self._radius = round(settings.margin * min(source.height, source.width))

    @classmethod
    def inputs(cls, settings: MasksSettings) -> tuple[Input, ...]:  # noqa: D102
        return (Input("pose", live=False),)

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        foreground = np.empty((len(block.index), self.source.height, self.source.width), bool)
        for row, index in zip(foreground, block.index, strict=True):
            row[:] = self._mask(int(index))
        return MaskBlock(block.index, foreground)

    def finish(self, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        return MaskBlock.empty(self.source.height, self.source.width)

    def _mask(self, index: int) -> np.ndarray:
        import cv2

        mask = np.zeros((self.source.height, self.source.width), np.uint8)
        row = self._rows.get(index)
        if row is None:
            return mask.astype(bool)
        for joints, score in zip(self._keypoints[row], self._score[row], strict=True):
            seen = joints[score >= max(self.settings.joint_score, np.finfo(np.float32).tiny)]
            if len(seen):
                hull = cv2.convexHull(np.rint(seen).astype(np.int32))
                cv2.fillConvexPoly(mask, hull, 1)
        if self._radius:
            size = (2 * self._radius + 1, 2 * self._radius + 1)
            mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size))
        return mask.astype(bool)
