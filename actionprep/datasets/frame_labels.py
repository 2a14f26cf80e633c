"""Which labels hold at the instants of a recording, by the segments that cover them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.segments import CodedSegments
from actionprep.datasets.windows import EPSILON_S
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable


class FrameLabels:
    """Labels at the instants of recordings.

    An instant has the labels of the segments that cover it, whose onset counts and whose offset does not. Where several
    cover it and only one label is allowed, the shortest segment wins, then the smaller code: for a window that shrinks to
    an instant that is the one with the largest intersection over union. Where none does, it has the background, or none
    of the labels where `several` are allowed, or it is not known what it shows.

    background: code of the label of instants that no segment covers; None for no such class.
    """

    def __init__(
        self, segments: CodedSegments, *, num_labels: int, several: bool = False, background: int | None = None
    ) -> None:
        self._segments = segments
        self.num_labels = num_labels
        self.several = several
        self.background = background
        self._of_recording: dict[int, _Intervals] = {}

    @classmethod
    def of(cls, table: SnippetTable) -> FrameLabels:
        """Those of a table; raises UserError when it does not tell the segments that it was made from."""
        background = table.background
        code = None if background is None else table.labels.index(background)
        return cls(
            segments_of(table),
            num_labels=len(table.labels),
            several=bool(table.settings.get("multi_label")),
            background=code,
        )

    def at(self, recording: int, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels at times (…) in s: target (…, C) uint8, 1 for each label, and whether they are known (…) bool.

        Where they are not known the target is zeros.
        """
        if recording not in self._of_recording:
            self._of_recording[recording] = self._intervals(recording)
        found = self._of_recording[recording]
        number = np.searchsorted(found.edges, np.asarray(times, np.float64) + EPSILON_S, side="right") - 1
        last = len(found.edges) - 1
        # Row -1 stands for all time outside of the segments.
        number = np.where((number >= 0) & (number < last), number, -1)
        return found.target[number], found.known[number]

    def _intervals(self, recording: int) -> _Intervals:
        mine = self._segments.recording == recording
        onset, offset, label = (getattr(self._segments, name)[mine] for name in ("onset", "offset", "label"))
        edges = np.unique(np.concatenate([onset, offset]))
        # Segments that touch share one edge, though its sums may round otherwise on either side.
        edges = edges[np.diff(edges, prepend=-np.inf) > EPSILON_S]
        size = max(len(edges) - 1, 0)
        target = np.zeros((size + 1, self.num_labels), np.uint8)
        known = np.ones(size + 1, bool)
        first = np.searchsorted(edges, onset + EPSILON_S, side="right") - 1
        last = np.searchsorted(edges, offset + EPSILON_S, side="right") - 1
        # Those that win are painted over the others.
        for one in np.lexsort((-label, -(offset - onset).round(9))).tolist():
            if label[one] >= 0:
                if not self.several:
                    target[first[one] : last[one]] = 0
                target[first[one] : last[one], label[one]] = 1
        nothing = ~target.any(axis=1)
        if self.background is not None:
            target[nothing, self.background] = 1
        elif not self.several:
            known[nothing] = False
        for one in np.flatnonzero(label < 0).tolist():
            known[first[one] : last[one]] = False
        target[~known] = 0
        return _Intervals(edges, target, known)


@dataclass(frozen=True)
class _Intervals:
    """Edges (P + 1) between which labels stay the same; target (P + 1, C) and known (P + 1), the last row for outside."""

    edges: np.ndarray
    target: np.ndarray
    known: np.ndarray


def segments_of(table: SnippetTable) -> CodedSegments:
    """The segments behind a table: those that it tells, or its snippets where each of them is a segment.

    Raises UserError for windows of a table that was made before tables told their segments.
    """
    if table.segments is not None:
        return table.segments
    if table.settings.get("length_s") is not None:
        raise UserError(
            "These snippets are windows, and do not tell the segments that they were labeled by, so there are no labels "
            "of single instants: an older version made them. Make them anew with 'actionprep snippets', or train on the "
            "labels of whole snippets: --set targets=snippet."
        )
    row, label = np.nonzero(table.target)
    return CodedSegments(table.recording[row], table.onset[row], table.offset[row], label.astype(np.int32))
