"""Choose representative frames of each view."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import field_validator

from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.products.keyframes import KEYFRAMES, read_keyframe_index, write_keyframes
from actionprep.pipeline.clip_samplers import ShortRule, filled, pyskl_frames, scene_frames, timesformer_frames
from actionprep.pipeline.stage import FrameBlock, FrameStage, ViewSource, stage
from actionprep.registry import Registry
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter

# Motion is measured on images of about this short side: fine enough for a hand, coarse enough to ignore sensor noise.
_MOTION_SIDE = 60


class KeyframesSettings(StageSettings):
    """Choose representative frames of each view."""

    sampler: str = option(
        "uniform",
        "uniform: evenly in time; random: one random frame per part; dense: at a fixed rate; whole: evenly by index, "
        "always `count`, as in LightTimeSformer; motion: more frames where there is more motion; consecutive: the first "
        "frames; strided: every step-th frame; timesformer, pyskl: as these systems do; scenes: the first frame of each "
        "scene.",
    )
    count: int = option(
        16, "Number of frames (not for dense, strided and scenes). Of a video with fewer frames, all are chosen.", ge=1
    )
    rate: float = option(2.0, "Frames per second (only for dense).", gt=0)
    seed: int = option(0, "Seed of random and pyskl. The choice also depends on recording and view.", ge=0)
    step: int | None = option(
        None,
        "strided: distance of the frames, 1 if not set; timesformer: their distance at 30 frames per second, 32 if not set.",
        ge=1,
        later=True,
    )
    short: ShortRule = option(
        "fewer",
        "Where fewer than `count` frames are chosen: fewer keeps them; repeat adds the last frame; loop starts again; mask "
        "adds the last frame with score 0.",
        later=True,
    )

    @field_validator("sampler")
    @classmethod
    def _sampler_is_known(cls, name: str) -> str:
        SAMPLERS.check(name)
        return name


class FrameSampler(ABC):
    """Choose frames of a view. Lists show the first line of the docstring.

    Attributes:
        needs_motion: Whether `choose` needs the motion of every frame. The choice is then known after the last frame.
        has_count: Whether `count` frames are chosen of videos that have them. The setting `short` applies only then.
    """

    needs_motion: ClassVar[bool] = False
    has_count: ClassVar[bool] = True

    @abstractmethod
    def choose(
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        """Choose frames of one view.

        Args:
            times: Frame times in seconds, shape (T,).
            settings: Settings of the stage.
            rng: Random numbers that depend on seed, recording and view.
            motion: Motion at each frame as measured by `MotionMeter`, shape (T,); None without `needs_motion`.

        Returns:
            Frame indices, int64 of shape (K,).
        """


SAMPLERS: Registry[type[FrameSampler]] = Registry(
    "sampler", "actionprep.samplers", plural="Samplers", subclass_of="actionprep.pipeline.keyframes:FrameSampler"
)
"""Samplers by the name in `keyframes.sampler`; those of actionprep are added below."""


@stage("keyframes", version=2, settings=KeyframesSettings)
class Keyframes(FrameStage):
    """Write the product `keyframes` (schema: `actionprep.datasets.products.keyframes`).

    For stages that read it live, `push` returns the chosen frames of the block if they are known before the video is
    read, else none. `finish` returns all.
    """

    def __init__(
        self, settings: KeyframesSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        super().__init__(settings, source, item, done)
        self._sampler = SAMPLERS.find(settings.sampler)()
        self._rng = np.random.default_rng(seed_of(settings.seed, source.recording, source.view))
        self._motion = MotionMeter()
        self._valid = np.zeros(0, bool)
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
        return _in_block(self._chosen, block)

    def finish(self, live: Mapping[str, Any]) -> np.ndarray:  # noqa: D102
        score = None
        if self._chosen is None:
            score = self._motion.values()
            self._chosen = self._choose(score)
        chosen = self._chosen
        scores = self._valid * (1.0 if score is None else score[chosen])
        write_keyframes(self.item, chosen, self.source.times[chosen], scores)
        self.item.attributes |= KEYFRAMES.attributes_of(
            sampler=self.settings.sampler,
            num_frames=self.source.num_frames,
            known_ahead=not self._sampler.needs_motion,
        )
        return chosen

    @classmethod
    def replay(cls, reader: ItemReader, blocks: Iterator[FrameBlock]) -> Iterator[np.ndarray]:  # noqa: D102
        chosen = read_keyframe_index(reader)
        for block in blocks:
            yield _in_block(chosen, block) if reader.attributes["known_ahead"] else chosen[:0]
        yield chosen

    def _choose(self, motion: np.ndarray | None) -> np.ndarray:
        chosen = self._sampler.choose(self.source.times, self.settings, rng=self._rng, motion=motion).astype(np.int64)
        count = self.settings.count if self._sampler.has_count else len(chosen)
        chosen, self._valid = filled(chosen, count, self.settings.short, self.source.num_frames)
        return chosen


@SAMPLERS.register("uniform")
class Uniform(FrameSampler):
    """The frame in the middle of each of `count` parts of equal duration."""

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        return uniform_frames(times, settings.count)


@SAMPLERS.register("random")
class RandomInSegment(FrameSampler):
    """One random frame from each of `count` parts of equal length."""

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        return random_frames(len(times), settings.count, rng)


@SAMPLERS.register("dense")
class Dense(FrameSampler):
    """The frame shown at each tick of a clock with `rate` ticks per second."""

    has_count = False

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        return frames_shown_at_rate(times, settings.rate)


@SAMPLERS.register("whole")
class WholeClip(FrameSampler):
    """The evaluation rule of LightTimeSformer: exactly `count` frames, evenly by index over the full clip."""

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        return whole_clip_frames(len(times), settings.count)


@SAMPLERS.register("motion")
class Motion(FrameSampler):
    """More frames where there is more motion: evenly over the accumulated motion."""

    needs_motion = True

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        assert motion is not None
        return motion_frames(motion, settings.count)


@SAMPLERS.register("consecutive")
class Consecutive(FrameSampler):
    """The first `count` frames, as I3D is tested on TinyVIRAT."""

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        return np.arange(min(settings.count, len(times)))


@SAMPLERS.register("strided")
class Strided(FrameSampler):
    """Every `step`-th frame, as gesture snippets with a sample rate."""

    has_count = False

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        return np.arange(0, len(times), settings.step or 1)


@SAMPLERS.register("timesformer")
class TimeSformerClip(FrameSampler):
    """The test rule of TimeSformer: `count` frames, evenly over `step` x `count` frames at 30 per second."""

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        fps = 1 / frame_interval(times, default=1 / 30)
        return timesformer_frames(len(times), fps, settings.count, settings.step or 32)


@SAMPLERS.register("pyskl")
class PySklClip(FrameSampler):
    """The rule of PySKL: a random frame of each of `count` parts; short clips start again."""

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        return pyskl_frames(len(times), settings.count, rng)


@SAMPLERS.register("scenes")
class Scenes(FrameSampler):
    """The first frame of each scene, where the image changes at once."""

    needs_motion = True
    has_count = False

    def choose(  # noqa: D102
        self, times: np.ndarray, settings: KeyframesSettings, *, rng: np.random.Generator, motion: np.ndarray | None
    ) -> np.ndarray:
        assert motion is not None
        return scene_frames(motion)


def uniform_frames(times: np.ndarray, count: int) -> np.ndarray:
    """Choose the frames shown in the middle of `count` parts of equal duration, each at most once.

    A frame is shown until the next one begins. The last frame is shown as long as the one before it.

    Args:
        times: Frame times in seconds, shape (T,).
        count: Number of parts.

    Returns:
        Frame indices, int64 of shape (K,), with K <= min(count, T).
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
    """Choose one random frame from each of `count` parts of equal length; all frames if there are no more than `count`."""
    if count >= num_frames:
        return np.arange(num_frames)
    bounds = np.arange(count + 1) * num_frames // count
    return rng.integers(bounds[:-1], bounds[1:])


def whole_clip_frames(num_frames: int, count: int) -> np.ndarray:
    """Choose the middle frame of each of `count` parts of equal length; frames repeat if there are fewer than parts.

    This is the rule that LightTimeSformer shows for testing: the sampling rate depends on the video, so that a fixed
    number of frames covers it completely.
    """
    return (2 * np.arange(count) + 1) * num_frames // (2 * count)


def motion_frames(motion: np.ndarray, count: int) -> np.ndarray:
    """Choose the frames in the middle of `count` parts of equal accumulated motion, each at most once.

    If one frame covers several parts, frames with the most motion are added. Without motion, frames are spread evenly.

    Args:
        motion: Motion at each frame, at least 0, shape (T,).
        count: Number of parts.

    Returns:
        Increasing frame indices, int64 of shape (min(count, T),).

    References:
        Zhi et al., "MGSampler: An Explainable Sampling Strategy for Video Action Recognition", ICCV 2021. It also takes
        the square root, so that one large movement does not get all frames.
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
    """Measure the mean absolute change of luma between frames, shrunk to a short side of about 60 pixels."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._values: list[np.ndarray] = []

    def add(self, gray: np.ndarray) -> None:
        """Add the next frames, uint8 of shape (B, H, W)."""
        small = shrink_gray(gray, max(1, min(gray.shape[1:]) // _MOTION_SIDE)).astype(np.int16)
        before = np.concatenate([small[:1] if self._last is None else self._last[None], small[:-1]])
        self._values.append(np.abs(small - before).mean((1, 2)))
        self._last = small[-1]

    def values(self) -> np.ndarray:
        """Return the change of each frame from the one before it, float64 of shape (T,); 0 for the first."""
        return np.concatenate([*self._values, np.zeros(0)])


def shrink_gray(gray: np.ndarray, factor: int) -> np.ndarray:
    """Shrink uint8 images (B, H, W) to (B, H // factor, W // factor) by means over squares; incomplete ones are cut."""
    import cv2

    height, width = gray.shape[1] // factor, gray.shape[2] // factor
    if factor == 1:
        return gray
    cut = gray[:, : height * factor, : width * factor]
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in cut])


def _shown_at(times: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return the index of the frame shown at each time; half a microsecond allows for rounded frame times."""
    return np.clip(np.searchsorted(times, seconds + 5e-7, side="right") - 1, 0, len(times) - 1)


def _last_gap(times: np.ndarray) -> float:
    return float(times[-1] - times[-2]) if len(times) > 1 else 0.0


def _in_block(chosen: np.ndarray, block: FrameBlock) -> np.ndarray:
    return chosen[np.isin(chosen, block.index)]


def seed_of(seed: int, recording: str, view: str) -> list[int]:
    """Return a seed of random numbers that depend on a view too."""
    name = hashlib.sha256(f"{recording}\0{view}".encode()).digest()
    return [seed, int.from_bytes(name[:8], "little")]
