"""The product `snippets`: a table of labeled windows, its arrays on disk, its writer and its reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.products.schema import Array, Product
from actionprep.datasets.segments import CodedSegments

if TYPE_CHECKING:
    import pandas as pd

    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter

IGNORED = -1
"""Label of a window that must not be trained on or tested.

It is in the ignore band or meets an excluded layer, or no label applies and there is neither multi-label nor background.
"""

NO_LABEL = -2
"""Label of a window to which no label applies, with multi-label: a sample with a target of zeros."""

_SNIPPET = ("snippet",)
_SNIPPET_LABEL = ("snippet", "label")
_SEGMENT = ("segment",)

_WINDOW_ARRAYS = (
    Array("recording", "int32", _SNIPPET, description="index into the attribute recordings"),
    Array("onset", "float64", _SNIPPET, "s", "start on the recording's clock"),
    Array("offset", "float64", _SNIPPET, "s", "end on the recording's clock, not included"),
    Array(
        "label",
        "int32",
        _SNIPPET,
        description="index into the attribute labels; -1 ignored; -2 no label applies (multi-label only)",
    ),
    Array("target", "uint8", _SNIPPET_LABEL, description="1 for each label of the window"),
    Array(
        "coverage",
        "float32",
        _SNIPPET_LABEL,
        description="fraction of the window that the label's segments cover; overlapping segments count once",
    ),
    Array("iou", "float32", _SNIPPET_LABEL, description="intersection over union with the best segment of the label"),
    Array(
        "segment_share",
        "float32",
        _SNIPPET_LABEL,
        description="fraction of the best segment of the label that lies in the window",
    ),
)

_OLDER = "stores of older versions do not have it"
_SEGMENT_ARRAYS = (
    Array("segment_recording", "int32", _SEGMENT, description="index into the attribute recordings", note=_OLDER),
    Array(
        "segment_onset",
        "float64",
        _SEGMENT,
        "s",
        "start, clipped to the recording; for a label of the full recording, the start of the recording",
    ),
    Array("segment_offset", "float64", _SEGMENT, "s", "end, not included"),
    Array("segment_label", "int32", _SEGMENT, description="index into the attribute labels; -1 in an excluded layer"),
)

SNIPPETS = Product(
    "snippets",
    (*_WINDOW_ARRAYS, *_SEGMENT_ARRAYS),
    {
        "labels": "class names",
        "recordings": "ids of all recordings of the study",
        "subjects": 'subject of each recording, "" if unknown',
        "sessions": 'session of each recording, "" if unknown',
        "splits": 'given part of each recording, "" if unknown',
        "sources": "hashes of the video files of each recording",
        "settings": "the rule and the other settings of the table",
        "left_out": "number of things that are not in the table, and of ignored windows in it, by reason",
    },
)


@dataclass(frozen=True)
class SnippetTable:
    """S windows with their C labels, ordered by recording and time.

    Attributes:
        recording: Index into `recordings`, (S,) int32.
        onset: Start in seconds on the recording's clock, (S,) float64.
        offset: End in seconds, not included, (S,) float64.
        label: Index into `labels`, `IGNORED` or `NO_LABEL`, (S,) int32.
        target: 1 for each label of the window, (S, C) uint8; one-hot without multi-label.
        coverage: See `overlap.Overlap`, (S, C) float32; 0 for the background.
        iou: Likewise.
        segment_share: Likewise.
        labels: Class names.
        recordings: Ids of all recordings of the study.
        subjects: Subject of each recording; "" where unknown.
        sessions: Session of each recording; "" where unknown.
        splits: Given part of each recording; "" where unknown.
        sources: Hashes of the video files of each recording; equal ones are the same video.
        settings: The rule and the other settings that made the table, as plain values.
        left_out: Number of things that are not in the table, and of ignored windows in it, by reason.
        segments: Segments that the windows were labeled from, for labels of time steps (`frame_labels.FrameLabels`);
            None in tables of older versions.
    """

    recording: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    label: np.ndarray
    target: np.ndarray
    coverage: np.ndarray
    iou: np.ndarray
    segment_share: np.ndarray
    labels: tuple[str, ...]
    recordings: tuple[str, ...]
    subjects: tuple[str, ...]
    sessions: tuple[str, ...]
    splits: tuple[str, ...]
    sources: tuple[tuple[str, ...], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    segments: CodedSegments | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def background(self) -> str | None:
        """Label of windows to which no segment's label applies, where there is one."""
        return self.settings.get("background")

    @property
    def used(self) -> np.ndarray:
        """Whether a window is not ignored, (S,) bool."""
        used: np.ndarray = self.label != IGNORED
        return used

    def counts(self) -> dict[str, int]:
        """Count the windows of each label, over all targets."""
        totals = self.target[self.used].sum(axis=0, dtype=np.int64)
        return dict(zip(self.labels, totals.tolist(), strict=True))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per window with names instead of indices.

        The overlap columns are those of the window's label; NaN without one.
        """
        import pandas as pd

        rows = np.arange(len(self))
        has_label = self.label >= 0
        names = np.array([*self.labels, "", ""], object)  # the last two stand for -2 and -1

        def of_label(values: np.ndarray) -> np.ndarray:
            if not self.labels:
                return np.full(len(self), np.nan, np.float32)
            return np.where(has_label, values[rows, np.maximum(self.label, 0)], np.float32(np.nan))

        def of_recording(values: Sequence[str]) -> np.ndarray:
            return np.array(values, object)[self.recording] if len(self) else np.array([], object)

        return pd.DataFrame(
            {
                "recording": of_recording(self.recordings),
                "onset": self.onset,
                "offset": self.offset,
                "label": names[self.label],
                "ignored": ~self.used,
                "labels": self._label_sets(),
                "coverage": of_label(self.coverage),
                "iou": of_label(self.iou),
                "segment_share": of_label(self.segment_share),
                "subject": of_recording(self.subjects),
                "session": of_recording(self.sessions),
                "split": of_recording(self.splits),
            }
        )

    def _label_sets(self) -> np.ndarray:
        """Tuples with the names of all labels of each window, (S,) object."""
        names = np.empty(len(self), object)
        count = self.target.sum(axis=1)
        single = np.empty(len(self.labels) + 1, object)
        single[:] = [*((label,) for label in self.labels), ()]
        names[:] = single[np.where(count == 1, self.target.argmax(axis=1), -1) if self.labels else count - 1]
        for row in np.flatnonzero(count > 1):
            names[row] = tuple(self.labels[code] for code in np.flatnonzero(self.target[row]))
        return names

    def attributes(self) -> dict[str, Any]:
        """Return everything but the arrays as plain JSON values; `read` reads them back."""
        return {
            "labels": list(self.labels),
            "recordings": list(self.recordings),
            "subjects": list(self.subjects),
            "sessions": list(self.sessions),
            "splits": list(self.splits),
            "sources": [list(source) for source in self.sources],
            "settings": self.settings,
            "left_out": self.left_out,
        }

    @classmethod
    def read(cls, item: ItemReader) -> SnippetTable:
        """Read the table that `write_snippets` wrote."""
        attributes = item.attributes
        segments = None
        if "segment_onset" in item:
            segments = CodedSegments(
                **{array.name.removeprefix("segment_"): item[array.name][:] for array in _SEGMENT_ARRAYS}
            )
        return cls(
            **{array.name: item[array.name][:] for array in _WINDOW_ARRAYS},
            labels=tuple(attributes["labels"]),
            recordings=tuple(attributes["recordings"]),
            subjects=tuple(attributes["subjects"]),
            sessions=tuple(attributes["sessions"]),
            splits=tuple(attributes["splits"]),
            sources=tuple(tuple(source) for source in attributes["sources"]),
            settings=attributes["settings"],
            left_out=attributes["left_out"],
            segments=segments,
        )


def write_snippets(table: SnippetTable, item: ItemWriter) -> None:
    """Write the arrays and attributes of a table."""
    for array in _WINDOW_ARRAYS:
        array.write(item, getattr(table, array.name))
    if table.segments is not None:
        for array in _SEGMENT_ARRAYS:
            array.write(item, getattr(table.segments, array.name.removeprefix("segment_")))
    item.attributes.update(SNIPPETS.attributes_of(**table.attributes()))
