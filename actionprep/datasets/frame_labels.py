"""Labels of time steps of a recording, by the segments that cover them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.segments import CodedSegments
from actionprep.datasets.windows import microseconds
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable


class FrameLabels:
    """Labels of time steps of recordings.

    A time step has the labels of the segments that cover it; a segment's onset is part of it and its offset is not.
    Where several cover it and only one label is allowed, the shortest segment wins, then the smaller label index. That
    is the segment with the largest intersection over union with a window that shrinks to the time step. Where none
    covers it, the time step has the background, or no label with multi-label, or its label is not known.

    Times are compared in whole microseconds.
    """

    def __init__(
        self, segments: CodedSegments, *, num_labels: int, several: bool = False, background: int | None = None
    ) -> None:
        """Take the segments of all recordings.

        Args:
            segments: The segments.
            num_labels: Number of labels, C.
            several: Whether a time step may have more than one label.
            background: Index of the label where no segment is; None for no such class.
        """
        self._segments = segments
        self.num_labels = num_labels
        self.several = several
        self.background = background
        self._of_recording: dict[int, _Intervals] = {}

    @classmethod
    def of(cls, table: SnippetTable) -> FrameLabels:
        """Return the frame labels of a table; raises UserError if the table does not have its segments."""
        background = table.background
        code = None if background is None else table.labels.index(background)
        return cls(
            segments_of(table),
            num_labels=len(table.labels),
            several=bool(table.settings.get("multi_label")),
            background=code,
        )

    def at(self, recording: int, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look up labels.

        Args:
            recording: Index of the recording.
            times: Times in seconds, any shape (…).

        Returns:
            The target, (…, C) uint8 with 1 for each label, and whether it is known, (…) bool. An unknown target is
            zeros.
        """
        if recording not in self._of_recording:
            self._of_recording[recording] = self._intervals(recording)
        intervals = self._of_recording[recording]
        index = np.searchsorted(intervals.edges, microseconds(times), side="right") - 1
        last = len(intervals.edges) - 1
        # Row -1 is all time outside the segments.
        index = np.where((index >= 0) & (index < last), index, -1)
        return intervals.target[index], intervals.known[index]

    def _intervals(self, recording: int) -> _Intervals:
        rows = self._segments.recording == recording
        label = self._segments.label[rows]
        onset, offset = microseconds(self._segments.onset[rows]), microseconds(self._segments.offset[rows])
        edges = np.unique(np.concatenate([onset, offset]))
        size = max(len(edges) - 1, 0)
        target = np.zeros((size + 1, self.num_labels), np.uint8)
        known = np.ones(size + 1, bool)
        first, last = np.searchsorted(edges, onset), np.searchsorted(edges, offset)
        # Segments that win are written after the others.
        for segment in np.lexsort((-label, onset - offset)).tolist():
            if label[segment] >= 0:
                if not self.several:
                    target[first[segment] : last[segment]] = 0
                target[first[segment] : last[segment], label[segment]] = 1
        no_label = ~target.any(axis=1)
        if self.background is not None:
            target[no_label, self.background] = 1
        elif not self.several:
            known[no_label] = False
        for segment in np.flatnonzero(label < 0).tolist():
            known[first[segment] : last[segment]] = False
        target[~known] = 0
        return _Intervals(edges, target, known)


@dataclass(frozen=True)
class _Intervals:
    """Intervals of a recording in which the labels stay the same.

    Attributes:
        edges: Edges of the P intervals in microseconds, (P + 1,) int64.
        target: (P + 1, C) uint8; the last row is for time outside the edges.
        known: (P + 1,) bool, likewise.
    """

    edges: np.ndarray
    target: np.ndarray
    known: np.ndarray


def has_segments(table: SnippetTable) -> bool:
    """Whether the segments behind a table are known; an older version stored windows without them."""
    return table.segments is not None or table.settings.get("length_s") is None


def segments_of(table: SnippetTable) -> CodedSegments:
    """Return the segments of a table: the stored ones, or its snippets where each of them is a segment.

    Raises:
        UserError: If the snippets are windows and an older version made the table without its segments.
    """
    if table.segments is not None:
        return table.segments
    if not has_segments(table):
        raise UserError(
            "These snippets are windows, and an older version stored them without their segments, so frames have no "
            "labels. Make the snippets again with 'actionprep snippets', or train on the labels of full snippets: "
            "--set targets=snippet."
        )
    row, label = np.nonzero(table.target)
    return CodedSegments(table.recording[row], table.onset[row], table.offset[row], label.astype(np.int32))
