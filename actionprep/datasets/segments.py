"""Annotated intervals of recordings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Segment:
    """A labeled interval from onset to offset, half open, in seconds on the recording's clock."""

    onset: float
    offset: float
    label: str
    layer: str = ""
    annotator: str = ""


@dataclass(frozen=True)
class CodedSegments:
    """Segments from which a table of snippets was labeled, as arrays of G segments.

    Attributes:
        recording: Index into the table's recordings, (G,) int32.
        onset: Start in seconds on the recording's clock, (G,) float64.
        offset: End in seconds, not included, (G,) float64.
        label: Index into the table's labels, (G,) int32; below 0 where nothing may be trained on or tested.
    """

    recording: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    label: np.ndarray
