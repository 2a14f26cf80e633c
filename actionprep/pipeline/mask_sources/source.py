"""What a mask source is, and the registry of all mask sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.registry import Entry, Registry

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import ItemReader
    from actionprep.pipeline.mask_sources.settings import MasksSettings
    from actionprep.pipeline.stage import FrameBlock, Input, ViewSource


@dataclass(frozen=True, slots=True)
class MaskBlock:
    """Masks of some consecutive frames.

    index       (B,) int64       which frames
    foreground  (B, H, W) bool   at the size of the frames
    """

    index: np.ndarray
    foreground: np.ndarray

    @classmethod
    def empty(cls, height: int, width: int) -> MaskBlock:
        """No frames."""
        return cls(np.zeros(0, np.int64), np.zeros((0, height, width), bool))


class MaskSource(ABC):
    """Tells foreground from background in the frames of one view, in order, with bounded memory.

    `push` takes a block of frames and returns the masks that are ready: a source may look some frames ahead and lag.
    `finish` returns the rest, so that in the end there is exactly one mask for each frame, in order.
    """

    def __init__(self, settings: MasksSettings, source: ViewSource, done: Mapping[str, ItemReader]) -> None:
        self.settings = settings
        self.source = source
        self.done = done

    @classmethod
    def identity(cls, settings: MasksSettings) -> dict[str, str]:
        """What besides the settings decides the masks; raises SetupError when a backend is missing."""
        return {}

    @classmethod
    def inputs(cls, settings: MasksSettings) -> tuple[Input, ...]:
        """Products that are read besides the frames."""
        return ()

    @classmethod
    def reads_of_source(cls, settings: MasksSettings, source: ViewSource) -> Any:
        """Plain values besides the video that decide this view's masks, such as a digest of mask files."""
        return None

    @abstractmethod
    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> MaskBlock:
        """Take some frames and return the masks that are ready."""

    @abstractmethod
    def finish(self, live: Mapping[str, Any]) -> MaskBlock:
        """No more frames come: return the masks that are left."""

    def events(self) -> dict[str, int]:
        """Counts of what was filled in or converted on the way, by what it was; stored with the masks."""
        return {}


MASK_SOURCES: Registry[type[MaskSource]] = Registry(
    "mask source",
    "actionprep.mask_sources",
    (
        Entry("files", "actionprep.pipeline.mask_sources.files:FileMasks"),
        Entry("motion", "actionprep.pipeline.mask_sources.motion:MotionMasks"),
    ),
    plural="Sources",
    subclass_of="actionprep.pipeline.mask_sources.source:MaskSource",
)
"""Mask sources by the name that `masks.source` takes."""
