"""Track points through windows of frames, starting on the foreground of each window."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.products.masks import pack_masks, unpack_masks
from actionprep.datasets.products.tracks import TRACKS, append_window, create_tracks, visible
from actionprep.datasets.query_points import EACH_WINDOW, QueryPoints, read_query_points
from actionprep.errors import InputError
from actionprep.pipeline.shrink import shrink
from actionprep.pipeline.stage import FrameBlock, FrameStage, Input, ViewSource, stage
from actionprep.pipeline.trackers import TRACKERS
from actionprep.pipeline.trackers.cotracker import cotracker_grid
from actionprep.pipeline.trackers.settings import TracksSettings

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter
    from actionprep.pipeline.mask_sources import MaskBlock

EMPTY_MASKS = "empty masks"
"""Backend in the quarantine entry of a view without foreground, in which no point can be tracked."""

COTRACKER_SIZE = (384, 512)
"""Height and width of the image that the grid of CoTracker covers."""


@stage("tracks", version=2, settings=TracksSettings)
class Tracks(FrameStage):
    """Build tracks/<recording>/<view>: W windows of T frames with N slots for points.

    Windows begin every `stride` frames. The last one ends with the view, so that every frame is in a window. A point
    continues after it is lost, with low visibility: nothing is thresholded here. For arrays and attributes see
    `actionprep.datasets.products.tracks`.
    """

    counted = MappingProxyType({"num_empty_windows": "windows without foreground"})

    def __init__(
        self, settings: TracksSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        super().__init__(settings, source, item, done)
        self._tracker = TRACKERS.find(settings.tracker)(settings)
        shrink = min(1.0, settings.short_side / min(source.height, source.width)) if settings.short_side else 1.0
        self._size = (max(1, round(source.width * shrink)), max(1, round(source.height * shrink)))
        self._scale = np.array(self._size, np.float32) / (source.width, source.height)
        self._picked = None if settings.rate is None else frames_at_rate(source.times, settings.rate)
        self._uses_masks = settings.uses_masks
        self._chosen = _chosen_points(settings, source)
        self._refuse_skipped_starts()
        self._held: deque[_Held] = deque()
        self._num_dropped = 0
        self._num_masked = 0
        self._next_start = 0
        self._counts = _Counts()
        self._nothing = _Profile.of(np.zeros((source.height, source.width), bool))
        self._profile = self._nothing
        self._num_slots = settings.num_slots + len(self._chosen)
        create_tracks(item, num_frames=settings.window, num_slots=self._num_slots)

    @classmethod
    def identity(cls, settings: TracksSettings) -> dict[str, str]:  # noqa: D102
        return {**TRACKERS.find(settings.tracker).identity(settings), **TRACKERS.origin(settings.tracker)}

    @classmethod
    def inputs(cls, settings: TracksSettings) -> tuple[Input, ...]:  # noqa: D102
        return (Input("masks"),) if settings.uses_masks else ()

    @classmethod
    def reads_of_source(cls, settings: TracksSettings, source: ViewSource) -> Any:  # noqa: D102
        return _chosen_points(settings, source).facts() if settings.points else None

    @classmethod
    def estimated_bytes(cls, settings: TracksSettings, source: ViewSource) -> int:  # noqa: D102
        num_frames = source.num_frames
        if settings.rate is not None and source.fps > 0:
            num_frames = round(num_frames * min(1.0, settings.rate / source.fps))
        num_windows = 1 + max(-(-(num_frames - settings.window) // settings.stride), 0)
        return num_windows * (settings.window * settings.num_slots * 16 + settings.num_slots)

    @property
    def num_held(self) -> int:
        """Number of frames in memory."""
        return len(self._held)

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> None:  # noqa: D102
        self._take_frames(block)
        self._take_masks(live.get("masks"))
        self._track_ready_windows()

    def finish(self, live: Mapping[str, Any]) -> None:  # noqa: D102
        self._take_masks(live.get("masks"))
        self._track_ready_windows()
        total = self._num_dropped + len(self._held)
        if self._num_ready != total:
            raise RuntimeError(f"Masks came for {self._num_ready} of {total} frames.")
        last = self._next_start - self.settings.stride
        covered = last + self.settings.window if last >= 0 else 0
        if total > covered:
            self._track_window(max(total - self.settings.window, 0), total)
        self._refuse_an_empty_view()
        self.describe()

    def _refuse_an_empty_view(self) -> None:
        if self.settings.empty == "whole-frame" or not self._counts.empty or self._counts.empty < self._counts.windows:
            return
        where = f"view '{self.source.view}' of recording '{self.source.recording}'"
        raise InputError(
            f"The masks of {where} are empty in the seed frame of every window ({self._counts.windows}), so there are no "
            "points to track.\n"
            f"Inspect them with 'actionprep show masks {self.source.recording}'. Then change [masks], or track without "
            'foreground: tracks.empty = "whole-frame".',
            backend=EMPTY_MASKS,
        )

    def _take_frames(self, block: FrameBlock) -> None:
        positions = np.arange(len(block)) if self._picked is None else np.flatnonzero(self._picked[block.index])
        if not len(positions):
            return
        rgb = self._tracker.needs == "rgb"
        images = block.rgb_at(positions) if rgb else block.gray[positions]
        for position, image in zip(positions, images, strict=True):
            # Always a new array, so that a held frame does not keep its full block in memory.
            small = shrink(image, self._size)
            self._held.append(_Held(int(block.index[position]), float(block.time[position]), small))

    def _take_masks(self, masks: MaskBlock | None) -> None:
        if masks is None or not self._uses_masks:
            return
        for index, foreground in zip(masks.index, masks.foreground, strict=True):
            if self._picked is None or self._picked[index]:
                held = self._held[self._num_masked - self._num_dropped]
                if held.index != index:
                    raise RuntimeError(f"Expected the mask of frame {held.index}, got that of frame {index}.")
                held.foreground = pack_masks(foreground)
                held.profile = _Profile.of(foreground)
                self._profile = _Profile.sum([self._profile, held.profile])
                self._num_masked += 1

    @property
    def _num_ready(self) -> int:
        """Number of frames, from the first one of the view, that are ready for windows."""
        return self._num_masked if self._uses_masks else self._num_dropped + len(self._held)

    def _track_ready_windows(self) -> None:
        while self._num_ready >= self._next_start + self.settings.window:
            self._track_window(self._next_start, self._next_start + self.settings.window)
            # The last window ends with the view and starts after this one.
            while self._num_dropped <= self._next_start:
                self._held.popleft()
                self._num_dropped += 1
            self._next_start += self.settings.stride

    def _track_window(self, start: int, stop: int) -> None:
        frames = [self._held[position - self._num_dropped] for position in range(start, stop)]
        seed = len(frames) // 2 if self.settings.seed_at == "middle" else 0
        seeds, is_empty = self._seeds(frames[seed])
        chosen, starts = self._chosen_in(frames, seed)
        points = np.concatenate([seeds, chosen])
        starts = np.concatenate([np.full(len(seeds), seed), starts])
        is_empty = is_empty and not len(chosen)
        xy = np.full((self.settings.window, self._num_slots, 2), np.nan, np.float32)
        visibility = np.zeros(xy.shape[:2], np.float32)
        confidence = np.zeros(xy.shape[:2], np.float32)
        if len(points):
            on_small = (points + 0.5) * self._scale - 0.5
            queries = np.concatenate([starts[:, None], on_small], axis=1).astype(np.float32)
            both_ways = self.settings.direction == "both"
            tracked = self._tracker.track([frame.image for frame in frames], queries, both_ways=both_ways)
            filled = (slice(len(frames)), slice(len(points)))
            xy[filled] = (tracked.xy + 0.5) / self._scale - 0.5
            xy[starts, np.arange(len(points))] = points
            visibility[filled], confidence[filled] = tracked.visibility, tracked.confidence
        is_visible = visible(
            visibility[: len(frames), : len(points)],
            confidence[: len(frames), : len(points)],
            rule=self._tracker.visible_rule,
            above=self._tracker.visible_above,
        )
        self._counts.note(is_visible, seed, is_empty=is_empty)
        padding = self.settings.window - len(frames)
        region = self._region(_Profile.sum([frame.profile or self._nothing for frame in frames]))
        values = {
            "xy": xy,
            "visibility": visibility,
            "confidence": confidence,
            "valid": np.arange(self._num_slots) < len(points),
            "frame": [frame.index for frame in frames] + [-1] * padding,
            "frame_valid": [True] * len(frames) + [False] * padding,
            "time": [frame.time for frame in frames] + [np.nan] * padding,
            "start": frames[0].index,
            "seed": frames[seed].index,
            "region": region,
        }
        append_window(self.item, values)

    def _seeds(self, frame: _Held) -> tuple[np.ndarray, bool]:
        """Return the start points in pixels of the video, shape (n, 2), and whether the foreground is empty."""
        height, width, grid = self.source.height, self.source.width, self.settings.grid
        if self.settings.seeding == "points":
            return np.zeros((0, 2), np.float32), True
        if self.settings.seeding == "whole-frame":
            return grid_over_frame(np.ones((height, width), bool), grid), False
        assert frame.foreground is not None
        foreground = unpack_masks(frame.foreground, width)
        if not foreground.any():
            if self.settings.empty == "nothing":
                return np.zeros((0, 2), np.float32), True
            return grid_over_frame(np.ones((height, width), bool), grid), True
        seeds = {"mask": spread_over_mask, "box": grid_over_box, "frame": grid_over_frame}[self.settings.seeding]
        return seeds(foreground, grid), False

    def _chosen_in(self, frames: list[_Held], seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the points of the table that start in a window, shape (n, 2), and their position in it, shape (n,)."""
        position_of = {frame.index: position for position, frame in enumerate(frames)}
        positions = [
            seed if frame == EACH_WINDOW else position_of.get(frame, -1) for frame in self._chosen.frame.tolist()
        ]
        starts = np.array(positions, np.int64).reshape(-1)
        return self._chosen.xy[starts >= 0], starts[starts >= 0]

    def _refuse_skipped_starts(self) -> None:
        if self._picked is None:
            return
        starts = self._chosen.frame[self._chosen.frame != EACH_WINDOW]
        skipped = starts[~self._picked[starts]]
        if len(skipped):
            raise InputError(
                f"A point starts in frame {skipped[0]} of recording '{self.source.recording}', view {self.source.view}, "
                f"which is not tracked at {self.settings.rate:g} frames per second. Give another frame, or remove "
                "tracks.rate."
            )

    def _region(self, profile: _Profile) -> tuple[float, float, float, float]:
        return profile.box() or (0.0, 0.0, self.source.width - 1.0, self.source.height - 1.0)

    def describe(self) -> None:  # noqa: D102
        self.item.attributes.update(
            TRACKS.attributes_of(
                tracker=self.settings.tracker,
                grid=self.settings.grid,
                visible_rule=self._tracker.visible_rule,
                visible_above=self._tracker.visible_above,
                width=self.source.width,
                height=self.source.height,
                region=list(self._region(self._profile)),
                **self._counts.attributes(),
            )
        )


def _chosen_points(settings: TracksSettings, source: ViewSource) -> QueryPoints:
    """Points of the table `points` in this view; raises InputError if there are none and no others either."""
    if not settings.points:
        return QueryPoints(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    path = settings.path(settings.points)
    points = read_query_points(
        path, recording=source.recording, view=source.view, times=source.times, width=source.width,
        height=source.height,
    )  # fmt: skip
    if settings.seeding == "points" and not len(points):
        raise InputError(
            f"{path} has no point for recording '{source.recording}', view {source.view}, and seeding = points takes no "
            "others. Add a row, or choose another seeding."
        )
    return points


@dataclass(slots=True)
class _Held:
    """A frame that windows still need."""

    index: int
    time: float
    image: np.ndarray
    foreground: np.ndarray | None = None
    profile: _Profile | None = None


@dataclass(frozen=True, slots=True)
class _Profile:
    """Foreground pixels in each column and row of one mask, or of several added up."""

    columns: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, foreground: np.ndarray) -> _Profile:
        import cv2

        # Ten times as fast as NumPy, which matters because every tracked frame is counted.
        ones = foreground.view(np.uint8)
        columns, rows = (cv2.reduce(ones, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S) for axis in (0, 1))
        return cls(columns.reshape(-1).astype(np.int64), rows.reshape(-1).astype(np.int64))

    @classmethod
    def sum(cls, profiles: list[_Profile]) -> _Profile:
        return cls(
            np.sum([part.columns for part in profiles], axis=0), np.sum([part.rows for part in profiles], axis=0)
        )

    def box(self, outside: float = 0.005) -> tuple[float, float, float, float] | None:
        """Return x0, y0, x1, y1 of the foreground, without the share `outside` on each side: masks have stray spots."""
        if not self.columns.any():
            return None
        low, high = [], []
        for counts in (self.columns, self.rows):
            up_to = np.cumsum(counts)
            low.append(float(np.searchsorted(up_to, outside * up_to[-1], side="right")))
            high.append(float(np.searchsorted(up_to, (1 - outside) * up_to[-1])))
        return low[0], low[1], high[0], high[1]


@dataclass(slots=True)
class _Counts:
    """Counts of a view that become attributes of its tracks."""

    windows: int = 0
    empty: int = 0
    points: int = 0
    seen: int = 0
    visible: int = 0
    survived: int = 0

    def note(self, is_visible: np.ndarray, seed: int, *, is_empty: bool) -> None:
        num_frames, num_points = is_visible.shape
        self.windows += 1
        self.empty += is_empty
        self.points += num_points
        self.seen += (num_frames - 1) * num_points
        self.visible += int(is_visible.sum() - is_visible[seed].sum())
        self.survived += int(is_visible[-1].sum())

    def attributes(self) -> dict[str, Any]:
        return {
            "num_windows": self.windows,
            "num_empty_windows": self.empty,
            "num_points": self.points,
            "visible_share": self.visible / self.seen if self.seen else None,
            "survival_share": self.survived / self.points if self.points else None,
        }


def frames_at_rate(times: np.ndarray, rate: float) -> np.ndarray:
    """Select the frame nearest to each tick of a clock.

    The first tick is at the first frame. A frame that is nearest to several ticks, because the video has fewer frames per
    second than the clock, is selected once. In a tie, the earlier frame is selected.

    Args:
        times: Frame times in seconds, increasing, shape (T,).
        rate: Ticks per second.

    Returns:
        Whether each frame is selected, bool of shape (T,).
    """
    picked = np.zeros(len(times), bool)
    if not len(times):
        return picked
    ticks = np.arange(int(np.floor((times[-1] - times[0]) * rate + 1e-6)) + 1) / rate + times[0]
    after = np.clip(np.searchsorted(times, ticks), 1, max(len(times) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(times) - 1)
    nearest = np.where(ticks - times[before] <= times[after] - ticks + 1e-9, before, after)
    picked[nearest] = True
    return picked


def spread_over_mask(foreground: np.ndarray, grid: int) -> np.ndarray:
    """Spread points evenly over the foreground, on the finest square lattice with at most grid * grid points.

    Args:
        foreground: Mask with at least one foreground pixel, bool of shape (H, W).
        grid: Square root of the maximum number of points.

    Returns:
        Points (x, y) in pixels, row by row, float32 of shape (n, 2). n is a few percent below grid * grid, or the number
        of foreground pixels if there are fewer.
    """
    rows, columns = np.flatnonzero(foreground.any(axis=1)), np.flatnonzero(foreground.any(axis=0))
    top, left = rows[0], columns[0]
    part = foreground[top : rows[-1] + 1, left : columns[-1] + 1]
    most = grid * grid
    fine = max(1.0, 0.5 * np.sqrt(np.count_nonzero(part) / most))
    coarse = float(2 * max(part.shape))
    best = _lattice(part, coarse)
    if len(best) > most or not len(best):
        best = np.argwhere(part)[:1, ::-1].astype(np.float32)
    # The number of points decreases with the spacing, but not smoothly: keep the largest set.
    for _ in range(24):
        spacing = max(1.0, 0.5 * (fine + coarse)) if coarse - fine > 1e-3 else fine
        points = _lattice(part, spacing)
        if len(points) > most:
            fine = spacing
        else:
            coarse = spacing
            if len(points) > len(best):
                best = points
    return best + np.array([left, top], np.float32)


def _lattice(foreground: np.ndarray, spacing: float) -> np.ndarray:
    height, width = foreground.shape
    x, y = _ticks(width, spacing), _ticks(height, spacing)
    nodes = np.argwhere(foreground[np.ix_(_pixel(y), _pixel(x))])
    return np.stack([x[nodes[:, 1]], y[nodes[:, 0]]], axis=1)


def _pixel(position: np.ndarray) -> np.ndarray:
    """Return the pixel that contains a position. Halves round up, so that the result does not depend on the origin."""
    return np.floor(position + 0.5).astype(int)


def _ticks(extent: int, spacing: float) -> np.ndarray:
    """Return positions `spacing` apart, symmetric about the center, float32."""
    ticks = np.arange((extent / 2) % spacing, extent, spacing) - 0.5
    return ticks.astype(np.float32).clip(0, extent - 1)


def grid_over_box(foreground: np.ndarray, grid: int) -> np.ndarray:
    """Place a grid x grid lattice over the box of the foreground and keep foreground points; see `spread_over_mask`."""
    rows, columns = np.flatnonzero(foreground.any(axis=1)), np.flatnonzero(foreground.any(axis=0))
    share = (np.arange(grid) + 0.5) / grid
    x = columns[0] - 0.5 + share * (columns[-1] + 1 - columns[0])
    y = rows[0] - 0.5 + share * (rows[-1] + 1 - rows[0])
    nodes = np.argwhere(foreground[np.ix_(_pixel(y), _pixel(x))])
    return np.stack([x[nodes[:, 1]], y[nodes[:, 0]]], axis=1).astype(np.float32)


def grid_over_frame(foreground: np.ndarray, grid: int) -> np.ndarray:
    """Place CoTracker's grid over the full frame and keep foreground points; see `spread_over_mask`.

    As in its predictor, the grid and the nearest-pixel mask are those of an image of 384x512, with aligned corners.
    """
    height, width = foreground.shape
    model_height, model_width = COTRACKER_SIZE
    points = cotracker_grid(grid, model_height, model_width)
    column, row = np.rint(points).astype(int).T
    kept = foreground[row * height // model_height, column * width // model_width]
    scale = np.array([(width - 1) / (model_width - 1), (height - 1) / (model_height - 1)], np.float32)
    scaled: np.ndarray = points[kept] * scale
    return scaled
