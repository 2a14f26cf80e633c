"""Find clips that show the same event: copies that were encoded again, cropped, or cut at other times.

Clips of a fixed camera share their background, so the frames themselves prove nothing. Compared are the changes between
frames: small gray images at a fixed rate, from which the image two steps earlier is subtracted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from actionprep.pipeline.stage import FrameBlock

RATE = 15.0
"""Frames per second at which clips are compared."""

SIMILARITY = (0.8, 0.965)
"""Least and largest similarity from which clips can be near-duplicates; see `threshold`.

Among 109 clips of UTD-MHAD and UCF101, with repetitions of a gesture by one person, no pair of different clips has more
than 0.96. Copies that were encoded again, scaled, cropped or shifted in time had at least 0.97. In small videos with
little motion, compression changes copies more: to 0.8 and above, and different clips have at most 0.7.
"""

_SIDE = 64
_STEPS = 2
_NOISE = 1.0  # gray levels
_COARSE, _MIDDLE, _FINE = 5, 12, 24
# Several starts, because the largest coarse similarity need not be near the right rectangle.
_CANDIDATE, _STARTS = 0.55, 3
_MAX_SAMPLES, _MARGIN = 450, 8
_MIN_SAMPLES = 7
_MIN_SIDE = 0.5
# A clip moves if this share of the small image changes in a frame of average motion.
_MOVES = 0.003
_FFT_BYTES = 64 << 20

Box = tuple[float, float, float, float]
Match = tuple[float, Box, float]  # similarity, rectangle and lag in samples


def _boxes() -> Iterator[Box]:
    for side, num_starts in ((1.0, 1), (0.9, 3), (0.8, 3), (0.7, 4), (0.6, 4)):
        starts = np.linspace(0, 1 - side, num_starts).tolist()
        for top in starts:
            for left in starts:
                yield left, top, left + side, top + side


_BOXES = tuple(_boxes())
_WHOLE = _BOXES[0]


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Two clips that show the same event.

    Attributes:
        similarity: Cosine of the angle between the changes of both clips where they overlap, in [0, 1].
        shift: Time in the first clip minus time in the second clip of the same moment, in s.
        overlap: Duration that both clips show, in s.
        crop: Rectangle of the first clip that the second one shows: left, top, right, bottom as fractions of its size.
            Reversed if `is_reversed`.
        is_reversed: Whether `crop` is the rectangle of the second clip that the first one shows.
    """

    similarity: float
    shift: float
    overlap: float
    crop: Box
    is_reversed: bool = False


@dataclass
class ClipPrint:
    """What is compared of a clip: the changes between its frames.

    Attributes:
        change: Change of each pixel of the small image in gray levels, int8 of shape (T, 64, 64), at `RATE` samples per
            second.
        moves: Whether there is enough motion to compare.
    """

    change: np.ndarray
    moves: bool
    _spectrum: tuple[int, np.ndarray] = field(default=(0, np.empty(0)), repr=False)

    @classmethod
    def of_frames(cls, small: np.ndarray, times: np.ndarray) -> ClipPrint:
        """Make the print of a clip.

        Args:
            small: Gray images of 64 x 64 pixels as `shrunk` makes them, shape (T, 64, 64).
            times: Frame times in seconds, ascending, shape (T,).
        """
        frames = _smoothed(_at_rate(small.astype(np.float32), times))
        change = frames[_STEPS:] - frames[:-_STEPS] if len(frames) > _STEPS else frames[:0]
        change = np.sign(change) * np.maximum(np.abs(change) - _NOISE, 0)
        changed = float((change != 0).mean()) if len(change) else 0.0
        return cls(
            np.rint(np.clip(change, -127, 127)).astype(np.int8), len(change) >= _MIN_SAMPLES and changed >= _MOVES
        )

    def cells(self, box: Box, side: int) -> np.ndarray:
        """Return the means of the change over a grid of `side` x `side` cells of a rectangle, float32 (T, side²)."""
        left, top, right, bottom = box
        rows, columns = _weights(top, bottom, side), _weights(left, right, side)
        cells = np.empty((len(self.change), side * side), np.float32)
        for start in range(0, len(cells), _MAX_SAMPLES):  # long clips would need gigabytes
            part = self.change[start : start + _MAX_SAMPLES].astype(np.float32)
            cells[start : start + len(part)] = (rows @ part @ columns.T).reshape(len(part), -1)
        return cells

    @functools.cached_property
    def energy(self) -> np.ndarray:
        """Squared length of the coarse cells of the first t samples, (T + 1,)."""
        energy: np.ndarray = _accumulated(self.cells(_WHOLE, _COARSE)[None])[0]
        return energy

    def spectrum(self, size: int) -> np.ndarray:
        """Return the Fourier transform of the coarse cells of the full image over time, (F, cells)."""
        if self._spectrum[0] != size:
            self._spectrum = size, _transform(self.cells(_WHOLE, _COARSE)[None], size)[0]
        return self._spectrum[1]


class CropSearch:
    """Search for clips that show the same event as a rectangle of one clip, or as all of it."""

    def __init__(self, clip: ClipPrint) -> None:
        self._clip = clip
        self._cells = np.stack([clip.cells(box, _COARSE) for box in _BOXES])
        self._energy = _accumulated(self._cells)
        self._size = 0
        self._spectra: np.ndarray | None = None

    def find(self, other: ClipPrint, *, similarity: float) -> NearDuplicate | None:
        """Compare the clip with another one.

        Args:
            other: The clip that may show a rectangle of this one.
            similarity: Similarity from which they are near-duplicates, see `threshold`.

        Returns:
            How they match; None if they are no near-duplicates.
        """
        starts = [start for start in self._starts(other) if start[0] >= _CANDIDATE]
        if not starts:
            return None
        score, box, lag = max(self._match(other, start, similarity) for start in starts)
        if score < similarity:
            return None
        first, last = _common(len(self._clip.change), len(other.change), lag)
        return NearDuplicate(round(score, 3), -lag / RATE, (last - first + _STEPS) / RATE, box)

    def _match(self, other: ClipPrint, start: Match, similarity: float) -> Match:
        """Improve a coarse match, on at most half a minute: the part with the most change."""
        coarse, box, lag = start
        first, last = _common(len(self._clip.change), len(other.change), lag)
        if last - first > _MAX_SAMPLES:
            own, its = self._energy[0], other.energy
            begins = np.arange(first, last - _MAX_SAMPLES + 1)
            energy = sum(
                side[begins + at + _MAX_SAMPLES] - side[begins + at] for side, at in ((own, 0), (its, int(lag)))
            )
            first = int(begins[np.argmax(energy)])
            last = first + _MAX_SAMPLES
        its_first = max(first + int(lag) - _MARGIN, 0)
        own_part = ClipPrint(self._clip.change[first:last], moves=True)
        its_part = ClipPrint(other.change[its_first : last + int(lag) + _MARGIN], moves=True)
        moved = first - its_first
        rough = _refined(own_part, its_part, (coarse, box, lag + moved), _MIDDLE, smallest=0.03)
        if rough[0] >= similarity - 0.15:
            rough = _refined(own_part, its_part, rough, _FINE, smallest=0.003)
        return rough[0], rough[1], rough[2] - moved

    def _starts(self, other: ClipPrint) -> list[Match]:
        """Return the rectangles with the largest coarse similarity, and its lag."""
        own, its = len(self._clip.change), len(other.change)
        size = 1 << (own + its - 1).bit_length()
        shortest = max(_MIN_SAMPLES, min(own, its) // 4)
        lags = np.arange(shortest - own, its - shortest + 1)
        first, last = np.maximum(-lags, 0), np.minimum(own, its - lags)
        energy = other.energy
        its_energy = energy[last + lags] - energy[first + lags]
        least = 0.2 * energy[-1] / its * (last - first)
        matches: list[Match] = []
        step = max(1, _FFT_BYTES // (size * self._cells.shape[2] * 8))
        for start in range(0, len(_BOXES), step):
            rows = slice(start, start + step)
            product = self._product(rows, size, other)[:, lags]
            own_energy = self._energy[rows][:, last] - self._energy[rows][:, first]
            own_least = 0.2 * self._energy[rows, -1:] / own * (last - first)
            moves = (its_energy > least) & (own_energy > own_least)
            score = np.where(moves, product / np.sqrt(np.maximum(own_energy * its_energy, 1e-9)), 0)
            best = score.argmax(axis=1)
            matches += [
                (float(score[row, column]), _BOXES[start + row], float(lags[column]))
                for row, column in enumerate(best.tolist())
            ]
        return sorted(matches, reverse=True)[:_STARTS]

    def _product(self, rows: slice, size: int, other: ClipPrint) -> np.ndarray:
        """Return the inner product of the rectangles with another clip at each lag, (B, size)."""
        import scipy.fft

        if self._size != size:
            self._size, self._spectra = size, None
        if self._spectra is None and size * self._cells.shape[2] * 4 * len(_BOXES) <= _FFT_BYTES:
            self._spectra = _transform(self._cells, size).conj()
        spectra = _transform(self._cells[rows], size).conj() if self._spectra is None else self._spectra[rows]
        product: np.ndarray = scipy.fft.irfft(np.einsum("bfc,fc->bf", spectra, other.spectrum(size)), size, axis=1)
        return product


def threshold(different: float) -> float:
    """Return the similarity from which clips of a study are near-duplicates.

    People who repeat a gesture, or machines, make different clips similar. How similar depends on the study, so the
    threshold lies above what clips of one part, which are no evidence of a leak, have.

    Args:
        different: Largest similarity of different clips of one part; 0 if there are none.
    """
    least, largest = SIMILARITY
    return min(max(different + 0.3 * (1 - different), least), largest)


def better(match: NearDuplicate | None, reverse: NearDuplicate | None) -> NearDuplicate | None:
    """Return the better one of a match and of the match of the same clips in reverse order."""
    if reverse is None or (match is not None and match.similarity >= reverse.similarity):
        return match
    return NearDuplicate(reverse.similarity, -reverse.shift, reverse.overlap, reverse.crop, is_reversed=True)


def shrunk(block: FrameBlock) -> np.ndarray:
    """Shrink the luma of frames to 64 x 64 pixels by area, uint8 of shape (B, 64, 64)."""
    import cv2

    small = []
    for image in block.gray:
        while min(image.shape) >= 4 * _SIDE:  # much faster than one step
            image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
        small.append(cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))
    return np.stack(small)


def _at_rate(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Interpolate frames at the ticks of a clock that starts with the first one."""
    ticks = np.arange(times[0], times[-1] + 1e-6, 1 / RATE)
    before = np.clip(np.searchsorted(times, ticks, "right") - 1, 0, len(times) - 1)
    after = np.minimum(before + 1, len(times) - 1)
    gap = np.maximum(times[after] - times[before], 1e-9)
    share = np.where(after > before, (ticks - times[before]) / gap, 0).astype(np.float32)[:, None, None]
    interpolated: np.ndarray = frames[before] * (1 - share) + frames[after] * share
    return interpolated


def _smoothed(frames: np.ndarray) -> np.ndarray:
    """Average over time with weights 1, 2, 1, so that clips with other frame times stay alike."""
    padded = np.concatenate([frames[:1], frames, frames[-1:]])
    smoothed: np.ndarray = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return smoothed


@functools.lru_cache(maxsize=4096)
def _weights(start: float, stop: float, side: int) -> np.ndarray:
    """Return the weights (side, 64) of the means over equal parts of a range of pixels, given in fractions."""
    edges = np.linspace(start, stop, side + 1) * _SIDE
    pixels = np.arange(_SIDE)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: np.ndarray = (np.maximum(shared, 0) / (edges[1] - edges[0])).astype(np.float32)
    return weights


def _transform(cells: np.ndarray, size: int) -> np.ndarray:
    """Return the Fourier transform over time, (B, F, cells) complex64, of (B, T, cells) float32."""
    import scipy.fft

    spectra: np.ndarray = scipy.fft.rfft(cells, size, axis=1)
    return spectra


def _accumulated(cells: np.ndarray) -> np.ndarray:
    """Return the squared length of the first t samples, float64 of shape (B, T + 1), of cells (B, T, cells)."""
    energy = np.einsum("btc,btc->bt", cells, cells, dtype=np.float64)
    return np.concatenate([np.zeros((len(cells), 1)), np.cumsum(energy, axis=1)], axis=1)


def _common(own: int, its: int, lag: float) -> tuple[int, int]:
    """Return the first and the last sample, exclusive, of a clip that another one has at the same time plus a lag."""
    whole = int(np.floor(lag))
    its -= int(lag > whole)  # between two samples
    return max(-whole, 0), min(own, its - whole)


def _refined(clip: ClipPrint, other: ClipPrint, start: Match, side: int, *, smallest: float) -> Match:
    """Move the sides of the rectangle and the lag, in steps that become smaller, while the similarity grows."""
    its = other.cells(_WHOLE, side)

    def score(cells: np.ndarray, lag: float) -> float:
        first, last = _common(len(cells), len(its), lag)
        if last - first < _MIN_SAMPLES:
            return 0.0
        whole = int(np.floor(lag))
        share = lag - whole
        matched = its[first + whole : last + whole]
        if share:
            matched = (1 - share) * matched + share * its[first + whole + 1 : last + whole + 1]
        own = cells[first:last]
        return float((own * matched).sum() / np.sqrt(max(float((own * own).sum() * (matched * matched).sum()), 1e-9)))

    _, box, lag = start
    cells = clip.cells(box, side)
    best, step = score(cells, lag), 0.06
    while step >= smallest:
        before = best
        for moved in _moved(box, step):
            moved_cells = clip.cells(moved, side)
            new = score(moved_cells, lag)
            if new > best + 1e-4:
                best, box, cells = new, moved, moved_cells
        for change in (-1, -0.5, -0.25, 0.25, 0.5, 1):
            new = score(cells, lag + change)
            if new > best + 1e-4:
                best, lag = new, lag + change
        if best == before:
            step /= 2
    return best, box, lag


def _moved(box: Box, step: float) -> Iterator[Box]:
    for signs in (
        *((1, 0, 1, 0), (-1, 0, -1, 0), (0, 1, 0, 1), (0, -1, 0, -1), (1, 0, -1, 0)),
        *((-1, 0, 1, 0), (0, 1, 0, -1), (0, -1, 0, 1), (1, 1, -1, -1), (-1, -1, 1, 1)),
    ):
        left, top, right, bottom = (
            round(min(max(edge + step * sign, 0.0), 1.0), 6) for edge, sign in zip(box, signs, strict=True)
        )
        if right - left >= _MIN_SIDE and bottom - top >= _MIN_SIDE:
            yield left, top, right, bottom
