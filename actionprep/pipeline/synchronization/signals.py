"""Signals of views on their own clocks: brightness, motion energy, joint speed and audio, for synchronization."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from actionprep.datasets.poses.sequence import PoseSequence

_HEIGHT = 72
_AUDIO_RATE = 8000
_AUDIO_HOP = 0.005


@dataclass(frozen=True, slots=True)
class Signal:
    """Samples of one view.

    Attributes:
        time: (T,) float64, ascending times in s.
        value: (T,) float64, finite values; unit and scale are arbitrary.
        finest: Shortest interval in s at which the values carry information; 0 for the sampling interval.
    """

    time: np.ndarray
    value: np.ndarray
    finest: float = 0.0


def motion_energy(times: np.ndarray, change: np.ndarray) -> Signal:
    """Make a signal of the change between consecutive frames.

    The change is divided by the frame interval, so that a dropped frame does not look like a burst of motion. The
    logarithm makes the gain of a camera an additive constant.

    Args:
        times: (T,) ascending frame times in s.
        change: (T - 1,) mean absolute difference of consecutive frames.

    Returns:
        T - 1 samples at the middle of each frame interval.
    """
    rate = np.asarray(change, np.float64) / np.diff(times)
    return Signal(_midpoints(times), _log(rate))


def brightness_change(times: np.ndarray, brightness: np.ndarray) -> Signal:
    """Make a signal of the relative change of brightness per second.

    Args:
        times: (T,) ascending frame times in s.
        brightness: (T,) mean gray level of each frame.
    """
    return Signal(_midpoints(times), np.diff(np.log(np.asarray(brightness, np.float64) + 1)) / np.diff(times))


def joint_speed(poses: PoseSequence, times: np.ndarray) -> Signal:
    """Make a signal of the mean speed of the joints of the first person, in body sizes per second.

    Joints with score 0 in a frame are left out. Intervals without joints are left out of the signal.

    Args:
        poses: Poses with T frames.
        times: (T,) ascending frame times in s.
    """
    xy, seen = poses.keypoints[:, 0].astype(np.float64), poses.score[:, 0] > 0
    both = seen[1:] & seen[:-1]
    distance = np.linalg.norm(np.diff(xy, axis=0), axis=-1)
    count = both.sum(axis=1)
    masked = np.where(seen[..., None], xy, np.nan)
    span = np.full(len(xy), np.nan)
    some = seen.sum(axis=1) > 1
    span[some] = np.linalg.norm(np.nanmax(masked[some], axis=1) - np.nanmin(masked[some], axis=1), axis=-1)
    size = float(np.nanmedian(span)) if some.any() else 1.0
    speed = np.where(both, distance, 0).sum(axis=1) / np.maximum(count, 1) / max(size, 1e-9) / np.diff(times)
    kept = count > 0
    # Estimates of joints are noisy from frame to frame, and bodies move little above 10 Hz.
    return Signal(_midpoints(times)[kept], _log(speed[kept]), finest=0.04)


def video_signals(path: str | Path, times: np.ndarray) -> dict[str, Signal]:
    """Decode a video once and compute its motion energy and brightness.

    Args:
        path: The video.
        times: (T,) frame times in s.

    Returns:
        The signals "motion" and "brightness".

    Raises:
        InputError: If the video cannot be read or has another number of frames.
    """
    from actionprep.pipeline.video import VideoReader

    mean, change = [], []
    before: np.ndarray | None = None
    with VideoReader(path, times=times, threads=0) as video:
        width = max(16, round(video.width * _HEIGHT / video.height))
        for block in video.blocks():
            frames = block.resized(_HEIGHT, width).mean(axis=-1, dtype=np.float32)
            mean.append(frames.mean(axis=(1, 2)))
            joined = frames if before is None else np.concatenate([before, frames])
            change.append(np.abs(np.diff(joined, axis=0)).mean(axis=(1, 2)))
            before = frames[-1:]
    return {
        "motion": motion_energy(times, np.concatenate(change)),
        "brightness": brightness_change(times, np.concatenate(mean)),
    }


def audio_signal(path: str | Path, *, start: float) -> Signal | None:
    """Compute the rise of loudness of the first audio stream, every 5 ms.

    Sound travels 1 m in 3 ms: microphones far apart hear an event at different times.

    Args:
        path: The file.
        start: Time stamp of the first video frame in the container, in s.

    Returns:
        Samples in seconds from the first video frame; None without an audio stream or with silence.
    """
    import av

    hop = round(_AUDIO_RATE * _AUDIO_HOP)
    parts: list[np.ndarray] = []
    first: float | None = None
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        resampler = av.AudioResampler(format="flt", layout="mono", rate=_AUDIO_RATE)
        for frame in container.decode(container.streams.audio[0]):
            if first is None:
                first = float(frame.time or 0.0)
            parts += [out.to_ndarray().ravel() for out in resampler.resample(frame)]
        parts += [out.to_ndarray().ravel() for out in resampler.resample(None)]
    samples = np.concatenate(parts) if parts else np.empty(0, np.float32)
    count = len(samples) // hop
    power = (samples[: count * hop].reshape(count, hop).astype(np.float64) ** 2).mean(axis=1)
    if count < 2 or power.max() < 1e-8:
        return None
    loudness = np.log(power + 1e-3 * power.mean() + 1e-10)
    time = (first or 0.0) - start + _AUDIO_HOP * np.arange(1, count)
    return Signal(time, np.maximum(np.diff(loudness), 0))


def _midpoints(times: np.ndarray) -> np.ndarray:
    return np.asarray((times[1:] + times[:-1]) / 2, np.float64)


def _log(rate: np.ndarray) -> np.ndarray:
    """Logarithm with a floor at a tenth of the median of the positive rates."""
    positive = rate[rate > 0]
    return np.asarray(np.log(rate + 0.1 * (float(np.median(positive)) if len(positive) else 1.0)))
