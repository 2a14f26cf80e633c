"""Point tracks as model input: instants of a snippet, the points that are seen there, and how they move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from actionprep.datasets.tracks import visible
from actionprep.errors import UserError
from actionprep.settings import option
from actionprep.training.draws import Draws
from actionprep.training.inputs.base import Batch, InputSettings, ProductReader, mirrored_codes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.snippets import SnippetTable
    from actionprep.datasets.store import Store


class TracksInput(InputSettings):
    """How tracks are sampled, normalised and augmented."""

    frames: int = option(32, "Instants of a snippet that the model sees, evenly spaced.", ge=1)
    points: int = option(128, "Points taken of each window, spread over all that it has.", ge=1)
    overlap: int = option(2, "Windows that are looked at for each instant, where so many cover it.", ge=1)
    region: Literal["snippet", "recording"] = option(
        "snippet",
        "What positions are relative to: the moving region of the snippet; or that of its whole recording, which windows "
        "in a row have in common, as carry wants it.",
    )
    shift: float = option(0.15, "Largest shift, in half heights of the moving region.", ge=0)
    scale: float = option(0.2, "Largest change of size, as a share.", ge=0, lt=1)
    rotation: float = option(0.15, "Largest rotation in the picture, in rad.", ge=0)
    flip: float = option(0.0, "Share of the samples that are mirrored left to right.", ge=0, le=1)
    flip_labels: dict[str, str] = option(
        {}, 'Label that each label becomes when mirrored: { swipe_left = "swipe_right", … }; others stay.'
    )
    time_warp: float = option(0.25, "Strength of the smooth warp of time, as a share.", ge=0, le=0.65)
    trim: float = option(0.15, "Largest share of a snippet cut off at its start, and at its end.", ge=0, lt=0.5)
    point_dropout: float = option(0.6, "Largest share of points that are left out of a sample.", ge=0, lt=1)
    frame_dropout: float = option(0.08, "Share of instants of a window that are left out.", ge=0, lt=1)
    view_dropout: float = option(0.3, "Share of views that are left out; one always stays.", ge=0, lt=1)
    test_strength: float = option(0.5, "Augmentation of test variants, as a share of the training's.", ge=0, le=1)
    memory: float = option(8.0, "GiB that tracks may take in memory; more are read from the store as needed.", gt=0)


class TracksReader(ProductReader):
    """Batches of tracks.

    xy          (B, T, V, N, 2) float32  positions, 0 in the middle of the moving region, 1 half its height away
    velocity    (B, T, V, N, 2) float32  half heights a second; 0 where not known
    valid       (B, T, V, N) bool        points that are seen, in views that there are
    frame_valid (B, T) bool              instants at which some view has a frame
    duration    (B) float32              seconds

    N is overlap · points: for each instant the points of up to `overlap` windows that cover it, of each window the
    same ones at all instants. The moving region of a snippet, or of a recording, in a view is where its visible points
    are: the middle 96 % of their x and of their y.
    """

    product = "tracks"
    Settings = TracksInput
    in_memory = True
    settings: TracksInput

    def __init__(self, settings: TracksInput, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        super().__init__(settings, store, table, views)
        self.check_store(settings, store)
        used = set(table.recording.tolist())
        self._place = [
            _windows_of(store, recording, self.views) if code in used else {}
            for code, recording in enumerate(table.recordings)
        ]
        self._mirror = mirrored_codes(settings.flip, settings.flip_labels, table.labels)
        self._bank: _Bank | None = None
        self._regions: dict[tuple[int, str], _Region] = {}
        self._device: Any = None
        self.in_memory = self._estimated_bytes() <= settings.memory * 2**30
        if self.in_memory:
            self._bank = self._load(np.arange(len(table)))

    def read(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:  # noqa: D102
        import torch

        bank, at = self._bank, torch.as_tensor(np.asarray(rows, np.int64))
        if bank is None:
            bank = self._load(np.asarray(rows, np.int64))
            at = torch.arange(len(at))
        return _gather(bank, at.to(bank.xy.device), self.settings, draws, self._strength(draws))

    def times(self, rows: Sequence[int], draws: Draws | None = None) -> np.ndarray:
        """(B, T) s: the instants of these snippets; what is seen there is the nearest frame of each view and window."""
        at = np.asarray(rows, np.int64)
        onset, offset = self.table.onset[at][:, None], self.table.offset[at][:, None]
        share = instants(len(at), self.settings, draws, self._strength(draws)).double().numpy()
        return onset + share * (offset - onset)

    def augment(self, batch: Batch, draws: Draws) -> Batch:  # noqa: D102
        import torch

        by = self._strength(draws)
        if by == 0:
            return batch
        xy, device = batch["xy"], batch["xy"].device
        num_views = xy.shape[2]
        settings = self.settings

        def drawn(most: float, *shape: int) -> Tensor:
            return draws.uniform(-most * by, most * by, shape=shape).to(device)

        angle, size = drawn(settings.rotation, num_views), 1 + drawn(settings.scale, num_views)
        shift = drawn(settings.shift, num_views, 2)
        cos, sin = angle.cos() * size, angle.sin() * size
        matrix = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
        if settings.flip and draws.variant is None:
            mirrored = self.mirrored(draws).to(device)
            sign = torch.where(mirrored, -1.0, 1.0)[:, None]
            matrix = matrix * torch.stack([sign, torch.ones_like(sign)], -1)[:, :, None, :]
        # (B, T, V, N, 2) times (B, 1, V, 2, 2)
        turned = matrix.transpose(-1, -2)[:, None]
        valid = batch["valid"]
        if draws.variant is None and settings.view_dropout and num_views > 1:
            valid = valid & _kept_views(draws, settings.view_dropout, valid)
        return {
            **batch,
            "xy": xy @ turned + shift[:, None, :, None],
            "velocity": batch["velocity"] @ turned,
            "valid": valid,
        }

    def mirrored(self, draws: Draws) -> Tensor:
        """(B,) bool: which samples of these draws are mirrored."""
        # A stream of its own, so that labels can be asked for apart from the arrays.
        return Draws(draws.seed ^ 0x5EED, draws.epoch, draws.rows).uniform() < self.settings.flip

    def mirror_codes(self) -> np.ndarray | None:
        """(C,) the code that each label becomes when mirrored; None when nothing is mirrored."""
        return self._mirror

    def mix(self, batch: Batch, partner: Tensor, share: Tensor) -> Batch:
        """Some points of the one sample and the rest of the other: sets mix by members, not by coordinates."""
        valid, device = batch["valid"], batch["valid"].device
        num_points = valid.shape[-1]
        # Points of a window stand in no spatial order that a cut could follow but rows: deal them out evenly.
        import torch

        dealt = (torch.arange(num_points, device=device) * 0.6180339887) % 1.0
        own = (dealt < share[:, None])[:, None, None, :]
        other = {name: batch[name][partner] for name in ("xy", "velocity", "valid", "frame_valid")}
        return {
            **batch,
            "xy": torch.where(own[..., None], batch["xy"], other["xy"]),
            "velocity": torch.where(own[..., None], batch["velocity"], other["velocity"]),
            "valid": torch.where(own, valid, other["valid"]),
            "frame_valid": batch["frame_valid"] | other["frame_valid"],
        }

    def to(self, device: torch.device) -> None:  # noqa: D102
        if self._bank is not None:
            self._bank = self._bank.to(device)

    def without_views(self, batch: Batch, keep: Sequence[bool]) -> Batch:  # noqa: D102
        import torch

        kept = torch.tensor(list(keep), device=batch["valid"].device)
        return {**batch, "valid": batch["valid"] & kept[:, None]}

    def model_sizes(self) -> dict[str, Any]:  # noqa: D102
        return {
            "num_views": len(self.views),
            "num_points": self.settings.overlap * self.settings.points,
            "num_frames": self.settings.frames,
        }

    @classmethod
    def span(cls, store: Store, recording: str, views: Sequence[str]) -> tuple[float, float]:  # noqa: D102
        found = []
        for place in _windows_of(store, recording, views).values():
            time = np.unique(place.time[np.isfinite(place.time)])
            if len(time):
                step = float(np.median(np.diff(time))) if len(time) > 1 else 1 / 25
                found.append((float(time[0]), float(time[-1]) + step))
        if not found:
            raise UserError(f"There are no tracks of recording '{recording}' in {store.url}.")
        return min(start for start, _ in found), max(end for _, end in found)

    def _strength(self, draws: Draws | None) -> float:
        if draws is None:
            return 0.0
        return 1.0 if draws.variant is None else self.settings.test_strength

    def _load(self, rows: np.ndarray) -> _Bank:
        regions = None
        if self.settings.region == "recording":
            regions = np.array(
                [[self._whole_region(int(code), view) for view in self.views] for code in self.table.recording[rows]]
            )
        return _Bank.load(self.store, self.table, self.views, self._place, rows, regions)

    def _whole_region(self, code: int, view: str) -> _Region:
        """The moving region of a recording in a view, whichever of its snippets are read."""
        if (code, view) not in self._regions:
            place = self._place[code].get(view)
            points = np.zeros((0, 2), np.float32)
            if place is not None:
                windows = _read_windows(
                    self.store.item("tracks", self.table.recordings[code], view), 0, place.num_windows
                )
                points = windows.xy[windows.seen]
            self._regions[code, view] = _region(points)
        return self._regions[code, view]

    def _estimated_bytes(self) -> int:
        total = 0
        for views in self._place:
            for place in views.values():
                total += place.num_windows * place.num_frames * place.num_slots * 17
        return total


INPUT = TracksReader


@dataclass(frozen=True)
class _Place:
    """One stored item of tracks: frame times of its windows and their sizes."""

    time: np.ndarray  # (W, T), NaN after the end
    num_slots: int

    @property
    def num_windows(self) -> int:
        return len(self.time)

    @property
    def num_frames(self) -> int:
        return int(self.time.shape[1])


@dataclass(frozen=True)
class _Bank:
    """Windows of tracks side by side, and for each snippet and view which of them it needs.

    xy, velocity (ΣW, T, N, 2), seen (ΣW, T, N) bool: visible and with a known velocity; num_points (ΣW): slots that
    hold a point, which stand first. time (ΣW, T) s, inf where there is no frame; interval (ΣW) s between frames.
    first, count (S, V): windows of each snippet; centre (S, V, 2) px, half_height (S, V) px; onset, offset (S) s.
    """

    xy: Tensor
    velocity: Tensor
    seen: Tensor
    num_points: Tensor
    time: Tensor
    interval: Tensor
    first: Tensor
    count: Tensor
    centre: Tensor
    half_height: Tensor
    onset: Tensor
    offset: Tensor

    @classmethod
    def load(
        cls,
        store: Store,
        table: SnippetTable,
        views: Sequence[str],
        places: Sequence[dict[str, _Place]],
        rows: np.ndarray,
        regions: np.ndarray | None = None,
    ) -> Self:
        """Read the windows that these snippets touch, each once.

        regions (S, V, 3): middle and half height that positions are relative to; None: of each snippet its own.
        """
        import torch

        ranges = np.zeros((len(rows), len(views), 2), np.int64)
        needed: dict[tuple[int, str], list[int]] = {}
        for at, row in enumerate(rows):
            code = int(table.recording[row])
            for column, view in enumerate(views):
                place = places[code].get(view)
                if place is None:
                    continue
                first, last = _touching(place, float(table.onset[row]), float(table.offset[row]))
                ranges[at, column] = first, last
                if last > first:
                    span = needed.setdefault((code, view), [first, last])
                    span[0], span[1] = min(span[0], first), max(span[1], last)
        parts = []
        start: dict[tuple[int, str], int] = {}
        total = 0
        for (code, view), (first, last) in needed.items():
            start[code, view] = total - first
            total += last - first
            parts.append(_read_windows(store.item("tracks", table.recordings[code], view), first, last))
        if not parts:
            parts = [_Windows.empty()]
        windows = _Windows.joined(parts)
        offsets = np.array(
            [[start.get((int(table.recording[row]), view), 0) for view in views] for row in rows], np.int64
        ).reshape(len(rows), len(views))
        counts = ranges[..., 1] - ranges[..., 0]
        firsts = np.where(counts > 0, ranges[..., 0] + offsets, 0)
        if regions is None:
            regions = _regions(windows, firsts, counts, table.onset[rows], table.offset[rows])
        arrays = {
            "xy": windows.xy,
            "velocity": windows.velocity,
            "seen": windows.seen,
            "num_points": windows.num_points,
            "time": windows.time,
            "interval": windows.interval,
            "first": firsts,
            "count": counts,
            "centre": regions[..., :2].astype(np.float32),
            "half_height": regions[..., 2].astype(np.float32),
            "onset": table.onset[rows],
            "offset": table.offset[rows],
        }
        return cls(**{name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()})

    def to(self, device: torch.device) -> _Bank:
        """The same on another device."""
        return _Bank(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class _Windows:
    xy: np.ndarray
    velocity: np.ndarray
    seen: np.ndarray
    num_points: np.ndarray
    time: np.ndarray
    interval: np.ndarray

    @classmethod
    def empty(cls) -> Self:
        zero = np.zeros((1, 1, 1, 2), np.float32)
        return cls(
            zero,
            zero,
            np.zeros((1, 1, 1), bool),
            np.zeros(1, np.int64),
            np.full((1, 1), np.inf),
            np.zeros(1, np.float64),
        )

    @classmethod
    def joined(cls, parts: Sequence[_Windows]) -> Self:
        """One after the other, padded to the longest and the most points."""
        num_frames = max(part.xy.shape[1] for part in parts)
        num_slots = max(part.xy.shape[2] for part in parts)

        def padded(name: str, fill: float, *axes: int) -> np.ndarray:
            sizes = {1: num_frames, 2: num_slots}
            found = []
            for part in parts:
                values = getattr(part, name)
                room = [(0, sizes[axis] - values.shape[axis] if axis in axes else 0) for axis in range(values.ndim)]
                found.append(np.pad(values, room, constant_values=fill) if any(after for _, after in room) else values)
            return np.concatenate(found)

        return cls(
            padded("xy", 0, 1, 2),
            padded("velocity", 0, 1, 2),
            padded("seen", False, 1, 2),
            np.concatenate([part.num_points for part in parts]),
            padded("time", np.inf, 1),
            np.concatenate([part.interval for part in parts]),
        )


def _windows_of(store: Store, recording: str, views: Sequence[str]) -> dict[str, _Place]:
    found = {}
    for view in views:
        if store.has("tracks", recording, view):
            item = store.item("tracks", recording, view)
            found[view] = _Place(item["time"][:], item["xy"].shape[2])
    return found


def _touching(place: _Place, onset: float, offset: float) -> tuple[int, int]:
    """First and last + 1 of the windows with a frame in [onset, offset)."""
    with np.errstate(invalid="ignore"):
        inside = ((place.time >= onset) & (place.time < offset)).any(axis=1)
    found = np.flatnonzero(inside)
    return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)


def _read_windows(item: Any, first: int, last: int) -> _Windows:
    attributes = item.attributes
    xy = item["xy"][first:last]
    valid = item["valid"][first:last].astype(bool)
    time = item["time"][first:last].copy()
    time[~item["frame_valid"][first:last].astype(bool)] = np.inf
    is_visible = visible(
        item["visibility"][first:last],
        item["confidence"][first:last],
        rule=attributes.get("visible_rule", "visibility"),
        above=attributes.get("visible_above", 0.5),
    )
    is_visible &= valid[:, None, :] & np.isfinite(xy).all(axis=-1) & np.isfinite(time)[..., None]
    if not (np.diff(valid.astype(np.int8), axis=1) <= 0).all():
        # Points must stand first: seats of a window are asked for by number.
        order = np.argsort(~valid, axis=1, kind="stable")
        xy = np.take_along_axis(xy, order[:, None, :, None], 2)
        is_visible = np.take_along_axis(is_visible, order[:, None, :], 2)
    xy = np.where(is_visible[..., None], xy, np.float32(0))
    velocity, known = velocities(xy, is_visible, time)
    with np.errstate(invalid="ignore"):
        steps = np.diff(time, axis=1)
    interval = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0 for row in steps])
    return _Windows(xy, velocity, is_visible & known, valid.sum(axis=1).astype(np.int64), time, interval)


def velocities(xy: np.ndarray, is_visible: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How points move, from the frames before and after, where they are visible in both.

    xy (W, T, N, 2), is_visible (W, T, N), time (W, T) s, inf where there is no frame.
    Returns the velocity (W, T, N, 2) float32 per second, the mean of the step from the frame before and the step to the
    frame after (one alone where the other is not known), and whether one is known (W, T, N).
    """
    with np.errstate(invalid="ignore"):
        seconds = np.diff(time, axis=1)
    good = np.isfinite(seconds) & (seconds > 0)
    both = is_visible[:, 1:] & is_visible[:, :-1] & good[..., None]
    rate = np.divide(1.0, seconds, out=np.zeros_like(seconds), where=good).astype(np.float32)
    step = np.where(both[..., None], np.diff(xy, axis=1) * rate[:, :, None, None], np.float32(0))
    total = np.zeros_like(xy)
    count = np.zeros(is_visible.shape, np.float32)
    total[:, 1:] += step
    total[:, :-1] += step
    count[:, 1:] += both
    count[:, :-1] += both
    return total / np.maximum(count, 1)[..., None], count > 0


_Region = tuple[float, float, float]
"""x and y of the middle of a moving region, and its half height, in px."""


def _regions(
    windows: _Windows, first: np.ndarray, count: np.ndarray, onset: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """(S, V, 3) where the visible points of each snippet are."""
    found = np.zeros((*first.shape, 3))
    for snippet, view in np.ndindex(*first.shape):
        some = slice(first[snippet, view], first[snippet, view] + count[snippet, view])
        time = windows.time[some]
        inside = (time >= onset[snippet]) & (time < offset[snippet])
        found[snippet, view] = _region(windows.xy[some][windows.seen[some] & inside[..., None]])
    return found


def _region(points: np.ndarray) -> _Region:
    """The middle 96 % of points (n, 2); without any a region of half height 1 about the origin."""
    if not len(points):
        return 0.0, 0.0, 1.0
    # The ends are cut off so that a few stray points do not decide.
    low, high = np.percentile(points[:: max(1, len(points) // 8192)], [2, 98], axis=0)
    x, y = (low + high) / 2
    return float(x), float(y), float(max((high[1] - low[1]) / 2, (high[0] - low[0]) / 4, 4.0))


def _gather(bank: _Bank, at: Tensor, settings: TracksInput, draws: Draws | None, by: float) -> Batch:
    """The batch of these snippets of the bank; `by` is the strength of what is drawn."""
    import torch

    device = bank.xy.device
    num_samples, num_views = len(at), bank.first.shape[1]
    num_instants, num_taken = settings.frames, settings.points
    share = instants(num_samples, settings, draws, by).to(device)
    onset, offset = bank.onset[at], bank.offset[at]
    time = onset[:, None] + share.double() * (offset - onset)[:, None]

    # Windows (B, V, W) of each snippet and view, and of each the frame nearest to every instant.
    count = bank.count[at]
    most = max(int(count.max()), 1) if num_samples else 1
    number = torch.arange(most, device=device)
    there = number < count[..., None]
    window = torch.where(there, bank.first[at][..., None] + number, 0)
    frame_time = torch.where(there[..., None], bank.time[window], math.inf)
    distance, frame = (frame_time[:, None] - time[:, :, None, None, None]).abs().min(-1)  # (B, T, V, W)
    nearest, chosen = distance.topk(min(settings.overlap, most), dim=-1, largest=False)
    frame = frame.gather(-1, chosen)
    window = window[:, None].expand(-1, num_instants, -1, -1).gather(-1, chosen)  # (B, T, V, K)
    # An instant between two frames takes the nearer; in a gap of the recording it takes none.
    has_frame = nearest <= 0.75 * bank.interval[window] + 1e-6
    if most < settings.overlap:
        room = settings.overlap - most
        frame, window = (torch.nn.functional.pad(one, (0, room)) for one in (frame, window))
        has_frame = torch.nn.functional.pad(has_frame, (0, room))
    num_windows = settings.overlap
    frame_valid = has_frame.flatten(2).any(-1)
    if draws is not None and settings.frame_dropout:
        kept = draws.uniform(shape=(num_instants, num_views, num_windows)).to(device) >= settings.frame_dropout * by
        has_frame = has_frame & kept

    # Of each window an even share of its points, the same at all instants.
    points = bank.num_points[window]  # (B, T, V, K)
    seat = torch.arange(num_taken, device=device)
    stride = points / num_taken
    if draws is not None:
        place = draws.uniform(shape=(num_views, num_windows, num_taken)).to(device)[:, None]
    else:
        place = torch.full((1, 1, 1, 1, num_taken), 0.5, device=device)
    spread = ((seat + place) * stride[..., None]).long()
    slot = torch.where((points > num_taken)[..., None], spread, seat)  # (B, T, V, K, P)
    taken = slot < points[..., None]
    slot = torch.where(taken, slot, 0)
    index = (window * bank.xy.shape[1] + frame)[..., None] * bank.xy.shape[2] + slot
    xy = bank.xy.reshape(-1, 2)[index]
    velocity = bank.velocity.reshape(-1, 2)[index]
    valid = bank.seen.reshape(-1)[index] & taken & has_frame[..., None]
    if draws is not None and settings.point_dropout:
        rate = draws.uniform(0, settings.point_dropout * by, shape=(num_views, 1, 1)).to(device)
        lost = draws.uniform(shape=(num_views, num_windows, num_taken)).to(device) < rate
        valid = valid & ~lost[:, None]
    scale = 1 / bank.half_height[at][:, None, :, None, None, None]
    xy = (xy - bank.centre[at][:, None, :, None, None]) * scale
    keep = valid[..., None]
    return {
        "xy": torch.where(keep, xy, 0.0).flatten(3, 4),
        "velocity": torch.where(keep, velocity * scale, 0.0).flatten(3, 4),
        "valid": valid.flatten(3, 4),
        "frame_valid": frame_valid,
        "duration": (offset - onset).float(),
    }


def instants(num_samples: int, settings: TracksInput, draws: Draws | None, by: float = 1.0) -> Tensor:
    """(B, T) places in [0, 1) of each snippet at which it is looked at, rising.

    Without draws the middles of T equal parts. With draws each moves within its part, then time is warped smoothly and
    the ends are trimmed.
    """
    import torch

    num = settings.frames
    share = ((torch.arange(num) + 0.5) / num).expand(num_samples, num)
    if draws is None:
        return share
    share = share + draws.uniform(-0.5 * by, 0.5 * by, shape=(num,)) / num
    slow = draws.uniform(-settings.time_warp * by, settings.time_warp * by, shape=(1,))
    double = draws.uniform(-settings.time_warp * by / 2, settings.time_warp * by / 2, shape=(1,))
    # |slow| + |double| stays below 1, and with it the slope positive: time never runs back.
    share = (
        share + slow * torch.sin(math.pi * share) / math.pi + double * torch.sin(2 * math.pi * share) / (2 * math.pi)
    )
    start = draws.uniform(0, settings.trim * by, shape=(1,))
    end = 1 - draws.uniform(0, settings.trim * by, shape=(1,))
    return start + (end - start) * share.clamp(0, 1 - 1e-6)


def _kept_views(draws: Draws, rate: float, valid: Tensor) -> Tensor:
    """(B, 1, V, 1) bool: views that stay; of those that a sample has, at least one."""
    has = valid.any(dim=3).any(dim=1)  # (B, V)
    drawn = draws.uniform(shape=(valid.shape[2],)).to(valid.device)
    best = drawn.masked_fill(~has, -1.0).argmax(1, keepdim=True)
    kept = drawn >= rate
    kept.scatter_(1, best, True)
    return kept[:, None, :, None]
