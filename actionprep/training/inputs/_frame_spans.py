"""Find the stored frames of each snippet and view, and check their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.windows import frame_range
from actionprep.errors import UserError, name_list
from actionprep.training.inputs._clip_settings import ClipSettings

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable


@dataclass(frozen=True)
class FrameSource:
    """The stored frames of one view.

    Attributes:
        time: Frame times in seconds, shape (n,).
        size: Height and width in pixels.
        which: Which frames of the video are stored: "all", "keyframes" or "segments".
    """

    time: np.ndarray
    size: tuple[int, int]
    which: str = "all"

    @property
    def interval(self) -> float:
        """Median time from frame to frame in seconds."""
        return frame_interval(self.time, default=1 / 25)


Spans = dict[tuple[int, int], tuple[int, int]]
"""First frame and frame after the last in the item, by (row of the table, view index)."""


def find_spans(sources: Mapping[tuple[int, int], FrameSource], table: SnippetTable, num_views: int) -> Spans:
    """Find the frames of each row and view.

    Args:
        sources: Stored frames by (recording code, view index).
        table: Table of snippets.
        num_views: Number of views.

    Returns:
        Frames of each row and view that has some.
    """
    spans: Spans = {}
    for row in range(len(table)):
        for column in range(num_views):
            source = sources.get((int(table.recording[row]), column))
            if source is None or not len(source.time):
                continue
            onset = float(table.onset[row])
            first, last = frame_range(source.time, onset, float(table.offset[row]))
            if first == last:
                # A snippet between two frames gets the nearer one, unless that is too far away.
                nearest = int(np.abs(source.time - onset).argmin())
                if abs(source.time[nearest] - onset) > 1.5 * source.interval + 1e-6:
                    continue
                first, last = nearest, nearest + 1
            spans[row, column] = (first, last)
    return spans


def check_spans(
    spans: Spans,
    sources: Mapping[tuple[int, int], FrameSource],
    settings: ClipSettings,
    table: SnippetTable,
    views: Sequence[str],
    *,
    product: str,
    url: str,
) -> None:
    """Check that all used snippets have enough frames.

    Args:
        spans: Frames of each row and view.
        sources: Stored frames by (recording code, view index).
        settings: Settings of the clips.
        table: Table of snippets.
        views: Names of the views.
        product: Product that is read.
        url: Store that is read.

    Raises:
        UserError: If a snippet has too few frames, or none in any view.
    """
    for (row, column), (first, last) in spans.items():
        source = sources[int(table.recording[row]), column]
        if source.which == "all" or not table.used[row]:
            continue
        snippet = f"{_snippet_name(table, row)}, view '{views[column]}'"
        if source.which == "keyframes":
            _check_keyframes(last - first, settings, snippet, product, url)
        else:
            _check_no_hole(source, (first, last), (table.onset[row], table.offset[row]), snippet, product, url)
    missing = [
        row
        for row in np.flatnonzero(table.used).tolist()
        if not any((row, column) in spans for column in range(len(views)))
    ]
    if missing:
        names = name_list([_snippet_name(table, row) for row in missing], 5)
        raise UserError(
            f"{len(missing)} of {int(table.used.sum())} snippets have no {product} in {url}: "
            f"{names}.\nCreate them with 'actionprep build {product}', or create "
            "snippets of the available recordings only: 'actionprep snippets'."
        )


def _snippet_name(table: SnippetTable, row: int) -> str:
    return f"{table.recordings[table.recording[row]]} at {table.onset[row]:.2f} s"


def _check_keyframes(count: int, settings: ClipSettings, snippet: str, product: str, url: str) -> None:
    """Check the number of frames of a snippet if only keyframes are stored."""
    if settings.sampling == "segments" and count >= settings.frames:
        return
    required = f"{settings.frames}" if settings.sampling == "segments" else "consecutive frames"
    raise UserError(
        f"The store {url} contains {product} of keyframes only. The snippet {snippet} has {count} of them, but this recipe "
        f"requires {required}.\nDecode more frames with 'actionprep decode --which segments' or --which all, or let the "
        f"recipe use fewer: --set input.frames={max(count, 1)} input.sampling=segments."
    )


def _check_no_hole(
    source: FrameSource, span: tuple[int, int], interval: tuple[float, float], snippet: str, product: str, url: str
) -> None:
    """Check that the frames of a snippet have no gap if only frames around segments are stored."""
    edges = np.concatenate([[interval[0]], source.time[slice(*span)], [interval[1] - source.interval]])
    gap = float(np.diff(edges).max())
    # Segments are stored with the frames around them. A gap of a frame or two is in the video itself.
    if gap > 3 * source.interval + 1e-6:
        raise UserError(
            f"The store {url} contains {product} around annotated segments only. {gap:.2f} s of the snippet {snippet} are "
            "missing.\nDecode all frames with 'actionprep decode --which all', or more frames around the segments with "
            f"--margin {gap + 1:.0f}."
        )
