"""Runs of frame stages on frames in memory, and scenes with known motion."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np

from actionprep.pipeline.mask_sources.settings import MasksSettings
from actionprep.pipeline.masks import Masks
from actionprep.pipeline.stage import ArrayBlock, ViewSource
from actionprep.pipeline.trackers.settings import TracksSettings
from actionprep.pipeline.tracks import Tracks


class MemoryItem:
    """Store what a stage writes, with the checks of the real writer, and read it back."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        self.specs: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, list[np.ndarray]] = {}

    def create(self, name: str, **spec: Any) -> None:
        assert set(spec) <= {"shape", "dtype", "axes", "unit", "chunk", "codec", "description"}
        assert len(spec["axes"]) == len(spec["shape"]) + 1
        self.specs[name] = spec
        self._rows[name] = []

    def append(self, name: str, rows: np.ndarray) -> None:
        rows = np.ascontiguousarray(rows, self.specs[name]["dtype"])
        assert rows.shape[1:] == self.specs[name]["shape"], name
        self._rows[name].append(rows)

    def __getitem__(self, name: str) -> np.ndarray:
        spec = self.specs[name]
        return np.concatenate([np.empty((0, *spec["shape"]), spec["dtype"]), *self._rows[name]])


def view_source(num_frames: int, height: int, width: int, *, fps: float = 15.0, root: str = "") -> ViewSource:
    times = np.arange(num_frames) / fps
    return ViewSource("kitchen/seq", "0", "", height, width, fps, times, root=root)


def blocks(gray: np.ndarray, source: ViewSource, cuts: Iterable[int]) -> Iterable[ArrayBlock]:
    """Split frames (T, H, W) into blocks at the cuts."""
    edges = sorted({0, len(gray), *(cut for cut in cuts if 0 < cut < len(gray))})
    for first, last in itertools.pairwise(edges):
        index = np.arange(first, last)
        rgb = np.repeat(gray[index][..., None], 3, axis=-1)
        yield ArrayBlock(rgb, time=source.times[index], index=index)


def run_masks(
    gray: np.ndarray, settings: MasksSettings, *, cuts: Sequence[int] = (), source: ViewSource | None = None
) -> MemoryItem:
    source = source or view_source(*gray.shape)
    item = MemoryItem()
    stage = Masks(settings, source, item, {})  # type: ignore[arg-type]
    for block in blocks(gray, source, cuts):
        stage.push(block, {})
    stage.finish({})
    return item


def run_tracks(
    gray: np.ndarray,
    settings: TracksSettings,
    *,
    masks: MasksSettings | None = None,
    cuts: Sequence[int] = (),
    source: ViewSource | None = None,
) -> MemoryItem:
    """Masks and tracks in one pass, as the engine runs them."""
    source = source or view_source(*gray.shape)
    item = MemoryItem()
    before = Masks(masks or MasksSettings(), source, MemoryItem(), {})  # type: ignore[arg-type]
    stage = Tracks(settings, source, item, {})  # type: ignore[arg-type]
    for block in blocks(gray, source, cuts):
        stage.push(block, {"masks": before.push(block, {})})
    stage.finish({"masks": before.finish({})})
    return item


def texture(height: int, width: int, *, seed: int = 0, grain: float = 2.0) -> np.ndarray:
    """Smooth random gray values, float32 in [30, 225], with texture to track everywhere."""
    noise = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), grain)
    return np.clip(128 + 45 * smooth / smooth.std(), 30, 225)


def shifted(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Shift an image exactly by a fraction of a pixel, with the shift theorem (it wraps around)."""
    fy, fx = np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1])[None]
    return np.fft.ifft2(np.fft.fft2(image) * np.exp(-2j * np.pi * (fx * dx + fy * dy))).real


def patch_over_background(
    num_frames: int, height: int, width: int, *, size: int, start: tuple[int, int], step: tuple[int, int]
) -> np.ndarray:
    """(T, H, W) uint8: a textured square of `size` that moves by full pixels over a textured background."""
    ground = texture(height, width, seed=1)
    square = texture(size, size, seed=2)
    frames = np.repeat(ground[None], num_frames, axis=0)
    for t in range(num_frames):
        x, y = start[0] + t * step[0], start[1] + t * step[1]
        frames[t, y : y + size, x : x + size] = square
    return np.rint(frames).astype(np.uint8)
