"""Base classes of stages: settings, version, inputs, and how frames flow through a stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np

from actionprep.datasets.view_reading import WHOLE_FILE, Reading
from actionprep.errors import UserError
from actionprep.settings import StageSettings

if TYPE_CHECKING:
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.segments import Segment
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter
    from actionprep.datasets.store.zarr_store import Store

Filter = Literal["area", "bilinear", "bicubic"]


class FrameBlock(ABC):
    """Consecutive decoded frames. Images are converted only when a stage asks for them, and once for all stages.

    Attributes:
        index: Position of each frame in presentation order from 0, shape (B,), int64.
        time: Seconds on the recording's clock, shape (B,), float64.
        status: State of each frame (see `actionprep.datasets.products.frames.STATUS_MEANINGS`), shape (B,), uint8.
    """

    index: np.ndarray
    time: np.ndarray
    status: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    @abstractmethod
    def rgb(self) -> np.ndarray:
        """(B, H, W, 3) uint8, display orientation, full range."""

    @cached_property
    @abstractmethod
    def gray(self) -> np.ndarray:
        """(B, H, W) uint8 luma, display orientation; much cheaper than rgb."""

    @abstractmethod
    def resized(self, height: int, width: int, filter: Filter = "area") -> np.ndarray:
        """(B, height, width, 3) uint8; every filter anti-aliases when it shrinks."""

    @abstractmethod
    def rgb_at(self, positions: np.ndarray) -> np.ndarray:
        """(len(positions), H, W, 3) uint8: only the frames at these positions of the block are converted."""

    def take(self, positions: np.ndarray) -> FrameBlock:
        """Return a block with only the frames at these positions."""
        return ArrayBlock(
            self.rgb_at(positions),
            time=self.time[positions],
            index=self.index[positions],
            status=self.status[positions],
        )


class ArrayBlock(FrameBlock):
    """A block of frames that are already in memory, for tests, notebooks and frames that come from a store."""

    def __init__(
        self, rgb: np.ndarray, *, time: np.ndarray, index: np.ndarray | None = None, status: np.ndarray | None = None
    ) -> None:
        self._rgb = np.ascontiguousarray(rgb)
        self.time = np.asarray(time, np.float64)
        self.index = np.arange(len(rgb)) if index is None else np.asarray(index, np.int64)
        self.status = np.zeros(len(rgb), np.uint8) if status is None else np.asarray(status, np.uint8)

    @cached_property
    def rgb(self) -> np.ndarray:  # noqa: D102
        return self._rgb

    @cached_property
    def gray(self) -> np.ndarray:  # noqa: D102
        # Rounded BT.601 luma, which is what the luma plane of ordinary video holds.
        weights = np.array([77, 150, 29], np.uint16)
        return ((self._rgb.astype(np.uint16) @ weights + 128) >> 8).astype(np.uint8)

    def resized(self, height: int, width: int, filter: Filter = "area") -> np.ndarray:  # noqa: D102
        import cv2

        # Only area shrinking anti-aliases in OpenCV; the other filters enlarge.
        shrinks = height < self._rgb.shape[1] or width < self._rgb.shape[2]
        grow = {"area": cv2.INTER_LINEAR, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[filter]
        how = cv2.INTER_AREA if shrinks else grow
        return np.stack([cv2.resize(image, (width, height), interpolation=how) for image in self._rgb])

    def rgb_at(self, positions: np.ndarray) -> np.ndarray:  # noqa: D102
        rgb: np.ndarray = self._rgb[positions]
        return rgb


@dataclass(frozen=True)
class Input:
    """One product of the same recording and view that a stage reads.

    Attributes:
        product: Name of the product.
        live: Whether the stage takes it block by block from the same decode pass. A live input that is already in the
            store is read from there; the stage sees no difference. Other inputs must be finished before.
    """

    product: str
    live: bool = True


@dataclass(frozen=True)
class ViewSource:
    """What a stage knows about its view before the first frame.

    Attributes:
        recording: Id of the recording.
        view: Id of the view.
        path: Path of the video, or of the poses of a view without video.
        height: Display height in pixels, after rotation.
        width: Display width in pixels, after rotation.
        fps: Median frame rate, for choosing windows, never for times.
        times: Frame times in seconds on the recording's clock, from the packets, shape (T,), float64.
        segments: Annotated segments of the recording.
        root: Folder of the study, from which relative paths in settings start.
        poses: For a view without video, how its poses are read from `path`, as a JSON object.
        reading: How the video is read, such as a crop; paths of parts are absolute.
    """

    recording: str
    view: str
    path: str
    height: int
    width: int
    fps: float
    times: np.ndarray
    segments: tuple[Segment, ...] = ()
    root: str = ""
    poses: str = ""
    reading: Reading = WHOLE_FILE

    @property
    def num_frames(self) -> int:
        """Number of frames, counted by demuxing."""
        return len(self.times)


class Stage(ABC):
    """Base of all stages; `@stage(...)` gives a subclass its name, version and settings."""

    name: ClassVar[str]
    version: ClassVar[int]
    Settings: ClassVar[type[StageSettings]]
    counted: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Attributes that count what an item dropped, filled in or converted, with a description of each in the plural."""

    @classmethod
    def identity(cls, settings: Any) -> dict[str, str]:
        """Return everything besides the settings that determines the result: backend, its version, hash of its weights.

        It is part of the fingerprint.

        Raises:
            SetupError: If the backend or its weights are missing, so that `plan` reports it before any work.
        """
        return {}

    @classmethod
    def inputs(cls, settings: Any) -> tuple[Input, ...]:
        """Return the products that the stage reads."""
        return ()

    @classmethod
    def reads_frames(cls, settings: Any) -> bool:
        """Return whether the stage needs decoded frames with these settings; otherwise it is built as a ViewStage."""
        return issubclass(cls, FrameStage)

    @classmethod
    def reads_of_source(cls, settings: Any, source: ViewSource) -> Any:
        """Return plain values besides the video that determine the result, such as segments or a digest of other files."""
        return None

    @classmethod
    def estimated_bytes(cls, settings: Any, source: ViewSource) -> int:
        """Estimate the size of the item in bytes from metadata."""
        return 0

    @classmethod
    def events(cls, attributes: Mapping[str, Any]) -> dict[str, int]:
        """Return the counts of a finished item by their descriptions in `counted`; commands print the sums."""
        return {what: attributes[name] for name, what in cls.counted.items() if name in attributes}


class FrameStage(Stage):
    """A stage that processes the decoded frames of one view block by block, with bounded memory.

    One object handles one (recording, view). The engine calls `push` for every block in order, then `finish` once; both
    receive what the live inputs returned for the same call, and their result goes to the stages that read this product.
    Arrays are written with `item` (see `ItemWriter`): `item.create(...)`, `item.append(...)`, `item.attributes`.
    """

    def __init__(self, settings: Any, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]) -> None:
        self.settings = settings
        self.source = source
        self.item = item
        self.done = done

    def wanted_images(self) -> np.ndarray | None:
        """Return the indices of the frames that `push` needs, if they are known before the first block.

        None means all frames. If every stage of a pass names its frames, only those are decoded and pushed.
        """
        return None

    @abstractmethod
    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> Any:
        """Process one block. `live` maps each live input to its result for this block."""

    @abstractmethod
    def finish(self, live: Mapping[str, Any]) -> Any:
        """Write the remaining data after the last frame. `live` maps each live input to the result of its `finish`."""

    def describe(self) -> None:
        """Write attributes that are known before `finish`, for readers of an unfinished item."""

    @classmethod
    def replay(cls, reader: ItemReader, blocks: Iterator[FrameBlock]) -> Iterator[Any]:
        """Yield the results of `push` for each block of a finished item, then the result of `finish`.

        Stages whose product is a live input of others override it.
        """
        raise UserError(f"The product '{cls.name}' cannot be read block by block.")


class ViewStage(Stage):
    """A stage that builds the product of one view from other products or from files, without decoding the video."""

    @classmethod
    @abstractmethod
    def build(cls, settings: Any, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]) -> None:
        """Build the product of one view. `done` maps each input to its finished item."""


@dataclass(frozen=True)
class ResultTable:
    """Summary table of a finished product, for users.

    Attributes:
        title: Name of the table.
        columns: Names of the columns.
        rows: Cells by row.
        events: Names of the stage's events that the rows already show.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int, ...], ...]
    events: frozenset[str] = frozenset()


class ArrayStage(Stage):
    """A stage that builds one product of the full study from other products and the catalog.

    Attributes:
        needs_aligned_views: Whether the result depends on how the views of a recording are aligned in time.
    """

    needs_aligned_views: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def build(cls, settings: Any, catalog: Catalog, store: Store, item: ItemWriter) -> None:
        """Build the product."""

    @classmethod
    def results(cls, item: ItemReader, catalog: Catalog) -> ResultTable | None:
        """Return what the command prints about a finished item; None for nothing."""
        return None

    @classmethod
    @abstractmethod
    def depends_on(cls, settings: Any, catalog: Catalog) -> dict[str, Any]:
        """Return plain values besides the settings that determine the result, for the fingerprint (tables as lists)."""


S = TypeVar("S", bound=type[Stage])


def stage(name: str, *, version: int, settings: type[StageSettings]) -> Callable[[S], S]:
    """Give a stage the name of its product, its version and its settings.

    The class is found through the table of `actionprep.pipeline.index`, through an entry point of the group
    `actionprep.stages`, or after `STAGES[name] = cls`.

    Args:
        name: Name of the product.
        version: Increase it when equal settings give other bytes.
        settings: Model of the table [name] in actionprep.toml.
    """

    def describe(cls: S) -> S:
        cls.name, cls.version, cls.Settings = name, version, settings
        return cls

    return describe
