"""Poses as model input: time steps of a snippet and the joints of each person, centered and scaled."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import field_validator, model_validator

from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.poses.skeletons import Skeleton, skeleton
from actionprep.errors import UserError
from actionprep.settings import is_no_layout_file, option
from actionprep.training.inputs._pose_bank import PoseBank, PoseSource, pose_sources
from actionprep.training.inputs.base import Batch, MirroringReader, mirrored_codes
from actionprep.training.inputs.joint_augmentation import (
    JointAugmentation,
    augment_joints,
    body_frame,
    draw_shift,
    mirror,
    shifted_indices,
)
from actionprep.training.inputs.rng import Draws

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store

# Irrational strides through crops and segments, so that any number of test variants is spread evenly.
_GOLDEN, _PLASTIC = 0.6180339887, 0.7548776662


class PoseSampling(JointAugmentation):
    """How poses are read, sampled and augmented."""

    frames: int = option(32, "Time steps per snippet.", ge=1)
    sampling: Literal["smooth", "segments", "pyskl"] = option(
        "smooth",
        "smooth: evenly spaced time steps of a part of the snippet, with interpolated joints; segments: one frame from each "
        "of as many equal segments, the middle one in tests; pyskl: the frames that PySKL chooses, which loop in short "
        "snippets, as published with PoseConv3D. Frames without a person are skipped, except by pyskl.",
    )
    clips: int = option(1, "pyskl: clips per snippet in tests, whose predictions are averaged (published: 10).", ge=1)
    crop: float = option(0.25, "smooth: largest share of a snippet that is cut off.", ge=0, lt=1)
    time_warp: float = option(0.5, "smooth: largest change of speed over the snippet, as a share.", ge=0, lt=1)
    persons: int = option(2, "Maximum number of persons per view: those visible in most frames.", ge=1)
    skeleton: str | None = option(
        None, "Joint layout to convert to; not set: as stored.", names="layout", known=is_no_layout_file
    )
    min_score: float = option(0.0, "Joints with a lower score count as missing.", ge=0)
    memory: float = option(8.0, "Largest size of poses in memory, in GiB; larger data is read when needed.", gt=0)

    @property
    def variants(self) -> int | None:
        """Number of variants of each snippet in a test, if the settings determine it; None: the recipe chooses."""
        if self.sampling != "pyskl":
            return None
        return self.clips * (2 if self.flip else 1)

    @field_validator("skeleton")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        # The file may have moved since a checkpoint recorded it. It is read when it is needed.
        if name is not None and not name.endswith(".toml"):
            skeleton(name)
        return name


class PoseInput(PoseSampling):
    """How poses are sampled, normalized and augmented."""

    normalize: Literal["body", "box", "none"] = option(
        "body",
        "body: centered on the mean joint of all persons of a view and divided by their spread; box: the longest side of "
        "the box around them is from -1 to 1; none: as stored.",
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
    """Base of inputs made from poses: snippets in memory, sampling of time steps, and augmentation of joints."""

    product = "pose"
    in_memory = True
    settings: Any
    trims_persons = True

    def __init__(self, settings: PoseSampling, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        super().__init__(settings, store, table, views)
        self.check_store(settings, store)
        used = set(table.recording.tolist())
        names = [name for code, name in enumerate(table.recordings) if code in used]
        by_name = dict(zip(names, pose_sources(store, names, self.views), strict=True))
        self._sources: list[dict[str, PoseSource]] = [by_name.get(name, {}) for name in table.recordings]
        sources = [source for by_view in self._sources for source in by_view.values()]
        if not sources:
            raise UserError(
                f"The store {store.url} has poses, but none in the views {', '.join(self.views)} of these recordings."
            )
        self.layout_name: str = settings.skeleton or sources[0].skeleton
        self.layout: Skeleton = skeleton(self.layout_name)
        self.dims = sources[0].dims
        self._mirror = mirrored_codes(settings.flip, settings.flip_labels, table.labels)
        self._bank: PoseBank | None = None
        self._latest: tuple[tuple[int, ...], PoseBank] | None = None
        self.in_memory = self._estimated_bytes() <= settings.memory * 2**30
        if self.in_memory:
            self._bank = self._load(np.arange(len(table)))

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        """Augment joints and create the inputs of the model; variants of tests are only mirrored."""
        points, score = self._by_view(batch)
        if draws.variant is None:
            batch = {**batch, **self._shifted_labels(batch, draws)}
            points, score = augment_joints(points, score, self.layout, self.settings, draws, self.mirrored(draws))
        elif self._is_mirrored_variant(draws.variant):
            import torch

            everyone = torch.ones(len(draws), dtype=torch.bool, device=score.device)
            points, score = mirror(points, score, self.layout, everyone)
        rest = {name: values for name, values in batch.items() if name not in ("keypoints", "score", "frame_valid")}
        return {**rest, **self._model_inputs(points, score, batch, draws)}

    def times(self, rows: Sequence[int], draws: Draws | None = None) -> np.ndarray:
        """Return the times of the time steps, in seconds, shape (B, T)."""
        bank, snippets = self._bank_of(rows)
        times: np.ndarray = bank.times(snippets, self._steps(bank.size[snippets], draws)).cpu().numpy()
        return times

    def to(self, device: torch.device) -> None:  # noqa: D102
        if self._bank is not None:
            self._bank = self._bank.to(device)

    @classmethod
    def span(cls, store: Store, recording: str, views: Sequence[str]) -> tuple[float, float]:  # noqa: D102
        [by_view] = pose_sources(store, [recording], views)
        spans = [(float(source.time[0]), end_of_frames(source.time)) for source in by_view.values() if len(source.time)]
        if not spans:
            raise UserError(f"Recording '{recording}' has no poses in {store.url}.")
        return min(start for start, _ in spans), max(end for _, end in spans)

    def _load(self, rows: np.ndarray) -> PoseBank:
        return PoseBank.load(
            self.store,
            self.table,
            self.views,
            self._sources,
            rows,
            layout=self.layout_name,
            persons=self.settings.persons,
            min_score=self.settings.min_score,
            trim=self.trims_persons and len(rows) == len(self.table),
            skip_empty=self.settings.sampling != "pyskl",
        )

    def _sample(self, rows: Sequence[int], draws: Draws | None) -> tuple[Tensor, Tensor, PoseBank, Tensor]:
        """Joints (B, V, M, T, K, C) and scores (B, V, M, T, K) of rows, the bank, and the positions of the rows in it."""
        bank, snippets = self._bank_of(rows)
        points, score = bank.sample(snippets, self._steps(bank.size[snippets], draws))
        return points, score, bank, snippets

    def _bank_of(self, rows: Sequence[int]) -> tuple[PoseBank, Tensor]:
        """The bank that contains these rows, and their positions in it; the rows read last are kept."""
        import torch

        snippets = torch.as_tensor(np.asarray(rows, np.int64))
        if self._bank is not None:
            return self._bank, snippets.to(self._bank.score.device)
        wanted = tuple(snippets.tolist())
        if self._latest is None or self._latest[0] != wanted:
            self._latest = wanted, self._load(np.asarray(rows, np.int64))
        return self._latest[1], torch.arange(len(snippets))

    def _shifted_labels(self, batch: Batch, draws: Draws) -> Batch:
        """Labels of time steps, moved in time together with the joints."""
        if "frame_target" not in batch or not self.settings.temporal_shift:
            return {}
        # The shift is the first number that the augmentation of joints draws.
        fresh = Draws(draws.seed, draws.epoch, draws.rows, variant=draws.variant)
        shift = draw_shift(self.settings.temporal_shift, fresh).to(batch["frame_target"].device)
        indices = shifted_indices(batch["frame_target"].shape[1], shift)
        target = batch["frame_target"]
        return {
            "frame_target": target.gather(1, indices[..., None].expand_as(target)),
            "frame_known": batch["frame_known"].gather(1, indices),
        }

    def _steps(self, size: Tensor, draws: Draws | None) -> Tensor:
        """Fractional indices of time steps, shape (B, T), for snippets with these numbers of steps (B,)."""
        settings = self.settings
        if settings.sampling == "pyskl" and (draws is None or draws.variant is not None):
            return pyskl_test_steps(size, settings.frames, clip=self._variant_index(draws), clips=settings.clips)
        if settings.sampling in ("segments", "pyskl"):
            return segment_steps(size, settings.frames, draws, variant_shift=self._variant_index(draws))
        return smooth_steps(
            size,
            settings.frames,
            draws,
            crop=settings.crop,
            warp=settings.time_warp,
            variant=self._variant_index(draws),
        )

    def _variant_index(self, draws: Draws | None) -> int:
        """Index of the sampling of a test variant. Two variants share a sampling if every other one is mirrored."""
        if draws is None or draws.variant is None:
            return 0
        return draws.variant // 2 if self._mirrors_tests else draws.variant

    @property
    def _mirrors_tests(self) -> bool:
        """Whether tests use mirrored variants: if training mirrors samples and no label changes."""
        codes = self._mirror
        return codes is not None and bool((codes == np.arange(len(codes))).all())

    def _is_mirrored_variant(self, variant: int) -> bool:
        return self._mirrors_tests and variant % 2 == 1

    def _by_view(self, batch: Batch) -> tuple[Tensor, Tensor]:
        views = len(self.views)
        return batch["keypoints"].unflatten(1, (views, -1)), batch["score"].unflatten(1, (views, -1))

    @abstractmethod
    def _model_inputs(self, points: Tensor, score: Tensor, batch: Batch, draws: Draws | None) -> Batch:
        """Create the inputs of the model from joints (B, V, M, T, K, C)."""

    def _estimated_bytes(self) -> int:
        frames = 0
        table = self.table
        for row in range(len(table)):
            for source in self._sources[int(table.recording[row])].values():
                first, last = source.frames(float(table.onset[row]), float(table.offset[row]))
                frames += max(last - first, 0)
        num_persons = max((source.num_persons for by_view in self._sources for source in by_view.values()), default=1)
        return frames * min(self.settings.persons, num_persons) * self.layout.num_joints * (self.dims + 1) * 4


class PoseReader(PoseSamples):
    """Batches of poses.

    Arrays of a batch:

    - keypoints: (B, M, T, K, C) float32, x and y (and z) of joints, normalized; 0 where missing.
    - score: (B, M, T, K) float32; 0 where missing.
    - frame_valid: (B, T) bool, time steps with a visible person.
    - duration: (B,) float32, seconds.

    The axis M contains the persons of the first view, then those of the next one. Models process each person separately
    and merge those present, so any number of views is possible. Each view is normalized separately.
    """

    Settings = PoseInput
    settings: PoseInput

    def read(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:  # noqa: D102
        points, score, bank, snippets = self._sample(rows, draws)
        points = normalize_joints(points, score, self.settings.normalize)
        return {**self._model_inputs(points, score, {}, draws), "duration": bank.duration[snippets]}

    def meanings(self) -> dict[str, str]:  # noqa: D102
        axes = (
            f"batch, person (those of view {', then of view '.join(self.views)}), time step, joint ({self.layout_name})"
        )
        values = {
            "body": "In each view 0 is the mean of all joints visible in the snippet, and 1 their root mean square distance "
            "from it",
            "box": "In each view 0 is the center of the box around all joints visible in the snippet, and the longest side "
            "of the box is from -1 to 1",
            "none": "As stored",
        }[self.settings.normalize]
        return {
            "keypoints": f"joints; axes {axes}, {', '.join('xyz'[: self.dims])}. {values}; 0 where missing. "
            f"Joints: {', '.join(self.layout.joints)}",
            "score": f"confidence of each joint, 0 where missing; axes {axes}",
            "frame_valid": "time steps with a visible person; axes batch, time step",
            "duration": "length of the snippet in s; axes batch",
        }

    def cut(self, batch: Batch, partner: Tensor, share: Tensor, draws: Draws) -> tuple[Batch, Tensor]:
        """Replace a span of time of each sample, for all its persons; see the base class."""
        joints = {name: batch[name].transpose(1, 2) for name in ("keypoints", "score")}
        mixed, stayed = super().cut({**batch, **joints}, partner, share, draws)
        return {**mixed, **{name: mixed[name].transpose(1, 2) for name in joints}}, stayed

    def without_views(self, batch: Batch, keep: Sequence[bool]) -> Batch:  # noqa: D102
        import torch

        points, score = self._by_view(batch)
        kept = torch.tensor(list(keep), device=score.device).view(1, -1, 1, 1, 1)
        return {**batch, **self._model_inputs(points * kept[..., None], score * kept, batch, None)}

    def model_sizes(self) -> dict[str, Any]:  # noqa: D102
        return {
            "num_views": len(self.views),
            "num_frames": self.settings.frames,
            "num_joints": self.layout.num_joints,
            "layout": self.layout_name,
            "dims": self.dims,
            "channels": self.dims + 1,
        }

    def _model_inputs(self, points: Tensor, score: Tensor, batch: Batch, draws: Draws | None) -> Batch:
        points, score = points.flatten(1, 2), score.flatten(1, 2)
        return {"keypoints": points, "score": score, "frame_valid": (score > 0).any(-1).any(1)}


def end_of_frames(time: np.ndarray) -> float:
    """Return when the last of these frames ends: one frame interval after its start, in seconds."""
    return float(time[-1]) + frame_interval(time, default=1 / 25)


def normalize_joints(keypoints: Tensor, score: Tensor, mode: Literal["body", "box", "none"]) -> Tensor:
    """Center and scale the joints of each sample and view.

    Args:
        keypoints: Joints of shape (B, V, M, T, K, C).
        score: Scores of shape (B, V, M, T, K).
        mode: See the setting `normalize`.

    Returns:
        Normalized joints; 0 where missing.
    """
    import torch

    if mode == "none":
        return keypoints
    visible = (score > 0)[..., None]
    if mode == "body":
        center, size = body_frame(keypoints, score)
    else:
        low = torch.where(visible, keypoints, torch.inf).amin((2, 3, 4))
        high = torch.where(visible, keypoints, -torch.inf).amax((2, 3, 4))
        defined = torch.isfinite(low)
        center = torch.where(defined, (low + high) / 2, 0.0)
        half = torch.where(defined, (high - low) / 2, 0.0).amax(-1)
        size = torch.where(half > 0, half, 1.0)
    return (keypoints - center[:, :, None, None, None]) / size[..., None, None, None, None] * visible


def smooth_steps(
    size: Tensor, num_frames: int, draws: Draws | None, *, crop: float, warp: float, variant: int = 0
) -> Tensor:
    """Compute evenly spaced fractional indices of time steps.

    Without draws they cover all steps. In training they cover a random part, at a speed that varies by one sine wave,
    and always increase. Each test variant covers a different part.

    Args:
        size: Number of time steps of each snippet, shape (B,).
        num_frames: Number of indices T.
        draws: Random numbers.
        crop: Largest share that is cut off.
        warp: Largest change of speed, as a share.
        variant: Index of the test variant.

    Returns:
        Indices in 0 … size - 1, float64 of shape (B, T).
    """
    import torch

    even = torch.linspace(0, 1, num_frames, dtype=torch.float64, device=size.device)
    last = (size - 1).clamp(min=0).double()[:, None]
    if draws is None or (draws.variant is not None and variant == 0):
        return even * last
    if draws.variant is not None:
        part = 1 - crop * (variant * _GOLDEN % 1)
        return ((1 - part) * (variant * _PLASTIC % 1) + part * even) * last
    drawn = draws.uniform(shape=(4,)).to(size.device).double()
    length = 1 - crop * drawn[:, :1]
    start = drawn[:, 1:2] * (1 - length)
    amplitude, phase = (2 * drawn[:, 2:3] - 1) * warp, 2 * math.pi * drawn[:, 3:]
    warped = even + amplitude / (2 * math.pi) * ((2 * math.pi * even + phase).sin() - phase.sin())
    return (start + length * warped.clamp(0, 1)) * last


def segment_steps(size: Tensor, num_frames: int, draws: Draws | None, *, variant_shift: int = 0) -> Tensor:
    """Choose one time step from each of T equal segments.

    Without draws it is the middle one. Each test variant uses another position in the segments. In training the choice
    is that published with PoseConv3D (Duan et al., CVPR 2022): a random step. Of fewer than 2 T steps, consecutive ones
    are used with single steps left out at random. Of fewer than T, consecutive ones are used from a random start,
    continuing at the first. `pyskl_test_steps` are the published choice in tests.

    Args:
        size: Number of time steps of each snippet, shape (B,).
        num_frames: Number of segments T.
        draws: Random numbers.
        variant_shift: Index of the test variant.

    Returns:
        Whole indices in 0 … size - 1, float64 of shape (B, T).
    """
    import torch

    size = size.clamp(min=1)[:, None]
    segment = torch.arange(num_frames, device=size.device)
    if draws is None or draws.variant is not None:
        share = (0.5 + variant_shift * _GOLDEN) % 1
        return torch.minimum(((segment + share) * size / num_frames).floor(), size - 1).double()
    inside = draws.uniform(shape=(num_frames,)).to(size.device)
    first = segment * size // num_frames
    width = (segment + 1) * size // num_frames - first
    spread = first + torch.minimum((inside * width).long(), (width - 1).clamp(min=0))
    rank = draws.uniform(shape=(num_frames + 1,)).to(size.device).argsort(1).argsort(1)
    skipped = (rank < size - num_frames).long().cumsum(1)[:, :-1]
    start = (draws.uniform().to(size.device)[:, None] * size).long()
    wrapped = (torch.minimum(start, size - 1) + segment) % size
    few = torch.where(size < num_frames, wrapped, segment + skipped)
    return torch.where(size < 2 * num_frames, few, spread).double()


def pyskl_test_steps(size: Tensor, num_frames: int, *, clip: int = 0, clips: int = 1) -> Tensor:
    """Choose the time steps that PySKL's UniformSampleFrames chooses in tests.

    A snippet of at least 2 T steps gives one random step of each of T equal parts. A shorter one of at least T steps
    gives consecutive steps, with single steps left out at random. A snippet of fewer steps is repeated: clip i of n
    starts at step i, or at i / n of the snippet if it has at least n steps. The random numbers are those of NumPy's
    `RandomState(255)`, in PySKL's order, and the same for every snippet of a length.

    Args:
        size: Number of time steps of each snippet, shape (B,).
        num_frames: Number of indices T.
        clip: Index of the clip; from `clips` on, they repeat.
        clips: Number of clips.

    Returns:
        Whole indices in 0 … size - 1, float64 of shape (B, T).

    References:
        Duan et al., "PYSKL: Towards Good Practices for Skeleton Action Recognition", ACM Multimedia 2022.
    """
    import torch

    steps = [_pyskl_clips(max(count, 1), num_frames, clips)[clip % clips] for count in size.tolist()]
    return torch.from_numpy(np.stack(steps).astype(np.float64)).to(size.device)


@functools.lru_cache(maxsize=4096)
def _pyskl_clips(size: int, num_frames: int, clips: int) -> np.ndarray:
    """Indices of all clips of a snippet, shape (clips, T)."""
    random = np.random.RandomState(255)
    chosen = np.empty((clips, num_frames), np.int64)
    even = np.arange(num_frames)
    for clip in range(clips):
        # PySKL draws the share of the snippet that it uses (always all of it), which consumes a number.
        random.random_sample()
        if size < num_frames:
            start = clip if size < clips else clip * size // clips
            chosen[clip] = (start + even) % size
        elif size < 2 * num_frames:
            gap_before = np.zeros(num_frames + 1, np.int64)
            gap_before[random.choice(num_frames + 1, size - num_frames, replace=False)] = 1
            chosen[clip] = even + gap_before.cumsum()[:-1]
        else:
            edges = np.arange(num_frames + 1) * size // num_frames
            chosen[clip] = edges[:-1] + random.randint(np.diff(edges))
    return chosen
