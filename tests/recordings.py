"""Small generated videos."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from actionprep.api import Study, settings_models
from actionprep.datasets.study import StudySettings, init_study


def moving_square(num_frames: int, *, height: int = 64, width: int = 96, speed: int = 2, seed: int = 0) -> np.ndarray:
    """(T, H, W, 3) uint8: a textured square that moves to the right over a static texture."""
    generator = np.random.default_rng(seed)
    back = generator.integers(60, 120, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    back = back.repeat(4, 0).repeat(4, 1)[:height, :width]
    side = height // 3
    patch = generator.integers(0, 255, (side // 4 + 1, side // 4 + 1, 3), np.uint8)
    patch = patch.repeat(4, 0).repeat(4, 1)[:side, :side]
    frames = np.repeat(back[None], num_frames, 0)
    for at in range(num_frames):
        left = (4 + at * speed) % (width - side)
        frames[at, side : 2 * side, left : left + side] = patch
    return frames


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    rate: int = 30,
    codec: str = "libx264",
    ticks: np.ndarray | None = None,
    time_base: Fraction | None = None,
    pixel_format: str = "yuv420p",
    **options: str,
) -> Path:
    """Encode (T, H, W, 3) uint8 frames; ticks are presentation times in units of time_base, for a variable rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        stream.codec_context.thread_count = 1
        stream.options = options
        if time_base is not None:
            stream.time_base = stream.codec_context.time_base = time_base
        for at, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = int(ticks[at]), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


FRAMES, HEIGHT, WIDTH = 12, 96, 128
"""Sizes of the videos of `video_study`."""


def video_study(folder: Path, *, views: Sequence[str] = ("0",), recordings: Sequence[str] = ("a",)) -> Study:
    """Create a study of short videos of a moving square, each with FRAMES frames of HEIGHT x WIDTH px."""
    for recording in recordings:
        for view in views:
            frames = moving_square(FRAMES, height=HEIGHT, width=WIDTH)
            write_video(folder / "videos" / recording / f"cam{view}.mp4", frames)
    settings = StudySettings(layout="views", pattern="{recording}/cam{view}.mp4")
    return Study(init_study(folder, settings, models=settings_models()))
