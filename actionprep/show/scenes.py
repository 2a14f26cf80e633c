"""What a view of a product looks like at each moment: a picture, and what is drawn on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.show.images import Pictures

Overlay = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Scene:
    """One view of a recording, at the moments at which a product has something to show.

    times     (n,) float64 s on the recording's clock, rising
    numbers   (n,) int     number of each picture, as `pictures` counts
    overlay   draws what belongs to moment i onto a picture of any size
    remark    what a caption says of moment i besides the time
    details   what is worth knowing of the whole item, phrase by phrase
    """

    view: str
    times: np.ndarray
    numbers: np.ndarray
    pictures: Pictures
    overlay: Overlay = lambda picture, _: picture
    remark: Callable[[int], str] = lambda _: ""
    details: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.times)

    @property
    def name(self) -> str:
        """The view's id, in words where it is but a number."""
        return f"view {self.view}" if self.view.split(" ")[0].isdecimal() else self.view

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.pictures.width / self.pictures.height

    @property
    def step(self) -> float:
        """Median time from moment to moment in s; 0 where there is but one."""
        return frame_interval(self.times)

    def nearest(self, time: float) -> int | None:
        """The moment nearest to a time; of two equally near ones the earlier. None when the time lies outside.

        A moment stands for its surroundings: times up to a step before the first and after the last are inside.
        """
        room = max(self.step, 1e-3)
        if not len(self.times) or time < self.times[0] - room or time > self.times[-1] + room:
            return None
        after = int(np.clip(np.searchsorted(self.times, time), 0, len(self.times) - 1))
        before = max(after - 1, 0)
        return before if time - self.times[before] <= self.times[after] - time + 1e-9 else after

    def near(self, times: np.ndarray, *, height: int) -> list[tuple[float, np.ndarray]]:
        """Finished pictures of the moments nearest to some times, which rise, each once and with its own time."""
        found = (self.nearest(float(time)) for time in times)
        moments = list(dict.fromkeys(moment for moment in found if moment is not None))
        pictures = self.draw(moments, height, max(2, round(height * self.aspect)))
        return [(float(self.times[moment]), picture) for moment, picture in zip(moments, pictures, strict=True)]

    def between(self, low: float, high: float) -> Scene:
        """Only the moments in [low, high)."""
        kept = np.flatnonzero((self.times >= low) & (self.times < high))
        return replace(
            self,
            times=self.times[kept],
            numbers=self.numbers[kept],
            overlay=lambda picture, moment: self.overlay(picture, int(kept[moment])),
            remark=lambda moment: self.remark(int(kept[moment])),
        )

    def draw(self, moments: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:
        """Finished pictures of some moments, which never fall."""
        numbers = [int(self.numbers[moment]) for moment in moments]
        for moment, picture in zip(moments, self.pictures.at(numbers, height, width), strict=True):
            yield self.overlay(picture, moment)
