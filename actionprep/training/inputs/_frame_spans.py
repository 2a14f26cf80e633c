"""Which stored pictures of a view belong to each snippet, and whether these are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actionprep.errors import UserError
from actionprep.training.inputs._clip_settings import ClipSettings

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable


@dataclass(frozen=True)
class FrameSource:
    """The pictures of one view: frame times (n) s, size (H, W), which frames of the video they are."""

    time: np.ndarray
    size: tuple[int, int]
    which: str = "all"

    @property
    def interval(self) -> float:
        """Seconds from frame to frame, mostly."""
        return float(np.median(np.diff(self.time))) if len(self.time) > 1 else 0.04


Spans = dict[tuple[int, int], tuple[int, int]]
"""First and last + 1 frame in the item, of each row of the table and number of a view."""


def find_spans(places: Mapping[tuple[int, int], FrameSource], table: SnippetTable, num_views: int) -> Spans:
    """The frames of each row and view that there are; places: by the recording's code and the view's number."""
    found: Spans = {}
    for row in range(len(table)):
        for column in range(num_views):
            place = places.get((int(table.recording[row]), column))
            if place is None or not len(place.time):
                continue
            first, last = np.searchsorted(place.time, [table.onset[row] - 1e-6, table.offset[row] - 1e-6]).tolist()
            if first == last:
                # A snippet between two frames sees the nearer one, if that is near.
                nearest = int(np.abs(place.time - table.onset[row]).argmin())
                if abs(place.time[nearest] - table.onset[row]) > 1.5 * place.interval + 1e-6:
                    continue
                first, last = nearest, nearest + 1
            found[row, column] = (first, last)
    return found


def check_spans(
    spans: Spans,
    places: Mapping[tuple[int, int], FrameSource],
    settings: ClipSettings,
    table: SnippetTable,
    views: Sequence[str],
    *,
    product: str,
    url: str,
) -> None:
    """Raise UserError when a snippet that is used lacks frames, or has none in any view.

    product, url: what is read, and the store that it is in.
    """
    for (row, column), (first, last) in spans.items():
        place = places[int(table.recording[row]), column]
        if place.which == "all" or not table.used[row]:
            continue
        where = f"{_named(table, row)}, view '{views[column]}'"
        if place.which == "keyframes":
            _check_keyframes(last - first, settings, where, product, url)
        else:
            _check_no_hole(place, (first, last), (table.onset[row], table.offset[row]), where, product, url)
    lacking = [
        row
        for row in np.flatnonzero(table.used).tolist()
        if not any((row, column) in spans for column in range(len(views)))
    ]
    if lacking:
        named = "; ".join(_named(table, row) for row in lacking[:5])
        raise UserError(
            f"{len(lacking)} of {int(table.used.sum())} snippets have no {product} in {url}: "
            f"{named}{' …' if len(lacking) > 5 else ''}.\nMake them with 'actionprep build {product}', or "
            "make the snippets anew from the recordings that there are: 'actionprep snippets'."
        )


def _named(table: SnippetTable, row: int) -> str:
    return f"{table.recordings[table.recording[row]]} at {table.onset[row]:.2f} s"


def _check_keyframes(count: int, settings: ClipSettings, where: str, product: str, url: str) -> None:
    """Of a store of keyframes: so many of them lie in a snippet."""
    if settings.sampling == "segments" and count >= settings.frames:
        return
    need = f"{settings.frames}" if settings.sampling == "segments" else "consecutive frames"
    raise UserError(
        f"The store {url} holds {product} of keyframes alone, and {count} of them lie in the "
        f"snippet {where}, where this recipe needs {need}.\nDecode more: 'actionprep decode --which segments', or "
        f"--which all; or let the recipe read fewer: --set input.frames={max(count, 1)} "
        "input.sampling=segments."
    )


def _check_no_hole(
    place: FrameSource, span: tuple[int, int], interval: tuple[float, float], where: str, product: str, url: str
) -> None:
    """Of a store of frames around segments: those of a snippet, which has this interval in s."""
    edges = np.concatenate([[interval[0]], place.time[slice(*span)], [interval[1] - place.interval]])
    gap = float(np.diff(edges).max())
    # Segments are stored with the frames around them; a hole of a frame or two is the video's own.
    if gap > 3 * place.interval + 1e-6:
        raise UserError(
            f"The store {url} holds {product} around annotated segments alone, and {gap:.2f} s of the "
            f"snippet {where} are not among them.\nDecode all frames, 'actionprep decode --which all', or more "
            f"around the segments: --margin {gap + 1:.0f}."
        )
