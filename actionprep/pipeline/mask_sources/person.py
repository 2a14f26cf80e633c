"""Person segmentation with the selfie segmentation model in MediaPipe's package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.errors import InputError
from actionprep.pipeline.mask_sources.source import MaskBlock, MaskSource
from actionprep.pipeline.pose_backends.mediapipe_environment import (
    FOLLOW,
    Worker,
    environment_folder,
    installed_models,
)

if TYPE_CHECKING:
    from pathlib import Path

    from actionprep.datasets.store.reader import ItemReader
    from actionprep.pipeline.mask_sources.settings import MasksSettings
    from actionprep.pipeline.stage import FrameBlock, ViewSource


class PersonMasks(MaskSource):
    """Segment the people near the camera with MediaPipe's package, without a download; the camera may move."""

    def __init__(self, settings: MasksSettings, source: ViewSource, done: Mapping[str, ItemReader]) -> None:
        super().__init__(settings, source, done)
        self._worker = Worker(_folder(settings), {"solution": "person"})
        self._limit = settings.person_score * 255

    @classmethod
    def identity(cls, settings: MasksSettings) -> dict[str, str]:  # noqa: D102
        version, weights = installed_models(_folder(settings), "person")
        return {"mediapipe": version, **{f"weights {name}": digest for name, digest in weights.items()}}

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        height, width = self.source.height, self.source.width
        foreground = np.empty((len(block.index), height, width), bool)
        for row, (mask, frame) in enumerate(zip(foreground, block.rgb, strict=True)):
            try:
                answer = self._worker.ask(frame, FOLLOW, row)
            except InputError as problem:
                # The worker counts frames from the start of the block.
                raise InputError(problem.reason, frame=int(block.index[row]), backend=problem.backend) from problem
            np.greater_equal(np.frombuffer(answer, np.uint8).reshape(height, width), self._limit, out=mask)
        return MaskBlock(block.index, foreground)

    def finish(self, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        self._worker.end()
        return MaskBlock.empty(self.source.height, self.source.width)


def _folder(settings: MasksSettings) -> Path:
    return environment_folder(settings.path(settings.environment) if settings.environment else None)
