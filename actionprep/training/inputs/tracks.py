"""Point tracks as model input: time steps of a snippet, the points visible there, and their velocities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actionprep.datasets.frame_times import frame_interval
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

    frames: int = option(32, "Evenly spaced time steps per snippet.", ge=1)
    points: int = option(128, "Points per window, spread over all its points.", ge=1)
    overlap: int = option(2, "Number of windows used at each time step, if so many overlap there.", ge=1)
    region: Literal["snippet", "recording"] = option(
        "snippet",
        "Origin and unit of positions: the moving region of the snippet, or that of the full recording, which consecutive "
        "windows have in common (required by carry).",
    )
    shift: float = option(0.15, "Largest shift, in half heights of the moving region.", ge=0)
    scale: float = option(0.2, "Largest change of scale, as a share.", ge=0, lt=1)
    rotation: float = option(0.15, "Largest rotation in the image plane, in rad.", ge=0)
    time_warp: float = option(0.25, "Strength of the smooth time warp, as a share.", ge=0, le=0.65)
    trim: float = option(0.15, "Largest share that is cut off at the start and at the end of a snippet.", ge=0, lt=0.5)
    point_dropout: float = option(0.6, "Largest share of points that are dropped from a sample.", ge=0, lt=1)
    frame_dropout: float = option(0.08, "Share of time steps that are dropped from a window.", ge=0, lt=1)
    view_dropout: float = option(0.3, "Share of views that are dropped; at least one is kept.", ge=0, lt=1)
    test_strength: float = option(0.5, "Strength of augmentation in tests, as a share of that in training.", ge=0, le=1)
    memory: float = option(8.0, "Largest size of tracks in memory, in GiB; larger data is read when needed.", gt=0)


class TracksReader(MirroringReader):
    """Batches of tracks.

    Arrays of a batch:

    - xy: (B, T, V, N, 2) float32, positions; 0 is the center of the moving region and 1 half its height away.
    - velocity: (B, T, V, N, 2) float32, half heights per second; 0 if unknown.
    - valid: (B, T, V, N) bool, visible points in views that exist.
    - frame_valid: (B, T) bool, time steps with a frame in some view.
    - duration: (B,) float32, seconds.

    N is overlap · points: at each time step the points of up to `overlap` windows, the same points of a window at all
    time steps. The moving region of a snippet, or of a recording, in a view contains the middle 96 % of its visible
    points in x and in y.
    """

    product = "tracks"
    Settings = TracksInput
    in_memory = True
    settings: TracksInput

    def __init__(self, settings: TracksInput, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        super().__init__(settings, store, table, views)
        self.check_store(settings, store)
        used = set(table.recording.tolist())
        self._sources = [
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

        bank, snippets = self._bank, torch.as_tensor(np.asarray(rows, np.int64))
        if bank is None:
            bank = self._load(np.asarray(rows, np.int64))
            snippets = torch.arange(len(snippets))
        return _gather(bank, snippets.to(bank.xy.device), self.settings, draws, self._strength(draws))

    def times(self, rows: Sequence[int], draws: Draws | None = None) -> np.ndarray:
        """Return the evenly spaced times, in seconds, shape (B, T). Each view and window shows its nearest frame."""
        snippets = np.asarray(rows, np.int64)
        onset, offset = self.table.onset[snippets][:, None], self.table.offset[snippets][:, None]
        share = step_shares(len(snippets), self.settings, draws, self._strength(draws)).double().numpy()
        return onset + share * (offset - onset)

    def meanings(self) -> dict[str, str]:  # noqa: D102
        axes = f"batch, time step (evenly spaced over the snippet), view ({', '.join(self.views)}), point"
        return {
            "xy": f"positions; axes {axes}, x and y. 0 is the center of the moving region of the {self.settings.region} in "
            "that view and 1 half its height away, in x too; x to the right, y down. The region contains the middle 96 % "
            "of its visible points in x and in y; half its height is at least a quarter of its width and at least 4 px",
            "velocity": f"velocities; axes {axes}, x and y. Half heights of that region per second, 0 if unknown",
            "valid": f"which points are visible, in views that exist; axes {axes}",
            "frame_valid": "time steps with a frame in some view; axes batch, time step",
            "duration": "length of the snippet in s; axes batch",
        }

    def evidence(self, batch: Batch) -> Tensor:
        """Return which samples have a visible point."""
        return batch["valid"].flatten(1).any(1)

    def augment(self, batch: Batch, draws: Draws) -> Batch:  # noqa: D102
        import torch

        strength = self._strength(draws)
        if strength == 0:
            return batch
        xy, device = batch["xy"], batch["xy"].device
        num_views = xy.shape[2]
        settings = self.settings

        def drawn(limit: float, *shape: int) -> Tensor:
            return draws.uniform(-limit * strength, limit * strength, shape=shape).to(device)

        angle, size = drawn(settings.rotation, num_views), 1 + drawn(settings.scale, num_views)
        shift = drawn(settings.shift, num_views, 2)
        cos, sin = angle.cos() * size, angle.sin() * size
        matrix = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
        if settings.flip and draws.variant is None:
            mirrored = self.mirrored(draws).to(device)
            sign = torch.where(mirrored, -1.0, 1.0)[:, None]
            matrix = matrix * torch.stack([sign, torch.ones_like(sign)], -1)[:, :, None, :]
        # (B, T, V, N, 2) times (B, 1, V, 2, 2)
        matrix_t = matrix.transpose(-1, -2)[:, None]
        valid = batch["valid"]
        if draws.variant is None and settings.view_dropout and num_views > 1:
            valid = valid & _keep_views(draws, settings.view_dropout, valid)
        return {
            **batch,
            "xy": xy @ matrix_t + shift[:, None, :, None],
            "velocity": batch["velocity"] @ matrix_t,
            "valid": valid,
        }

    def mix(self, batch: Batch, partner: Tensor, share: Tensor) -> Batch:
        """Combine some points of each sample with other points of its partner.

        Sets are mixed by members, not by coordinates.
        """
        valid, device = batch["valid"], batch["valid"].device
        num_points = valid.shape[-1]
        # Points of a window are ordered by rows of the image, so the shares are interleaved evenly.
        import torch

        phase = (torch.arange(num_points, device=device) * 0.6180339887) % 1.0
        is_own = (phase < share[:, None])[:, None, None, :]
        partner_arrays = {name: batch[name][partner] for name in ("xy", "velocity", "valid", "frame_valid")}
        return {
            **batch,
            "xy": torch.where(is_own[..., None], batch["xy"], partner_arrays["xy"]),
            "velocity": torch.where(is_own[..., None], batch["velocity"], partner_arrays["velocity"]),
            "valid": torch.where(is_own, valid, partner_arrays["valid"]),
            "frame_valid": batch["frame_valid"] | partner_arrays["frame_valid"],
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
        spans = []
        for source in track_sources(store, recording, views).values():
            time = np.unique(source.time[np.isfinite(source.time)])
            if len(time):
                spans.append((float(time[0]), float(time[-1]) + frame_interval(time, default=1 / 25)))
        if not spans:
            raise UserError(f"Recording '{recording}' has no tracks in {store.url}.")
        return min(start for start, _ in spans), max(end for _, end in spans)

    def _strength(self, draws: Draws | None) -> float:
        if draws is None:
            return 0.0
        return 1.0 if draws.variant is None else self.settings.test_strength

    def _load(self, rows: np.ndarray) -> TrackBank:
        regions = None
        if self.settings.region == "recording":
            regions = np.array(
                [
                    [self._recording_region(int(code), view) for view in self.views]
                    for code in self.table.recording[rows]
                ]
            )
        return TrackBank.load(self.store, self.table, self.views, self._sources, rows, regions)

    def _recording_region(self, code: int, view: str) -> Region:
        """Moving region of a recording in a view, independent of the snippets that are read."""
        if (code, view) not in self._regions:
            source = self._sources[code].get(view)
            points = np.zeros((0, 2), np.float32)
            if source is not None:
                windows = read_windows(
                    self.store.item("tracks", self.table.recordings[code], view), 0, source.num_windows
                )
                points = windows.xy[windows.seen]
            self._regions[code, view] = moving_region(points)
        return self._regions[code, view]

    def _estimated_bytes(self) -> int:
        total = 0
        for views in self._sources:
            for source in views.values():
                total += source.num_windows * source.num_frames * source.num_slots * 17
        return total


def _gather(bank: TrackBank, snippets: Tensor, settings: TracksInput, draws: Draws | None, strength: float) -> Batch:
    """Sample a batch of snippets from the bank; `strength` scales the augmentation."""
    import torch

    device = bank.xy.device
    num_samples, num_views = len(snippets), bank.first.shape[1]
    num_steps, num_taken = settings.frames, settings.points
    share = step_shares(num_samples, settings, draws, strength).to(device)
    onset, offset = bank.onset[snippets], bank.offset[snippets]
    time = onset[:, None] + share.double() * (offset - onset)[:, None]

    # Windows (B, V, W) of each snippet and view, and the frame of each window nearest to every time step.
    count = bank.count[snippets]
    num_candidates = max(int(count.max()), 1) if num_samples else 1
    index_in_snippet = torch.arange(num_candidates, device=device)
    exists = index_in_snippet < count[..., None]
    window = torch.where(exists, bank.first[snippets][..., None] + index_in_snippet, 0)
    frame_time = torch.where(exists[..., None], bank.time[window], math.inf)
    distance, frame = (frame_time[:, None] - time[:, :, None, None, None]).abs().min(-1)  # (B, T, V, W)
    nearest, order = distance.topk(min(settings.overlap, num_candidates), dim=-1, largest=False)
    frame = frame.gather(-1, order)
    window = window[:, None].expand(-1, num_steps, -1, -1).gather(-1, order)  # (B, T, V, K)
    # A time step between two frames uses the nearer one. In a gap of the recording it uses none.
    has_frame = nearest <= 0.75 * bank.interval[window] + 1e-6
    if num_candidates < settings.overlap:
        padding = settings.overlap - num_candidates
        frame, window = (torch.nn.functional.pad(values, (0, padding)) for values in (frame, window))
        has_frame = torch.nn.functional.pad(has_frame, (0, padding))
    num_windows = settings.overlap
    frame_valid = has_frame.flatten(2).any(-1)
    if draws is not None and settings.frame_dropout:
        kept = draws.uniform(shape=(num_steps, num_views, num_windows)).to(device) >= settings.frame_dropout * strength
        has_frame = has_frame & kept

    # Of each window an even share of its points, the same ones at all time steps.
    points = bank.num_points[window]  # (B, T, V, K)
    seat = torch.arange(num_taken, device=device)
    stride = points / num_taken
    if draws is not None:
        position = draws.uniform(shape=(num_views, num_windows, num_taken)).to(device)[:, None]
    else:
        position = torch.full((1, 1, 1, 1, num_taken), 0.5, device=device)
    spread = ((seat + position) * stride[..., None]).long()
    slot = torch.where((points > num_taken)[..., None], spread, seat)  # (B, T, V, K, P)
    exists_point = slot < points[..., None]
    slot = torch.where(exists_point, slot, 0)
    index = (window * bank.xy.shape[1] + frame)[..., None] * bank.xy.shape[2] + slot
    xy = bank.xy.reshape(-1, 2)[index]
    velocity = bank.velocity.reshape(-1, 2)[index]
    valid = bank.seen.reshape(-1)[index] & exists_point & has_frame[..., None]
    if draws is not None and settings.point_dropout:
        rate = draws.uniform(0, settings.point_dropout * strength, shape=(num_views, 1, 1)).to(device)
        dropped = draws.uniform(shape=(num_views, num_windows, num_taken)).to(device) < rate
        valid = valid & ~dropped[:, None]
    scale = 1 / bank.half_height[snippets][:, None, :, None, None, None]
    xy = (xy - bank.center[snippets][:, None, :, None, None]) * scale
    keep = valid[..., None]
    return {
        "xy": torch.where(keep, xy, 0.0).flatten(3, 4),
        "velocity": torch.where(keep, velocity * scale, 0.0).flatten(3, 4),
        "valid": valid.flatten(3, 4),
        "frame_valid": frame_valid,
        "duration": (offset - onset).float(),
    }


def step_shares(num_samples: int, settings: TracksInput, draws: Draws | None, strength: float = 1.0) -> Tensor:
    """Compute the positions of the time steps in each snippet.

    Without draws they are the centers of T equal parts. With draws, each moves within its part, time is warped smoothly
    and the ends are trimmed.

    Args:
        num_samples: Number of snippets B.
        settings: Settings of the input.
        draws: Random numbers.
        strength: Strength of the augmentation.

    Returns:
        Shares of the snippet in [0, 1), increasing, shape (B, T).
    """
    import torch

    num_steps = settings.frames
    share = ((torch.arange(num_steps) + 0.5) / num_steps).expand(num_samples, num_steps)
    if draws is None:
        return share
    share = share + draws.uniform(-0.5 * strength, 0.5 * strength, shape=(num_steps,)) / num_steps
    slow = draws.uniform(-settings.time_warp * strength, settings.time_warp * strength, shape=(1,))
    double = draws.uniform(-settings.time_warp * strength / 2, settings.time_warp * strength / 2, shape=(1,))
    # |slow| + |double| stays below 1, so that the slope is positive and time never runs backwards.
    share = (
        share + slow * torch.sin(math.pi * share) / math.pi + double * torch.sin(2 * math.pi * share) / (2 * math.pi)
    )
    start = draws.uniform(0, settings.trim * strength, shape=(1,))
    end = 1 - draws.uniform(0, settings.trim * strength, shape=(1,))
    return start + (end - start) * share.clamp(0, 1 - 1e-6)


def _keep_views(draws: Draws, rate: float, valid: Tensor) -> Tensor:
    """Which views are kept, bool (B, 1, V, 1); at least one of those that a sample has."""
    exists = valid.any(dim=3).any(dim=1)  # (B, V)
    drawn = draws.uniform(shape=(valid.shape[2],)).to(valid.device)
    best = drawn.masked_fill(~exists, -1.0).argmax(1, keepdim=True)
    keep = drawn >= rate
    keep.scatter_(1, best, True)
    return keep[:, None, :, None]
