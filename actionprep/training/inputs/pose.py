"""Poses as model input: instants of a snippet, the joints of each person there, centered and scaled."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import field_validator, model_validator

from actionprep.datasets.poses.skeletons import Skeleton, skeleton
from actionprep.errors import UserError
from actionprep.settings import is_no_layout_file, option
from actionprep.training.inputs._pose_bank import PoseBank, PoseSource, pose_sources
from actionprep.training.inputs.base import Batch, MirroringReader, mirrored_codes
from actionprep.training.inputs.joint_augmentation import (
    JointAugmentation,
    augment_joints,
    body_frame,
    drawn_shift,
    mirror,
    shifted_sources,
)
from actionprep.training.inputs.rng import Draws

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store

# Steps of test variants through crops and through segments: spread evenly however many there are.
_GOLDEN, _PLASTIC = 0.6180339887, 0.7548776662


class PoseSampling(JointAugmentation):
    """How poses are read and sampled, and how their joints are changed at random."""

    frames: int = option(32, "Instants of a snippet that the model sees.", ge=1)
    sampling: Literal["smooth", "segments"] = option(
        "smooth",
        "smooth: evenly spaced instants of a part of the snippet, joints interpolated; segments: one frame of each of "
        "as many equal segments, as published with PoseConv3D. Frames that show nobody are left out.",
    )
    crop: float = option(0.25, "smooth: largest share of a snippet that is cut off.", ge=0, lt=1)
    time_warp: float = option(0.5, "smooth: how far the speed may sway over the snippet, as a share.", ge=0, lt=1)
    persons: int = option(2, "Persons of a view at most: those who are seen in most frames.", ge=1)
    skeleton: str | None = option(
        None, "Layout that joints are converted to; not set: as stored.", names="layout", known=is_no_layout_file
    )
    min_score: float = option(0.0, "Joints with a lower score are missing.", ge=0)
    memory: float = option(8.0, "GiB that poses may take in memory; more are read from the store as needed.", gt=0)

    @field_validator("skeleton")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        # A file may have moved since a checkpoint named it: it is read when it is needed.
        if name is not None and not name.endswith(".toml"):
            skeleton(name)
        return name


class PoseInput(PoseSampling):
    """How poses are sampled, normalized and augmented."""

    normalize: Literal["body", "box", "none"] = option(
        "body",
        "body: centered on the mean joint of a view's persons, their spread is 1; box: the box around them has its "
        "longest side from -1 to 1; none: as stored.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_former_spelling(cls, values: Any) -> Any:
        """Read the key `normalise` of recipes and checkpoints made before version 0.2."""
        if isinstance(values, dict) and "normalise" in values:
            values = dict(values)
            values["normalize"] = values.pop("normalise")
        return values


class PoseSamples(MirroringReader):
    """What inputs made of poses share: snippets in memory, instants of them, joints changed at random."""

    product = "pose"
    in_memory = True
    settings: Any
    trims_persons = True

    def __init__(self, settings: PoseSampling, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        super().__init__(settings, store, table, views)
        self.check_store(settings, store)
        used = set(table.recording.tolist())
        named = [name for code, name in enumerate(table.recordings) if code in used]
        found = dict(zip(named, pose_sources(store, named, self.views), strict=True))
        self._places: list[dict[str, PoseSource]] = [found.get(name, {}) for name in table.recordings]
        some = [place for places in self._places for place in places.values()]
        if not some:
            raise UserError(
                f"The store {store.url} has poses, but none of the views {', '.join(self.views)} of these recordings."
            )
        self.layout_name: str = settings.skeleton or some[0].skeleton
        self.layout: Skeleton = skeleton(self.layout_name)
        self.dims = some[0].dims
        self._mirror = mirrored_codes(settings.flip, settings.flip_labels, table.labels)
        self._bank: PoseBank | None = None
        self._latest: tuple[tuple[int, ...], PoseBank] | None = None
        self.in_memory = self._estimated_bytes() <= settings.memory * 2**30
        if self.in_memory:
            self._bank = self._load(np.arange(len(table)))

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        """Joints changed and finished on their device: mirrored alone in test variants."""
        points, score = self._by_view(batch)
        if draws.variant is None:
            batch = {**batch, **self._shifted_labels(batch, draws)}
            points, score = augment_joints(points, score, self.layout, self.settings, draws, self.mirrored(draws))
        elif self._is_mirrored_variant(draws.variant):
            import torch

            everyone = torch.ones(len(draws), dtype=torch.bool, device=score.device)
            points, score = mirror(points, score, self.layout, everyone)
        rest = {name: values for name, values in batch.items() if name not in ("keypoints", "score", "frame_valid")}
        return {**rest, **self._finished(points, score, batch, draws)}

    def times(self, rows: Sequence[int], draws: Draws | None = None) -> np.ndarray:
        """(B, T) s: the instants of these snippets, between two frames where joints are interpolated."""
        bank, at = self._bank_of(rows)
        found: np.ndarray = bank.times(at, self._instants(bank.size[at], draws)).cpu().numpy()
        return found

    def to(self, device: torch.device) -> None:  # noqa: D102
        if self._bank is not None:
            self._bank = self._bank.to(device)

    @classmethod
    def span(cls, store: Store, recording: str, views: Sequence[str]) -> tuple[float, float]:  # noqa: D102
        [places] = pose_sources(store, [recording], views)
        found = [(float(one.time[0]), frames_end(one.time)) for one in places.values() if len(one.time)]
        if not found:
            raise UserError(f"There are no poses of recording '{recording}' in {store.url}.")
        return min(start for start, _ in found), max(end for _, end in found)

    def _load(self, rows: np.ndarray) -> PoseBank:
        return PoseBank.load(
            self.store,
            self.table,
            self.views,
            self._places,
            rows,
            layout=self.layout_name,
            persons=self.settings.persons,
            min_score=self.settings.min_score,
            trim=self.trims_persons and len(rows) == len(self.table),
        )

    def _sampled(self, rows: Sequence[int], draws: Draws | None) -> tuple[Tensor, Tensor, PoseBank, Tensor]:
        """Joints (B, V, M, T, K, C) and scores (B, V, M, T, K) of these rows; the bank and their rows in it."""
        bank, at = self._bank_of(rows)
        points, score = bank.sample(at, self._instants(bank.size[at], draws))
        return points, score, bank, at

    def _bank_of(self, rows: Sequence[int]) -> tuple[PoseBank, Tensor]:
        """What is held of these rows, or what was read of them last, or what is read now; and where they are in it."""
        import torch

        at = torch.as_tensor(np.asarray(rows, np.int64))
        if self._bank is not None:
            return self._bank, at.to(self._bank.score.device)
        wanted = tuple(at.tolist())
        if self._latest is None or self._latest[0] != wanted:
            self._latest = wanted, self._load(np.asarray(rows, np.int64))
        return self._latest[1], torch.arange(len(at))

    def _shifted_labels(self, batch: Batch, draws: Draws) -> Batch:
        """Labels of instants that move along time with their joints."""
        if "frame_target" not in batch or not self.settings.temporal_shift:
            return {}
        # The shift is the first that joints draw of these numbers.
        fresh = Draws(draws.seed, draws.epoch, draws.rows, variant=draws.variant)
        by = drawn_shift(self.settings.temporal_shift, fresh).to(batch["frame_target"].device)
        at = shifted_sources(batch["frame_target"].shape[1], by)
        target = batch["frame_target"]
        return {
            "frame_target": target.gather(1, at[..., None].expand_as(target)),
            "frame_known": batch["frame_known"].gather(1, at),
        }

    def _instants(self, size: Tensor, draws: Draws | None) -> Tensor:
        """(B, T) fractional numbers of instants, of snippets that have so many (B)."""
        settings = self.settings
        if settings.sampling == "segments":
            return segment_frames(size, settings.frames, draws, variant_shift=self._turn_of(draws))
        return smooth_instants(
            size, settings.frames, draws, crop=settings.crop, warp=settings.time_warp, turn=self._turn_of(draws)
        )

    def _turn_of(self, draws: Draws | None) -> int:
        """Which sampling a test variant uses: each serves two variants where every other one is mirrored."""
        if draws is None or draws.variant is None:
            return 0
        return draws.variant // 2 if self._mirrors_tests else draws.variant

    @property
    def _mirrors_tests(self) -> bool:
        """Mirrored variants are tested where mirroring is trained and no label changes by it."""
        codes = self._mirror
        return codes is not None and bool((codes == np.arange(len(codes))).all())

    def _is_mirrored_variant(self, variant: int) -> bool:
        return self._mirrors_tests and variant % 2 == 1

    def _by_view(self, batch: Batch) -> tuple[Tensor, Tensor]:
        views = len(self.views)
        return batch["keypoints"].unflatten(1, (views, -1)), batch["score"].unflatten(1, (views, -1))

    @abstractmethod
    def _finished(self, points: Tensor, score: Tensor, batch: Batch, draws: Draws | None) -> Batch:
        """What the model sees of joints (B, V, M, T, K, C)."""

    def _estimated_bytes(self) -> int:
        frames = 0
        table = self.table
        for row in range(len(table)):
            for place in self._places[int(table.recording[row])].values():
                first, last = place.frames(float(table.onset[row]), float(table.offset[row]))
                frames += max(last - first, 0)
        most = max((place.num_persons for places in self._places for place in places.values()), default=1)
        return frames * min(self.settings.persons, most) * self.layout.num_joints * (self.dims + 1) * 4


class PoseReader(PoseSamples):
    """Batches of poses.

    keypoints   (B, M, T, K, C) float32  joints, x and y (and z), normalized; 0 where missing
    score       (B, M, T, K) float32     0 where missing
    frame_valid (B, T) bool              instants at which somebody is seen
    duration    (B) float32              seconds

    The persons of several views stand one after the other on the axis M, those of the first view first: models see
    each by itself and merge those that are present, so any number of views will do. Each view is normalized by itself.
    """

    Settings = PoseInput
    settings: PoseInput

    def read(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:  # noqa: D102
        points, score, bank, at = self._sampled(rows, draws)
        points = normalized(points, score, self.settings.normalize)
        return {**self._finished(points, score, {}, draws), "duration": bank.duration[at]}

    def meanings(self) -> dict[str, str]:  # noqa: D102
        axes = (
            f"batch, person (those of view {', then of view '.join(self.views)}), instant, joint ({self.layout_name})"
        )
        values = {
            "body": "In each view 0 is the mean of all joints that are seen in the snippet, and 1 their root mean square "
            "distance from it",
            "box": "In each view 0 is the middle of the box around all joints that are seen in the snippet, whose longest "
            "side goes from -1 to 1",
            "none": "As stored",
        }[self.settings.normalize]
        return {
            "keypoints": f"joints; axes {axes}, {', '.join('xyz'[: self.dims])}. {values}; 0 where missing. "
            f"Joints: {', '.join(self.layout.joints)}",
            "score": f"how sure each joint is, 0 where missing; axes {axes}",
            "frame_valid": "instants at which somebody is seen; axes batch, instant",
            "duration": "length of the snippet in s; axes batch",
        }

    def cut(self, batch: Batch, partner: Tensor, share: Tensor, draws: Draws) -> tuple[Batch, Tensor]:
        """A span of time of each sample replaced, of all its persons; see the base."""
        joints = {name: batch[name].transpose(1, 2) for name in ("keypoints", "score")}
        mixed, stayed = super().cut({**batch, **joints}, partner, share, draws)
        return {**mixed, **{name: mixed[name].transpose(1, 2) for name in joints}}, stayed

    def without_views(self, batch: Batch, keep: Sequence[bool]) -> Batch:  # noqa: D102
        import torch

        points, score = self._by_view(batch)
        kept = torch.tensor(list(keep), device=score.device).view(1, -1, 1, 1, 1)
        return {**batch, **self._finished(points * kept[..., None], score * kept, batch, None)}

    def model_sizes(self) -> dict[str, Any]:  # noqa: D102
        return {
            "num_views": len(self.views),
            "num_frames": self.settings.frames,
            "num_joints": self.layout.num_joints,
            "layout": self.layout_name,
            "dims": self.dims,
            "channels": self.dims + 1,
        }

    def _finished(self, points: Tensor, score: Tensor, batch: Batch, draws: Draws | None) -> Batch:
        points, score = points.flatten(1, 2), score.flatten(1, 2)
        return {"keypoints": points, "score": score, "frame_valid": (score > 0).any(-1).any(1)}


def frames_end(time: np.ndarray) -> float:
    """When the last of these frames (T) ends, in s: a usual step after it began."""
    return float(time[-1]) + (float(np.median(np.diff(time))) if len(time) > 1 else 1 / 25)


def normalized(keypoints: Tensor, score: Tensor, how: Literal["body", "box", "none"]) -> Tensor:
    """Joints (B, V, M, T, K, C) of each sample and view brought to one place and size; missing ones become 0."""
    import torch

    if how == "none":
        return keypoints
    seen = (score > 0)[..., None]
    if how == "body":
        center, size = body_frame(keypoints, score)
    else:
        low = torch.where(seen, keypoints, torch.inf).amin((2, 3, 4))
        high = torch.where(seen, keypoints, -torch.inf).amax((2, 3, 4))
        some = torch.isfinite(low)
        center = torch.where(some, (low + high) / 2, 0.0)
        half = torch.where(some, (high - low) / 2, 0.0).amax(-1)
        size = torch.where(half > 0, half, 1.0)
    return (keypoints - center[:, :, None, None, None]) / size[..., None, None, None, None] * seen


def smooth_instants(
    size: Tensor, num_frames: int, draws: Draws | None, *, crop: float, warp: float, turn: int = 0
) -> Tensor:
    """(B, T) evenly spaced fractional places in 0 … size - 1, of snippets that have so many instants (B).

    Without draws from the first to the last. In training of a random part, at a speed that sways by one sine wave over
    the snippet, so that places always rise. In tests the sampling number `turn` takes a part of its own.
    """
    import torch

    even = torch.linspace(0, 1, num_frames, dtype=torch.float64, device=size.device)
    last = (size - 1).clamp(min=0).double()[:, None]
    if draws is None or (draws.variant is not None and turn == 0):
        return even * last
    if draws.variant is not None:
        part = 1 - crop * (turn * _GOLDEN % 1)
        return ((1 - part) * (turn * _PLASTIC % 1) + part * even) * last
    drawn = draws.uniform(shape=(4,)).to(size.device).double()
    length = 1 - crop * drawn[:, :1]
    start = drawn[:, 1:2] * (1 - length)
    sway, phase = (2 * drawn[:, 2:3] - 1) * warp, 2 * math.pi * drawn[:, 3:]
    bent = even + sway / (2 * math.pi) * ((2 * math.pi * even + phase).sin() - phase.sin())
    return (start + length * bent.clamp(0, 1)) * last


def segment_frames(size: Tensor, num_frames: int, draws: Draws | None, *, variant_shift: int = 0) -> Tensor:
    """(B, T) whole places in 0 … size - 1: one frame of each of T equal segments.

    Without draws the middle of each; in tests the frame at a share of its own for each `variant_shift`. In training as
    published with PoseConv3D (Duan et al., CVPR 2022): a random one; of fewer than 2 T frames neighboring ones with
    single ones left out at random; of fewer than T consecutive ones from a random start, over the end back to the first.
    """
    import torch

    size = size.clamp(min=1)[:, None]
    number = torch.arange(num_frames, device=size.device)
    if draws is None or draws.variant is not None:
        share = (0.5 + variant_shift * _GOLDEN) % 1
        return torch.minimum(((number + share) * size / num_frames).floor(), size - 1).double()
    inside = draws.uniform(shape=(num_frames,)).to(size.device)
    first = number * size // num_frames
    width = (number + 1) * size // num_frames - first
    spread = first + torch.minimum((inside * width).long(), (width - 1).clamp(min=0))
    rank = draws.uniform(shape=(num_frames + 1,)).to(size.device).argsort(1).argsort(1)
    skipped = (rank < size - num_frames).long().cumsum(1)[:, :-1]
    start = (draws.uniform().to(size.device)[:, None] * size).long()
    around = (torch.minimum(start, size - 1) + number) % size
    some = torch.where(size < num_frames, around, number + skipped)
    return torch.where(size < 2 * num_frames, some, spread).double()
