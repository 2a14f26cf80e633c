"""A scene: one view of a product over time, as images with overlays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.show.images import Images

Overlay = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Scene:
    """One view of a recording at the time steps of a product.

    Attributes:
        view: Id of the view.
        times: Times in seconds on the recording's clock, increasing, shape (n,), float64.
        numbers: Index of each image in `images`, shape (n,), int.
        images: Source of the images.
        overlay: Draws time step i onto an image of any size.
        remark: Caption of time step i besides its time.
        details: Facts about the full item, one phrase each.
    """

    view: str
    times: np.ndarray
    numbers: np.ndarray
    images: Images
    overlay: Overlay = lambda image, _: image
    remark: Callable[[int], str] = lambda _: ""
    details: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.times)

    @property
    def name(self) -> str:
        """Name for display: the id, or "view 3" if the id is a number."""
        return f"view {self.view}" if self.view.split(" ")[0].isdecimal() else self.view

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.images.width / self.images.height

    @property
    def step(self) -> float:
        """Median interval between time steps in seconds; 0 if there is only one."""
        return frame_interval(self.times)

    def nearest(self, time: float) -> int | None:
        """Find the time step nearest to a time; the earlier of two equally near ones.

        Times up to one step before the first and after the last time step count as inside.

        Returns:
            Index of the time step, or None if the time is outside.
        """
        room = max(self.step, 1e-3)
        if not len(self.times) or time < self.times[0] - room or time > self.times[-1] + room:
            return None
        after = int(np.clip(np.searchsorted(self.times, time), 0, len(self.times) - 1))
        before = max(after - 1, 0)
        return before if time - self.times[before] <= self.times[after] - time + 1e-9 else after

    def near(self, times: np.ndarray, *, height: int) -> list[tuple[float, np.ndarray]]:
        """Draw the time steps nearest to increasing times, each once, with their own times."""
        nearest = (self.nearest(float(time)) for time in times)
        moments = list(dict.fromkeys(moment for moment in nearest if moment is not None))
        images = self.draw(moments, height, max(2, round(height * self.aspect)))
        return [(float(self.times[moment]), image) for moment, image in zip(moments, images, strict=True)]

    def between(self, low: float, high: float) -> Scene:
        """Return the scene restricted to times in [low, high)."""
        kept = np.flatnonzero((self.times >= low) & (self.times < high))
        return replace(
            self,
            times=self.times[kept],
            numbers=self.numbers[kept],
            overlay=lambda image, moment: self.overlay(image, int(kept[moment])),
            remark=lambda moment: self.remark(int(kept[moment])),
        )

    def draw(self, moments: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:
        """Yield the drawn images of some time steps. The indices never decrease."""
        numbers = [int(self.numbers[moment]) for moment in moments]
        for moment, image in zip(moments, self.images.at(numbers, height, width), strict=True):
            yield self.overlay(image, moment)
