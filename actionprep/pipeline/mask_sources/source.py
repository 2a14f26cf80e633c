"""Define the interface and the registry of mask sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.registry import Entry, Registry

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.pipeline.mask_sources.settings import MasksSettings
    from actionprep.pipeline.stage import FrameBlock, Input, ViewSource


@dataclass(frozen=True, slots=True)
class MaskBlock:
    """Masks of consecutive frames.

    Attributes:
        index: Frame indices, int64 of shape (B,).
        foreground: Masks at the size of the frames, bool of shape (B, H, W).
    """

    index: np.ndarray
    foreground: np.ndarray

    @classmethod
    def empty(cls, height: int, width: int) -> MaskBlock:
        """Return a block without frames."""
        return cls(np.zeros(0, np.int64), np.zeros((0, height, width), bool))


class MaskSource(ABC):
    """Separate foreground from background in the frames of one view, in order, with bounded memory.

    `push` takes a block of frames and returns the masks that are ready. They may be those of earlier frames, so that a
    source can look ahead. `finish` returns the rest. Together they return exactly one mask per frame, in order.

    Args:
        settings: Settings of the stage `masks`.
        source: The view.
        done: Items of the products named by `inputs`, by product.
    """

    def __init__(self, settings: MasksSettings, source: ViewSource, done: Mapping[str, ItemReader]) -> None:
        self.settings = settings
        self.source = source
        self.done = done

    @classmethod
    def identity(cls, settings: MasksSettings) -> dict[str, str]:
        """Return what the masks depend on besides the settings, such as hashes of weights.

        Raises:
            SetupError: If a backend is missing.
        """
        return {}

    @classmethod
    def inputs(cls, settings: MasksSettings) -> tuple[Input, ...]:
        """Return the products that are read in addition to the frames."""
        return ()

    @classmethod
    def reads_of_source(cls, settings: MasksSettings, source: ViewSource) -> Any:
        """Return what the masks of this view depend on besides the video, such as a digest of mask files."""
        return None

    @abstractmethod
    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> MaskBlock:
        """Add a block of frames and return the masks that are ready."""

    @abstractmethod
    def finish(self, live: Mapping[str, Any]) -> MaskBlock:
        """Return the remaining masks after the last frame."""

    def events(self) -> dict[str, int]:
        """Return counts of filled or converted masks by name; they are stored with the masks."""
        return {}


MASK_SOURCES: Registry[type[MaskSource]] = Registry(
    "mask source",
    "actionprep.mask_sources",
    (
        Entry("files", "actionprep.pipeline.mask_sources.files:FileMasks"),
        Entry("motion", "actionprep.pipeline.mask_sources.motion:MotionMasks"),
        Entry("person", "actionprep.pipeline.mask_sources.person:PersonMasks"),
        Entry("pose", "actionprep.pipeline.mask_sources.pose:PoseMasks"),
        Entry("text", "actionprep.pipeline.mask_sources.text:TextMasks"),
    ),
    plural="Sources",
    subclass_of="actionprep.pipeline.mask_sources.source:MaskSource",
)
"""Mask sources by the name in `masks.source`."""
