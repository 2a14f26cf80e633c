"""Point tracks as model input: instants of a snippet, the points that are seen there, and how they move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actionprep.errors import UserError
from actionprep.settings import option
from actionprep.training.inputs._track_bank import Region, TrackBank, moving_region
from actionprep.training.inputs._track_windows import read_windows, track_sources
from actionprep.training.inputs.base import Batch, MirroringReader, MirroringSettings, mirrored_codes
from actionprep.training.inputs.rng import Draws

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store


class TracksInput(MirroringSettings):
    """How tracks are sampled, normalized and augmented."""

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
    time_warp: float = option(0.25, "Strength of the smooth warp of time, as a share.", ge=0, le=0.65)
    trim: float = option(0.15, "Largest share of a snippet cut off at its start, and at its end.", ge=0, lt=0.5)
    point_dropout: float = option(0.6, "Largest share of points that are left out of a sample.", ge=0, lt=1)
    frame_dropout: float = option(0.08, "Share of instants of a window that are left out.", ge=0, lt=1)
    view_dropout: float = option(0.3, "Share of views that are left out; one always stays.", ge=0, lt=1)
    test_strength: float = option(0.5, "Augmentation of test variants, as a share of the training's.", ge=0, le=1)
    memory: float = option(8.0, "GiB that tracks may take in memory; more are read from the store as needed.", gt=0)


class TracksReader(MirroringReader):
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
            track_sources(store, recording, self.views) if code in used else {}
            for code, recording in enumerate(table.recordings)
        ]
        self._mirror = mirrored_codes(settings.flip, settings.flip_labels, table.labels)
        self._bank: TrackBank | None = None
        self._regions: dict[tuple[int, str], Region] = {}
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

    def meanings(self) -> dict[str, str]:  # noqa: D102
        axes = f"batch, instant (evenly spaced over the snippet), view ({', '.join(self.views)}), point"
        return {
            "xy": f"positions; axes {axes}, x and y. 0 is the middle of the moving region of the {self.settings.region} in "
            "that view and 1 half its height away, in x too; x to the right, y down. The region holds the middle 96 % of "
            "the x and of the y of its visible points; half its height counts as a quarter of the width and 4 px at least",
            "velocity": f"velocities; axes {axes}, x and y. Half heights of that region a second, 0 where not known",
            "valid": f"which points are seen, in views that there are; axes {axes}",
            "frame_valid": "instants at which some view has a frame; axes batch, instant",
            "duration": "length of the snippet in s; axes batch",
        }

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
        for place in track_sources(store, recording, views).values():
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

    def _load(self, rows: np.ndarray) -> TrackBank:
        regions = None
        if self.settings.region == "recording":
            regions = np.array(
                [[self._whole_region(int(code), view) for view in self.views] for code in self.table.recording[rows]]
            )
        return TrackBank.load(self.store, self.table, self.views, self._place, rows, regions)

    def _whole_region(self, code: int, view: str) -> Region:
        """The moving region of a recording in a view, whichever of its snippets are read."""
        if (code, view) not in self._regions:
            place = self._place[code].get(view)
            points = np.zeros((0, 2), np.float32)
            if place is not None:
                windows = read_windows(
                    self.store.item("tracks", self.table.recordings[code], view), 0, place.num_windows
                )
                points = windows.xy[windows.seen]
            self._regions[code, view] = moving_region(points)
        return self._regions[code, view]

    def _estimated_bytes(self) -> int:
        total = 0
        for views in self._place:
            for place in views.values():
                total += place.num_windows * place.num_frames * place.num_slots * 17
        return total


def _gather(bank: TrackBank, at: Tensor, settings: TracksInput, draws: Draws | None, by: float) -> Batch:
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
    xy = (xy - bank.center[at][:, None, :, None, None]) * scale
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
