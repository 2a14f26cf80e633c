"""Choose the frames of each view that stand for it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import field_validator

from actionprep.pipeline.stage import FrameBlock, FrameStage, ViewSource, stage
from actionprep.registry import Registry
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import ItemReader, ItemWriter

# Motion is measured on pictures of about this short side: fine enough for a hand, coarse enough to ignore sensor noise.
_MOTION_SIDE = 60


class KeyframesSettings(StageSettings):
    """Choose the frames of each view that stand for it."""

    sampler: str = option(
        "uniform",
        "uniform: spread evenly in time; random: one by chance in each part; dense: at a fixed rate; whole: evenly by "
        "index, always `count`, as LightTimeSformer does; motion: more where more moves.",
    )
    count: int = option(16, "How many frames (not for dense). A video with fewer gives all it has.", ge=1)
    rate: float = option(2.0, "Frames per second that dense takes.", gt=0)
    seed: int = option(0, "Seed of random; with it, recording and view decide the choice.", ge=0)

    @field_validator("sampler")
    @classmethod
    def _sampler_is_known(cls, name: str) -> str:
        SAMPLERS.check(name)
        return name


class FrameSampler(ABC):
    """Chooses frames of a view. The first line of the docstring stands in lists.

    needs_motion: `choose` gets the motion of every frame, and so knows its choice only after the last.
    """

    needs_motion: ClassVar[bool] = False

    @abstractmethod
    def choose(
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        """(K,) int64 indices of the chosen frames, not decreasing; times (T,) s, motion (T,) as `MotionMeter` measures."""


SAMPLERS: Registry[type[FrameSampler]] = Registry(
    "sampler", "actionprep.samplers", plural="Samplers", subclass_of="actionprep.pipeline.keyframes:FrameSampler"
)
"""Samplers by the name that `keyframes.sampler` takes; those of actionprep are added below."""


@stage("keyframes", version=1, settings=KeyframesSettings)
class Keyframes(FrameStage):
    """Makes keyframes/<recording>/<view>: index (K) int64, time (K) s, score (K) float32.

    score is the motion at the frame for the sampler motion, else 1. Attributes: sampler, num_frames of the video.
    Read live, `push` returns the chosen indices among the block's frames where they are known before the video is read,
    else none; `finish` returns all.
    """

    def __init__(
        self, settings: KeyframesSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        super().__init__(settings, source, item, done)
        self._sampler = SAMPLERS.find(settings.sampler)()
        self._rng = np.random.default_rng(_seed(settings.seed, source.recording, source.view))
        self._motion = MotionMeter()
        self._chosen = None if self._sampler.needs_motion else self._choose(None)

    @classmethod
    def identity(cls, settings: KeyframesSettings) -> dict[str, str]:  # noqa: D102
        return SAMPLERS.origin(settings.sampler)

    def wanted_images(self) -> np.ndarray | None:  # noqa: D102
        return None if self._sampler.needs_motion else np.zeros(0, np.int64)

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> np.ndarray:  # noqa: D102
        if self._chosen is None:
            self._motion.add(block.gray)
            return np.zeros(0, np.int64)
        return _among(self._chosen, block)

    def finish(self, live: Mapping[str, Any]) -> np.ndarray:  # noqa: D102
        score = None
        if self._chosen is None:
            score = self._motion.values()
            self._chosen = self._choose(score)
        chosen = self._chosen
        scores = np.ones(len(chosen)) if score is None else score[chosen]
        self.item.write("index", chosen, axes=("keyframe",), description="position in the video, from 0")
        self.item.write("time", self.source.times[chosen], axes=("keyframe",), unit="s")
        self.item.write("score", scores.astype(np.float32), axes=("keyframe",))
        self.item.attributes.update(
            sampler=self.settings.sampler,
            num_frames=self.source.num_frames,
            known_ahead=not self._sampler.needs_motion,
        )
        return chosen

    @classmethod
    def replay(cls, reader: ItemReader, blocks: Iterator[FrameBlock]) -> Iterator[np.ndarray]:  # noqa: D102
        chosen = reader["index"][:]
        for block in blocks:
            yield _among(chosen, block) if reader.attributes["known_ahead"] else chosen[:0]
        yield chosen

    def _choose(self, motion: np.ndarray | None) -> np.ndarray:
        return self._sampler.choose(self.source.times, self.settings, rng=self._rng, motion=motion).astype(np.int64)


@SAMPLERS.register("uniform")
class Uniform(FrameSampler):
    """The frame in the middle of each of `count` parts of equal duration."""

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        return uniform_frames(times, settings.count)


@SAMPLERS.register("random")
class RandomInSegment(FrameSampler):
    """One frame by chance in each of `count` parts of equal length."""

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        return random_frames(len(times), settings.count, rng)


@SAMPLERS.register("dense")
class Dense(FrameSampler):
    """The frame that is shown at each instant of a clock with `rate` ticks a second."""

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        return frames_shown_at_rate(times, settings.rate)


@SAMPLERS.register("whole")
class WholeClip(FrameSampler):
    """LightTimeSformer's evaluation rule: exactly `count` frames, evenly by index over the whole clip."""

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        return whole_clip_frames(len(times), settings.count)


@SAMPLERS.register("motion")
class Motion(FrameSampler):
    """More frames where more moves: evenly over the accumulated motion."""

    needs_motion = True

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        assert motion is not None
        return motion_frames(motion, settings.count)


def uniform_frames(times: np.ndarray, count: int) -> np.ndarray:
    """Frames shown in the middle of `count` parts of equal duration, each at most once.

    times (T,) s → (K,) int64, K ≤ min(count, T). A frame is shown until the next begins, the last as long as the
    one before it.
    """
    if count >= len(times):
        return np.arange(len(times))
    duration = times[-1] - times[0] + _last_gap(times)
    return np.unique(_shown_at(times, times[0] + (np.arange(count) + 0.5) * duration / count))


def frames_shown_at_rate(times: np.ndarray, rate: float) -> np.ndarray:
    """Choose the frames that are on screen at the ticks of a clock.

    A frame is on screen from its own time to that of the next one. `tracks.frames_at_rate` chooses the nearest frames
    instead.

    Args:
        times: Frame times in seconds, ascending, shape (T,).
        rate: Ticks per second; the first tick is at the first frame.

    Returns:
        Indices of the chosen frames, ascending, each once.
    """
    duration = times[-1] - times[0] + _last_gap(times)
    num_ticks = max(1, int(np.ceil(duration * rate - 1e-6)))
    return np.unique(_shown_at(times, times[0] + np.arange(num_ticks) / rate))


def random_frames(num_frames: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """One frame by chance in each of `count` parts of equal length; all frames when there are no more than that."""
    if count >= num_frames:
        return np.arange(num_frames)
    bounds = np.arange(count + 1) * num_frames // count
    return rng.integers(bounds[:-1], bounds[1:])


def whole_clip_frames(num_frames: int, count: int) -> np.ndarray:
    """The middle frame of each of `count` parts of equal length; frames repeat when there are fewer than parts.

    The rule that LightTimeSformer's figures show for testing: its sampling rate depends on the video, so that a fixed
    number of frames covers all of it.
    """
    return (2 * np.arange(count) + 1) * num_frames // (2 * count)


def motion_frames(motion: np.ndarray, count: int) -> np.ndarray:
    """Frames in the middle of `count` parts of equal accumulated motion, each at most once.

    motion (T,) ≥ 0 → (min(count, T),) int64, increasing. Where one frame takes several parts, frames with the most
    motion fill up. Without any motion the frames are spread evenly.

    After Zhi et al., "MGSampler: An Explainable Sampling Strategy for Video Action Recognition", ICCV 2021, which
    also takes the square root, so that one big movement does not take all frames.
    """
    num_frames = len(motion)
    if count >= num_frames:
        return np.arange(num_frames)
    weights = np.sqrt(motion)
    if not weights.sum():
        return whole_clip_frames(num_frames, count)
    accumulated = np.cumsum(weights) / weights.sum()
    chosen = np.unique(np.searchsorted(accumulated, (np.arange(count) + 0.5) / count).clip(0, num_frames - 1))
    by_motion = np.argsort(-motion, kind="stable")
    others = by_motion[~np.isin(by_motion, chosen)]
    return np.sort(np.concatenate([chosen, others[: count - len(chosen)]]))


class MotionMeter:
    """Mean absolute change of luma from frame to frame, on pictures shrunk to a short side of about 60 pixels."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._values: list[np.ndarray] = []

    def add(self, gray: np.ndarray) -> None:
        """Take the next frames, (B, H, W) uint8."""
        small = shrink_gray(gray, max(1, min(gray.shape[1:]) // _MOTION_SIDE)).astype(np.int16)
        before = np.concatenate([small[:1] if self._last is None else self._last[None], small[:-1]])
        self._values.append(np.abs(small - before).mean((1, 2)))
        self._last = small[-1]

    def values(self) -> np.ndarray:
        """(T,) float64 change towards each frame from the one before it, 0 for the first."""
        return np.concatenate([*self._values, np.zeros(0)])


def shrink_gray(gray: np.ndarray, factor: int) -> np.ndarray:
    """(B, H, W) uint8 → (B, H // factor, W // factor) uint8, means of whole squares; an incomplete margin is cut."""
    import cv2

    height, width = gray.shape[1] // factor, gray.shape[2] // factor
    if factor == 1:
        return gray
    cut = gray[:, : height * factor, : width * factor]
    return np.stack([cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in cut])


def _shown_at(times: np.ndarray, instants: np.ndarray) -> np.ndarray:
    """Index of the frame shown at each instant; half a microsecond makes up for rounding of the times."""
    return np.clip(np.searchsorted(times, instants + 5e-7, side="right") - 1, 0, len(times) - 1)


def _last_gap(times: np.ndarray) -> float:
    return float(times[-1] - times[-2]) if len(times) > 1 else 0.0


def _among(chosen: np.ndarray, block: FrameBlock) -> np.ndarray:
    return chosen[np.isin(chosen, block.index)]


def _seed(seed: int, recording: str, view: str) -> list[int]:
    name = hashlib.sha256(f"{recording}\0{view}".encode()).digest()
    return [seed, int.from_bytes(name[:8], "little")]
