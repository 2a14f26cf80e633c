"""An annotated interval of a recording."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """Something that happens from onset to offset, half open, in seconds on the recording's clock."""

    onset: float
    offset: float
    label: str
    layer: str = ""
    annotator: str = ""
