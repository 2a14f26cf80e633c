"""What a scan finds worth telling: things that are not as they should be and do not stop the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FindingKind = Literal[
    "unreadable video",
    "video warning",
    "same video twice",
    "video without label",
    "labels for an absent video",
    "class with one sample",
    "file not used",
    "conflicting labels",
    "unusable segment",
    "segment past the end",
    "views not aligned",
    "views drift apart",
    "poses without people",
    "unreadable poses",
    "official split",
    "guessed encoding",
    "label from tier",
    "several recordings linked",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    where: the file (with its line, "labels.csv:12") or the recording that it is about.
    """

    kind: FindingKind
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.message}"
